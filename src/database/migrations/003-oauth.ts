import type { Kysely } from 'kysely'
import type { ColumnTypes } from '../migrate.ts'

/** OAuth's clients, keys, codes and tokens; who users are elsewhere; tokens that have been taken back. */
export async function up(db: Kysely<unknown>, { id, json, time }: ColumnTypes): Promise<void> {
  const { schema } = db
  await schema
    .createTable('oauth_clients')
    .addColumn('id', 'text', column => column.primaryKey())
    .addColumn('name', 'text', column => column.notNull())
    .addColumn('secret_hash', 'text')
    .addColumn('metadata', json, column => column.notNull())
    .addColumn('created_at', time, column => column.notNull())
    .addColumn('updated_at', time, column => column.notNull())
    .execute()
  await schema
    .createTable('oauth_keys')
    .addColumn('id', 'text', column => column.primaryKey())
    .addColumn('purpose', 'text', column => column.notNull())
    .addColumn('current', 'text', column => column.unique())
    .addColumn('material', 'text', column => column.notNull())
    .addColumn('created_at', time, column => column.notNull())
    .addColumn('retired_at', time)
    .execute()
  await schema
    .createTable('oauth_artifacts')
    .addColumn('model', 'text', column => column.notNull())
    .addColumn('id', 'text', column => column.notNull())
    .addColumn('client_id', 'text')
    .addColumn('grant_id', 'text')
    .addColumn('uid', 'text')
    .addColumn('payload', json, column => column.notNull())
    .addColumn('consumed_at', time)
    .addColumn('expires_at', time, column => column.notNull())
    .addPrimaryKeyConstraint('oauth_artifacts_key', ['model', 'id'])
    .execute()
  await schema.createIndex('oauth_artifacts_by_grant').on('oauth_artifacts').column('grant_id').execute()
  await schema.createIndex('oauth_artifacts_by_client').on('oauth_artifacts').column('client_id').execute()
  await schema.createIndex('oauth_artifacts_by_uid').on('oauth_artifacts').column('uid').execute()
  await schema.createIndex('oauth_artifacts_by_end').on('oauth_artifacts').column('expires_at').execute()
  await schema
    .createTable('external_identities')
    .addColumn('issuer', 'text', column => column.notNull())
    .addColumn('subject', 'text', column => column.notNull())
    .addColumn('user_id', id, column => column.notNull().references('users.id').onDelete('cascade'))
    .addColumn('created_at', time, column => column.notNull())
    .addPrimaryKeyConstraint('external_identities_key', ['issuer', 'subject'])
    .execute()
  await schema.createIndex('external_identities_by_user').on('external_identities').column('user_id').execute()
  await schema
    .createTable('revoked_tokens')
    .addColumn('key', 'text', column => column.primaryKey())
    .addColumn('expires_at', time, column => column.notNull())
    .execute()
  await schema.createIndex('revoked_tokens_by_end').on('revoked_tokens').column('expires_at').execute()
}
