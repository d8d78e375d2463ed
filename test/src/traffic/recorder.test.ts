import { randomUUID } from 'node:crypto'
import t from 'tap'
import type { Database } from '../../../src/database/database.ts'
import { DatabaseError } from '../../../src/database/database-error.ts'
import { makeApiKey } from '../../../src/identity/api-key.ts'
import { FakeClock } from '../../support/clock.ts'
import { noPostgres, onBoth, ownStorageBehind } from '../../support/database.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { many, tally } from '../../support/many.ts'
import { token } from '../../support/tokens.ts'
import { startRecording } from '../../support/traffic.ts'
import { until } from '../../support/until.ts'
import { startUpstream } from '../../support/upstream.ts'

const START = Date.UTC(2026, 0, 1)
const MINUTE = 60_000
const key = { id: 'ci', key: 'a-key-that-is-only-for-tests', roles: ['user'] }

const document = (url: string, more: object = {}) => ({
  identity: { api_keys: [key] },
  services: { orders: { url } },
  routes: [
    { id: 'all-orders', path: '/orders/**', service: 'orders' },
    { id: 'hello', path: '/hello/**', service: 'orders', authentication: 'none' }
  ],
  ...more
})

/** What the audit log has of refused requests. */
const accessEntries = ({ db }: Database) => db.selectFrom('audit_log').selectAll().where('action', '=', 'access')

onBoth(t, 'OBS-21 C-35 requests are written down with who asked, for what, and what came of it', async (t, kind) => {
  const { url } = await startUpstream(t)
  const clock = new FakeClock(START)
  const { call, counted, database } = await startRecording(t, kind, document(url), { clock })
  await call('/orders/7?secret=1', { token: token({ sub: 'alice' }), method: 'POST', body: '12345' })
  await call('/orders/8', { headers: { 'x-api-key': key.key } })
  await call('/nowhere')
  await counted(3)
  const rows = await database.db.selectFrom('api_requests').selectAll().orderBy('path', 'desc').execute()
  const common = { client_ip: '127.0.0.1', created_at: START }
  t.match(rows, [
    { ...common, user_id: null, api_key_id: 'ci', endpoint_id: 'all-orders', path: '/orders/8', status_code: 200 },
    {
      ...common,
      user_id: 'alice',
      api_key_id: null,
      endpoint_id: 'all-orders',
      method: 'POST',
      path: '/orders/7',
      status_code: 200,
      request_size_bytes: 5
    },
    { ...common, user_id: null, api_key_id: null, endpoint_id: null, path: '/nowhere', status_code: 404 }
  ])
  for (const { id, response_time_ms, response_size_bytes } of rows) {
    t.match(id, /^[0-9a-f-]{36}$/)
    t.ok(response_time_ms >= 0 && response_size_bytes > 0)
  }
})

onBoth(t, 'OBS-22 requests are counted by minute, service, endpoint, caller and status', async (t, kind) => {
  const { url } = await startUpstream(t)
  const clock = new FakeClock(START)
  const { call, port, counted, database, recorder } = await startRecording(t, kind, document(url), { clock })
  const alice = token({ sub: 'alice' })
  await many(port, 3, '/orders/1', { token: alice })
  await many(port, 2, '/orders/2', { token: alice })
  await counted(5)
  await call('/orders/3', { token: alice })
  await call('/hello/3')
  await call('/orders/3', { headers: { 'x-api-key': key.key } })
  await call('/orders/3')
  await counted(9)
  clock.advance(MINUTE)
  await call('/hello/3')
  await counted(10)
  const rows = await database.db
    .selectFrom('traffic_minutes')
    .selectAll()
    .orderBy('at')
    .orderBy('endpoint')
    .orderBy('user_id', 'desc')
    .orderBy('status')
    .execute()
  const orders = { at: START, service: 'orders', endpoint: '/orders/**' }
  t.match(rows, [
    { at: START, service: 'orders', endpoint: '/hello/**', user_id: '', api_key_id: '', status: 200, requests: 1 },
    { ...orders, user_id: 'alice', api_key_id: '', status: 200, requests: 6 },
    { ...orders, user_id: '', api_key_id: 'ci', status: 200, requests: 1 },
    { ...orders, user_id: '', api_key_id: '', status: 401, requests: 1 },
    { at: START + MINUTE, endpoint: '/hello/**', status: 200, requests: 1 }
  ])
  for (const { latencies, requests } of rows) {
    const counts = Object.values(JSON.parse(latencies) as Record<string, number>)
    t.equal(
      counts.reduce((sum, count) => sum + count, 0),
      requests
    )
  }
  await recorder.flush()
  t.equal((await database.db.selectFrom('traffic_minutes').selectAll().execute()).length, 5, 'nothing twice')
})

