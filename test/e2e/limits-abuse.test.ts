import { join } from 'node:path'
import t, { type Test } from 'tap'
import { FakeClock } from '../support/clock.ts'
import { type GatewayOptions, startGateway } from '../support/gateway.ts'
import { many, tally } from '../support/many.ts'
import { connectStore, noRedis, ownTerms } from '../support/redis-store.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

const MINUTE = 60_000
const root = token({ sub: 'root', roles: ['admin'], exp: 4_000_000_000 })

/** A gateway whose time stands still, behind a proxy that may say where requests come from. */
async function startLimited(t: Test, rate_limits: object, options: GatewayOptions = {}, route: object = {}) {
  const upstream = await startUpstream(t)
  const clock = new FakeClock()
  const gateway = await startGateway(
    t,
    {
      server: { trusted_proxies: ['loopback'] },
      rate_limits,
      services: { s: { url: upstream.url } },
      routes: [{ path: '/api/**', service: 's', authentication: 'optional', ...route }]
    },
    { clock, ...options }
  )
  /** How many of so many requests from an address get which status. */
  const ask = async (from: string, count: number, bearer?: string) =>
    tally(await many(gateway.port, count, '/api/x', { headers: { 'x-forwarded-for': from }, token: bearer }))
  return { ...gateway, clock, upstream, ask }
}

t.test('RLM-20 limits are halved with every so many refusals, and doubled again in time', async t => {
  const { clock, ask, call } = await startLimited(t, { guest: 16, abuse: { refusals: 4, window: '10m', decay: '30m' } })
  t.same(await ask('192.0.2.1', 20), { 200: 16, 429: 4 })
  const table = [
    [{ 200: 8, 429: 12 }, 2 * MINUTE],
    [{ 200: 2, 429: 18 }, 2 * MINUTE],
    [{ 200: 2, 429: 2 }, 31 * MINUTE],
    [{ 200: 4 }, 30 * MINUTE],
    [{ 200: 8 }, 30 * MINUTE],
    [{ 200: 16 }, 0]
  ] as const
  for (const [wanted, after] of table) {
    clock.advance(2 * MINUTE)
    const count = Object.values(wanted).reduce((sum, n) => sum + n, 0)
    t.same(await ask('192.0.2.1', count), wanted)
    clock.advance(Math.max(0, after - 2 * MINUTE))
  }
  t.same(await ask('192.0.2.2', 16), { 200: 16 }, 'nobody else is touched')
  t.match((await call('/metrics', { token: root })).text, 'gateway_narrowed_callers 0')
})

t.test('RLM-20 a caller’s limit is narrowed wherever he comes from, and one that all share is not', async t => {
  const { clock, ask, call } = await startLimited(t, {
    roles: { user: 8 },
    services: { s: { requests_per_minute: 20 } },
    abuse: { refusals: 2 }
  })
  const alice = token({ sub: 'alice', roles: ['user'], exp: 4_000_000_000 })
  const bob = token({ sub: 'bob', roles: ['user'], exp: 4_000_000_000 })
  t.same(await ask('192.0.2.1', 10, alice), { 200: 8, 429: 2 })
  clock.advance(2 * MINUTE)
  const { headers } = await call('/api/x', { token: alice })
  t.equal(headers['ratelimit-limit'], '4', 'and is told so')
  t.same(await ask('192.0.2.7', 3, alice), { 200: 3 })
  t.same(await ask('192.0.2.1', 8, bob), { 200: 8 })
  clock.advance(2 * MINUTE)
  t.same(await ask('192.0.2.1', 4, alice), { 200: 4 })
  t.equal((await call('/admin/rate-limits/user:alice', { method: 'DELETE', token: root })).status, 204)
  t.same(await ask('192.0.2.1', 8, alice), { 200: 8 }, 'an administrator may forgive')
})

t.test(
  'SEC-08 RLM-20 who goes on and on is blocked by address for a while, which is noted and can be lifted',
  async t => {
    const { clock, ask, call, lines } = await startLimited(t, {
      guest: 2,
      abuse: { refusals: 5, block: '10m', never_block: ['198.51.100.0/24'] }
    })
    t.same(await ask('192.0.2.1', 22), { 200: 2, 429: 20 })
    t.same(await ask('192.0.2.1', 3), { 403: 3 })
    t.same(await ask('192.0.2.2', 2), { 200: 2 })
    const refused = await call('/api/x', { headers: { 'x-forwarded-for': '192.0.2.1' } })
    t.equal(refused.json.error.code, 'ip_blocked')
    t.equal(refused.headers['retry-after'], '600')
    t.same(await ask('198.51.100.7', 40), { 200: 2, 429: 38 }, 'who is on the list is never blocked')
    t.same(await ask('127.0.0.1', 40), { 200: 2, 429: 38 }, 'nor is a trusted proxy')
    t.same(await ask('2001:db8:1:2::1', 22), { 200: 2, 429: 20 })
    t.same(await ask('2001:db8:1:2::ffff', 1), { 403: 1 }, 'an IPv6 address with its network (H-83)')
    t.same(await ask('2001:db8:1:3::1', 1), { 200: 1 })

    const { json } = await call('/admin/ip-blocks', { token: root })
    t.match(json.blocks, [
      { address: '192.0.2.1', until: new Date(clock.now() + 10 * MINUTE).toISOString(), reason: /ip:192.0.2.1/ },
      { address: '2001:db8:1:2::/64' }
    ])
    t.equal((await call('/admin/ip-blocks')).status, 401)
    const metrics = (await call('/metrics', { token: root })).text
    t.match(metrics, 'gateway_ip_blocks 2')
    t.match(metrics, 'gateway_ip_block_refusals_total 5')
    t.match(
      lines().filter(({ audit }) => audit !== undefined),
      [{ audit: { actor: 'gateway', action: 'address.block', target: 'ip:192.0.2.1' } }, {}]
    )
    t.equal((await call('/admin/ip-blocks/192.0.2.1', { method: 'DELETE', token: root })).status, 204)
    t.equal((await call('/admin/ip-blocks/192.0.2.1', { method: 'DELETE', token: root })).status, 404)
    t.equal((await call('/admin/ip-blocks/2001:db8:1:2::', { method: 'DELETE', token: root })).status, 204)
    t.match(
      lines().filter(({ audit }) => audit !== undefined),
      [{}, {}, { audit: { action: 'address.unblock', target: 'ip:192.0.2.1' } }, {}]
    )
    clock.advance(MINUTE)
    t.same(await ask('192.0.2.1', 2), { 200: 2 })
  }
)

