import type { Kysely } from 'kysely'
import type { ColumnTypes } from '../migrate.ts'

/** The gateways on this database, as long as they say that they are there. */
export async function up({ schema }: Kysely<unknown>, { time }: ColumnTypes): Promise<void> {
  const text = (builder: ReturnType<typeof schema.createTable>, name: string) =>
    builder.addColumn(name, 'text', column => column.notNull())
  let table = schema.createTable('nodes').addColumn('id', 'text', column => column.primaryKey())
  for (const name of ['address', 'region', 'version', 'software']) table = text(table, name)
  await table
    .addColumn('error', 'text')
    .addColumn('started_at', time, column => column.notNull())
    .addColumn('seen_at', time, column => column.notNull())
    .execute()
}
