import { type RawBuilder, sql, type Transaction } from 'kysely'
import type { RecordingSettings } from '../config/schema.ts'
import { type Database, LOCKS } from '../database/database.ts'
import type { Tables } from '../database/tables.ts'
import { HOUR, LONGEST_WAIT, oldestMinute } from './minutes.ts'

/** How long an hour is over before it is closed: by then every gateway has written what it knew, or forgotten it. */
const CLOSED_AFTER = 2 * LONGEST_WAIT
/** What is let go of by its age, and of how many different times in one transaction. */
interface Old {
  readonly table: keyof Tables
  readonly column: string
  readonly times: number
}
const MINUTES: Old = { table: 'traffic_minutes', column: 'at', times: 10 }
const HOURS: Old = { table: 'traffic_hours', column: 'at', times: 10 }
const REQUESTS: Old = { table: 'api_requests', column: 'created_at', times: 1000 }
const AUDIT: Old = { table: 'audit_log', column: 'at', times: 1000 }
const QUOTAS: Old = { table: 'quotas', column: 'ends_at', times: 1 }

/**
 * Makes hours of minutes, and lets go of what is older than it is to be kept; in small transactions, by one gateway at a time.
 * @param signal ends it after the transaction under way
 * @throws {DatabaseError}
 */
export async function upkeep(
  database: Database,
  keep: RecordingSettings['keep'],
  now: number,
  signal?: AbortSignal
): Promise<void> {
  const whenMine = turns(database, signal)
  await repeat(whenMine, transaction => closeHour(transaction, database.kind, now))
  const closed = await closedUntil(database.db)
  const old: [Old, number][] = [
    [MINUTES, Math.min(oldestMinute(keep.minutes, now), closed)],
    [HOURS, now - keep.hours],
    [REQUESTS, now - keep.requests],
    [AUDIT, now - keep.audit],
    [QUOTAS, now]
  ]
  for (const [what, before] of old) await repeat(whenMine, transaction => forget(transaction, what, before))
}

/** Until when there are hours; from then on there are minutes only. */
export async function closedUntil(db: Database['db'] | Transaction<Tables>): Promise<number> {
  const { last } = await db
    .selectFrom('traffic_hours')
    .select(({ fn }) => fn.max('at').as('last'))
    .executeTakeFirstOrThrow()
  return last === null ? 0 : Number(last) + HOUR
}

type Step = (transaction: Transaction<Tables>) => Promise<boolean>
type Turns = (step: Step) => Promise<boolean>

/** Runs a step in a transaction of its own, unless another gateway is at it. */
function turns(database: Database, signal: AbortSignal | undefined): Turns {
  return async step =>
    signal?.aborted !== true &&
    database.transaction(async transaction => {
      if (database.kind === 'postgres') {
        const { rows } = await sql<{
          mine: boolean
        }>`select pg_try_advisory_xact_lock(${LOCKS.upkeep}) as mine`.execute(transaction)
        if (rows[0]?.mine !== true) return false
      }
      return step(transaction)
    })
}

/** For as long as a step says that there may be more to do. */
async function repeat(whenMine: Turns, step: Step): Promise<void> {
  while (await whenMine(step)) {
    // The next one.
  }
}

/** The tables' histograms as rows of `key` and `value`, and such rows as a histogram again. */
export function histograms(kind: Database['kind']): { rows: RawBuilder<unknown>; document: RawBuilder<unknown> } {
  return kind === 'postgres'
    ? { rows: sql`jsonb_each_text(latencies)`, document: sql`jsonb_object_agg` }
    : { rows: sql`json_each(latencies)`, document: sql`json_group_object` }
}

/** Adds up the oldest hour that is over for long enough and has not been closed. @returns whether there was one */
async function closeHour(transaction: Transaction<Tables>, kind: Database['kind'], now: number): Promise<boolean> {
  const { first } = await transaction
    .selectFrom('traffic_minutes')
    .select(({ fn }) => fn.min('at').as('first'))
    .where('at', '>=', await closedUntil(transaction))
    .executeTakeFirstOrThrow()
  if (first === null) return false
  const at = Number(first) - (Number(first) % HOUR)
  if (at + HOUR + CLOSED_AFTER > now) return false
  const { rows, document } = histograms(kind)
  const names = sql`service, endpoint, user_id, api_key_id, status`
  const hour = sql`traffic_minutes where at >= ${at} and at < ${at + HOUR}`
  await sql`
    with counts as (
      select ${names}, sum(requests) as requests, sum(bytes_in) as bytes_in, sum(bytes_out) as bytes_out,
        sum(duration_ms) as duration_ms
      from ${hour} group by ${names}
    ), buckets as (
      select ${names}, key, sum(cast(value as bigint)) as value
      from (select * from ${hour}) as minutes, ${rows} as latency group by ${names}, key
    ), latencies as (
      select ${names}, ${document}(key, value) as latencies from buckets group by ${names}
    )
    insert into traffic_hours (at, ${names}, requests, bytes_in, bytes_out, duration_ms, latencies)
    select ${sql.lit(at)}, ${names}, requests, bytes_in, bytes_out, duration_ms, coalesce(latencies, '{}')
    from counts left join latencies using (${names})`.execute(transaction)
  return true
}

/** Deletes the rows of the oldest times before `before`. @returns whether there may be more */
async function forget(
  transaction: Transaction<Tables>,
  { table, column, times }: Old,
  before: number
): Promise<boolean> {
  const time = sql.ref(column)
  const { rows } = await sql<{ time: number }>`
    select distinct ${time} as time from ${sql.table(table)} where ${time} < ${before} order by 1 limit ${sql.lit(times)}`.execute(
    transaction
  )
  const last = rows.at(-1)
  if (last === undefined) return false
  await sql`delete from ${sql.table(table)} where ${time} <= ${last.time}`.execute(transaction)
  return rows.length === times
}