t.test('OBS-21 of many requests as many are written down as asked for, all are counted', async t => {
  const { url } = await startUpstream(t)
  const settings = { recording: { requests_per_second: 5 } }
  const { port, counted, database } = await startRecording(t, 'sqlite', document(url, settings), {
    clock: new FakeClock(START)
  })
  // Whatever the timer takes in between, each look finds five at most.
  await many(port, 40, '/hello/1')
  await counted(40)
  const { length } = await database.db.selectFrom('api_requests').selectAll().execute()
  t.ok(length >= 5 && length < 40, `${length} were written down`)
})

t.test('OBS-22 a configuration that is refused does not decide how long what happened is kept', async t => {
  const clock = new FakeClock(START)
  const { configure, gateway, recorder, database } = await startRecording(t, 'sqlite', {}, { clock })
  await database.db
    .insertInto('api_requests')
    .values({
      id: randomUUID(),
      client_ip: '::1',
      method: 'GET',
      path: '/',
      status_code: 200,
      response_time_ms: 1,
      request_size_bytes: 0,
      response_size_bytes: 0,
      created_at: START
    })
    .execute()
  const left = async () => {
    await recorder.upkeep()
    return (await database.db.selectFrom('api_requests').select('id').execute()).length
  }
  clock.advance(2 * 3_600_000)
  const briefly = { storage: { database: true }, recording: { keep: { requests: '1h' } } }
  configure({ ...briefly, defaults: { ip_filter: { deny: ['nowhere'] } } })
  await t.rejects(gateway.reload())
  t.equal(await left(), 1)
  configure(briefly)
  await gateway.reload()
  t.equal(await left(), 0)
})

t.test('OBS-22 H-126 callers without end share a series, and the minute a bound', async t => {
  const { url } = await startUpstream(t)
  const { port, call, counted, database } = await startRecording(t, 'sqlite', document(url), {
    clock: new FakeClock(START)
  })
  for (let i = 0; i < 520; i += 40)
    await Promise.all(Array.from({ length: 40 }, (_, j) => call('/orders/1', { token: token({ sub: `u${i + j}` }) })))
  await many(port, 5, '/hello/1')
  await counted(525)
  const rows = await database.db
    .selectFrom('traffic_minutes')
    .select(['endpoint', 'user_id', 'api_key_id', 'requests'])
    .where('user_id', '=', '(other)')
    .orderBy('endpoint')
    .execute()
  t.same(rows, [
    { endpoint: '/hello/**', user_id: '(other)', api_key_id: '(other)', requests: 5 },
    { endpoint: '/orders/**', user_id: '(other)', api_key_id: '(other)', requests: 20 }
  ])
})

onBoth(t, 'OBS-22 a caller whose name no database would take is counted all the same', async (t, kind) => {
  const { url } = await startUpstream(t)
  const { call, counted, database } = await startRecording(t, kind, document(url), { clock: new FakeClock(START) })
  for (const sub of ['a\u0000b', `x${'y'.repeat(3000)}1`, `x${'y'.repeat(3000)}2`, '\ud800', '\ud801'])
    t.equal((await call('/orders/1', { token: token({ sub }) })).status, 200)
  await counted(5)
  const rows = await database.db.selectFrom('traffic_minutes').select(['user_id', 'requests']).execute()
  t.same(
    rows.map(({ requests }) => requests).sort(),
    [1, 2, 2],
    'names that look the same once they are cut share a row'
  )
})

