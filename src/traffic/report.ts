import { type RawBuilder, sql } from 'kysely'
import type { Database } from '../database/database.ts'
import { percentiles } from './latency.ts'
import { HOUR, MINUTE } from './minutes.ts'
import { type Dimension, type Order, type Question, statusRange } from './question.ts'
import { closedUntil, histograms } from './upkeep.ts'

/** Requests that have something in common. Times are milliseconds, `error_rate` is a share of 1. */
export interface Figures {
  readonly requests: number
  /** Answered with 400 or more; 499 are clients who left before they had an answer. */
  readonly errors: number
  readonly client_errors: number
  readonly server_errors: number
  readonly error_rate: number
  readonly bytes_in: number
  readonly bytes_out: number
  readonly mean_ms: number
  /** Null where there were WebSockets only. */
  readonly p50_ms: number | null
  readonly p95_ms: number | null
  readonly p99_ms: number | null
}

/** Figures, and what they are about: null for requests without a service, a user or a key. */
export type ReportRow = Figures & { readonly at?: string } & { readonly [name in Dimension]?: string | number | null }

export interface Report {
  /** What was looked at: the whole minutes, and where there are only hours the whole hours, that were asked for. */
  readonly from: number
  readonly to: number
  readonly rows: ReportRow[]
}

/** The columns behind the dimensions. */
const COLUMNS: Record<Dimension, RawBuilder<unknown>> = {
  service: sql`service`,
  endpoint: sql`endpoint`,
  user: sql`user_id`,
  key: sql`api_key_id`,
  status: sql`status`,
  class: sql`status / 100`
}

const SORTED: Record<Order, RawBuilder<unknown>> = {
  requests: sql`requests desc`,
  errors: sql`errors desc, requests desc`,
  bytes: sql`bytes_in + bytes_out desc`,
  latency: sql`duration_ms * 1.0 / requests desc`
}

type Sums = Record<'requests' | 'client_errors' | 'server_errors' | 'bytes_in' | 'bytes_out' | 'duration_ms', number>
type Group = Record<`d${number}`, string | number> & { readonly at: number }

/**
 * Answers from minutes and hours as if they were one table. What happened within the last second may be missing.
 * @param oldestMinute from when on there are minutes, in milliseconds since 1970
 * @throws {DatabaseError}
 */
export async function report({ db, kind }: Database, question: Question, oldestMinute: number): Promise<Report> {
  const { by, interval, order, limit } = question
  const { from, to, parts } = partsOf(question, oldestMinute, await closedUntil(db))
  const names = by.map((_, i) => sql.ref(`d${i}`))
  const group = sql.join([sql`at`, ...names])
  const at = interval === undefined ? sql`0` : sql`at - at % ${sql.lit(interval)}`
  const groups = sql.join([sql`${at} as at`, ...by.map((name, i) => sql`${COLUMNS[name]} as ${names[i]}`)])
  const where = conditions(question.only)
  const tables = parts.map(
    ([table, since, until]) => sql`
      select ${groups}, status, requests, bytes_in, bytes_out, duration_ms, latencies
      from ${sql.table(table)} where at >= ${since} and at < ${until}${where}`
  )
  const seen = sql.join(tables, sql` union all `)
  const top = sql`
    select ${group}, sum(requests) as requests,
      sum(case when status >= 400 then requests else 0 end) as errors,
      sum(case when status >= 400 and status < 500 then requests else 0 end) as client_errors,
      sum(case when status >= 500 then requests else 0 end) as server_errors,
      sum(bytes_in) as bytes_in, sum(bytes_out) as bytes_out, sum(duration_ms) as duration_ms
    from seen group by ${group}`
  const sorted = sql`select * from top order by ${order === undefined ? sql`at` : SORTED[order]}, ${group} limit ${limit}`
  const { rows } = await sql<Group & Sums>`with seen as (${seen}), top as (${top}) ${sorted}`.execute(db)
  const { rows: buckets } = await sql<Group & { key: string; count: number }>`
    with seen as (${seen}), top as (${top}), chosen as (${sorted})
    select ${group}, key, sum(cast(value as bigint)) as count
    from (select ${group}, seen.latencies from seen join chosen using (${group})) as latency, ${histograms(kind).rows} as bucket
    group by ${group}, key`.execute(db)
  const nameOf = (row: Group): string => JSON.stringify([row.at, ...by.map((_, i) => row[`d${i}`])])
  const latencies = Map.groupBy(buckets, nameOf)
  return {
    from,
    to,
    rows: rows.map(row => {
      const counts = (latencies.get(nameOf(row)) ?? []).map(({ key, count }) => [Number(key), Number(count)] as const)
      return { ...labelsOf(row, question), ...figuresOf(row, counts) }
    })
  }
}

