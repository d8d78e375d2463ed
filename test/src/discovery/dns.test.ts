import t, { type Test } from 'tap'
import { discoveryContract } from '../../contracts/discovery.ts'
import { discoveryTerms, watchOf } from '../../support/discovery.ts'
import { type Records, startDnsServer } from '../../support/dns-server.ts'
import { until } from '../../support/until.ts'

t.test('REG-14 the DNS as a source', async t =>
  discoveryContract(t, async t => {
    const server = await startDnsServer(t)
    const { start, stop } = server
    return {
      source: { kind: 'dns', url: 'http://orders.test:8001', servers: [server.address] },
      set: (...places) =>
        void server.zone.set('orders.test', { A: places.map(place => place.split(':')[0] as string) }),
      start,
      stop
    }
  })
)

async function follow(t: Test, url: string, zone: Record<string, Records>, more = {}) {
  const server = await startDnsServer(t)
  for (const [name, records] of Object.entries(zone)) server.zone.set(name, records)
  const pauses: number[] = []
  const terms = discoveryTerms({ ...more })
  const hasty = terms.pause
  const watched = watchOf(
    { kind: 'dns', url, servers: [server.address] },
    {
      ...terms,
      pause(ms, signal) {
        pauses.push(ms)
        return hasty(ms, signal)
      }
    }
  )
  t.teardown(() => watched.watch.stop())
  watched.watch.start()
  return { server, pauses, ...watched }
}

t.test('H-103 a service that has IPv6 addresses only', async t => {
  const { watch } = await follow(t, 'http://six.test:8080/base', { 'six.test': { AAAA: ['fd00::1', 'fd00::2'] } })
  await watch.ready
  t.strictSame(watch.instances, [
    { id: '[fd00::1]:8080', url: 'http://six.test:8080/base', weight: 1, address: 'fd00::1' },
    { id: '[fd00::2]:8080', url: 'http://six.test:8080/base', weight: 1, address: 'fd00::2' }
  ])
})

t.test('H-103 a name is asked for again when its records end, but not all the time and not never', async t => {
  for (const [ttl, wait] of [
    [0, 1000],
    [1, 1000],
    [30, 30_000],
    [86_400, 300_000]
  ] as const) {
    const { pauses, watch } = await follow(
      t,
      'http://a.test',
      { 'a.test': { A: ['127.0.0.1'], ttl } },
      { random: () => 0 }
    )
    await watch.ready
    await until(() => pauses.length > 0)
    t.equal(pauses[0], wait, `a TTL of ${ttl} s`)
  }
})

t.test('H-103 a name that is gone keeps its instances, and says so', async t => {
  const { server, watch, told, error } = await follow(t, 'http://a.test:81', { 'a.test': { A: ['127.0.0.1'] } })
  await watch.ready
  server.zone.clear()
  await until(() => error() === 'ENOTFOUND')
  t.strictSame(told, [['127.0.0.1:81']])
})

t.test('H-103 half of an answer takes nothing away', async t => {
  const both = { A: ['127.0.0.1'], AAAA: ['::1'] }
  const { server, watch, told, last } = await follow(t, 'http://a.test:81', { 'a.test': both })
  await watch.ready
  server.zone.set('a.test', { A: ['127.0.0.2'], AAAA: ['::1'], fails: { AAAA: 2 } })
  await until(() => last()?.includes('127.0.0.2:81') === true)
  t.strictSame(last(), ['127.0.0.2:81', '::1:81'])
  server.zone.set('a.test', { A: ['127.0.0.2'] })
  await until(() => last()?.length === 1)
  t.equal(told.length, 3)
})

t.test('H-103 a name that comes to mean another network is not followed there', async t => {
  const server = await startDnsServer(t)
  server.zone.set('a.test', { A: ['192.0.2.1', '192.0.2.2'] })
  const source = { kind: 'dns', url: 'http://a.test:81', servers: [server.address] } as const
  const { watch, last } = watchOf(source, discoveryTerms(), { networks: ['public'] })
  t.teardown(() => watch.stop())
  watch.start()
  await watch.ready
  server.zone.set('a.test', { A: ['127.0.0.1', '192.0.2.2', '169.254.169.254'] })
  await until(() => last()?.length === 1)
  t.strictSame(last(), ['192.0.2.2:81'])
  server.zone.set('a.test', { A: ['127.0.0.1'] })
  await until(() => watch.stale)
  t.strictSame(last(), ['192.0.2.2:81'], 'none at all is not believed')
})

t.test('REG-14 SRV records say port and weight; those of worse priority wait until the others are down', async t => {
  const { server, watch, last } = await follow(t, 'https://_orders._tcp.test/v2', {
    '_orders._tcp.test': {
      SRV: [
        { priority: 10, weight: 60, port: 8443, name: 'a.test' },
        { priority: 10, weight: 0, port: 9443, name: 'b.test' },
        { priority: 20, weight: 0, port: 8443, name: 'c.test' }
      ]
    },
    'a.test': { A: ['10.0.0.1', '10.0.0.2'] },
    'b.test': { AAAA: ['fd00::9'] },
    'c.test': { A: ['10.0.0.3'] }
  })
  await watch.ready
  t.strictSame(watch.instances, [
    { id: '10.0.0.1:8443', url: 'https://a.test:8443/v2', weight: 60, address: '10.0.0.1' },
    { id: '10.0.0.2:8443', url: 'https://a.test:8443/v2', weight: 60, address: '10.0.0.2' },
    { id: '10.0.0.3:8443', url: 'https://c.test:8443/v2', weight: 0, address: '10.0.0.3' },
    { id: '[fd00::9]:9443', url: 'https://b.test:9443/v2', weight: 1, address: 'fd00::9' }
  ])
  server.zone.delete('b.test')
  await until(() => last()?.length === 3)
  server.zone.set('_orders._tcp.test', { SRV: [{ priority: 20, weight: 0, port: 8443, name: 'c.test' }] })
  await until(() => last()?.join() === '10.0.0.3:8443')
  t.equal(watch.instances[0]?.weight, 1)
  server.zone.set('_orders._tcp.test', {})
  await until(() => watch.stale)
  t.strictSame(last(), ['10.0.0.3:8443'])
})
