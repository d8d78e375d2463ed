import t, { type Test } from 'tap'
import { FakeClock } from '../support/clock.ts'
import { type GatewayOptions, startGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

const boss = token({ sub: 'root', roles: ['admin'] })
const OPEN = { authentication: 'none' }

/** An instance whose health and whose traffic can be told apart. */
async function startInstance(t: Test, name: string) {
  const says = { health: 200, traffic: 200 }
  const upstream = await startUpstream(
    t,
    (request, response) =>
      response.writeHead(request.url === '/health' ? says.health : says.traffic, { 'x-from': name }).end(),
    name
  )
  const asked = () => upstream.seen.filter(({ url }) => url !== '/health').length
  return { ...upstream, name, says, asked }
}

async function start(t: Test, service: object, options: GatewayOptions = {}) {
  const [a, b] = [await startInstance(t, 'a'), await startInstance(t, 'b')]
  const instances = [a, b].map(({ name, url }) => ({ id: name, url }))
  const running = await startGateway(
    t,
    {
      defaults: OPEN,
      services: { s: { instances, ...service } },
      routes: [{ path: '/**', service: 's', websocket: true }]
    },
    options
  )
  const admin = async (path: string, method = 'GET') => (await running.call(path, { method, token: boss })).json
  const states = async () =>
    (await admin('/gateway/services/s')).data?.instances ?? (await admin('/gateway/services/s')).instances
  return { a, b, ...running, admin, states }
}

const QUICK = { interval_seconds: 0.05, healthy_after: 1, unhealthy_after: 1 }

t.test('HLB-01 HLB-02 RES-18 C-21 H-101 out and back by themselves; with nobody left 503 with Retry-After', async t => {
  const { a, b, call, line, states } = await start(t, { health_check: QUICK })
  a.says.health = 503
  await line({ instance: 'a', state: 'unhealthy', reason: 'status 503' })
  const before = a.asked()
  for (let i = 0; i < 6; i++) t.equal((await call('/x')).headers['x-from'], 'b', 'though its traffic is fine')
  t.equal(a.asked(), before)
  b.says.health = 500
  await line({ instance: 'b', state: 'unhealthy' })
  const refused = await call('/x')
  t.equal(refused.status, 503)
  t.equal(refused.headers['retry-after'], '1')
  await line({ path: '/x', status_code: 503, reason: 'no_target' })
  const socket = await call('/x', {
    headers: { connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': 'x' }
  })
  t.equal(socket.status, 503)
  t.match(await states(), [
    { id: 'a', status: 'unhealthy', reason: 'status 503', healthy: false, status_code: 503, error: 'status 503' },
    { id: 'b', status: 'unhealthy', since: /Z$/, last_health_check: /Z$/, response_time_ms: Number }
  ])
  a.says.health = 200
  await line({ instance: 'a', state: 'healthy' })
  t.equal((await call('/x')).headers['x-from'], 'a')
})

t.test('HLB-11 H-101 C-21 with a panic threshold all are asked when none is well', async t => {
  const { a, b, call, line } = await start(t, { health_check: QUICK, load_balancer: { panic_threshold: 50 } })
  a.says.health = 503
  b.says.health = 503
  await line({ instance: 'a', state: 'unhealthy' })
  await line({ instance: 'b', state: 'unhealthy' })
  t.same([(await call('/')).headers['x-from'], (await call('/')).headers['x-from']].sort(), ['a', 'b'])
})

t.test('HLB-03 H-101 traffic fails while health checks are good: ejected for a while, and back', async t => {
  const clock = new FakeClock()
  const { a, call, line, states, admin } = await start(
    t,
    { health_check: QUICK, outlier_detection: { consecutive_errors: 3, ejection_time: '5s' } },
    { clock }
  )
  a.says.traffic = 500
  for (let i = 0; i < 6; i++) await call('/x')
  await line({ instance: 'a', state: 'ejected', reason: '3 failures in a row' })
  const before = a.asked()
  for (let i = 0; i < 4; i++) t.equal((await call('/x')).status, 200)
  t.equal(a.asked(), before)
  t.match(await states(), [{ id: 'a', status: 'ejected', ejected_until: /Z$/, healthy: false }, { status: 'healthy' }])
  t.match(await admin('/health/services'), {
    services: [{ name: 's', status: 'degraded', instances: 2, states: { healthy: 1, ejected: 1 } }]
  })
  clock.advance(100)
  let metrics = ''
  await until(async () => {
    metrics = (await call('/metrics', { token: boss })).text
    return /gateway_health_checks_total\{service="s",result="healthy"\} \d+/.test(metrics)
  })
  t.match(metrics, /gateway_service_instances\{service="s",state="ejected"\} 1/)
  t.match(metrics, /gateway_instance_ejections_total\{service="s"\} 1/)
  a.says.traffic = 200
  clock.advance(5000)
  await until(async () => (await call('/x')).headers['x-from'] === 'a')
  await line({ instance: 'a', state: 'healthy', reason: 'its time is over' })
})

t.test('HLB-03 whoever cannot be reached is said so, once, and once when it answers again', async t => {
  const { a, call, lines, line, states } = await start(t, {})
  await a.crash()
  for (let i = 0; i < 4; i++) t.equal((await call('/x')).status, 200)
  t.match(await states(), [{ status: 'unreachable', healthy: false, reason: 'connect' }, { healthy: null }])
  await a.revive()
  await until(async () => (await call('/x')).headers['x-from'] === 'a')
  await line({ instance: 'a', state: 'healthy' })
  t.match(
    lines().filter(({ instance, state }) => instance === 'a' && state !== undefined),
    [
      { state: 'unreachable', reason: 'connect' },
      { state: 'healthy', reason: 'it answers again' }
    ]
  )
})

t.test('HLB-14 REG-07 asked to, it asks at once; what was never to be checked decides nothing', async t => {
  const { a, call, admin } = await start(t, {})
  a.says.health = 500
  t.match(await admin('/gateway/services/s/health-check', 'POST'), {
    service: 's',
    status: 'degraded',
    instances: [
      { id: 'a', healthy: false, status: 'healthy' },
      { id: 'b', healthy: true }
    ]
  })
  t.same([(await call('/')).headers['x-from'], (await call('/')).headers['x-from']].sort(), ['a', 'b'])
})

t.test('HLB-01 nothing is checked before a configuration is in charge, nor after', async t => {
  const { a, gateway, configure } = await start(t, {})
  t.equal(a.seen.length, 0)
  const service = { url: a.url, health_check: QUICK }
  configure({ defaults: OPEN, services: { s: service, t: service }, routes: [{ path: '/x', service: 's', limits: 1 }] })
  await t.rejects(gateway.reload())
  t.equal(a.seen.length, 0, 'a configuration that is refused')
  configure({ defaults: OPEN, services: { s: service }, routes: [{ path: '/x', service: 's' }] })
  await gateway.reload()
  await until(() => a.seen.length > 2)
  configure({ defaults: OPEN, services: { s: { url: a.url } }, routes: [{ path: '/x', service: 's' }] })
  await gateway.reload()
  const checked = a.seen.length
  // The one that was under way may have reached it already.
  await new Promise(resolve => setTimeout(resolve, 200))
  t.ok(a.seen.length <= checked + 1)
})
