import type { Kysely } from 'kysely'
import type { ColumnTypes } from '../migrate.ts'

/** Services that register themselves or are registered, their endpoints and instances, and the number of their list. */
export async function up(db: Kysely<unknown>, { id, json, time, flag }: ColumnTypes): Promise<void> {
  const { schema } = db
  await schema
    .createTable('registry')
    .addColumn('id', 'integer', column => column.primaryKey())
    .addColumn('version', time, column => column.notNull())
    .execute()
  await (db as Kysely<{ registry: { id: number; version: number } }>)
    .insertInto('registry')
    .values({ id: 1, version: 0 })
    .execute()
  await schema
    .createTable('services')
    .addColumn('id', id, column => column.primaryKey())
    .addColumn('name', 'text', column => column.notNull().unique())
    .addColumn('version', 'text')
    .addColumn('description', 'text')
    .addColumn('base_url', 'text', column => column.notNull())
    .addColumn('active', flag, column => column.notNull())
    .addColumn('owner', 'text', column => column.notNull())
    .addColumn('tags', json, column => column.notNull())
    .addColumn('settings', json, column => column.notNull())
    .addColumn('revision', time, column => column.notNull())
    .addColumn('created_at', time, column => column.notNull())
    .addColumn('updated_at', time, column => column.notNull())
    .execute()
  await schema
    .createTable('endpoints')
    .addColumn('id', id, column => column.primaryKey())
    .addColumn('service_id', id, column => column.notNull().references('services.id').onDelete('cascade'))
    .addColumn('position', 'integer', column => column.notNull())
    .addColumn('path', 'text', column => column.notNull())
    .addColumn('method', 'text', column => column.notNull())
    .addColumn('name', 'text')
    .addColumn('description', 'text')
    .addColumn('public', flag, column => column.notNull())
    .addColumn('required_roles', json, column => column.notNull())
    .addColumn('deprecated', flag, column => column.notNull())
    .addColumn('version', 'text')
    .addColumn('created_at', time, column => column.notNull())
    .addColumn('updated_at', time, column => column.notNull())
    .execute()
  await schema.createIndex('endpoints_by_service').on('endpoints').column('service_id').execute()
  await schema
    .createTable('instances')
    .addColumn('id', id, column => column.primaryKey())
    .addColumn('service_id', id, column => column.notNull().references('services.id').onDelete('cascade'))
    .addColumn('position', 'integer', column => column.notNull())
    .addColumn('url', 'text', column => column.notNull())
    .addColumn('weight', 'integer', column => column.notNull())
    .execute()
  await schema.createIndex('instances_by_service').on('instances').column('service_id').execute()
}
