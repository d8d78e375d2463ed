import type { FastifyPluginAsync } from 'fastify'
import type { Database } from '../src/database/database.ts'
import type { Consumer } from '../src/identity/consumer.ts'
import { oneOf, type TSchema, Type } from '../src/schema.ts'
import { apiKeyOf, userOf } from '../src/traffic/caller.ts'
import { HOUR, MINUTE, oldestMinute } from '../src/traffic/minutes.ts'
import { DIMENSIONS, type Dimension, ORDERS, type Order, type Question } from '../src/traffic/question.ts'
import type { Report } from '../src/traffic/report.ts'
import { readRequests } from '../src/traffic/requests.ts'
import { guardOwnEndpoints, LIMITS_USED, limitsUsed } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import {
  filterWord,
  invalid,
  listing,
  listOf,
  rangeOf as offsetOf,
  type Page,
  pageQuery,
  readTimes,
  timeQuery
} from './listing.ts'
import { operation } from './operation.ts'

const DAY = 24 * HOUR
const INTERVALS = { minute: MINUTE, hour: HOUR } as const
type Interval = keyof typeof INTERVALS
/** Longest stretch of time that is told by the minute if somebody asks for that, and if nobody says. */
const BY_MINUTE = { most: DAY, unasked: 6 * HOUR }
/** Most rows over time. */
const MOST_ROWS = 10_000

interface Filters {
  readonly from?: string
  readonly to?: string
  readonly service?: string
  readonly endpoint?: string
  readonly user?: string
  readonly key?: string
  readonly status?: string
  readonly by: string
}

interface TrafficQuery extends Filters {
  readonly interval?: Interval
}

interface UsageQuery extends Filters {
  readonly sort: Order
  readonly limit: number
}

const orNull = (schema: TSchema, description: string) => Type.Union([schema, Type.Null()], { description })
const count = (description: string, example: number) => Type.Integer({ description, examples: [example] })
const milliseconds = (description: string, example: number) => Type.Number({ description, examples: [example] })
const time = (description: string) => Type.String({ description, format: 'date-time' })

const FIGURES = {
  requests: count('How many.', 1200),
  errors: count('Answered with 400 or more; 499 are clients who left before they had an answer.', 12),
  client_errors: count('With 400 to 499.', 9),
  server_errors: count('With 500 or more.', 3),
  error_rate: Type.Number({ description: 'The errors’ share of all, up to 1.', examples: [0.01] }),
  bytes_in: count('Of the requests’ bodies.', 4096),
  bytes_out: count('Of the answers’ bodies.', 65_536),
  mean_ms: milliseconds('How long they took, on average.', 12.5),
  p50_ms: orNull(milliseconds('', 9.4), 'How long half of them took at most; null if there were WebSockets only.'),
  p95_ms: orNull(milliseconds('', 31), 'How long 95 of 100 took at most.'),
  p99_ms: orNull(milliseconds('', 80), 'How long 99 of 100 took at most.')
}

const LABELS = {
  service: Type.Optional(orNull(Type.String(), 'Null for the gateway’s own endpoints.')),
  endpoint: Type.Optional(Type.String({ description: 'A route’s path, as the configuration has it.' })),
  user: Type.Optional(orNull(Type.String(), 'By id; null for requests without one.')),
  key: Type.Optional(orNull(Type.String(), 'By id; null for requests without one.')),
  status: Type.Optional(count('Of the answers.', 200)),
  class: Type.Optional(Type.String({ description: 'Of the status.', examples: ['2xx'] }))
}

const RANGE = {
  from: time('From when on.'),
  to: time('Until when: whole minutes, or hours where there are no minutes any more.')
}
const TOTALS = {
  ...RANGE,
  total: Type.Object(FIGURES, { description: 'Of everything that was asked for.' }),
  data: Type.Array(Type.Object({ ...LABELS, ...FIGURES }), { description: 'The parts that have the most.' })
}

