import { type Kysely, sql } from 'kysely'
import type { ColumnTypes } from '../migrate.ts'

/** No entry of the audit log goes before it is as old as this, in milliseconds. */
const AUDIT_STANDS_MS = 30 * 86_400_000

/** What happened: counts by minute and hour, single requests, quotas; and an audit log that only grows. */
export async function up(db: Kysely<unknown>, types: ColumnTypes): Promise<void> {
  await createCounts(db, types, 'traffic_minutes', ['node'])
  await createCounts(db, types, 'traffic_hours', [])
  await createRequests(db, types)
  await createQuotas(db, types)
  await db.schema.createIndex('audit_log_by_action').on('audit_log').columns(['action', 'at']).execute()
  if (types.flag === 'boolean') await guardPostgres(db)
  else await guardSqlite(db)
}

/** One row for each service, endpoint, caller and status that there was in a stretch of time. */
async function createCounts(
  { schema }: Kysely<unknown>,
  { time, json }: ColumnTypes,
  table: string,
  further: readonly string[]
): Promise<void> {
  const names = [...further, 'service', 'endpoint', 'user_id', 'api_key_id'] as const
  let create = schema.createTable(table).addColumn('at', time, column => column.notNull())
  for (const name of names) create = create.addColumn(name, 'text', column => column.notNull())
  create = create.addColumn('status', 'integer', column => column.notNull())
  for (const name of ['requests', 'bytes_in', 'bytes_out', 'duration_ms'])
    create = create.addColumn(name, 'bigint', column => column.notNull())
  await create
    .addColumn('latencies', json, column => column.notNull())
    .addPrimaryKeyConstraint(`${table}_once`, ['at', ...names, 'status'] as never)
    .execute()
  // What anybody may ask about himself must not cost a look at everybody.
  await schema.createIndex(`${table}_by_user`).on(table).columns(['user_id', 'at']).execute()
  await schema.createIndex(`${table}_by_key`).on(table).columns(['api_key_id', 'at']).execute()
}

/** OBS-21. */
async function createRequests({ schema }: Kysely<unknown>, { id, time }: ColumnTypes): Promise<void> {
  await schema
    .createTable('api_requests')
    .addColumn('id', id, column => column.primaryKey())
    .addColumn('user_id', 'text')
    .addColumn('api_key_id', 'text')
    .addColumn('endpoint_id', 'text')
    .addColumn('client_ip', 'text', column => column.notNull())
    .addColumn('method', 'text', column => column.notNull())
    .addColumn('path', 'text', column => column.notNull())
    .addColumn('status_code', 'integer', column => column.notNull())
    .addColumn('response_time_ms', 'double precision', column => column.notNull())
    .addColumn('request_size_bytes', 'bigint', column => column.notNull())
    .addColumn('response_size_bytes', 'bigint', column => column.notNull())
    .addColumn('created_at', time, column => column.notNull())
    .execute()
  await schema.createIndex('api_requests_by_time').on('api_requests').column('created_at').execute()
  await schema.createIndex('api_requests_by_user').on('api_requests').columns(['user_id', 'created_at']).execute()
  await schema.createIndex('api_requests_by_key').on('api_requests').columns(['api_key_id', 'created_at']).execute()
}

/** What has been used of long windows, where no Redis keeps it. */
async function createQuotas({ schema }: Kysely<unknown>, { time }: ColumnTypes): Promise<void> {
  await schema
    .createTable('quotas')
    .addColumn('subject', 'text', column => column.notNull())
    .addColumn('counter', 'text', column => column.notNull())
    .addColumn('limit', 'bigint', column => column.notNull())
    .addColumn('window_ms', 'bigint', column => column.notNull())
    .addColumn('used', 'bigint', column => column.notNull())
    .addColumn('ends_at', time, column => column.notNull())
    .addPrimaryKeyConstraint('quotas_once', ['subject', 'counter'])
    .execute()
  await schema.createIndex('quotas_by_end').on('quotas').column('ends_at').execute()
}

/** The database itself refuses changes of the audit log, whoever asks; what is old may go, so that it need not grow for ever. */
async function guardSqlite(db: Kysely<unknown>): Promise<void> {
  const refuse = sql`select raise(abort, 'the audit log is append-only')`
  await sql`create trigger audit_log_unchanged before update on audit_log begin ${refuse}; end`.execute(db)
  await sql`create trigger audit_log_kept before delete on audit_log
    when old.at >= unixepoch() * 1000 - ${sql.lit(AUDIT_STANDS_MS)} begin ${refuse}; end`.execute(db)
  // What an "insert or replace" replaces is deleted without a word.
  await sql`create trigger audit_log_not_replaced before insert on audit_log
    when exists (select 1 from audit_log where id = new.id or seq = new.seq) begin ${refuse}; end`.execute(db)
}

async function guardPostgres(db: Kysely<unknown>): Promise<void> {
  await sql`create function audit_log_stands() returns trigger language plpgsql as $$
    begin
      if tg_op = 'DELETE' then
        if old.at < extract(epoch from now()) * 1000 - ${sql.lit(AUDIT_STANDS_MS)} then return old; end if;
      end if;
      raise exception 'the audit log is append-only';
    end $$`.execute(db)
  await sql`create trigger audit_log_kept before update or delete on audit_log
    for each row execute function audit_log_stands()`.execute(db)
  await sql`create trigger audit_log_not_emptied before truncate on audit_log
    for each statement execute function audit_log_stands()`.execute(db)
}
