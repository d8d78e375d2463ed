import t, { type Test } from 'tap'
import type { InstanceList } from '../../../src/discovery/discovery.ts'
import { Etcd } from '../../../src/discovery/etcd.ts'
import { discoveryContract } from '../../contracts/discovery.ts'
import { discoveryTerms, placesOf, watchOf } from '../../support/discovery.ts'
import { base64, type EtcdServer, noEtcd, startEtcd } from '../../support/etcd-server.ts'
import { until } from '../../support/until.ts'

const skip = { skip: noEtcd }
const PREFIX = '/services/orders/'

const sourceOf = (url: string, more: object = {}) =>
  ({
    kind: 'etcd',
    urls: [url],
    prefix: PREFIX,
    username: undefined,
    password: undefined,
    tls: undefined,
    ...more
  }) as const

const put = ({ ask }: EtcdServer, name: string, value: unknown, more: object = {}) =>
  ask('kv/put', {
    key: base64(PREFIX + name),
    value: base64(typeof value === 'string' ? value : JSON.stringify(value)),
    ...more
  })

const remove = ({ ask }: EtcdServer, name: string) => ask('kv/deleterange', { key: base64(PREFIX + name) })

t.test('REG-19 etcd as a source', skip, async t =>
  discoveryContract(t, async t => {
    const etcd = await startEtcd(t)
    const { url, start, stop } = etcd
    let there: string[] = []
    const set = async (...places: string[]): Promise<void> => {
      if (places.length === 0)
        await etcd.ask('kv/deleterange', { key: base64(PREFIX), range_end: base64('/services/orders0') })
      // Those that come before those that go: each change is seen by itself.
      for (const place of places) if (!there.includes(place)) await put(etcd, place, `http://${place}`)
      for (const place of there) if (places.length > 0 && !places.includes(place)) await remove(etcd, place)
      there = places
    }
    return { source: sourceOf(url), set, start, stop }
  })
)

async function follow(t: Test, etcd: EtcdServer, more: object = {}) {
  const watched = watchOf(sourceOf(etcd.url, more), discoveryTerms())
  t.teardown(() => watched.watch.stop())
  watched.watch.start()
  const has = (...places: string[]) => until(() => placesOf(watched.watch.instances).join() === places.join())
  return { ...watched, has }
}

t.test('REG-19 every spelling of an instance; keys of others and what is none are left out', skip, async t => {
  const etcd = await startEtcd(t)
  await put(etcd, 'a', 'http://10.0.0.1:8080/base')
  await put(etcd, 'b', { url: 'http://10.0.0.2:8080', weight: 3, zone: 'eu-1' })
  await put(etcd, 'c', { Op: 0, Addr: '10.0.0.3:8080', Metadata: null })
  await put(etcd, 'd', { id: 'own', host: 'fd00::4', port: 8080 })
  await put(etcd, 'e', '')
  await put(etcd, 'f', '{"broken"')
  await etcd.ask('kv/put', { key: base64('/services/orders0'), value: base64('http://10.0.0.9') })
  const { watch } = await follow(t, etcd)
  await watch.ready
  t.strictSame(watch.instances, [
    { id: 'a', url: 'http://10.0.0.1:8080/base', weight: 1 },
    { id: 'b', url: 'http://10.0.0.2:8080/', weight: 3, zone: 'eu-1' },
    { id: 'c', url: 'http://10.0.0.3:8080/', weight: 1 },
    { id: 'own', url: 'http://[fd00::4]:8080/', weight: 1 }
  ])
  await put(etcd, 'a', 'nonsense at all')
  await until(() => watch.instances.length === 3)
})

t.test('REG-19 an instance whose lease ends is gone', skip, async t => {
  const etcd = await startEtcd(t)
  const { ID } = await etcd.ask('lease/grant', { TTL: 600 })
  await put(etcd, 'a', 'http://127.0.0.1:1')
  await put(etcd, 'b', 'http://127.0.0.1:2', { lease: ID })
  const { has } = await follow(t, etcd)
  await has('127.0.0.1:1', '127.0.0.1:2')
  await etcd.ask('lease/revoke', { ID })
  await has('127.0.0.1:1')
})

