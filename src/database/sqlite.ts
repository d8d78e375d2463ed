import { closeSync, mkdirSync, openSync } from 'node:fs'
import { extname, join } from 'node:path'
import { Worker } from 'node:worker_threads'
import {
  type CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  type QueryResult,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler
} from 'kysely'
import { SQLITE_FILE } from './database.ts'
import { DatabaseError } from './database-error.ts'
import type { SqliteAnswer, SqliteRequest } from './sqlite-worker.ts'

/** SQLITE_BUSY */
const BUSY = 5

/**
 * Kysely's dialect for the SQLite file in a data folder, which a thread of its own works on.
 * @throws {DatabaseError} when another gateway has the folder, or the file cannot be opened
 */
export async function sqliteDialect(folder: string): Promise<Dialect> {
  const file = join(folder, SQLITE_FILE)
  try {
    mkdirSync(folder, { recursive: true })
  } catch (error) {
    throw new DatabaseError(
      'unusable',
      `${folder} cannot be made (${(error as NodeJS.ErrnoException).code}); set storage.data_dir`
    )
  }
  keepForOurselves(file)
  const connection = await SqliteConnection.open(file)
  return {
    createDriver: () => new SqliteDriver(connection),
    createQueryCompiler: () => new SqliteQueryCompiler(),
    createAdapter: () => new TransactionalAdapter(),
    createIntrospector: db => new SqliteIntrospector(db)
  }
}

/** What is in it is nobody else's to read; SQLite gives its other files the same mode. What cannot be made it says itself. */
function keepForOurselves(file: string): void {
  try {
    closeSync(openSync(file, 'wx', 0o600))
  } catch {}
}

interface Waiting {
  resolve(answer: SqliteAnswer): void
  reject(error: Error): void
}

/** The one connection there is, to the thread that has the file. */
class SqliteConnection implements DatabaseConnection {
  readonly #worker: Worker
  readonly #waiting = new Map<number, Waiting>()
  #lastId = 0
  #gone: DatabaseError | undefined

  static async open(file: string): Promise<SqliteConnection> {
    const connection = new SqliteConnection(file)
    try {
      await connection.#answer(0)
    } catch (error) {
      const { code, message } = error as DatabaseError
      throw code === 'busy'
        ? new DatabaseError(
            'busy',
            `${file} is in use by another gateway; stop it, or give this one a storage.data_dir of its own`
          )
        : new DatabaseError('unusable', `${file} cannot be used: ${message}`)
    }
    return connection
  }

  private constructor(file: string) {
    const program = new URL(`./sqlite-worker${extname(import.meta.url)}`, import.meta.url)
    this.#worker = new Worker(program, { workerData: file, name: 'sqlite' })
    this.#worker.on('message', (answer: SqliteAnswer) => this.#settle(answer))
    this.#worker.on('error', error => this.#end(error.message))
    this.#worker.on('exit', () => this.#end('it has been closed'))
    this.#worker.unref()
  }

  async executeQuery<R>({ sql, parameters }: CompiledQuery): Promise<QueryResult<R>> {
    if (this.#gone !== undefined) throw this.#gone
    const id = ++this.#lastId
    const answer = this.#answer(id)
    this.#worker.postMessage({ id, sql, parameters } satisfies SqliteRequest)
    const { rows = [], changes } = await answer
    return {
      rows: rows as unknown as R[],
      ...(changes === undefined ? {} : { numAffectedRows: BigInt(changes) })
    }
  }

  streamQuery(): never {
    throw new Error('rows are not streamed')
  }

  #answer(id: number): Promise<SqliteAnswer> {
    // The thread keeps no process alive, except for as long as somebody waits for it.
    if (this.#waiting.size === 0) this.#worker.ref()
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }))
  }

  #settle(answer: SqliteAnswer): void {
    const waiting = this.#waiting.get(answer.id)
    this.#waiting.delete(answer.id)
    if (this.#waiting.size === 0) this.#worker.unref()
    if (answer.error === undefined) waiting?.resolve(answer)
    else waiting?.reject(sqliteError(answer.error))
  }

  #end(reason: string): void {
    this.#gone ??= new DatabaseError('unreachable', `SQLite has ended: ${reason}`)
    for (const { reject } of this.#waiting.values()) reject(this.#gone)
    this.#waiting.clear()
  }

  async close(): Promise<void> {
    if (this.#gone !== undefined) return
    const ended = new Promise<void>(resolve => this.#worker.once('exit', () => resolve()))
    this.#worker.ref()
    this.#worker.postMessage('close')
    await ended
  }
}

/** Result codes: https://sqlite.org/rescode.html */
function sqliteError({ message, code }: { message: string; code: number }): Error {
  const primary = code & 0xff
  if (primary === BUSY) return new DatabaseError('busy', message)
  if (code === 1555 || code === 2067) return new DatabaseError('duplicate', message)
  if (code === 787) return new DatabaseError('reference', message)
  const remedy = REMEDIES[primary]
  if (remedy !== undefined) return new DatabaseError('unreachable', `${message} (${remedy})`)
  return new DatabaseError('query', message)
}

/** What is wrong with the file rather than with the statement, and what can be done about it. */
const DAMAGED = 'put a copy back, see docs/storage.md'
const NO_ACCESS = 'the gateway’s user has to be able to write the folder and what is in it'
const REMEDIES: Readonly<Record<number, string>> = {
  8: NO_ACCESS,
  10: 'the disk fails, or is full',
  11: DAMAGED,
  13: 'the disk is full',
  14: NO_ACCESS,
  26: DAMAGED
}

/** A migration that fails leaves nothing half done: tables are made within transactions, which Kysely does not trust SQLite with. */
class TransactionalAdapter extends SqliteAdapter {
  override get supportsTransactionalDdl(): boolean {
    return true
  }
}

/** One connection, one user of it at a time: whoever has begun a transaction has it to its end. */
class SqliteDriver implements Driver {
  readonly #connection: SqliteConnection
  #free: Promise<void> = Promise.resolve()
  #release: (() => void) | undefined

  constructor(connection: SqliteConnection) {
    this.#connection = connection
  }

  async init(): Promise<void> {}

  async acquireConnection(): Promise<DatabaseConnection> {
    const before = this.#free
    let release = (): void => {}
    this.#free = new Promise(resolve => {
      release = resolve
    })
    await before
    this.#release = release
    return this.#connection
  }

  async releaseConnection(): Promise<void> {
    this.#release?.()
  }

  async beginTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(command('begin immediate'))
  }

  async commitTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(command('commit'))
  }

  async rollbackTransaction(connection: DatabaseConnection): Promise<void> {
    // After a full disk, and the like, SQLite has done so itself: the trouble to tell of is what came before.
    await connection.executeQuery(command('rollback')).catch(() => {})
  }

  async destroy(): Promise<void> {
    await this.#connection.close()
  }
}

function command(sql: string): CompiledQuery {
  return { sql, parameters: [], query: { kind: 'RawNode' } } as unknown as CompiledQuery
}
