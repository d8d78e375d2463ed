import t from 'tap'
import type { ConfigError } from '../../../src/config/problem.ts'
import { checkConfiguration } from '../../../src/gateway.ts'

/** The configuration of a service called `orders`. */
async function compiled(service: object, top: object = {}) {
  const document = { services: { orders: service }, routes: [{ path: '/**', service: 'orders' }], ...top }
  const { snapshot } = await checkConfiguration({ files: [], env: {}, overrides: [], document })
  return snapshot.services.get('orders')
}

const problemsOf = (service: object, top: object = {}): Promise<[string, string][]> =>
  compiled(service, top).then(
    () => [],
    (error: ConfigError) => error.problems.map(({ key, message }) => [key, message])
  )

t.test('REG-17 REG-18 REG-19 REG-21 what a service says of who knows its instances', async t => {
  const dns = { url: 'http://orders.internal:8080' }
  t.match(
    await compiled({ discovery: { dns: { ...dns, servers: '10.0.0.53' }, empty_after: '1m', scheme: 'https' } }),
    {
      instances: [],
      discovery: { source: { kind: 'dns', ...dns, servers: ['10.0.0.53'] }, scheme: 'https', emptyAfterMs: 60_000 }
    }
  )
  t.match(await compiled({ discovery: { http: { url: 'http://sd/{service}', interval: 5 } } }), {
    discovery: {
      source: { kind: 'http', url: 'http://sd/orders', intervalMs: 5000 },
      scheme: 'http',
      emptyAfterMs: 300_000
    }
  })
  t.match(await compiled({ discovery: { consul: { tag: 'v2' } } }, { consul_url: 'http://consul:8500' }), {
    discovery: { source: { kind: 'consul', url: 'http://consul:8500', service: 'orders', tag: 'v2' } }
  })
  t.match(await compiled({ discovery: { etcd: {} } }), {
    discovery: { source: { kind: 'etcd', urls: ['http://127.0.0.1:2379'], prefix: '/services/orders/' } }
  })
  t.match(await compiled({ discovery: { kubernetes: { port: 'http' } } }), {
    discovery: { source: { kind: 'kubernetes', selector: 'kubernetes.io/service-name=orders', port: 'http' } }
  })
  t.strictSame((await compiled({ discovery: { dns, allow: ['public'] } }))?.networks, ['public'])
})

t.test('REG-17 REG-18 a service without any address is looked for where all are', async t => {
  const urls = { service_discovery_url: 'http://sd:8080/', consul_url: 'http://consul:8500' }
  t.match(await compiled({}, urls), {
    discovery: { source: { kind: 'http', url: 'http://sd:8080/services/orders/instances' } }
  })
  t.match(await compiled({}, { consul_url: urls.consul_url }), { discovery: { source: { kind: 'consul' } } })
  t.equal((await compiled({ url: 'http://a' }, urls))?.discovery, undefined)
})

t.test('CFG-07 what is wrong is said where it stands', async t => {
  const dns = { url: 'http://orders' }
  t.strictSame(await problemsOf({}), [['services.orders', 'needs "url", "instances" or "discovery"']])
  t.strictSame(await problemsOf({ discovery: {} }), [
    ['services.orders.discovery', 'needs one of dns, http, consul, etcd, kubernetes']
  ])
  t.strictSame(await problemsOf({ discovery: { dns, etcd: {} } }), [
    ['services.orders.discovery.etcd', 'stands beside "dns"; keep one of them']
  ])
  t.strictSame(await problemsOf({ url: 'http://a', discovery: { dns } }), [
    ['services.orders.discovery', 'stands beside "url" or "instances"; keep one of them']
  ])
  t.strictSame(await problemsOf({ discovery: { http: {} } }), [
    ['services.orders.discovery.http', 'needs "url", or "service_discovery_url" for all']
  ])
  t.strictSame(await problemsOf({ discovery: { consul: {} } }), [
    ['services.orders.discovery.consul', 'needs "url", or "consul_url" for all']
  ])
  t.strictSame(await problemsOf({ discovery: { etcd: { username: 'root' } } }), [
    ['services.orders.discovery.etcd', 'needs "username" and "password", or neither']
  ])
  t.match(
    await problemsOf({ discovery: { dns: { ...dns, servers: ['10.0.0.53:53', 'ns.example', '[::1]:53', '::1'] } } }),
    [['services.orders.discovery.dns.servers[1]', /"ns.example" is no name server/]]
  )
  t.match(await problemsOf({ discovery: { dns, allow: ['everywhere'] } }), [
    ['services.orders.discovery.allow[0]', /is no network/]
  ])
  t.match(await problemsOf({ discovery: { consul: { url: 'http://c', tls: { ca: 'missing.pem' } } } }), [
    ['services.orders.discovery.consul.tls.ca', /cannot be read: ENOENT/]
  ])
  t.match(await problemsOf({ discovery: { dns: {} } }), [['services.orders.discovery.dns', /needs the key "url"/]])
})
