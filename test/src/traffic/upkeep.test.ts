import { randomUUID } from 'node:crypto'
import { pino } from 'pino'
import t from 'tap'
import { writeAudit } from '../../../src/database/audit.ts'
import { type Database, openDatabase } from '../../../src/database/database.ts'
import { changeAccess } from '../../../src/database/roles.ts'
import type { TrafficMinutesTable } from '../../../src/database/tables.ts'
import { systemClock } from '../../../src/runtime/clock.ts'
import { upkeep } from '../../../src/traffic/upkeep.ts'
import { noPostgres, onBoth, openTestDatabase, ownStorage } from '../../support/database.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR
const START = Date.UTC(2026, 0, 1)
const keep = { requests: 7 * DAY, minutes: 2 * DAY, hours: 400 * DAY, audit: 400 * DAY }

const minute = (at: number, more: Partial<TrafficMinutesTable> = {}): TrafficMinutesTable => ({
  at,
  node: 'a',
  service: 'orders',
  endpoint: '/orders/**',
  user_id: 'alice',
  api_key_id: '',
  status: 200,
  requests: 3,
  bytes_in: 10,
  bytes_out: 100,
  duration_ms: 30,
  latencies: '{"5":2,"70":1}',
  ...more
})

const writeMinutes = ({ db }: Database, rows: TrafficMinutesTable[]) =>
  db.insertInto('traffic_minutes').values(rows).execute()
const hoursIn = async ({ db }: Database) =>
  (await db.selectFrom('traffic_hours').selectAll().orderBy('at').orderBy('user_id').orderBy('status').execute()).map(
    ({ latencies, ...row }) => ({ ...row, latencies: JSON.parse(latencies) })
  )

onBoth(t, 'OBS-22 an hour is the sum of its minutes on all gateways, distributions too', async (t, kind) => {
  const database = await openTestDatabase(t, kind)
  await writeMinutes(database, [
    minute(START),
    minute(START + MINUTE, { latencies: '{"5":1,"399":2}' }),
    minute(START + 59 * MINUTE, { node: 'b', latencies: '{"70":3}' }),
    minute(START + MINUTE, { status: 500, latencies: '{}' }),
    minute(START + MINUTE, { user_id: '' }),
    minute(START + HOUR)
  ])
  await upkeep(database, keep, START + 3 * HOUR - 1)
  t.same(await hoursIn(database), [], 'there may be more to come')
  await upkeep(database, keep, START + 3 * HOUR)
  const sums = { service: 'orders', endpoint: '/orders/**', api_key_id: '', requests: 3, bytes_out: 100 }
  const hours = await hoursIn(database)
  t.match(hours, [
    { ...sums, at: START, user_id: '', status: 200 },
    {
      ...sums,
      at: START,
      user_id: 'alice',
      status: 200,
      requests: 9,
      bytes_in: 30,
      bytes_out: 300,
      duration_ms: 90,
      latencies: { 5: 3, 70: 4, 399: 2 }
    },
    { ...sums, at: START, user_id: 'alice', status: 500, latencies: {} }
  ])
  t.equal(hours.length, 3)
  await upkeep(database, keep, START + 3 * HOUR)
  t.same(await hoursIn(database), hours, 'once is enough')
  await upkeep(database, keep, START + DAY)
  t.equal((await hoursIn(database)).length, 4, 'hours without anything are no obstacle')
})

onBoth(t, 'OBS-21 OBS-33 what is older than it is to be kept is let go of, and nothing else', async (t, kind) => {
  const database = await openTestDatabase(t, kind)
  const { db } = database
  const now = Date.now()
  const today = now - (now % HOUR)
  await writeMinutes(
    database,
    Array.from({ length: 25 }, (_, i) => minute(today - 3 * DAY + i * MINUTE))
  )
  await writeMinutes(database, [minute(today - HOUR)])
  const { latencies, node: _, ...hour } = minute(today - 401 * DAY)
  await db
    .insertInto('traffic_hours')
    .values({ ...hour, latencies })
    .execute()
  const request = (created_at: number) => ({
    id: randomUUID(),
    user_id: null,
    api_key_id: null,
    endpoint_id: null,
    client_ip: '::1',
    method: 'GET',
    path: '/',
    status_code: 200,
    response_time_ms: 1.5,
    request_size_bytes: 0,
    response_size_bytes: 0,
    created_at
  })
  await db
    .insertInto('api_requests')
    .values([...Array.from({ length: 1200 }, (_, i) => request(now - 8 * DAY + i)), request(now - 7 * DAY + MINUTE)])
    .execute()
  const entry = { actor: 'a', action: 'b', target: 'c', outcome: 'changed' } as const
  await writeAudit(db, [
    { ...entry, at: now - 401 * DAY },
    { ...entry, at: now - 399 * DAY }
  ])
  const quota = { subject: 'user:alice', limit: 5, window_ms: DAY, used: 3 }
  await db
    .insertInto('quotas')
    .values([
      { ...quota, counter: 'old', ends_at: now - 1 },
      { ...quota, counter: 'new', ends_at: now + 1 }
    ])
    .execute()
  await upkeep(database, keep, now)
  const left = async (table: 'traffic_minutes' | 'traffic_hours' | 'api_requests' | 'audit_log' | 'quotas') =>
    (await db.selectFrom(table).selectAll().execute()).length
  t.equal(await left('traffic_minutes'), 1)
  t.match(await hoursIn(database), [{ at: today - 3 * DAY, requests: 75 }], 'the minutes were added up before')
  t.equal(await left('api_requests'), 1)
  t.equal(await left('audit_log'), 1)
  t.match(await db.selectFrom('quotas').selectAll().execute(), [{ counter: 'new' }])
})

t.test(
  'OBS-22 of several gateways one tidies up at a time, and each hour is counted once',
  { skip: noPostgres },
  async t => {
    const storage = await ownStorage(t, 'postgres')
    const options = { clock: systemClock, log: pino({ level: 'silent' }) }
    const nodes = await Promise.all(Array.from({ length: 4 }, () => openDatabase(storage, options)))
    t.teardown(() => Promise.all(nodes.map(node => node.close())))
    await writeMinutes(
      nodes[0] as Database,
      Array.from({ length: 50 }, (_, i) => minute(START + i * 30 * MINUTE))
    )
    await Promise.all(nodes.map(node => upkeep(node, keep, START + 30 * HOUR)))
    // Whoever found another at it has left it to him; by the next time everything is done.
    await upkeep(nodes[1] as Database, keep, START + 30 * HOUR)
    const hours = await hoursIn(nodes[0] as Database)
    t.equal(hours.length, 25)
    t.ok(hours.every(({ requests }) => requests === 6))
  }
)

t.test('OBS-22 AZN-02 who changes what users may do keeps nobody from tidying up', { skip: noPostgres }, async t => {
  const database = await openTestDatabase(t, 'postgres')
  await writeMinutes(database, [minute(START)])
  await changeAccess(database, () => upkeep(database, keep, START + 3 * HOUR))
  t.match(await hoursIn(database), [{ at: START }])
})
