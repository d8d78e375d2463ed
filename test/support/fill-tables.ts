import { randomUUID } from 'node:crypto'
import { type Kysely, sql } from 'kysely'
import type { Database } from '../../src/database/database.ts'
import type { Tables } from '../../src/database/tables.ts'

type Row = Record<string, unknown>
type Kind = Database['kind']

export interface Column {
  readonly table: string
  readonly name: string
  readonly type: string
  /** `users.id`, for columns that refer to it. */
  readonly refersTo: string | undefined
}

/** The columns of all tables but those that Kysely keeps for itself. */
export async function columnsOf(db: Kysely<Tables>, kind: Kind): Promise<Column[]> {
  const { rows } =
    kind === 'sqlite'
      ? await sql<Column>`
          select t.name as "table", c.name, lower(c.type) as type, f."table" || '.' || f."to" as "refersTo"
          from sqlite_schema t join pragma_table_info(t.name) c
          left join pragma_foreign_key_list(t.name) f on f."from" = c.name
          where t.type = 'table' and t.name not like 'sqlite_%' and t.name not like 'kysely_%'
          order by t.name, c.cid`.execute(db)
      : await sql<Column>`
          select t.relname as "table", a.attname as name, format_type(a.atttypid, null) as type,
            r.relname || '.' || b.attname as "refersTo"
          from pg_class t join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
          left join pg_constraint f on f.conrelid = t.oid and f.contype = 'f' and f.conkey = array[a.attnum]
          left join pg_class r on r.oid = f.confrelid
          left join pg_attribute b on b.attrelid = f.confrelid and b.attnum = f.confkey[1]
          where t.relkind = 'r' and t.relnamespace = current_schema()::regnamespace and t.relname not like 'kysely_%'
          order by t.relname, a.attnum`.execute(db)
  return rows
}

/**
 * Puts rows into every table that there is, something into every column.
 * @param types what columns have to take elsewhere, where that is narrower than here
 */
export async function fillTables(
  db: Kysely<Tables>,
  kind: Kind,
  rows: number,
  types: readonly Column[] = []
): Promise<void> {
  const columns = (await columnsOf(db, kind)).map(
    column => types.find(({ table, name }) => table === column.table && name === column.name) ?? column
  )
  const waiting = Map.groupBy(columns, ({ table }) => table)
  const done = new Map<string, Row[]>()
  while (waiting.size > 0) {
    for (const [table, parts] of waiting) {
      const needed = parts.flatMap(({ refersTo }) => refersTo?.split('.')[0] ?? []).filter(name => name !== table)
      if (needed.some(name => !done.has(name))) continue
      const filled = Array.from({ length: rows }, (_, i) => rowOf(parts, i, done))
      await (db as unknown as Kysely<Record<string, Row>>).insertInto(table).values(filled).execute()
      done.set(table, filled)
      waiting.delete(table)
    }
  }
}

let last = 1000

function rowOf(columns: readonly Column[], i: number, done: ReadonlyMap<string, Row[]>): Row {
  return Object.fromEntries(
    columns.map(({ name, type, refersTo }) => {
      const [table = '', column = ''] = refersTo?.split('.') ?? []
      const referred = done.get(table)?.[i]
      return [name, referred === undefined ? contentOf(name, type) : referred[column]]
    })
  )
}

function contentOf(name: string, type: string): unknown {
  last++
  if (type === 'uuid') return randomUUID()
  if (type.startsWith('json')) return JSON.stringify({ [name]: [last, 'é', null] })
  if (type === 'boolean') return last % 2 === 0
  if (type === 'bigint') return 1_700_000_000_000 + last
  if (type === 'double precision') return last + 0.25
  return type === 'integer' ? last : `${name} ${last} é '"\\`
}

/** All rows of all tables, in shapes that do not depend on the database, in an order that does not either. */
export async function dump(db: Kysely<Tables>, kind: Kind, types: readonly Column[]): Promise<Map<string, string[]>> {
  const dumped = new Map<string, string[]>()
  for (const [table, columns] of Map.groupBy(types, ({ table }) => table)) {
    const { rows } = await sql<Row>`select * from ${sql.table(table)}`.execute(db)
    const plain = rows.map(row =>
      JSON.stringify(
        columns.map(({ name, type }) => [
          name,
          kind === 'sqlite' && type === 'boolean' ? row[name] === 1 : asPlain(type, row[name])
        ])
      )
    )
    dumped.set(table, plain.sort())
  }
  return dumped
}

function asPlain(type: string, value: unknown): unknown {
  return type.startsWith('json') && value !== null ? JSON.parse(value as string) : value
}
