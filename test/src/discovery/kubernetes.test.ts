import { writeFileSync } from 'node:fs'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { instancesOf } from '../../../src/discovery/kubernetes.ts'
import { discoveryContract } from '../../contracts/discovery.ts'
import { type Issuer, makeCertificate } from '../../support/certificates.ts'
import { discoveryTerms, placesOf, watchOf } from '../../support/discovery.ts'
import { startKubernetes } from '../../support/kubernetes.ts'
import { until } from '../../support/until.ts'

const sourceOf = (url: string, more: object = {}) =>
  ({
    kind: 'kubernetes',
    url,
    namespace: 'shop',
    selector: 'kubernetes.io/service-name=orders',
    port: undefined,
    tokenFile: '/nowhere/token',
    tls: undefined,
    ...more
  }) as const

/** A slice with these addresses. */
const sliceOf = (...addresses: string[]) => ({
  addressType: 'IPv4',
  ports: [{ name: 'http', port: 8001, protocol: 'TCP' }],
  endpoints: addresses.map(address => ({ addresses: [address], conditions: { ready: true } }))
})

t.test('REG-21 Kubernetes as a source', async t =>
  discoveryContract(t, async t => {
    const { url, put, start, stop } = await startKubernetes(t)
    const set = (...places: string[]): void =>
      put('orders-abc', sliceOf(...places.map(place => place.split(':')[0] as string)))
    return { source: sourceOf(url), set, start, stop }
  })
)

async function follow(t: Test, more: object = {}) {
  const kubernetes = await startKubernetes(t)
  kubernetes.put('a', sliceOf('10.0.0.1'))
  const watched = watchOf(sourceOf(kubernetes.url, more), discoveryTerms())
  t.teardown(() => watched.watch.stop())
  const has = (...addresses: string[]) =>
    until(() => placesOf(watched.watch.instances).join() === addresses.map(address => `${address}:8001`).join())
  return { ...kubernetes, ...watched, has }
}

t.test('REG-21 slices come, change and go', async t => {
  const { watch, has, put, delete: remove, state } = await follow(t)
  watch.start()
  await has('10.0.0.1')
  put('b', sliceOf('10.0.0.2', '10.0.0.3'))
  await has('10.0.0.1', '10.0.0.2', '10.0.0.3')
  put('b', sliceOf('10.0.0.3'))
  await has('10.0.0.1', '10.0.0.3')
  remove('a')
  await has('10.0.0.3')
  t.equal(state.lists, 1)
  t.match(
    state.asked[0]?.url,
    '/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dorders'
  )
  t.match(state.asked[1]?.url, /&watch=1&allowWatchBookmarks=true&timeoutSeconds=60&resourceVersion=101$/)
})

t.test('REG-21 a watch that ends goes on from its last bookmark, without a list', async t => {
  const { watch, has, put, bookmark, endWatches, state } = await follow(t)
  watch.start()
  await has('10.0.0.1')
  bookmark()
  put('b', sliceOf('10.0.0.2'))
  await has('10.0.0.1', '10.0.0.2')
  bookmark()
  const { version } = state
  endWatches()
  await until(() => state.asked.at(-1)?.url?.endsWith(`resourceVersion=${version}`) === true)
  put('b', sliceOf('10.0.0.3'))
  await has('10.0.0.1', '10.0.0.3')
  t.equal(state.lists, 1)
  t.equal(watch.errors, 0)
})

for (const parity of [0, 1] as const)
  t.test(
    `REG-21 what the server has forgotten is listed again (410 ${parity ? 'as status' : 'in the stream'})`,
    async t => {
      const { watch, has, put, delete: remove, endWatches, compact, stop, start, state, error } = await follow(t)
      watch.start()
      await has('10.0.0.1')
      await stop()
      await until(() => error() !== undefined)
      remove('a')
      put('b', sliceOf('10.0.0.2'))
      compact(parity)
      await start()
      await has('10.0.0.2')
      t.equal(state.lists, 2)
      endWatches()
    }
  )

t.test('REG-21 the token is read again for each question, and the namespace stands beside it', async t => {
  const folder = t.testdir({ token: 'first\n', namespace: 'ours' })
  const { watch, has, endWatches, state, error } = await follow(t, {
    tokenFile: join(folder, 'token'),
    namespace: undefined
  })
  state.token = 'first'
  watch.start()
  await has('10.0.0.1')
  t.match(state.asked[0]?.url, '/namespaces/ours/')
  state.token = 'second'
  endWatches()
  await until(() => error() === 'HTTP_401')
  writeFileSync(join(folder, 'token'), 'second')
  await until(() => error() === undefined)
  t.match(watch.state(), { instances: 1, stale: false })
})

