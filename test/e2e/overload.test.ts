import net, { type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { PRIORITIES } from '../../src/overload/priority.ts'
import type { Service } from '../../src/upstream/service.ts'
import { FakeClock } from '../support/clock.ts'
import { startGateway } from '../support/gateway.ts'
import { many, tally } from '../support/many.ts'
import { raw } from '../support/raw.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

const root = token({ sub: 'root', roles: ['admin'] })

/** A gateway with a route for each priority, whose time, memory and descriptors are the test's. */
async function startDriven(t: Test, overload: object | false = {}, more: { routes?: object[] } = {}) {
  const upstream = await startUpstream(t)
  const clock = new FakeClock()
  const used = { memory: 0, descriptors: 0 }
  const gateway = await startGateway(
    t,
    {
      defaults: { authentication: 'none' },
      overload,
      services: { s: { url: upstream.url } },
      routes: [
        ...PRIORITIES.map(priority => ({ path: `/${priority}`, service: 's', request_priority: priority })),
        { path: '/plain', service: 's' },
        ...(more.routes ?? [])
      ]
    },
    {
      clock,
      random: () => 0,
      signals: { time: () => clock.monotonic(), memory: () => used.memory, descriptors: () => used.descriptors }
    }
  )
  const { overload: state } = gateway.gateway.runtime
  /** Lets time pass in tenths of a second, in each of which everything is as late as `late` says. */
  const pass = (ms: number, late = 0): void => {
    for (let passed = 0; passed < ms; passed += 100) {
      for (let i = 0; i < 3; i++) {
        clock.advance(25)
        state.look()
      }
      clock.advance(25 + late)
      state.look()
    }
  }
  /** One after the other, so that they are not in each other's way. */
  const statuses = async (paths: readonly string[] = PRIORITIES) => {
    const found: number[] = []
    for (const path of paths) found.push((await gateway.call(`/${path}`)).status)
    return found
  }
  return { ...gateway, upstream, clock, used, pass, state, statuses }
}

for (const resource of ['memory', 'descriptors'] as const) {
  t.test(`H-127 TRC-02 what is left of ${resource} decides who is shed, the least important first`, async t => {
    const { used, pass, statuses, call, lines, state } = await startDriven(t)
    const table: [number, number[]][] = [
      [0.89, [200, 200, 200, 200]],
      [0.91, [200, 200, 200, 503]],
      [0.95, [200, 200, 503, 503]],
      [0.98, [200, 503, 503, 503]],
      [1.2, [200, 503, 503, 503]],
      [0.5, [200, 200, 200, 200]]
    ]
    for (const [share, wanted] of table) {
      used[resource] = share
      pass(500)
      t.same(await statuses(), wanted, `${share}`)
      t.same(await statuses(['plain']), [wanted[2]], `${share}: what says nothing is normal`)
      t.same(await statuses(['health', 'health/liveness']), [200, 200], 'health is never shed')
      t.equal((await call('/gateway/status', { token: root })).status, 200, 'nor is administration')
      pass(100)
    }
    pass(2000)
    t.notOk(state.active)
    const told = lines().filter(({ msg }) => /overloaded/.test(String(msg)))
    t.same(
      told.map(({ msg, reason, shed }) => [msg, reason, shed]),
      [
        ['overloaded: requests are shed, the least important first', resource, undefined],
        ['no longer overloaded', undefined, 12]
      ],
      'two lines, not one for each request'
    )
  })
}

t.test('TRC-01 a request that is shed is told so, and when to come again', async t => {
  const { used, pass, call, line, upstream } = await startDriven(t)
  used.descriptors = 0.99
  pass(500)
  const { status, headers, json } = await call('/low', { headers: { connection: 'keep-alive' } })
  t.equal(status, 503)
  t.equal(json.error.code, 'overloaded')
  t.equal(headers['retry-after'], '1')
  t.match(headers['proxy-status'], /proxy_internal_response/)
  t.equal(headers.connection, 'close', 'a connection that stays would keep its descriptor')
  t.match(await line({ status_code: 503 }), { reason: 'descriptors' })
  t.equal(upstream.seen.length, 0)
  pass(100)
  const metrics = (await call('/metrics', { token: root })).text
  t.match(metrics, 'gateway_shed_requests_total{priority="low",reason="descriptors",service=""} 1')
  t.match(metrics, 'gateway_overloaded 1')
})

t.test('H-127 TRC-02 a late event loop sheds what is over, and the second after everything is normal', async t => {
  const { pass, port, statuses, state } = await startDriven(t)
  const load = async () =>
    Promise.all(
      (['critical', 'low'] as const).map(async path =>
        tally(await many(port, path === 'critical' ? 10 : 50, `/${path}`))
      )
    )
  for (let i = 0; i < 3; i++) {
    t.same(await load(), [{ 200: 10 }, { 200: 50 }], 'one pause is no overload')
    pass(100, 9000)
    t.same(await load(), [{ 200: 10 }, { 200: 50 }])
    pass(100)
  }
  await load()
  pass(100, 9000)
  await load()
  pass(100, 9000)
  for (let i = 0; i < 3; i++) {
    const [critical, low] = await load()
    t.same(critical, { 200: 10 }, 'nothing critical is shed')
    t.ok((low?.[503] ?? 0) > 10, JSON.stringify(low))
    pass(100, 9000)
  }
  t.ok(state.active)
  pass(1000)
  t.same(await load(), [{ 200: 10 }, { 200: 50 }])
  t.notOk(state.active)
  t.same(await statuses(), [200, 200, 200, 200])
})

t.test('H-127 readiness fails while overload lasts, and no longer', async t => {
  const { used, pass, statuses } = await startDriven(t, { unready_after: '3s' })
  const ready = () => statuses(['health/readiness', 'health/liveness'])
  used.memory = 0.99
  for (let seconds = 0; seconds < 3; seconds++) {
    t.same(await ready(), [200, 200])
    pass(1000)
  }
  pass(500)
  t.same(await ready(), [503, 200])
  used.memory = 0
  pass(1500)
  t.same(await ready(), [200, 200])
})

t.test('TRC-01 so many requests are under way at once, and a share of them is kept for the important', async t => {
  const held: (() => void)[] = []
  const slow = await startUpstream(t, (_request, response) => held.push(() => response.end()))
  const { call, statuses, state } = await startDriven(
    t,
    { concurrency: 10 },
    { routes: [{ path: '/slow', target: slow.url }] }
  )
  const answers = Array.from({ length: 8 }, () => call('/slow'))
  await until(() => held.length === 8)
  t.same(await statuses(), [200, 200, 200, 503], 'the last fifth is not for what is low')
  answers.push(call('/slow'))
  await until(() => held.length === 9)
  t.same(await statuses(), [200, 503, 503, 503], 'the last place is for what is critical')
  t.equal(state.inside, 9)
  for (const answer of held) answer()
  await Promise.all(answers)
  await until(() => state.inside === 0)
  t.same(await statuses(), [200, 200, 200, 200])
})

t.test('TRC-02 the priority may be that of the caller: by id, tier or role', async t => {
  const { used, pass, call } = await startDriven(
    t,
    { roles: { admin: 'critical', user: 'normal' }, tiers: { free: 'low' }, clients: { vip: 'high' } },
    {
      routes: [
        { path: '/closed', service: 's', authentication: 'required' },
        { path: '/either', service: 's', authentication: 'optional', priority: 'low' },
        { path: '/open', service: 's', priority: 'high' },
        { path: '/exempt', service: 's', authentication: 'required', request_priority: false }
      ]
    }
  )
  const as = {
    admin: token({ sub: 'a', roles: ['user', 'admin'] }),
    user: token({ sub: 'b', roles: ['user'] }),
    free: token({ sub: 'c', roles: ['admin'], tier: 'free' }),
    vip: token({ sub: 'vip', roles: ['user'], tier: 'free' }),
    nobody: undefined
  }
  const asked = async (path: string) =>
    Object.fromEntries(
      await Promise.all(
        Object.entries(as).map(async ([name, bearer]) => [name, (await call(path, { token: bearer })).status])
      )
    )
  used.memory = 0.95
  pass(500)
  t.same(await asked('/closed'), { admin: 200, user: 503, free: 503, vip: 200, nobody: 401 })
  t.same(await asked('/either'), { admin: 200, user: 503, free: 503, vip: 200, nobody: 503 })
  t.same(await asked('/exempt'), { admin: 200, user: 200, free: 200, vip: 200, nobody: 401 })
  t.same(await asked('/open'), { admin: 200, user: 200, free: 200, vip: 200, nobody: 200 }, 'nobody is asked there')
})

t.test('TRC-01 H-127 it takes effect and goes with the configuration', async t => {
  const { used, pass, statuses, call, gateway, configure, upstream } = await startDriven(t, false)
  used.memory = 0.99
  pass(1000)
  t.same(await statuses(), [200, 200, 200, 200])
  const document = (overload: object | false) => ({
    defaults: { authentication: 'none' },
    overload,
    services: { s: { url: upstream.url } },
    routes: PRIORITIES.map(priority => ({ path: `/${priority}`, service: 's', request_priority: priority }))
  })
  configure(document({ descriptors: 0 }))
  await gateway.reload()
  pass(500)
  t.same(await statuses(), [200, 503, 503, 503])
  t.equal((await call('/health/readiness')).status, 200)
  configure(document(false))
  await gateway.reload()
  t.same(await statuses(), [200, 200, 200, 200])
})

t.test('H-127 for want of descriptors there is a 503, and neither breaker nor instance suffers for it', async t => {
  let short = false
  const { connect } = net.Socket.prototype
  const upstream = await startUpstream(t)
  // What the kernel says when there are none left.
  net.Socket.prototype.connect = function (this: Socket, ...terms: unknown[]): Socket {
    if (!short || !JSON.stringify(terms).includes(`${upstream.port}`)) return connect.apply(this, terms as never)
    process.nextTick(() => this.destroy(Object.assign(new Error('connect EMFILE'), { code: 'EMFILE' })))
    return this
  } as typeof connect
  t.teardown(() => {
    net.Socket.prototype.connect = connect
  })
  const { call, gateway, port, line } = await startGateway(t, {
    defaults: { authentication: 'none' },
    services: {
      s: {
        url: upstream.url,
        pool: { keep_alive: '1ms' },
        circuit_breaker: { failure_threshold: 1 },
        health_check: { path: '/', interval_seconds: 30, unhealthy_after: 1 }
      }
    },
    routes: [
      { path: '/ws', service: 's', websocket: true },
      { path: '/**', service: 's' }
    ]
  })
  const service = gateway.runtime.services.get('s') as Service
  await until(() => service.instances[0]?.lastCheck !== undefined)
  short = true
  const answer = await call('/x')
  t.match(answer, { status: 503, json: { error: { code: 'overloaded' } } })
  t.match(answer.headers['retry-after'], /^[123]$/)
  t.match(await line({ path: '/x' }), { reason: /EMFILE/ })
  const upgrade = await raw(
    port,
    'GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n'
  )
  t.equal(upgrade.status, 503)
  await service.checkNow()
  t.match(service.states(), { healthy: 1 })
  t.ok(gateway.runtime.breakers.all().every(({ breaker }) => breaker.state === 'closed' && breaker.failureCount === 0))
  short = false
  t.equal((await call('/x')).status, 200)
})
