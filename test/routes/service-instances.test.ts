import t, { type Test } from 'tap'
import { KINDS, noPostgres, ownStorage } from '../support/database.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { boss, open, register } from '../support/services.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

const robot = token({ sub: 'robot', permissions: ['services.register:orders'] })
const json = { 'content-type': 'application/json' }

/** A service that has no instances but those that register themselves. */
const DOCUMENT = {
  registry: { allow: ['loopback'] },
  services: { orders: { instances: [] } },
  routes: [{ path: '/orders', service: 'orders', authentication: 'none' }]
}

async function start(t: Test, document: object = DOCUMENT) {
  return startGateway(t, { storage: { database: true }, ...document })
}

const put = ({ call }: Pick<TestGateway, 'call'>, id: string, said: object, as = robot, service = 'orders') =>
  call(`/services/${service}/instances/${id}`, { method: 'PUT', token: as, headers: json, body: JSON.stringify(said) })

const beat = ({ call }: Pick<TestGateway, 'call'>, id: string, as = robot) =>
  call(`/services/orders/instances/${id}/heartbeat`, { method: 'POST', token: as })

const remove = ({ call }: Pick<TestGateway, 'call'>, id: string, as = robot) =>
  call(`/services/orders/instances/${id}`, { method: 'DELETE', token: as })

t.test('REG-15 an instance registers itself, says that it is there, and goes', async t => {
  const [a, b] = [await startUpstream(t, undefined, 'a'), await startUpstream(t, undefined, 'b')]
  const gateway = await start(t)
  const { call, lines } = gateway
  const { version } = gateway.gateway.status()
  t.equal((await call('/orders')).status, 503)
  const first = await put(gateway, 'a', { url: a.url, zone: 'eu-1', ttl_seconds: 60 })
  t.equal(first.status, 201)
  t.match(first.json, {
    id: 'a',
    service: 'orders',
    url: a.url,
    weight: 1,
    zone: 'eu-1',
    ttl_seconds: 60,
    renewed_at: /T/
  })
  t.equal((await call('/orders')).headers['x-from'], 'a', 'when it is answered, it is served')
  t.equal((await put(gateway, 'a', { url: a.url, zone: 'eu-1', ttl_seconds: 60 })).status, 200, 'again')
  t.equal((await put(gateway, 'b', { url: b.url })).status, 201)
  const seen = new Set<unknown>()
  for (let i = 0; i < 4; i++) seen.add((await call('/orders')).headers['x-from'])
  t.strictSame([...seen].sort(), ['a', 'b'])
  t.equal((await beat(gateway, 'b')).json.id, 'b')
  t.strictSame(
    (await call('/services/orders/instances', { token: robot })).json.instances.map(({ id }: { id: string }) => id),
    ['a', 'b']
  )
  t.equal((await remove(gateway, 'a')).status, 204)
  t.equal((await call('/orders')).headers['x-from'], 'b')
  t.equal((await call('/orders')).headers['x-from'], 'b')
  t.equal((await beat(gateway, 'a')).status, 404, 'it has to register again')
  t.equal((await remove(gateway, 'a')).status, 404)
  t.equal(gateway.gateway.status().version, version)
  t.equal(lines().filter(line => String(line.msg).includes('→')).length, 0, 'no generation was built')
  const { json: audit } = await call('/admin/audit?target=service:orders', { token: boss })
  t.strictSame(
    audit.data.map(({ action, actor }: Record<string, string>) => `${action} ${actor}`),
    ['instance.deregister user:robot', 'instance.register user:robot', 'instance.register user:robot']
  )
})