type Part = readonly [table: 'traffic_minutes' | 'traffic_hours', from: number, to: number]

/** Where to look: hours as far as there are any, and minutes before and behind them. */
function partsOf({ interval, from, to }: Question, oldestMinute: number, closed: number) {
  const down = (time: number, unit: number) => Math.floor(time / unit) * unit
  const up = (time: number, unit: number) => Math.ceil(time / unit) * unit
  const since = down(from, from < oldestMinute ? HOUR : MINUTE)
  const until = up(to, to < oldestMinute ? HOUR : MINUTE)
  const firstHour = interval === MINUTE ? until : Math.min(until, up(since, HOUR))
  const lastHour = Math.max(firstHour, Math.min(down(until, HOUR), closed))
  const parts: Part[] = [
    ['traffic_minutes', since, firstHour],
    ['traffic_hours', firstHour, lastHour],
    ['traffic_minutes', lastHour, until]
  ]
  return { from: since, to: until, parts: parts.filter(([, start, end], i) => start < end || i === 0) }
}

function conditions({ service, endpoint, user, key, status, errors }: Question['only']): RawBuilder<unknown> {
  const list: RawBuilder<unknown>[] = []
  for (const [column, value] of Object.entries({ service, endpoint, user_id: user, api_key_id: key }))
    if (value !== undefined) list.push(sql` and ${sql.ref(column)} = ${value}`)
  if (status !== undefined) {
    const [least, end] = statusRange(status)
    list.push(sql` and status >= ${least} and status < ${end}`)
  }
  if (errors) list.push(sql` and status >= 400`)
  return list.length === 0 ? sql`` : sql.join(list, sql``)
}

function labelsOf(row: Group, { by, interval }: Question): Partial<ReportRow> {
  const labels = by.map((name, i) => {
    const value = row[`d${i}`] as string | number
    return [name, name === 'class' ? `${value}xx` : value === '' ? null : value]
  })
  return { ...(interval === undefined ? {} : { at: new Date(row.at).toISOString() }), ...Object.fromEntries(labels) }
}

/** @param sums none if there were no requests at all */
export function figuresOf(sums: Partial<Sums>, latencies: Iterable<readonly [bucket: number, count: number]>): Figures {
  const { requests = 0, client_errors = 0, server_errors = 0, bytes_in = 0, bytes_out = 0, duration_ms = 0 } = sums
  const errors = client_errors + server_errors
  const [p50 = null, p95 = null, p99 = null] = percentiles(latencies, [0.5, 0.95, 0.99]).map(rounded)
  return {
    requests,
    errors,
    client_errors,
    server_errors,
    error_rate: requests === 0 ? 0 : errors / requests,
    bytes_in,
    bytes_out,
    mean_ms: requests === 0 ? 0 : (rounded(duration_ms / requests) as number),
    p50_ms: p50,
    p95_ms: p95,
    p99_ms: p99
  }
}

/** To microseconds, of which there is no telling anyway. */
function rounded(ms: number | null): number | null {
  return ms === null ? null : Math.round(ms * 1000) / 1000
}
