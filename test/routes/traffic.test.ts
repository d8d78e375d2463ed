import t from 'tap'
import type { Database } from '../../src/database/database.ts'
import type { TrafficMinutesTable } from '../../src/database/tables.ts'
import { bucketOf } from '../../src/traffic/latency.ts'
import { FakeClock } from '../support/clock.ts'
import { onBoth } from '../support/database.ts'
import { startGateway } from '../support/gateway.ts'
import { many } from '../support/many.ts'
import { token } from '../support/tokens.ts'
import { startRecording } from '../support/traffic.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR
const START = Date.UTC(2026, 0, 1)
const boss = token({ sub: 'root', roles: ['admin'] })

const minute = (at: number, more: Partial<TrafficMinutesTable> = {}): TrafficMinutesTable => ({
  at,
  node: 'a',
  service: 'orders',
  endpoint: '/orders/**',
  user_id: 'alice',
  api_key_id: '',
  status: 200,
  requests: 10,
  bytes_in: 10,
  bytes_out: 100,
  duration_ms: 100,
  latencies: JSON.stringify({ [bucketOf(10)]: 10 }),
  ...more
})

const write = ({ db }: Database, rows: TrafficMinutesTable[]) => db.insertInto('traffic_minutes').values(rows).execute()
const near = (ms: number) => (found: number | null) => found !== null && Math.abs(found - ms) <= ms / 32

onBoth(t, 'MON-12 OBS-22 traffic over time, by minute and hour, filtered and told apart', async (t, kind) => {
  const clock = new FakeClock(START + 30 * MINUTE)
  const { call, database } = await startRecording(t, kind, {}, { clock })
  await write(database, [
    minute(START),
    minute(START, { node: 'b', latencies: JSON.stringify({ [bucketOf(1000)]: 10 }) }),
    minute(START + 5 * MINUTE, { status: 503, requests: 5, endpoint: '/orders/{id}' }),
    minute(START + 5 * MINUTE, { status: 404, requests: 5, user_id: '', api_key_id: 'ci' }),
    minute(START - 2 * HOUR)
  ])
  const ask = async (query: string) => (await call(`/traffic?${query}`, { token: boss })).json
  const { from, to, interval, data } = await ask('')
  t.match(
    { from, to, interval },
    { from: '2025-12-31T23:30:00.000Z', to: '2026-01-01T00:30:00.000Z', interval: 'minute' }
  )
  t.equal(data.length, 2)
  t.match(data[0], {
    at: '2026-01-01T00:00:00.000Z',
    requests: 20,
    errors: 0,
    error_rate: 0,
    bytes_out: 200,
    mean_ms: 10
  })
  t.ok(near(10)(data[0].p50_ms) && near(1000)(data[0].p95_ms) && near(1000)(data[0].p99_ms), 'gateways are one')
  t.match(data[1], { requests: 10, errors: 10, client_errors: 5, server_errors: 5, error_rate: 1 })

  const hours = await ask('from=2025-12-31T20:00:00Z&to=2026-01-01T01:00:00Z&interval=hour')
  t.match(hours.data, [
    { at: '2025-12-31T22:00:00.000Z', requests: 10 },
    { at: '2026-01-01T00:00:00.000Z', requests: 30 }
  ])
  const told = await ask('by=user,class')
  t.match(told.data, [
    { at: '2026-01-01T00:00:00.000Z', user: 'alice', class: '2xx', requests: 20 },
    { at: '2026-01-01T00:05:00.000Z', user: null, class: '4xx', requests: 5 },
    { at: '2026-01-01T00:05:00.000Z', user: 'alice', class: '5xx', requests: 5 }
  ])
  const sum = async (query: string) =>
    (await ask(query)).data.reduce((total: number, { requests }: { requests: number }) => total + requests, 0)
  t.equal(await sum('service=orders'), 30)
  t.equal(await sum('service=other'), 0)
  t.equal(await sum('endpoint=/orders/{id}'), 5)
  t.equal(await sum('user=alice&status=200'), 20)
  t.equal(await sum('key=ci'), 5)
  t.equal(await sum('status=5xx'), 5)
  t.equal(await sum('from=2026-01-01T00:05:00Z'), 10)
})