t.test('REG-15 H-123 who may register what, and where it may be', async t => {
  const a = await startUpstream(t)
  const gateway = await start(t, {
    ...DOCUMENT,
    services: { ...DOCUMENT.services, other: { url: a.url } },
    routes: [...DOCUMENT.routes, { path: '/other', service: 'other', authentication: 'none' }]
  })
  const { call } = gateway
  const said = { url: a.url }
  t.equal((await call('/services/orders/instances/a', { method: 'PUT', headers: json, body: '{}' })).status, 401)
  t.equal((await put(gateway, 'a', said, robot, 'other')).status, 403)
  t.equal((await put(gateway, 'a', said, token({ permissions: ['services.register'] }))).status, 403)
  t.equal((await put(gateway, 'a', said, token({ permissions: ['services.register:*'] }), 'other')).status, 201)
  t.equal((await put(gateway, 'a', said, boss, 'nothing')).status, 404)
  t.equal((await beat(gateway, 'a', token({ permissions: ['services.read'] }))).status, 403)
  t.equal((await call('/services/orders/instances', { token: token({ permissions: ['services.read'] }) })).status, 200)
  t.equal((await call('/services/orders/instances', { token: token({}) })).status, 403)
  for (const [url, message] of [
    ['http://169.254.169.254/', /which "registry.allow" does not allow/],
    ['http://10.0.0.1/', /which "registry.allow" does not allow/],
    [`http://127.0.0.1:${gateway.port}/`, /leads to this gateway itself/],
    ['http://user:secret@127.0.0.1:1/', /and nothing else/],
    ['http://127.0.0.1:1/?a=b', /and nothing else/],
    ['http://[', /and nothing else/],
    ['ftp://127.0.0.1', /write http/]
  ] as const) {
    const answer = await put(gateway, 'a', { url })
    t.equal(answer.status, 422, url)
    t.match(answer.json.error.details, message)
  }
  t.equal((await put(gateway, 'a', { ...said, ttl_seconds: 1 })).status, 422)
  t.equal((await put(gateway, 'a', { ...said, weight: -1 })).status, 422)
  t.equal((await put(gateway, '%20', said)).status, 422)
})

t.test(
  'REG-15 an owner registers instances of his service, which stand beside those that it was registered with',
  async t => {
    const [a, b] = [await startUpstream(t, undefined, 'a'), await startUpstream(t, undefined, 'b')]
    const gateway = await start(t, { registry: { allow: ['loopback'] } })
    const owner = token({ sub: 'owner', permissions: ['services.register'] })
    t.equal((await register(gateway.call, open('s', a.url), owner)).status, 201)
    t.equal((await put(gateway, 'b', { url: b.url }, token({ permissions: ['services.register'] }), 's')).status, 403)
    t.equal((await put(gateway, 'b', { url: b.url }, owner, 's')).status, 201)
    const seen = new Set<unknown>()
    for (let i = 0; i < 4; i++) seen.add((await gateway.call('/api/v1/s')).headers['x-from'])
    t.strictSame([...seen].sort(), ['a', 'b'])
  }
)

t.test('CFG-07 a service without instances needs a database in which they can register', async t => {
  const error = await startGateway(t, { ...DOCUMENT, storage: { database: false } }).then(
    () => undefined,
    error => error
  )
  t.match(error.problems, [{ key: 'services.orders.instances', message: /needs at least one entry/ }])
})

for (const kind of KINDS)
  t.test(`REG-15 registrations outlive a restart (${kind})`, { skip: kind === 'postgres' && noPostgres }, async t => {
    const a = await startUpstream(t)
    const folder = t.testdir({ one: {}, two: {} })
    const storage = await ownStorage(t, kind, folder)
    const dataDir = storage.data_dir
    const first = await startGateway(t, { storage, ...DOCUMENT }, { folder: `${folder}/one`, dataDir })
    t.equal((await put(first, 'a', { url: a.url })).status, 201)
    await first.gateway.close(0)
    const second = await startGateway(t, { storage, ...DOCUMENT }, { folder: `${folder}/two`, dataDir })
    t.equal((await second.call('/orders')).status, 200)
  })

t.test('REG-15 all gateways have them within two seconds', { skip: noPostgres }, async t => {
  const a = await startUpstream(t)
  const folder = t.testdir({ one: {}, two: {} })
  const storage = await ownStorage(t, 'postgres', folder)
  const [one, two] = [
    await startGateway(t, { storage, ...DOCUMENT }, { folder: `${folder}/one` }),
    await startGateway(t, { storage, ...DOCUMENT }, { folder: `${folder}/two` })
  ] as const
  await put(one, 'a', { url: a.url })
  await until(async () => (await two.call('/orders')).status === 200)
  await remove(two, 'a')
  await until(async () => (await one.call('/orders')).status === 503)
})