t.test('REG-19 a watch goes on after a restart, and misses nothing that was said meanwhile', skip, async t => {
  const etcd = await startEtcd(t)
  await put(etcd, 'a', 'http://127.0.0.1:1')
  await put(etcd, 'b', 'http://127.0.0.1:2')
  const { watch, has, error } = await follow(t, etcd)
  await has('127.0.0.1:1', '127.0.0.1:2')
  await etcd.stop()
  await until(() => error() !== undefined)
  t.equal(watch.instances.length, 2)
  await etcd.start()
  await remove(etcd, 'a')
  await put(etcd, 'c', 'http://127.0.0.1:3')
  await has('127.0.0.1:2', '127.0.0.1:3')
  await until(() => error() === undefined)
})

t.test('REG-19 a cluster that was made anew is read anew, instead of waiting for revisions to come', skip, async t => {
  const etcd = await startEtcd(t)
  for (let i = 0; i < 20; i++) await put(etcd, 'a', `http://127.0.0.1:${i + 1}`)
  const { has } = await follow(t, etcd)
  await has('127.0.0.1:20')
  await etcd.stop()
  await etcd.startEmpty()
  await put(etcd, 'b', 'http://127.0.0.1:99')
  await has('127.0.0.1:99')
})

t.test('REG-19 what was compacted away is read anew', skip, async t => {
  const etcd = await startEtcd(t)
  await put(etcd, 'a', 'http://127.0.0.1:1')
  const terms = discoveryTerms()
  const adapter = new Etcd(sourceOf(etcd.url), 'http', terms)
  t.teardown(() => adapter.close())
  let last: InstanceList = []
  const tell = (list: InstanceList): void => {
    last = list
  }
  const first = new AbortController()
  const following = adapter.follow(tell, first.signal)
  await until(() => last.length === 1)
  first.abort()
  await t.rejects(following)
  await remove(etcd, 'a')
  await put(etcd, 'b', 'http://127.0.0.1:2')
  const { header } = (await put(etcd, 'c', 'http://127.0.0.1:3')) as { header: { revision: string } }
  await etcd.ask('kv/compaction', { revision: header.revision })
  const second = new AbortController()
  const again = adapter.follow(tell, second.signal)
  await until(() => last.length === 2)
  t.strictSame(placesOf(last), ['127.0.0.1:2', '127.0.0.1:3'])
  second.abort()
  await t.rejects(again)
})

t.test('REG-19 a watch with nothing to tell is opened anew, and that is no failure', skip, async t => {
  const etcd = await startEtcd(t)
  await put(etcd, 'a', 'http://127.0.0.1:1')
  const adapter = new Etcd(sourceOf(etcd.url), 'http', discoveryTerms(), 100)
  t.teardown(() => adapter.close())
  let told = 0
  const stop = new AbortController()
  const following = adapter.follow(() => told++, stop.signal)
  await until(() => told > 3)
  stop.abort()
  await t.rejects(following, { name: 'AbortError' })
})

t.test('REG-19 a cluster that asks who one is, and a member that is not there', skip, async t => {
  const etcd = await startEtcd(t)
  const { ask } = etcd
  await put(etcd, 'a', 'http://127.0.0.1:1')
  await ask('auth/user/add', { name: 'root', password: 'secret' })
  await ask('auth/role/add', { name: 'root' })
  await ask('auth/user/grant', { user: 'root', role: 'root' })
  await ask('auth/enable', {})
  const urls = ['http://127.0.0.1:1', etcd.url]
  const { has } = await follow(t, etcd, { urls, username: 'root', password: 'secret' })
  await has('127.0.0.1:1')
  const { token } = (await ask('auth/authenticate', { name: 'root', password: 'secret' })) as { token: string }
  await ask('kv/put', { key: base64(`${PREFIX}b`), value: base64('http://127.0.0.1:2') }, token)
  await has('127.0.0.1:1', '127.0.0.1:2')
  const wrong = await follow(t, etcd, { username: 'root', password: 'wrong' })
  await until(() => /^HTTP_4/.test(wrong.error() ?? ''))
})