/** OBS-21, with C-35. */
const REQUEST = Type.Object({
  id: Type.String({ description: 'Its own.', format: 'uuid' }),
  user_id: orNull(Type.String(), 'Who; null if nobody said so.'),
  api_key_id: orNull(Type.String(), 'With which key; null for none.'),
  endpoint_id: orNull(Type.String(), 'Id of the route; null for the gateway’s own endpoints, and where there is none.'),
  client_ip: Type.String({ description: 'From where.', examples: ['192.0.2.1'] }),
  method: Type.String({ description: 'How.', examples: ['GET'] }),
  path: Type.String({ description: 'For what, without the query.', examples: ['/orders/7'] }),
  status_code: count('Of the answer.', 200),
  response_time_ms: milliseconds('From its first byte to its answer’s last.', 12.5),
  request_size_bytes: count('Of its body.', 0),
  response_size_bytes: count('Of its answer’s body.', 512),
  created_at: time('When it was over.')
})

const filters = {
  ...timeQuery,
  service: filterWord('Only requests to this service.'),
  endpoint: filterWord('Only requests to this endpoint: a route’s path, as the configuration has it.'),
  user: filterWord('Only requests of this user, by id.'),
  key: filterWord('Only requests with this API key, by id.'),
  status: Type.Optional(
    Type.String({
      description: 'Only requests with this status, or of this class: `404`, `5xx`.',
      pattern: '^[1-9](?:xx|[0-9][0-9])$'
    })
  )
}
const byOf = (value: string) =>
  Type.String({
    description: `What to tell apart, separated by commas: ${DIMENSIONS.map(name => `\`${name}\``).join(', ')}.`,
    default: value
  })
const most = {
  sort: oneOf(ORDERS, { description: 'Of what the most comes first; `latency` is the mean.', default: 'requests' }),
  limit: Type.Integer({ description: 'Most rows.', default: 20, minimum: 1, maximum: 1000 })
}

/** What happened: requests over time, usage, errors (MON-12 to MON-14, OBS-22). For administrators; for everybody, his own. */
const traffic: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })
  const { paths, recording, rateLimits } = snapshot
  const { clock } = runtime
  // There is one wherever anybody asks; where only documents are made of this, nobody does.
  const database = runtime.database as Database

  const oldest = (): number => oldestMinute(recording.keep.minutes, clock.now())
  const ask = async (question: Question): Promise<Report> => {
    const { report } = await import('../src/traffic/report.ts')
    return report(database, question, oldest())
  }
  /** Figures of all that was asked for, and of its parts. */
  const totals = async (query: UsageQuery, only: Question['only']) => {
    const question = { ...rangeOf(query, DAY, clock.now()), interval: undefined, only }
    const [parts, all] = await Promise.all([
      ask({ ...question, by: dimensionsOf(query.by), order: query.sort, limit: query.limit }),
      ask({ ...question, by: [], limit: 1 })
    ])
    const { figuresOf } = await import('../src/traffic/report.ts')
    return { ...inWords(parts), total: all.rows[0] ?? figuresOf({}, []), data: parts.rows }
  }
  const reading = { tag: 'Traffic', access: ['admin'], administrative: true } as const

  if (paths.traffic !== false) {
    const description = 'Of the last hour, if nothing else is said. Minutes and hours without requests are left out.'
    const interval = oneOf(['minute', 'hour'], { description: 'What each row is about; what suits if not given.' })
    const query = Type.Object({ ...filters, by: byOf(''), interval: Type.Optional(interval) })
    const row = Type.Object({ at: time('When it begins.'), ...LABELS, ...FIGURES })
    const answers = { 200: Type.Object({ ...RANGE, interval, data: Type.Array(row, { description: 'By time.' }) }) }
    app.get<{ Querystring: TrafficQuery }>(
      paths.traffic,
      operation({ ...reading, summary: 'Requests over time', description, query, answers }),
      async ({ query }) => {
        const range = rangeOf(query, HOUR, clock.now())
        const interval = query.interval ?? intervalFor(range, oldest())
        if (interval === 'minute') checkMinutes(range, oldest())
        const by = dimensionsOf(query.by)
        const found = await ask({ ...range, interval: INTERVALS[interval], by, only: query, limit: MOST_ROWS + 1 })
        if (found.rows.length > MOST_ROWS)
          throw invalid('by', `makes more than ${MOST_ROWS} rows of that time; ask for less at once`)
        return { ...inWords(found), interval, data: found.rows }
      }
    )

    const { service: _, ...others } = filters
    app.get<{ Querystring: Filters & Page }>(
      `${paths.traffic}/requests`,
      operation({
        ...reading,
        summary: 'Single requests, the newest first',
        description: 'Of the last hour, if nothing else is said; as many as `recording.requests_per_second` has kept.',
        query: Type.Object({ ...pageQuery, ...others, endpoint: filterWord('Only requests to this route, by id.') }),
        answers: { 200: listOf(REQUEST) }
      }),
      async request => {
        const { query } = request
        const filter = { ...rangeOf(query, HOUR, clock.now()), only: query }
        const { requests, total } = await readRequests(database.db, filter, offsetOf(query))
        const data = requests.map(row => ({ ...row, created_at: new Date(row.created_at).toISOString() }))
        return listing(request, query, { data, total }, { version: snapshot.gateway.version, now: clock.now() })
      }
    )
  }

  if (paths.usage !== false) {
    const query = Type.Object({ ...filters, by: byOf('endpoint'), ...most })
    const description = 'Of the last day, if nothing else is said: who or what asked or was asked most.'
    app.get<{ Querystring: UsageQuery }>(
      paths.usage,
      operation({ ...reading, summary: 'Usage', description, query, answers: { 200: Type.Object(TOTALS) } }),
      async ({ query }) => totals(query, query)
    )

    const { user: _, key: __, ...others } = filters
    app.get<{ Querystring: UsageQuery }>(
      `${paths.usage}/me`,
      operation({
        tag: 'Traffic',
        summary: 'One’s own usage, and what is left of one’s limits',
        access: 'user',
        query: Type.Object({ ...others, by: byOf('endpoint'), ...most }),
        answers: { 200: Type.Object({ ...TOTALS, limits: LIMITS_USED }) }
      }),
      async ({ query, exchange }) => {
        const consumer = exchange.consumer as Consumer
        const key = apiKeyOf(consumer)
        const whose = key === '' ? { user: userOf(consumer) } : { key }
        const [usage, limits] = await Promise.all([
          totals(query, { ...query, ...whose }),
          limitsUsed(runtime, consumer.key, rateLimits)
        ])
        return { ...usage, limits }
      }
    )
  }

  if (paths.errors !== false) {
    const query = Type.Object({ ...filters, by: byOf('service,endpoint,status'), ...most })
    const description = 'Of the last day, if nothing else is said: requests that were answered with 400 or more.'
    app.get<{ Querystring: UsageQuery }>(
      paths.errors,
      operation({ ...reading, summary: 'Errors', description, query, answers: { 200: Type.Object(TOTALS) } }),
      async ({ query }) => totals(query, { ...query, errors: true })
    )
  }
}

interface Range {
  readonly from: number
  readonly to: number
}

/** @throws {GatewayError} 422 */
function rangeOf(query: Filters, lastMs: number, now: number): Range {
  const { from, to = now } = readTimes(query)
  if (from !== undefined && from >= to) throw invalid('from', 'lies in the future')
  return { from: from ?? to - lastMs, to }
}

function intervalFor({ from, to }: Range, oldestMinute: number): Interval {
  return to - from <= BY_MINUTE.unasked && from >= oldestMinute ? 'minute' : 'hour'
}

/** @throws {GatewayError} 422 */
function checkMinutes({ from, to }: Range, oldestMinute: number): void {
  if (to - from > BY_MINUTE.most) throw invalid('interval', 'can be "minute" for 24 hours at most; ask for hours')
  if (from >= oldestMinute) return
  throw invalid('from', `is before ${new Date(oldestMinute).toISOString()}: there are only hours of that time`)
}

/** @throws {GatewayError} 422 */
function dimensionsOf(text: string): Dimension[] {
  const names = text === '' ? [] : [...new Set(text.split(',').map(name => name.trim()))]
  const unknown = names.find(name => !(DIMENSIONS as readonly string[]).includes(name))
  if (unknown !== undefined) throw invalid('by', `${JSON.stringify(unknown)} should be one of ${DIMENSIONS.join(', ')}`)
  return names as Dimension[]
}

function inWords({ from, to }: Range): { from: string; to: string } {
  return { from: new Date(from).toISOString(), to: new Date(to).toISOString() }
}

export default traffic
