import { join } from 'node:path'
import t from 'tap'
import { noPostgres, onBoth, ownStorage, ownStorageBehind } from '../support/database.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { boss, deregister, open, register, replace, startNode } from '../support/services.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

const services = async ({ call }: TestGateway): Promise<string[]> =>
  (await call('/services?per_page=100', { token: boss })).json.data.map(({ name }: { name: string }) => name)

onBoth(
  t,
  'REG-23 REG-24 STO-01 what is registered is there before the first request after a start',
  async (t, kind) => {
    const upstream = await startUpstream(t)
    const storage = await ownStorage(t, kind)
    const folder = join(t.testdirName, 'node')
    const first = await startNode(t, storage, 'node')
    await register(first.call, open('one', upstream.url))
    const { json: two } = await register(first.call, open('two', upstream.url))
    await deregister(first.call, two.id)
    const before = (await first.call('/services', { token: boss })).json.data
    await first.gateway.close()
    const second = await startGateway(t, { storage, registry: { allow: ['loopback'] } }, { folder })
    t.ok(second.gateway.ready())
    t.equal((await second.call('/api/v1/one')).status, 200)
    t.equal((await second.call('/api/v1/two')).status, 404)
    t.same((await second.call('/services', { token: boss })).json.data, before)
  }
)

t.test('REG-24 no port is open before what is registered is served', async t => {
  const upstream = await startUpstream(t)
  const storage = await ownStorage(t, 'sqlite')
  const first = await startNode(t, storage, 'node')
  await register(first.call, open('one', upstream.url))
  await first.gateway.close()
  const second = await startNode(t, storage, 'node')
  const lines = second.lines().map(({ msg }) => msg)
  t.notOk(
    lines.some(line => String(line).startsWith('configuration')),
    'there was never one without it'
  )
  t.equal(second.gateway.snapshot.services.has('one'), true)
})

t.test('C-16 H-118 where a file comes to say the same, the file wins, until it no longer does', async t => {
  const [filed, registered] = [await startUpstream(t, undefined, 'file'), await startUpstream(t, undefined, 'api')]
  const storage = await ownStorage(t, 'sqlite')
  const document = (more = {}) => ({ storage, registry: { allow: ['loopback'] }, ...more })
  const taken = document({
    services: { mine: { url: filed.url } },
    routes: [{ path: '/api/v1/one', methods: ['GET'], service: 'mine', authentication: 'none' }]
  })
  const node = await startNode(t, storage, 'node')
  const { json: one } = await register(node.call, open('one', registered.url))
  await register(node.call, open('two', registered.url))
  const served = async () => [(await node.call('/api/v1/one')).json.from, (await node.call('/api/v1/two')).json.from]
  t.same(await served(), ['api', 'api'])

  node.configure(taken)
  await node.gateway.reload()
  t.same(await served(), ['file', 'api'])
  const warning = node.lines().find(({ msg }) => msg === 'the registered service "one" is left out')
  t.match(warning, {
    level: 40,
    problems: [/service "one" \(registered\).*gateway\.yaml:\d+|gateway\.yaml:\d+.*service "one" \(registered\)/]
  })
  t.same(await services(node), ['one', 'two'], 'it stays registered')
  t.match((await node.call('/gateway/services/one', { token: boss })).json, { active: false, problem: /gateway\.yaml/ })
  t.equal((await register(node.call, open('three', registered.url))).status, 201, 'and is in nobody’s way')
  t.equal((await replace(node.call, one.id, open('one', registered.url), '*')).status, 409, 'but gets no further')

  await node.gateway.close()
  const again = await startGateway(t, taken, { folder: join(t.testdirName, 'node') })
  t.same((await again.call('/api/v1/one')).json.from, 'file', 'a start is not kept from it')
  again.configure(document())
  await again.gateway.reload()
  t.same((await again.call('/api/v1/one')).json.from, 'api', 'and back')
  t.equal((await again.call('/gateway/services/one', { token: boss })).json.problem, null)
})

t.test('C-16 what was left out for a registered service is served when that has gone', async t => {
  const upstream = await startUpstream(t)
  const storage = await ownStorage(t, 'sqlite')
  const node = await startNode(t, storage, 'node')
  const { json: first } = await register(node.call, open('first', upstream.url, '/x'))
  // As a gateway with other files could have let it in.
  const { runtime } = node.gateway
  const { json: second } = await register(node.call, { ...open('second', upstream.url, '/x'), active: false })
  await runtime.database?.transaction(async (trx, changed) => {
    await trx.updateTable('services').set({ active: true }).where('id', '=', second.id).execute()
    await trx.updateTable('registry').set({ version: 3 }).execute()
    changed.push({ kind: 'registry', subject: '3' })
  })
  await node.line({ msg: 'the registered service "second" is left out' })
  t.match((await node.call('/gateway/routing-rules', { token: boss })).json.data, [{ service: 'first' }])
  t.equal((await deregister(node.call, first.id)).status, 204)
  await until(() => node.gateway.snapshot.services.has('second'))
  t.equal((await node.call('/api/v1/x')).status, 200)
})

t.test(
  'H-124 while the database is out of reach what was registered is served and shown',
  { skip: noPostgres },
  async t => {
    const upstream = await startUpstream(t)
    const { direct, storage, proxy } = await ownStorageBehind(t)
    const node = await startNode(t, storage, 'a')
    const other = await startNode(t, direct, 'b')
    await register(node.call, open('one', upstream.url))
    await proxy.set({ kind: 'refuse' })
    const document = { storage, registry: { allow: ['loopback'] }, defaults: { timeout: '7s' } }
    node.configure(document)
    t.ok((await node.gateway.reload()).changed, 'files may change')
    t.equal((await node.call('/api/v1/one')).status, 200)
    t.same(await services(node), ['one'])
    t.equal((await register(node.call, open('lost', upstream.url))).status, 503)
    t.equal((await node.call('/api/v1/lost')).status, 404)

    t.equal((await register(other.call, open('two', upstream.url))).status, 201)
    await proxy.set({ kind: 'none' })
    await until(async () => (await node.call('/api/v1/two')).status === 200)
    t.equal((await register(node.call, open('three', upstream.url))).status, 201, 'it recovers alone')
  }
)

onBoth(t, 'H-124 a list that has become older, or empty, is not believed', async (t, kind) => {
  const upstream = await startUpstream(t)
  const storage = await ownStorage(t, kind)
  const node = await startNode(t, storage, 'node')
  await register(node.call, open('one', upstream.url))
  await register(node.call, open('two', upstream.url))
  await node.gateway.runtime.database?.transaction(async (trx, changed) => {
    await trx.deleteFrom('services').execute()
    await trx.updateTable('registry').set({ version: 0 }).execute()
    changed.push({ kind: 'registry', subject: '0' })
  })
  await node.line({ level: 50, known: 2, found: 0 })
  t.equal((await node.call('/api/v1/one')).status, 200)
  t.same(await services(node), ['one', 'two'])
  t.equal((await register(node.call, open('three', upstream.url))).status, 201, 'who changes it says what it is')
  t.same(await services(node), ['three'])
  t.equal((await node.call('/api/v1/one')).status, 404)
  if (kind === 'sqlite') return
  const other = await startNode(t, storage, 'other')
  t.same(await services(other), ['three'])
  await register(other.call, open('four', upstream.url))
  await until(async () => (await node.call('/api/v1/four')).status === 200, 'those who had doubts follow again')
})
