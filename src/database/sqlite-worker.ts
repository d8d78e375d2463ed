import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite'
import { parentPort, workerData } from 'node:worker_threads'

/**
 * The thread that owns the SQLite file: neither a write that waits for the disk nor a report over a month of traffic holds the
 * event loop. One statement per message, answered in order.
 */

/** What the other side sends. */
export interface SqliteRequest {
  readonly id: number
  readonly sql: string
  readonly parameters: readonly unknown[]
}

/** What it gets back. */
export interface SqliteAnswer {
  readonly id: number
  readonly rows?: readonly Record<string, unknown>[]
  readonly changes?: number
  readonly error?: { readonly message: string; readonly code: number }
}

/** Statements that are kept compiled. */
const MOST_STATEMENTS = 500
const port = parentPort as NonNullable<typeof parentPort>
const statements = new Map<string, StatementSync>()
let database: DatabaseSync

/** Exclusive, so that a second gateway on the same folder is refused, by the system's own lock: it goes with the process. */
function open(file: string): void {
  database = new DatabaseSync(file)
  database.exec(`
    pragma locking_mode = exclusive;
    pragma journal_mode = wal;
    pragma synchronous = full;
    pragma foreign_keys = on;
    begin exclusive;
    commit;
  `)
}

function prepare(sql: string): StatementSync {
  const known = statements.get(sql)
  if (known !== undefined) return known
  if (statements.size >= MOST_STATEMENTS) statements.clear()
  const statement = database.prepare(sql)
  statements.set(sql, statement)
  return statement
}

function run({ id, sql, parameters }: SqliteRequest): SqliteAnswer {
  try {
    const statement = prepare(sql)
    const values = parameters.map(value =>
      typeof value === 'boolean' ? Number(value) : (value ?? null)
    ) as SQLInputValue[]
    if (statement.columns().length > 0) return { id, rows: statement.all(...values) }
    return { id, rows: [], changes: Number(statement.run(...values).changes) }
  } catch (error) {
    const { message, errcode = 0 } = error as Error & { errcode?: number }
    return { id, error: { message, code: errcode } }
  }
}

try {
  open(workerData as string)
  port.postMessage({ id: 0 } satisfies SqliteAnswer)
} catch (error) {
  const { message, errcode = 0 } = error as Error & { errcode?: number }
  port.postMessage({ id: 0, error: { message, code: errcode } } satisfies SqliteAnswer)
}

port.on('message', (request: SqliteRequest | 'close') => {
  if (request !== 'close') return port.postMessage(run(request))
  database.close()
  port.close()
})
