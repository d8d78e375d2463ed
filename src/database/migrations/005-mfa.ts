import type { Kysely } from 'kysely'
import type { ColumnTypes } from '../migrate.ts'

/** Second factors, recovery codes, and logins that wait for one of them. */
export async function up(db: Kysely<unknown>, { id, time }: ColumnTypes): Promise<void> {
  const { schema } = db
  await schema
    .createTable('mfa')
    .addColumn('user_id', id, column => column.primaryKey().references('users.id').onDelete('cascade'))
    .addColumn('secret', 'text', column => column.notNull())
    .addColumn('enabled_at', time)
    .addColumn('last_step', time, column => column.notNull())
    .addColumn('created_at', time, column => column.notNull())
    .execute()
  await schema
    .createTable('mfa_recovery_codes')
    .addColumn('hash', 'text', column => column.primaryKey())
    .addColumn('user_id', id, column => column.notNull().references('users.id').onDelete('cascade'))
    .execute()
  await schema.createIndex('mfa_recovery_codes_by_user').on('mfa_recovery_codes').column('user_id').execute()
  await schema
    .createTable('mfa_challenges')
    .addColumn('hash', 'text', column => column.primaryKey())
    .addColumn('user_id', id, column => column.notNull().references('users.id').onDelete('cascade'))
    .addColumn('token_version', 'integer', column => column.notNull())
    .addColumn('attempts', 'integer', column => column.notNull())
    .addColumn('expires_at', time, column => column.notNull())
    .execute()
  await schema.createIndex('mfa_challenges_by_end').on('mfa_challenges').column('expires_at').execute()
}
