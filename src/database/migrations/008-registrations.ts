import type { Kysely } from 'kysely'
import type { ColumnTypes } from '../migrate.ts'

/** Instances that have registered themselves, and how often each has said that it is still there. */
export async function up({ schema }: Kysely<unknown>, { time }: ColumnTypes): Promise<void> {
  await schema
    .createTable('registrations')
    .addColumn('service', 'text', column => column.notNull())
    .addColumn('id', 'text', column => column.notNull())
    .addColumn('url', 'text', column => column.notNull())
    .addColumn('weight', 'integer', column => column.notNull())
    .addColumn('zone', 'text')
    .addColumn('ttl_ms', 'integer', column => column.notNull())
    .addColumn('owner', 'text', column => column.notNull())
    .addColumn('beats', time, column => column.notNull())
    .addColumn('created_at', time, column => column.notNull())
    .addColumn('renewed_at', time, column => column.notNull())
    .addPrimaryKeyConstraint('registrations_key', ['service', 'id'])
    .execute()
}
