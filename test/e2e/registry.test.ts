import { once } from 'node:events'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import t from 'tap'
import { noPostgres, ownStorage } from '../support/database.ts'
import { boss, deregister, open, register, replace, startNode } from '../support/services.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

t.test(
  'REG-14 a change is on every gateway within two seconds, and loses no request',
  { skip: noPostgres },
  async t => {
    const upstream = await startUpstream(t)
    const storage = await ownStorage(t, 'postgres')
    const file = {
      services: { s: { url: upstream.url } },
      routes: [{ path: '/open', service: 's', authentication: 'none' }]
    }
    const nodes = [await startNode(t, storage, 'a', file), await startNode(t, storage, 'b', file)] as const
    let running = true
    const statuses = new Map<number, number>()
    const load = nodes.map(async ({ call }) => {
      while (running) {
        const { status } = await call('/open')
        statuses.set(status, (statuses.get(status) ?? 0) + 1)
      }
    })
    const [a, b] = nodes
    for (let i = 0; i < 5; i++) {
      const { json: created } = await register(a.call, open('one', upstream.url))
      const since = Date.now()
      await until(async () => (await b.call('/api/v1/one')).status === 200)
      t.ok(Date.now() - since < 2000)
      t.equal((await deregister(b.call, created.id)).status, 204)
      t.equal((await b.call('/api/v1/one')).status, 404)
      await until(async () => (await a.call('/api/v1/one')).status === 404)
    }
    running = false
    await Promise.all(load)
    t.same([...statuses.keys()], [200])
  }
)

t.test(
  'C-16 of two that do not go together only one is told 201, whichever gateways they ask',
  { skip: noPostgres },
  async t => {
    const upstream = await startUpstream(t)
    const storage = await ownStorage(t, 'postgres')
    const nodes = [await startNode(t, storage, 'a'), await startNode(t, storage, 'b')] as const
    for (let round = 0; round < 10; round++) {
      const answers = await Promise.all(
        nodes.map(({ call }, i) => register(call, open(`${round}-${i}`, upstream.url, `/round-${round}`)))
      )
      t.same(answers.map(({ status }) => status).sort(), [201, 409])
      const lost = answers.find(({ status }) => status === 409)
      t.match(lost?.json.error.details, /service ".-." \(registered\).*of service ".-." \(registered\)/)
    }
  }
)

t.test(
  'REG-14 H-117 streams and sockets go on while services come and go, but for those of a service that has gone',
  async t => {
    const streams: ServerResponse[] = []
    const upstream = await startUpstream(t, (_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write('data: first\n\n')
      streams.push(response)
    })
    const node = await startNode(t, await ownStorage(t, 'sqlite'), 'node', {
      server: { timeouts: { drain: '50ms' } },
      services: { filed: { url: upstream.url } },
      routes: [{ path: '/stream', service: 'filed', authentication: 'none' }]
    })
    const { json: stays } = await register(node.call, open('stays', upstream.url))
    const { json: goes } = await register(node.call, open('goes', upstream.url))
    const text: Record<string, string> = {}
    const ended = new Map<string, Promise<unknown>>()
    for (const path of ['/stream', '/api/v1/stays', '/api/v1/goes']) {
      const [response] = (await once(http.get({ host: '127.0.0.1', port: node.port, path }), 'response')) as [
        IncomingMessage
      ]
      text[path] = ''
      response.on('data', chunk => {
        text[path] += chunk
      })
      ended.set(path, new Promise(resolve => response.on('close', resolve).on('error', () => {})))
    }
    t.equal((await deregister(node.call, goes.id)).status, 204)
    await ended.get('/api/v1/goes')
    t.equal((await register(node.call, open('other', upstream.url))).status, 201)
    for (const stream of streams) if (!stream.destroyed) stream.write('data: second\n\n')
    await until(() => ['/stream', '/api/v1/stays'].every(path => text[path]?.includes('second')))
    t.notMatch(text['/api/v1/goes'], 'second')
    t.equal((await replace(node.call, stays.id, { ...open('stays', upstream.url), active: false }, '*')).status, 200)
    await ended.get('/api/v1/stays')
    for (const stream of streams) if (!stream.destroyed) stream.end('data: third\n\n')
    await until(() => text['/stream']?.includes('third') === true)
  }
)

t.test('RLM-04 an endpoint’s limit means one that is registered by its name, too', async t => {
  const upstream = await startUpstream(t)
  const node = await startNode(t, await ownStorage(t, 'sqlite'), 'node', {
    rate_limits: { endpoints: { 'one.it': { requests_per_minute: 2 } } }
  })
  await register(node.call, open('one', upstream.url))
  const statuses = []
  for (let i = 0; i < 3; i++) statuses.push((await node.call('/api/v1/one')).status)
  t.same(statuses, [200, 200, 429])
})

t.test('REG-03 REG-07 HLB-14 instances are asked how they are, and what they said is remembered', async t => {
  const well = await startUpstream(t)
  const ill = await startUpstream(t, (_request, response) => response.writeHead(500).end())
  const node = await startNode(t, await ownStorage(t, 'sqlite'), 'node', {
    services: { filed: { url: well.url, health_check: { type: 'tcp' } } },
    routes: [{ path: '/filed', service: 'filed' }]
  })
  const { json: created } = await register(node.call, {
    name: 'mixed',
    instances: [{ url: `${well.url}/base` }, { url: ill.url }, { url: 'http://127.0.0.1:1' }],
    health_check_path: '/up?deep=1'
  })
  const path = `/services/${created.id}/health`
  const { json: health } = await node.call(path, { token: boss })
  t.match(health, {
    service: 'mixed',
    status: 'degraded',
    instances: [
      { healthy: true, status_code: 200, error: null, last_health_check: /Z$/, response_time_ms: Number },
      { healthy: false, status_code: 500, error: 'status 500' },
      { healthy: false, status_code: null, error: 'ECONNREFUSED' }
    ]
  })
  t.equal(well.last().url, '/base/up?deep=1')
  t.same((await node.call(path, { token: boss })).json, health, 'what is known is known')
  t.equal(well.seen.length, 1)
  await node.call(`${path}?check=true`, { token: boss })
  t.equal(well.seen.length, 2)
  const details = (await node.call('/gateway/services/mixed', { token: boss })).json
  t.match(details.instances, [{ healthy: true }, { healthy: false, status_code: 500 }, { error: 'ECONNREFUSED' }])
  const check = (name: string) => node.call(`/gateway/services/${name}/health-check`, { method: 'POST', token: boss })
  t.match((await check('filed')).json, { status: 'healthy', instances: [{ status_code: null }] })
  t.equal(well.seen.length, 2, 'a connection was all it wanted')
  t.equal((await check('nobody')).status, 404)
})