t.test('REG-21 which endpoints count, and what is known of them', async t => {
  const metadata = { name: 's', resourceVersion: '1' }
  const ports = [
    { name: 'dns', port: 53, protocol: 'UDP' },
    { name: 'http', port: 8080 },
    { name: 'metrics', port: 9090, protocol: 'TCP' }
  ]
  const endpoint = (address: string, conditions?: object, more: object = {}) => ({
    addresses: [address, '10.9.9.9'],
    ...(conditions && { conditions }),
    ...more
  })
  const idsOf = (endpoints: object[], port?: number | string, addressType = 'IPv4') =>
    instancesOf([{ metadata, addressType, ports, endpoints } as never], port, 'http').map(({ id }) => id)
  const [ready, unknown, not, ending] = [
    endpoint('10.0.0.1', { ready: true }),
    endpoint('10.0.0.2'),
    endpoint('10.0.0.3', { ready: false }),
    endpoint('10.0.0.4', { ready: false, serving: true, terminating: true })
  ] as const
  t.strictSame(idsOf([ready, unknown, not, ending]), ['10.0.0.1:8080', '10.0.0.2:8080'])
  t.strictSame(idsOf([not, ending]), ['10.0.0.4:8080'], 'better than nothing')
  t.strictSame(idsOf([not]), [])
  t.strictSame(idsOf([ready], 'metrics'), ['10.0.0.1:9090'])
  t.strictSame(idsOf([ready], 9090), ['10.0.0.1:9090'])
  t.strictSame(idsOf([ready], 'grpc'), [])

  const hinted = endpoint(
    '10.0.0.1',
    { ready: true },
    { targetRef: { name: 'pod-1' }, zone: 'a', hints: { forZones: [{ name: 'b' }] } }
  )
  const zoned = endpoint('fd00::1', { ready: true }, { zone: 'a' })
  t.strictSame(instancesOf([{ metadata, addressType: 'IPv4', ports, endpoints: [hinted] }], undefined, 'https'), [
    { id: 'pod-1', url: 'https://10.0.0.1:8080/', weight: 1, zone: 'b' }
  ])
  const six = { metadata, addressType: 'IPv6', ports, endpoints: [zoned] }
  t.strictSame(instancesOf([six], undefined, 'http'), [
    { id: 'fd00::1:8080', url: 'http://[fd00::1]:8080/', weight: 1, zone: 'a' }
  ])
  const four = { metadata, addressType: 'IPv4', ports, endpoints: [ready] }
  t.strictSame(
    instancesOf([six, four], undefined, 'http').map(({ id }) => id),
    ['10.0.0.1:8080'],
    'no pod is there twice'
  )
  t.strictSame(instancesOf([six, { ...four, endpoints: null }], undefined, 'http').length, 1)
})

t.test('REG-21 the certificate authority stands beside the token, and may be another one later', async t => {
  const [old, present] = ['old', 'present'].map(name => makeCertificate({ name, authority: true })) as [Issuer, Issuer]
  const own = makeCertificate({ name: 'api', hosts: ['127.0.0.1'], issuer: present })
  const folder = t.testdir({ token: 'any', 'ca.crt': old.cert })
  const server = https.createServer({ cert: own.cert, key: own.key }, (request, response) => {
    const items = [{ metadata: { name: 'a', resourceVersion: '1' }, ...sliceOf('10.0.0.1') }]
    if (request.url?.includes('watch=1')) response.flushHeaders()
    else response.end(JSON.stringify({ metadata: { resourceVersion: '1' }, items }))
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  const { watch, error } = watchOf(sourceOf(url, { tokenFile: join(folder, 'token') }), discoveryTerms())
  t.teardown(() => watch.stop())
  watch.start()
  await until(() => error() !== undefined)
  t.match(error(), /CERT|SIGNATURE|ISSUER/)
  writeFileSync(join(folder, 'ca.crt'), present.cert)
  await watch.ready
  t.strictSame(placesOf(watch.instances), ['10.0.0.1:8001'])
})
