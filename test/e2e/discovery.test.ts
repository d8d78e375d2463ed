import http from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { explainRequest } from '../../src/commands/explain.ts'
import { checkConfiguration } from '../../src/gateway.ts'
import { hasty } from '../support/discovery.ts'
import { startDnsServer } from '../support/dns-server.ts'
import { startGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

/** Answers with whatever list it holds; undefined for none. */
async function startLists(t: Test) {
  const lists = new Map<string, string[] | undefined>()
  const asked: string[] = []
  const server = http.createServer((request, response) => {
    asked.push(request.url as string)
    const list = lists.get(request.url as string)
    response.writeHead(list === undefined ? 503 : 200).end(JSON.stringify(list ?? null))
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return { lists, asked, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
}

const route = { path: '/orders/**', service: 'orders', authentication: 'none' }

t.test('REG-14 REG-17 instances come and go without a new configuration', async t => {
  const [a, b, lists] = [
    await startUpstream(t, undefined, 'a'),
    await startUpstream(t, undefined, 'b'),
    await startLists(t)
  ]
  const path = '/services/orders/instances'
  lists.lists.set(path, [a.url])
  const document = {
    service_discovery_url: lists.url,
    services: { orders: { discovery: { http: { interval: '20ms' } } } },
    routes: [route]
  }
  const { gateway, call, lines } = await startGateway(t, document)
  const { version } = gateway.status()
  t.equal((await call('/orders/1')).headers['x-from'], 'a', 'the first list is there when the port opens')
  lists.lists.set(path, [b.url])
  await until(async () => (await call('/orders/1')).headers['x-from'] === 'b')
  t.equal(gateway.status().version, version)
  t.equal(lines().filter(line => String(line.msg).includes('→')).length, 0, 'no generation was built')

  lists.lists.set(path, undefined)
  await until(async () => (await call('/health/dependencies')).json.dependencies['discovery:orders'].status === 'down')
  const { status, dependencies } = (await call('/health/dependencies')).json
  t.match(
    { status, ...dependencies['discovery:orders'] },
    { status: 'down', error: 'HTTP_503', instances: 1, stale: true }
  )
  t.equal((await call('/orders/1')).headers['x-from'], 'b', 'H-124')
  const metrics = (await call('/metrics')).text
  t.match(metrics, 'gateway_discovery_instances{service="orders"} 1')
  t.match(metrics, 'gateway_discovery_stale{service="orders"} 1')
  t.match(metrics, 'gateway_discovery_updates_total{service="orders"} 2')
  t.match(metrics, /gateway_discovery_errors_total\{service="orders"\} [1-9]/)
  const { json: details } = await call('/gateway/services/orders', { token: token({ roles: ['admin'] }) })
  t.match(details, {
    instances: [{ url: b.url }],
    discovery: { kind: 'http', instances: 1, stale: true, error: 'HTTP_503' }
  })
  t.match((await call('/health/services')).json, { services: [{ name: 'orders', instances: 1 }] })
})

t.test('REG-17 a service that names no address is looked for where all are; those that do are not', async t => {
  const [a, lists] = [await startUpstream(t), await startLists(t)]
  lists.lists.set('/services/orders/instances', [a.url])
  const document = {
    services: { orders: {}, other: { url: a.url } },
    routes: [route, { ...route, path: '/other/**', service: 'other' }]
  }
  const { call } = await startGateway(t, document, { env: { SERVICE_DISCOVERY_URL: lists.url } })
  t.equal((await call('/orders/1')).status, 200)
  t.strictSame([...new Set(lists.asked)], ['/services/orders/instances'])
})

t.test('REG-24 H-124 a start does not wait for ever for who does not answer, and serves 503 until he does', async t => {
  const [a, lists] = [await startUpstream(t), await startLists(t)]
  const document = {
    service_discovery_url: lists.url,
    services: { orders: { discovery: { http: { interval: '20ms' } } } },
    routes: [route]
  }
  const { call } = await startGateway(t, document)
  const answer = await call('/orders/1')
  t.strictSame([answer.status, answer.headers['retry-after']], [503, '1'])
  lists.lists.set('/services/orders/instances', [a.url])
  await until(async () => (await call('/orders/1')).status === 200)
})

t.test('REG-14 a new configuration goes on with the instances that were found', async t => {
  const [a, b, lists] = [
    await startUpstream(t, undefined, 'a'),
    await startUpstream(t, undefined, 'b'),
    await startLists(t)
  ]
  lists.lists.set('/services/orders/instances', [a.url])
  const document = (orders: object) => ({ service_discovery_url: lists.url, services: { orders }, routes: [route] })
  const { gateway, call, configure } = await startGateway(t, document({}))
  const asked = lists.asked.length
  const pool = gateway.runtime.services.get('orders')?.instances[0]?.pool
  await call('/orders/1')

  configure({ ...document({}), routes: [route, { ...route, path: '/more' }] })
  await gateway.reload()
  t.equal((await call('/orders/1')).headers['x-from'], 'a')
  t.equal(lists.asked.length, asked, 'the same watch')
  t.equal(gateway.runtime.services.get('orders')?.instances[0]?.pool, pool, 'the same connections')

  configure(document({ pool: { connections: 7 } }))
  await gateway.reload()
  t.equal((await call('/orders/1')).headers['x-from'], 'a', 'another service, and the same watch')
  t.equal(lists.asked.length, asked)

  configure(document({ discovery: { http: { url: `${lists.url}/elsewhere` } } }))
  await gateway.reload()
  t.equal((await call('/orders/1')).headers['x-from'], 'a', 'until somebody else has answered')
  await until(
    async () => (await call('/health/dependencies')).json.dependencies['discovery:orders'].error === 'HTTP_503'
  )

  configure(document({ url: b.url }))
  await gateway.reload()
  t.equal((await call('/orders/1')).headers['x-from'], 'b')
  t.notOk('discovery:orders' in (await call('/health/dependencies')).json.dependencies)

  const before = lists.asked.length
  configure({ service_discovery_url: lists.url, services: { orders: {} }, routes: [] })
  await gateway.reload()
  t.equal(lists.asked.length, before, 'nobody looks for what no route leads to')
})

t.test('nothing is asked for by a configuration that is checked only, generation and all', async t => {
  const lists = await startLists(t)
  const document = { service_discovery_url: lists.url, services: { orders: {} }, routes: [route] }
  const { snapshot } = await checkConfiguration({ files: [], env: {}, overrides: [], document })
  t.match(snapshot.services.get('orders'), { discovery: { source: { kind: 'http' } } })
  t.strictSame(lists.asked, [])
})

t.test('explain says who knows the instances, and asks nobody', async t => {
  const services = {
    found: { discovery: { etcd: { urls: ['http://etcd-1:2379', 'http://etcd-2:2379'] } } },
    registered: { instances: [] }
  }
  const routes = Object.keys(services).map(service => ({ path: `/${service}`, service, authentication: 'none' }))
  const loaded = await checkConfiguration({ files: [], env: {}, overrides: [], document: { services, routes } })
  const instancesAt = async (target: string) =>
    (await explainRequest(loaded, { method: 'GET', target, headers: [], from: '127.0.0.1' })).forward?.instances
  t.strictSame(await instancesAt('/found'), ['what etcd http://etcd-1:2379 http://etcd-2:2379 says'])
  t.strictSame(await instancesAt('/registered'), ['what registers itself'])
})

t.test('H-103 the name stays in Host, whatever the address, and WebSockets go there as well', async t => {
  const dns = await startDnsServer(t)
  dns.zone.set('orders.test', { A: ['127.0.0.1'] })
  const service = await startUpstream(t)
  const upgraded = new Promise<http.IncomingMessage>(resolve => {
    const server = http.createServer()
    server.on('upgrade', (request, socket) => {
      resolve(request)
      socket.destroy()
    })
    server.listen(0, '127.0.0.1', () => {
      dns.zone.set('_ws._tcp.test', {
        SRV: [{ priority: 1, weight: 1, port: (server.address() as AddressInfo).port, name: 'orders.test' }]
      })
    })
    t.teardown(() => server.close())
  })
  await until(() => dns.zone.has('_ws._tcp.test'))
  const servers = dns.address
  const { call } = await startGateway(t, {
    services: {
      orders: { discovery: { dns: { url: `http://orders.test:${service.port}`, servers } } },
      chat: { discovery: { dns: { url: 'http://_ws._tcp.test', servers } } }
    },
    routes: [route, { path: '/ws', service: 'chat', authentication: 'none', websocket: true }]
  })
  t.equal((await call('/orders/1')).json.headers.host, `orders.test:${service.port}`)
  const headers = {
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': 'c2FsbHlwb3J0IGlzIG9wZQ=='
  }
  await call('/ws', { headers })
  t.match((await upgraded).headers.host, /^orders\.test:\d+$/)
})

t.test('H-103 what is under way at an address that the name has left ends in peace', async t => {
  const dns = await startDnsServer(t)
  const from: string[] = []
  let answer = (): void => {}
  const server = http.createServer((request, response) => {
    from.push(request.socket.localAddress as string)
    if (request.url === '/orders/slow') answer = () => response.end('late')
    else response.end('ok')
  })
  await new Promise<void>(resolve => server.listen(0, '0.0.0.0', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  dns.zone.set('orders.test', { A: ['127.0.0.2'], ttl: 0 })
  const source = { dns: { url: `http://orders.test:${port}`, servers: dns.address } }
  const document = { services: { orders: { discovery: source } }, routes: [route] }
  const { call } = await startGateway(t, document, { pause: hasty })
  const slow = call('/orders/slow')
  await until(() => from.length === 1)
  dns.zone.set('orders.test', { A: ['127.0.0.3'], ttl: 0 })
  await until(async () => {
    await call('/orders/1')
    return from.at(-1) === '127.0.0.3'
  })
  answer()
  t.match(await slow, { status: 200, text: 'late' })
  t.equal(from[0], '127.0.0.2')
})