onBoth(t, 'MON-12 minutes and hours answer as one, whatever has been closed and let go of', async (t, kind) => {
  const clock = new FakeClock(START)
  const { call, database, recorder } = await startRecording(
    t,
    kind,
    { recording: { keep: { minutes: '6h' } } },
    { clock }
  )
  // Ten requests at :10 and :50 of each of 48 hours.
  await write(
    database,
    Array.from({ length: 96 }, (_, i) => minute(START + Math.floor(i / 2) * HOUR + (i % 2 === 0 ? 10 : 50) * MINUTE))
  )
  clock.advance(2 * DAY)
  const totals = async () => {
    const found: number[] = []
    for (const query of [
      'from=2026-01-01T00:00:00Z',
      'from=2026-01-02T20:30:00Z',
      'from=2026-01-02T20:30:00Z&to=2026-01-02T23:30:00Z'
    ]) {
      const { json } = await call(`/usage?by=service&${query}`, { token: boss })
      t.equal(json.data.length, 1)
      t.equal(json.data[0].requests, json.total.requests)
      found.push(json.total.requests)
    }
    return found
  }
  const before = await totals()
  t.same(before, [960, 70, 60])
  // On PostgreSQL the gateway's own timer may be at it, and then this is left to it.
  await until(async () => {
    await recorder.upkeep()
    const left = await database.db.selectFrom('traffic_minutes').select('at').where('service', '=', 'orders').execute()
    return left.length === 12
  }, 'six hours of minutes are left')
  t.same(await totals(), before)

  const old = (await call('/usage?from=2026-01-01T05:30:00Z&to=2026-01-01T07:15:00Z', { token: boss })).json
  t.match(old, { from: '2026-01-01T05:00:00.000Z', to: '2026-01-01T08:00:00.000Z', total: { requests: 60 } })
  t.ok(near(10)(old.total.p99_ms))
  const refused = await call('/traffic?interval=minute&from=2026-01-02T05:30:00Z&to=2026-01-02T07:15:00Z', {
    token: boss
  })
  t.equal(refused.status, 422)
  t.match(refused.json.error.details, /from is before 2026-01-02T18:00:00.000Z: there are only hours/)
  t.equal(
    (await call('/traffic?from=2026-01-02T05:30:00Z&to=2026-01-02T07:15:00Z', { token: boss })).json.interval,
    'hour'
  )
})

onBoth(t, 'MON-13 OBS-22 usage: who or what asked or was asked most, by what one likes', async (t, kind) => {
  const clock = new FakeClock(START + HOUR)
  const { call, database } = await startRecording(t, kind, {}, { clock })
  await write(database, [
    minute(START, { endpoint: '/busy', requests: 50, duration_ms: 50 }),
    minute(START, { endpoint: '/failing', requests: 5, status: 500, duration_ms: 5 }),
    minute(START, { endpoint: '/slow', requests: 2, duration_ms: 9000 }),
    minute(START, { endpoint: '/large', requests: 1, bytes_out: 1e10, user_id: 'bob', duration_ms: 1 })
  ])
  const ask = async (query: string) => (await call(`/usage?${query}`, { token: boss })).json
  const first = async (sort: string) => (await ask(`sort=${sort}&limit=1`)).data[0].endpoint
  t.equal(await first('requests'), '/busy')
  t.equal(await first('errors'), '/failing')
  t.equal(await first('latency'), '/slow')
  t.equal(await first('bytes'), '/large')
  const { total, data } = await ask('by=user')
  t.match(total, { requests: 58, errors: 5, bytes_out: 1e10 + 300 })
  t.match(data, [
    { user: 'alice', requests: 57 },
    { user: 'bob', requests: 1 }
  ])
  t.match(await ask('from=2025-01-01T00:00:00Z&to=2025-02-01T00:00:00Z'), {
    total: { requests: 0, p50_ms: null },
    data: []
  })
})

onBoth(t, 'MON-14 errors: what failed, where, and how often', async (t, kind) => {
  const clock = new FakeClock(START + HOUR)
  const { call, database } = await startRecording(t, kind, {}, { clock })
  await write(database, [
    minute(START),
    minute(START, { status: 404, requests: 3 }),
    minute(START, { status: 502, requests: 7 }),
    minute(START, { status: 499, service: '', endpoint: '/health', requests: 1 })
  ])
  const { total, data } = (await call('/errors', { token: boss })).json
  t.match(total, { requests: 11, client_errors: 4, server_errors: 7 })
  t.match(data, [
    { service: 'orders', endpoint: '/orders/**', status: 502, requests: 7 },
    { service: 'orders', endpoint: '/orders/**', status: 404, requests: 3 },
    { service: null, endpoint: '/health', status: 499, requests: 1 }
  ])
})

onBoth(t, 'MON-13 RLM-08 anybody sees his own usage and what is left of his limits', async (t, kind) => {
  const { url } = await startUpstream(t)
  const { call, port, counted } = await startRecording(t, kind, {
    identity: { api_keys: [{ id: 'ci', key: 'a-key-that-is-only-for-tests', tier: 'free' }] },
    rate_limits: { user_tiers: { free: { daily_limit: 100 } } },
    services: { s: { url } },
    routes: [{ path: '/api/**', service: 's' }]
  })
  const alice = token({ sub: 'alice', tier: 'free' })
  await many(port, 3, '/api/x', { token: alice })
  await many(port, 2, '/api/x', { headers: { 'x-api-key': 'a-key-that-is-only-for-tests' } })
  await counted(5)
  const mine = await call('/usage/me', { token: alice })
  t.match(mine.json, {
    total: { requests: 3 },
    data: [{ endpoint: '/api/**', requests: 3 }],
    limits: [{ name: 'user', window_seconds: 86_400, limit: 100, used: 3, remaining: 97 }]
  })
  const keys = await call('/usage/me?by=service', { headers: { 'x-api-key': 'a-key-that-is-only-for-tests' } })
  t.match(keys.json, { total: { requests: 2 }, data: [{ service: 's' }], limits: [{ used: 2 }] })
  t.equal((await call('/usage/me')).status, 401)
  t.equal((await call('/usage/me?user=bob', { token: alice })).status, 422)
})