t.test('OBS-22 a clock that is set back takes nothing from what was counted', async t => {
  const { url } = await startUpstream(t)
  const clock = new FakeClock(START)
  const { call, counted } = await startRecording(t, 'sqlite', document(url), { clock })
  await call('/hello/1')
  await call('/hello/1')
  await counted(2)
  clock.advance(MINUTE)
  await call('/hello/1')
  await counted(3)
  clock.set(START + 5000)
  await call('/hello/1')
  await counted(4)
})

onBoth(t, 'OBS-33 SEC-11 refused requests are in the audit log, alike ones together', async (t, kind) => {
  const { url } = await startUpstream(t)
  const clock = new FakeClock(START)
  const { call, counted, database } = await startRecording(t, kind, document(url), { clock })
  await call('/orders/1')
  await call('/orders/1')
  const { headers } = await call('/admin/routes', { token: token({ sub: 'alice', roles: ['user'] }) })
  await call('/orders/1', { token: token({ sub: 'alice' }) })
  await counted(4)
  const rows = await accessEntries(database).orderBy('actor').execute()
  const common = { at: START, action: 'access', outcome: 'denied', client_ip: '127.0.0.1' }
  const anonymous = rows.filter(({ actor }) => actor === 'anonymous')
  t.ok(anonymous.length > 0)
  for (const row of anonymous)
    t.match(row, { ...common, target: 'GET /orders/**', details: /^authentication_required: no_credentials/ })
  t.match(rows.at(-1), {
    ...common,
    actor: 'user:alice',
    target: 'GET /admin/routes',
    request_id: headers['x-request-id']
  })
  t.match(rows.at(-1)?.details, /^insufficient_permissions/)
})

t.test('OBS-33 IDN-19 a login that fails is one entry, and what a service refuses none', async t => {
  const { url } = await startUpstream(t, (_request, response) => response.writeHead(403).end())
  const { call, counted, database } = await startRecording(t, 'sqlite', document(url))
  const body = JSON.stringify({ username: 'nobody', password: 'whatever it is' })
  const headers = { 'content-type': 'application/json' }
  t.equal((await call('/auth/login', { method: 'POST', headers, body })).status, 401)
  t.equal((await call('/hello/1')).status, 403)
  await counted(2)
  t.same(await accessEntries(database).execute(), [])
  const logins = database.db.selectFrom('audit_log').select('outcome').where('action', '=', 'login')
  t.same(await logins.execute(), [{ outcome: 'denied' }])
})

t.test('OBS-33 a flood of refusals is counted, not written down one by one', async t => {
  const { url } = await startUpstream(t)
  const { call, counted, database, recorder } = await startRecording(t, 'sqlite', document(url))
  const strangers = Array.from({ length: 60 }, (_, i) =>
    call('/admin/routes', { token: token({ sub: `u${i}`, roles: ['user'] }) })
  )
  t.ok((await Promise.all(strangers)).every(({ status }) => status === 403))
  await counted(60)
  await recorder.flush()
  const rows = await accessEntries(database).orderBy('seq').execute()
  t.ok(rows.length < 60, `${rows.length} entries`)
  const beyond = rows
    .filter(({ actor }) => actor === 'gateway')
    .map(({ details }) => Number.parseInt(details ?? '', 10))
  t.equal(rows.length - beyond.length + beyond.reduce((sum, more) => sum + more, 0), 60, 'none is missing')
})