t.test('SEC-08 H-128 a block ends by itself, whatever somebody sets the clock to', async t => {
  const { clock, ask, call } = await startLimited(t, { guest: 1, abuse: { refusals: 1, block: '10m' } })
  t.same(await ask('192.0.2.1', 6), { 200: 1, 403: 1, 429: 4 })
  clock.set(clock.now() + 60 * MINUTE)
  t.same(await ask('192.0.2.1', 1), { 403: 1 })
  clock.set(clock.now() - 120 * MINUTE)
  clock.advance(9.9 * MINUTE)
  t.same(await ask('192.0.2.1', 1), { 403: 1 })
  clock.advance(0.2 * MINUTE)
  t.same(await ask('192.0.2.1', 1), { 200: 1 })
  t.same((await call('/admin/ip-blocks', { token: root })).json, { blocks: [] })
})

t.test(
  'SEC-08 C-29 a block is everybody’s, and so is its end; without the store it is one’s own',
  { skip: noRedis },
  async t => {
    const terms = ownTerms()
    t.testdir({ a: {}, b: {} })
    const [a, b] = await Promise.all(
      ['a', 'b'].map(async name => {
        const store = await connectStore(t, { terms })
        const limits = { guest: 1, prefix: terms.prefix, abuse: { refusals: 1, block: '10m' } }
        return { store, ...(await startLimited(t, limits, { store, folder: join(t.testdirName, name) })) }
      })
    )
    if (a === undefined || b === undefined) return t.fail('two gateways')
    await a.ask('192.0.2.1', 6)
    await b.ask('192.0.2.2', 6)
    for (const gateway of [a, b])
      for (const from of ['192.0.2.1', '192.0.2.2'])
        await until(async () => (await gateway.ask(from, 1))[403] === 1, `${from} is blocked`)
    t.equal((await b.call('/admin/ip-blocks/192.0.2.1', { method: 'DELETE', token: root })).status, 204)
    await until(async () => (await a.ask('192.0.2.1', 1))[403] === undefined, 'lifted here, too')
    t.same(await b.ask('192.0.2.2', 1), { 403: 1 })
    await a.store.close()
    t.same(await a.ask('192.0.2.2', 1), { 403: 1 }, 'what is known stays known')
  }
)

t.test('RLM-11 requests that a limit refuses may wait until it does not', async t => {
  const { clock, call, gateway, upstream, ask } = await startLimited(
    t,
    {},
    {},
    { rate_limit: { requests_per_second: 50, burst: 1, on_limit: 'queue', max_queue: 2, max_wait: '100ms' } }
  )
  const answers = [call('/api/a'), call('/api/b'), call('/api/c')]
  const { metrics } = gateway.runtime
  await until(() => metrics.limitsWaiting === 2)
  const refused = await call('/api/d')
  t.equal(refused.status, 429, 'no more than two wait')
  t.match((await call('/metrics', { token: root })).text, 'gateway_rate_limit_queue_length 2')
  for (const count of [2, 3]) {
    clock.advance(20)
    await until(() => upstream.seen.length === count)
  }
  t.same(
    (await Promise.all(answers)).map(({ status }) => status),
    [200, 200, 200]
  )
  t.equal(metrics.limitWaits.count, 2)
  t.same(await ask('192.0.2.9', 1), { 200: 1 }, 'and others are not kept by them')
})

t.test('RLM-11 H-98 a client that goes away waits no more', async t => {
  const { gateway, port } = await startLimited(t, {
    guest: { requests_per_second: 1, burst: 1 },
    on_limit: 'queue',
    max_wait: '5s'
  })
  const { metrics } = gateway.runtime
  const leaving = new AbortController()
  const ask = () => fetch(`http://127.0.0.1:${port}/api/x`, { signal: leaving.signal })
  t.equal((await ask()).status, 200)
  const waiting = ask()
  await until(() => metrics.limitsWaiting === 1)
  leaving.abort()
  await t.rejects(waiting)
  await until(() => metrics.limitsWaiting === 0)
})

t.test('RLM-18 who has used most of a limit is warned, whether or not he has to wait', async t => {
  const { call } = await startLimited(t, { guest: 10 })
  const warnings: unknown[] = []
  for (let i = 0; i < 10; i++) warnings.push((await call('/api/x')).headers['x-ratelimit-warning'])
  t.same(warnings, [...new Array(7).fill(undefined), '80% used', '90% used', '100% used'])
})

t.test('CFG-08 an address that is none is an error, with its place', async t => {
  await t.rejects(startLimited(t, { abuse: { never_block: ['10.0.0.0/99'] } }), /never_block/)
})
