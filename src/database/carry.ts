import { type Kysely, sql, type Transaction } from 'kysely'
import type { Connection } from './database.ts'
import { DatabaseError } from './database-error.ts'
import { migrate } from './migrate.ts'
import type { Tables } from './tables.ts'

/** Values of one statement; PostgreSQL takes 65535. */
const MOST_VALUES = 20_000

type Row = Record<string, unknown>

/** How many rows of each table were carried over. */
export type Carried = ReadonlyMap<string, number>

/**
 * Carries everything that an SQLite database holds over to a PostgreSQL database in which there is nothing yet: all tables that
 * there are, in one transaction. Whatever goes wrong, the target is as empty as before, and the source as it was.
 * @throws {DatabaseError} when the target is not empty or out of reach, or when something does not arrive
 */
export async function carryOver(source: Connection, target: Connection): Promise<Carried> {
  await migrate(source.db, source.kind)
  return target.db.transaction().execute(async transaction => {
    await refuseUnlessEmpty(transaction)
    await migrate(transaction, target.kind)
    const tables = await inOrder(source.db)
    // What migrations put in themselves is in the source as well, in its present state.
    for (const table of tables.toReversed()) await sql`delete from ${sql.table(table)}`.execute(transaction)
    const carried = new Map<string, number>()
    for (const table of tables) carried.set(table, await carryTable(table, source.db, transaction))
    return carried
  })
}

async function refuseUnlessEmpty(transaction: Transaction<Tables>): Promise<void> {
  const { rows } = await sql<{ name: string }>`
    select table_name as name from information_schema.tables where table_schema = current_schema() order by table_name
  `.execute(transaction)
  const [first] = rows
  if (first === undefined) return
  throw new DatabaseError('unusable', `the database is not empty, it has the table "${first.name}"; make a new one`)
}

/** The tables of an SQLite database but Kysely's and SQLite's own, each after those that it refers to. */
async function inOrder(db: Kysely<Tables>): Promise<string[]> {
  const names = (await db.introspection.getTables()).filter(({ isView }) => !isView).map(({ name }) => name)
  const waiting = new Map<string, Set<string>>()
  for (const name of names) {
    const { rows } = await sql<{ table: string }>`select "table" from pragma_foreign_key_list(${name})`.execute(db)
    waiting.set(name, new Set(rows.map(row => row.table).filter(other => other !== name)))
  }
  const order: string[] = []
  while (waiting.size > 0) {
    const free = [...waiting]
      .filter(([, others]) => [...others].every(other => !waiting.has(other)))
      .map(([name]) => name)
    if (free.length === 0) throw new Error(`tables refer to each other in a circle: ${[...waiting.keys()].join(', ')}`)
    for (const name of free.sort()) {
      waiting.delete(name)
      order.push(name)
    }
  }
  return order
}

async function carryTable(table: string, source: Kysely<Tables>, target: Transaction<Tables>): Promise<number> {
  const columns = await columnsOf(table, target)
  const flags = columns.filter(({ type }) => type === 'boolean').map(({ name }) => name)
  let last = 0
  let read = 0
  for (;;) {
    const { rows } = await sql<Row>`
      select rowid as "rowid of this", * from ${sql.table(table)} where rowid > ${last}
      order by rowid limit ${Math.floor(MOST_VALUES / columns.length)}
    `.execute(source)
    if (rows.length === 0) break
    for (const row of rows) {
      last = row['rowid of this'] as number
      delete row['rowid of this']
      for (const flag of flags) if (row[flag] !== null) row[flag] = Boolean(row[flag])
    }
    await (target as unknown as Transaction<Record<string, Row>>).insertInto(table).values(rows).execute()
    read += rows.length
  }
  await setSequences(table, columns, source, target)
  const { rows } = await sql<{ count: number }>`select count(*) as count from ${sql.table(table)}`.execute(target)
  if (rows[0]?.count !== read)
    throw new DatabaseError('unusable', `of ${read} rows of ${table}, ${rows[0]?.count} have arrived; nothing is kept`)
  return read
}

interface Column {
  readonly name: string
  readonly type: string
  /** What numbers its rows; null if nothing does. */
  readonly sequence: string | null
}

async function columnsOf(table: string, target: Transaction<Tables>): Promise<readonly Column[]> {
  const { rows } = await sql<Column>`
    select column_name as name, data_type as type, pg_get_serial_sequence(quote_ident(table_name), column_name) as sequence
    from information_schema.columns where table_schema = current_schema() and table_name = ${table}
  `.execute(target)
  return rows
}

/** Numbers go on from where they were, also behind rows that are no longer there. */
async function setSequences(
  table: string,
  columns: readonly Column[],
  source: Kysely<Tables>,
  target: Transaction<Tables>
): Promise<void> {
  for (const { sequence } of columns) {
    if (sequence === null) continue
    const { rows } = await sql<{ seq: number }>`select seq from sqlite_sequence where name = ${table}`.execute(source)
    if (rows[0] !== undefined && rows[0].seq > 0) await sql`select setval(${sequence}, ${rows[0].seq})`.execute(target)
  }
}