t.test(
  'OBS-21 STO-01 while the database is away all is kept here, within bounds, and written when it is back',
  async t => {
    const { url } = await startUpstream(t)
    const clock = new FakeClock(START)
    const { call, port, counted, database, recorder, lines } = await startRecording(t, 'sqlite', document(url), {
      clock
    })
    const { transaction } = database
    Object.assign(database, { transaction: () => Promise.reject(new DatabaseError('unreachable', 'gone')) })
    await many(port, 3, '/hello/1')
    await call('/orders/1')
    await until(async () => {
      await recorder.flush()
      return lines().some(({ msg }) => /cannot be written down now/.test(String(msg)))
    })
    clock.advance(MINUTE)
    await many(port, 2, '/hello/1')
    Object.assign(database, { transaction })
    await counted(6)
    t.ok(lines().some(({ msg }) => msg === 'what happens is written down again'))
    const rows = await database.db.selectFrom('api_requests').select('created_at').execute()
    t.equal(rows.length, 6)
    t.equal((await accessEntries(database).execute()).length, 1)
    const { text } = await call('/metrics')
    t.notMatch(text, /gateway_records_dropped_total\{/)
  }
)

t.test('OBS-21 what waits for too long is forgotten, and counted as such', async t => {
  const { url } = await startUpstream(t)
  const clock = new FakeClock(START)
  const { call, database, recorder } = await startRecording(t, 'sqlite', document(url), { clock })
  const { transaction } = database
  Object.assign(database, { transaction: () => Promise.reject(new DatabaseError('unreachable', 'gone')) })
  await call('/hello/1')
  await recorder.flush()
  clock.advance(61 * MINUTE)
  await until(async () => /gateway_records_dropped_total\{what="counts"\} 1\n/.test((await call('/metrics')).text))
  Object.assign(database, { transaction })
})

t.test('OBS-21 what the database will never take does not keep back what comes after it', async t => {
  const { url } = await startUpstream(t)
  const { call, database, recorder, lines } = await startRecording(t, 'sqlite', document(url))
  const { transaction } = database
  Object.assign(database, { transaction: () => Promise.reject(new DatabaseError('query', 'no such table')) })
  await call('/hello/1')
  await until(async () => {
    await recorder.flush()
    return lines().some(({ msg }) => /is forgotten/.test(String(msg)))
  })
  Object.assign(database, { transaction })
  t.match((await call('/metrics')).text, /gateway_records_dropped_total\{what="requests"\} 1\n/)
  await call('/hello/1')
  await until(async () => {
    await recorder.flush()
    const rows = await database.db.selectFrom('api_requests').select('path').execute()
    return rows.some(({ path }) => path === '/hello/1')
  })
})

onBoth(t, 'OBS-21 C-35 a key that a user has made is recorded with its user', async (t, kind) => {
  const { url } = await startUpstream(t)
  const { call, counted, database } = await startRecording(t, kind, document(url), { clock: new FakeClock(Date.now()) })
  const [user, apiKey] = [randomUUID(), randomUUID()]
  const made = makeApiKey('development')
  const now = Date.now()
  const times = { created_at: now, updated_at: now }
  const name = { username: 'alice', username_key: 'alice', email: 'a@b.c', email_key: 'a@b.c' }
  const nothing = { password_hash: null, first_name: null, last_name: null, tier: null }
  await database.db
    .insertInto('users')
    .values({ id: user, ...name, ...nothing, active: true, ...times })
    .execute()
  const { hash, prefix } = made
  const unset = { previous_hash: null, previous_until: null, expires_at: null, last_used_at: null }
  await database.db
    .insertInto('api_keys')
    .values({ id: apiKey, user_id: user, name: 'ci', hash, prefix, permissions: '[]', ...unset, ...times })
    .execute()
  t.equal((await call('/orders/1', { headers: { 'x-api-key': made.key } })).status, 200)
  await counted(1)
  t.match(await database.db.selectFrom('api_requests').selectAll().execute(), [{ user_id: user, api_key_id: apiKey }])
  t.match(await database.db.selectFrom('traffic_minutes').selectAll().execute(), [
    { user_id: user, api_key_id: apiKey }
  ])
})

t.test(
  'OBS-21 STO-01 a PostgreSQL that goes away and comes back has all that happened meanwhile',
  { skip: noPostgres },
  async t => {
    const { url } = await startUpstream(t)
    const { storage, proxy } = await ownStorageBehind(t, temporaryFolder(t))
    const { port, counted, recorder, lines } = await startRecording(t, 'postgres', document(url), { storage })
    await many(port, 2, '/hello/1')
    await counted(2)
    await proxy.set({ kind: 'refuse' })
    t.same(tally(await many(port, 3, '/hello/1')), { 200: 3 }, 'who needs no database does not notice')
    await until(async () => {
      await recorder.flush()
      return lines().some(({ msg }) => /cannot be written down now/.test(String(msg)))
    })
    await proxy.set({ kind: 'none' })
    await counted(5)
  }
)
