import http from 'node:http'
import t from 'tap'
import { startGateway } from '../support/gateway.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

t.test(
  'MON-01 C-10 /health is exactly {"status":"ok"}, and so are the probes while the gateway takes requests',
  async t => {
    const { call } = await startGateway(t, {})
    const health = await call('/health')
    t.equal(health.status, 200)
    t.equal(health.text, '{"status":"ok"}')
    for (const path of ['/health/liveness', '/health/readiness', '/health/ready']) {
      const answer = await call(path)
      t.equal(answer.status, 200)
      t.strictSame(answer.json, { status: 'ok' })
    }
  }
)

t.test('MON-03 MON-04 MON-05 H-119 while it shuts down the process lives, but takes no more requests', async t => {
  let release = (): void => {}
  const upstream = await startUpstream(t, (_request, response) => {
    release = () => void response.end('late')
  })
  const { call, gateway } = await startGateway(t, {
    services: { s: { url: upstream.url } },
    routes: [{ path: '/slow', service: 's', authentication: 'none' }]
  })
  // A probe of these connections' age gets its answer; a new connection is refused, which a prober understands as well.
  const probes = ['/health/readiness', '/health/ready', '/health/liveness'].map(path => ({
    path,
    agent: new http.Agent({ keepAlive: true, maxSockets: 1 })
  }))
  t.teardown(() => {
    for (const { agent } of probes) agent.destroy()
  })
  for (const { path, agent } of probes) t.equal((await call(path, { agent })).status, 200)
  const slow = call('/slow')
  await until(() => upstream.seen.length === 1)
  const closed = gateway.close(5000)
  const answers = await Promise.all(probes.map(({ path, agent }) => call(path, { agent })))
  t.same(
    answers.map(({ status, json }) => [status, json.status]),
    [
      [503, 'unavailable'],
      [503, 'unavailable'],
      [200, 'ok']
    ]
  )
  await t.rejects(call('/health'), { code: 'ECONNREFUSED' })
  release()
  t.equal((await slow).text, 'late')
  await closed
})

t.test('MON-06 dependencies say what is down, and which configuration is in use; never an address', async t => {
  const { call, gateway } = await startGateway(t, {
    identity: { issuers: [{ issuer: 'https://idp.example.com', jwks_url: 'http://127.0.0.1:1/keys' }] }
  })
  await new Promise(resolve => setImmediate(resolve))
  const { json, text } = await call('/health/dependencies')
  t.match(json, {
    status: 'degraded',
    store: 'memory',
    dependencies: { 'keys of https://idp.example.com': { status: 'down' } },
    configuration: { status: 'ok', version: gateway.snapshot.version, error: null }
  })
  t.notOk(text.includes('127.0.0.1'))
})

t.test('MON-06 CFG-06 a refused configuration shows among the dependencies until a good one is there', async t => {
  const { call, configure, gateway } = await startGateway(t, {})
  configure('routes: 5')
  await t.rejects(gateway.reload())
  t.match((await call('/health/dependencies')).json, {
    status: 'degraded',
    configuration: { status: 'refused', error: '1 problem' }
  })
  configure('{}')
  await gateway.reload()
  t.match((await call('/health/dependencies')).json, { status: 'ok', configuration: { status: 'ok', error: null } })
})

t.test('C-10 the services behind the gateway are listed', async t => {
  const upstream = await startUpstream(t)
  const { call } = await startGateway(t, {
    services: { s: { url: upstream.url } },
    routes: [{ path: '/s', service: 's' }]
  })
  t.strictSame((await call('/health/services')).json, {
    services: [{ name: 's', status: 'unknown', instances: 1, states: { healthy: 1 } }]
  })
})

t.test('C-11 C-15 own paths can be moved and switched off', async t => {
  const upstream = await startUpstream(t)
  const { call } = await startGateway(t, {
    paths: { health: '/_/health', metrics: false },
    services: { s: { url: upstream.url } },
    routes: [{ path: '/health', service: 's', authentication: 'none' }]
  })
  t.equal((await call('/_/health')).text, '{"status":"ok"}')
  t.equal((await call('/health')).json.from, 'a')
  t.equal((await call('/metrics')).status, 404)
})