onBoth(t, 'OBS-21 TRF-14 single requests are listed, the newest first', async (t, kind) => {
  const { url } = await startUpstream(t)
  const clock = new FakeClock(START)
  const document = { services: { s: { url } }, routes: [{ id: 'api', path: '/api/**', service: 's' }] }
  const { call, counted } = await startRecording(t, kind, document, { clock })
  const alice = token({ sub: 'alice' })
  await call('/api/1', { token: alice })
  await counted(1)
  clock.advance(MINUTE)
  await call('/api/2', { token: token({ sub: 'bob' }) })
  await call('/nowhere')
  await counted(3)
  clock.advance(MINUTE)
  const ask = async (query: string) => (await call(`/traffic/requests?${query}`, { token: boss })).json
  const { data, meta } = await ask('status=2xx')
  t.match(data, [
    { user_id: 'bob', api_key_id: null, endpoint_id: 'api', path: '/api/2', created_at: '2026-01-01T00:01:00.000Z' },
    { user_id: 'alice', path: '/api/1', method: 'GET', client_ip: '127.0.0.1', created_at: '2026-01-01T00:00:00.000Z' }
  ])
  t.match(meta.pagination, { total: 2, pages: 1 })
  const pathsOf = async (query: string) => (await ask(query)).data.map(({ path }: { path: string }) => path)
  t.same(await pathsOf('user=alice'), ['/api/1'])
  t.same(await pathsOf('status=404'), ['/nowhere'])
  t.same(await pathsOf('endpoint=api&per_page=1&page=2'), ['/api/1'])
  t.same(await pathsOf('from=2026-01-01T00:00:30Z&endpoint=api'), ['/api/2'])
})

t.test('C-39 statistics are for administrators', async t => {
  const { call } = await startRecording(t, 'sqlite', {})
  for (const path of ['/traffic', '/traffic/requests', '/usage', '/errors']) {
    t.equal((await call(path)).status, 401)
    t.equal((await call(path, { token: token({ roles: ['user'] }) })).status, 403)
  }
})

t.test('MON-12 MON-13 MON-14 questions that make no sense are refused with what is wrong', async t => {
  const { call } = await startRecording(t, 'sqlite', {}, { clock: new FakeClock(START) })
  for (const [path, said] of [
    ['/traffic?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z', /to must be later than "from"/],
    ['/traffic?from=2030-01-01T00:00:00Z', /from lies in the future/],
    ['/traffic?from=now', /from .*RFC 3339/],
    ['/traffic?interval=day', /interval .*"minute" or "hour"/],
    ['/traffic?interval=minute&from=2025-12-30T00:00:00Z', /24 hours at most/],
    ['/usage?by=planet', /"planet" should be one of service, endpoint/],
    ['/usage?sort=name', /sort/],
    ['/usage?limit=0', /limit 0 must be at least 1/],
    ['/errors?status=9', /status .* a class such as 5xx/],
    ['/errors?user=%00', /user holds U\+0000/]
  ] as const) {
    const { status, json } = await call(path, { token: boss })
    t.equal(status, 422, path)
    t.match(json.error.details, said)
  }
})

t.test('C-11 the paths of statistics are the gateway’s own, can be moved and be done without', async t => {
  const { url } = await startUpstream(t)
  const document = (path: string) => ({
    services: { s: { url } },
    routes: [{ path, service: 's', authentication: 'none' }]
  })
  await t.rejects(
    startRecording(t, 'sqlite', document('/errors')),
    /is never reached: \/errors is the gateway's own; move that with paths.errors/
  )
  const moved = await startRecording(t, 'sqlite', {
    ...document('/errors'),
    paths: { errors: '/stats/errors', usage: false }
  })
  t.equal((await moved.call('/errors')).status, 200, 'the route')
  t.equal((await moved.call('/stats/errors', { token: boss })).status, 200)
  t.equal((await moved.call('/usage', { token: boss })).status, 404)
  const without = await startGateway(t, document('/errors'))
  t.equal((await without.call('/errors')).status, 200, 'without a database there is nothing to reserve')
  t.equal((await without.call('/traffic', { token: boss })).status, 404)
})
