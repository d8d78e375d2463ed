import t, { type Test } from 'tap'
import { discoveryContract } from '../../contracts/discovery.ts'
import { consulEntry, startConsul } from '../../support/consul.ts'
import { discoveryTerms, watchOf } from '../../support/discovery.ts'
import { until } from '../../support/until.ts'

const sourceOf = (url: string, more: object = {}) =>
  ({
    kind: 'consul',
    url,
    service: 'orders',
    tag: undefined,
    datacenter: undefined,
    token: undefined,
    tls: undefined,
    ...more
  }) as const

t.test('REG-18 Consul as a source', async t =>
  discoveryContract(t, async t => {
    const { url, set, start, stop } = await startConsul(t)
    const entryOf = (place: string) => {
      const [host, port] = place.split(':') as [string, string]
      return consulEntry(host, Number(port))
    }
    return { source: sourceOf(url), set: (...places) => set(places.map(entryOf)), start, stop }
  })
)

async function follow(t: Test, entries: object[], more: object = {}) {
  const consul = await startConsul(t)
  consul.set(entries)
  const watched = watchOf(sourceOf(consul.url, more), discoveryTerms())
  t.teardown(() => watched.watch.stop())
  watched.watch.start()
  return { ...consul, ...watched }
}

t.test('REG-18 what Consul knows of an instance', async t => {
  const { watch, state } = await follow(
    t,
    [
      consulEntry('10.0.0.1', 8080, { ID: 'a', Weights: { Passing: 10, Warning: 1 }, Meta: { zone: 'eu-1' } }),
      consulEntry('', 8080, { ID: 'b' }, { Meta: { zone: 'eu-2' } }),
      consulEntry('fd00::1', 8443, { ID: 'c', Meta: { scheme: 'https' }, Locality: { Region: 'eu', Zone: 'eu-3' } }),
      consulEntry('10.0.0.4', 0, { ID: 'no port', Port: undefined }),
      {}
    ],
    { service: 'orders & more', tag: 'v2', datacenter: 'dc2', token: 'secret' }
  )
  await watch.ready
  t.strictSame(watch.instances, [
    { id: 'a', url: 'http://10.0.0.1:8080/', weight: 10, zone: 'eu-1' },
    { id: 'b', url: 'http://10.1.10.12:8080/', weight: 1, zone: 'eu-2' },
    { id: 'c', url: 'https://[fd00::1]:8443/', weight: 1, zone: 'eu-3' }
  ])
  const [first] = state.asked
  t.equal(first?.url, '/v1/health/service/orders%20%26%20more?passing=1&tag=v2&dc=dc2')
  t.equal(first?.headers['x-consul-token'], 'secret')
})

t.test('REG-18 a query waits for news, and an index that goes back begins anew', async t => {
  const { state, set, last } = await follow(t, [consulEntry('10.0.0.1', 80)])
  await until(() => state.asked.length === 2)
  t.match(state.asked[1]?.url, /&index=2&wait=55000ms$/)
  set([consulEntry('10.0.0.2', 80)], 7)
  await until(() => last()?.[0] === '10.0.0.2:')
  await until(() => state.asked.length === 3)
  t.match(state.asked[2]?.url, /&index=7&/)
  set([consulEntry('10.0.0.3', 80)], 3)
  await until(() => last()?.[0] === '10.0.0.3:')
  await until(() => state.asked.length === 5)
  t.notMatch(state.asked[3]?.url, /index=/)
  t.match(state.asked[4]?.url, /&index=3&/)
})

t.test('H-124 an answer that is none changes nothing', async t => {
  const { state, set, told, error, watch } = await follow(t, [consulEntry('10.0.0.1', 80)])
  await watch.ready
  state.status = 500
  set([])
  await until(() => error() === 'HTTP_500')
  Object.assign(state, { status: 200, noIndex: true })
  await until(() => error() === 'INVALID')
  t.equal(told.length, 1)
})
