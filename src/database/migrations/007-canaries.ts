import type { Kysely } from 'kysely'

/** How canaries stand. */
export async function up({ schema }: Kysely<unknown>): Promise<void> {
  await schema
    .createTable('canaries')
    .addColumn('name', 'text', column => column.primaryKey())
    .addColumn('record', 'text', column => column.notNull())
    .execute()
}
