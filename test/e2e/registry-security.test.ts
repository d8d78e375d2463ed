import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { ownStorage } from '../support/database.ts'
import { freePort } from '../support/free-port.ts'
import { call as callAt, startGateway } from '../support/gateway.ts'
import { boss, deregister, register, replace } from '../support/services.ts'
import { token } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'

const here = { registry: { allow: ['loopback'] } }
const team = (sub: string, ...permissions: string[]): string => token({ sub, permissions })
const KEY = 'a-key-of-the-tests,long-enough-to-be-one'

t.test(
  'H-123 REG-15 only administrators and those with the permission register, and see what is registered',
  async t => {
    const { call } = await startGateway(t, {
      ...here,
      storage: await ownStorage(t, 'sqlite'),
      identity: { api_keys: [{ id: 'deployer', key: KEY, permissions: ['services.*'] }] }
    })
    const body = { name: 'tools', base_url: 'http://127.0.0.1:1' }
    const post = (headers: Record<string, string>) =>
      call('/services', {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: JSON.stringify(body)
      })
    t.equal((await post({})).status, 401)
    t.equal((await post({ authorization: `Bearer ${token({ roles: ['user'] })}` })).status, 403)
    const reader = team('carol', 'services.read')
    t.match(
      (await register(call, {}, reader)).json.error,
      { status: 403, details: /services\.register/ },
      'before its body'
    )
    const own = await post({ 'x-api-key': KEY })
    t.match([own.status, own.json.owner], [201, 'key:deployer'])
    for (const as of [boss, reader, team('dave', 'services.register')])
      t.equal((await call(`/services/${own.json.id}`, { token: as })).status, 200)
    t.equal((await call(`/services/${own.json.id}`, { token: team('dave', 'other') })).status, 403)
    t.equal((await call(`/services/${own.json.id}`)).status, 401)
    for (const path of ['/gateway/services', '/gateway/routing-rules', '/gateway/services/tools'])
      t.equal((await call(path, { token: reader })).status, 403, path)
  }
)

t.test('H-123 nobody changes another’s service, takes its name, or its requests', async t => {
  const upstream = await startUpstream(t)
  const { call } = await startGateway(t, {
    ...here,
    storage: await ownStorage(t, 'sqlite'),
    services: { filed: { url: upstream.url }, fallback: { url: upstream.url } },
    routes: [
      { path: '/api/v1/filed/**', service: 'filed', methods: ['GET', 'POST'] },
      { path: '/**', service: 'fallback' }
    ]
  })
  const [alice, bob] = [team('alice', 'services.register'), team('bob', 'services.register')]
  const projects = {
    name: 'projects',
    base_url: upstream.url,
    endpoints: [{ path: '/projects/**' }, { path: '/by/{id}' }]
  }
  const { json: hers, headers } = await register(call, projects, alice)
  t.equal(hers.owner, 'user:alice')

  t.equal((await replace(call, hers.id, projects, headers.etag, bob)).status, 403)
  t.equal((await deregister(call, hers.id, bob)).status, 403)
  t.match((await register(call, { name: 'projects', base_url: upstream.url }, bob)).json.error, { status: 409 })

  const his = (path: string, method = 'GET') => ({ name: 'his', base_url: upstream.url, endpoints: [{ path, method }] })
  t.match((await register(call, his('/projects/secret'), bob)).json.error, {
    status: 409,
    details: /\/api\/v1\/projects\/secret lies within \/api\/v1\/projects\/\*\*, the route of service "projects"/
  })
  t.equal((await register(call, his('/by/7'), bob)).status, 409)
  t.match((await register(call, his('/filed/x'), bob)).json.error, {
    status: 409,
    details: /lies within \/api\/v1\/filed\/\*\*, the route at .*gateway\.yaml:\d+, which is somebody else’s/
  })
  t.equal((await register(call, his('/projects/secret'), alice)).status, 201, 'hers she may divide')
  t.equal((await register(call, { ...his('/filed/x'), name: 'admins' })).status, 201, 'and administrators all')
  t.equal((await register(call, { ...his('/filed/y', 'DELETE'), name: 'third' }, bob)).status, 201, 'another method')
  t.equal((await replace(call, hers.id, projects, headers.etag)).json.owner, 'user:alice', 'and she stays its owner')
})

t.test(
  'H-123 services are where registry.allow says, and never link-local, metadata or the gateway itself',
  async t => {
    const admin = await freePort()
    const at = async (allow: string[]) =>
      startGateway(t, {
        storage: await ownStorage(t, 'sqlite', t.testdir({})),
        registry: { allow },
        admin: { listen: `127.0.0.1:${admin}` }
      })
    const { port } = await at(['public', 'private', 'loopback'])
    const tell = async (base_url: string) => {
      const answer = await register((path, options) => callAt(admin, path, options), { name: 'x', base_url })
      if (answer.status === 201) await deregister((path, options) => callAt(admin, path, options), answer.json.id)
      return answer
    }
    for (const url of [
      ...[
        'http://169.254.169.254/latest/meta-data',
        'http://[fd00:ec2::254]/',
        'http://[fe80::1]:80',
        'http://0.0.0.0:80'
      ],
      ...[
        'http://[::]:80',
        'http://224.0.0.1',
        'http://[ff02::1]',
        'http://[::ffff:169.254.169.254]',
        'http://2852039166/'
      ]
    ])
      t.match((await tell(url)).json.error, { status: 422, details: /base_url leads to .*registry\.allow/ }, url)
    const own = Object.values(networkInterfaces()).flatMap(list => list ?? [])
    const addresses = own.map(({ address, family }) => (family === 'IPv6' ? `[${address}]` : address))
    for (const host of [
      '127.0.0.1',
      '127.1.2.3',
      'localhost',
      '[::1]',
      ...addresses.filter(host => !/^\[fe80/.test(host))
    ])
      for (const own of [port, admin])
        t.match((await tell(`http://${host}:${own}`)).json.error, { status: 422, details: /this gateway itself/ }, host)
    for (const url of [
      'http://127.0.0.1:1',
      'http://localhost:1',
      'http://10.0.0.1',
      'http://192.0.2.1',
      'http://[2001:db8::1]'
    ])
      t.equal((await tell(url)).status, 201, url)
  }
)

t.test('H-123 unless it is allowed, loopback is not, by no name', async t => {
  const { call } = await startGateway(t, { storage: await ownStorage(t, 'sqlite') })
  for (const url of [
    'http://127.0.0.1:1',
    'http://localhost:1',
    'http://[::1]:1',
    'http://127.1',
    'http://[::ffff:7f00:1]'
  ])
    t.match(
      (await register(call, { name: 'x', base_url: url })).json.error,
      { status: 422, details: /registry\.allow/ },
      url
    )
  t.match(
    (await register(call, { name: 'x', instances: [{ url: 'http://10.0.0.1' }, { url: 'http://localhost' }] })).json
      .error,
    {
      status: 422,
      details: /^instances\[1\]\.url leads to/
    }
  )
  const unknown = await register(call, { name: 'x', base_url: 'http://no-such-host.invalid' })
  t.match(unknown.json, { warnings: [/base_url: no-such-host\.invalid has no address yet/] })
})

t.test('H-123 a name that has come to mean another address leads nowhere, without a request being asked', async t => {
  const upstream = await startUpstream(t)
  const document = async (allow: string[]) => ({ storage, registry: { allow } })
  const storage = await ownStorage(t, 'sqlite')
  const { call, gateway, configure, line } = await startGateway(t, await document(['loopback']))
  const base_url = `http://localhost:${upstream.port}`
  await register(call, { name: 'x', base_url, endpoints: [{ path: '/x', public: true }] })
  t.equal((await call('/api/v1/x')).status, 200)
  // For the name it is the same whether it means something else, or what it means is no longer allowed.
  configure(await document(['private']))
  await gateway.reload()
  t.equal((await call('/api/v1/x')).status, 502)
  t.match(await line({ path: '/api/v1/x', status_code: 502 }), { reason: /ERR_NOT_ALLOWED/ })
  const { json: health } = await call('/gateway/services/x/health-check', { method: 'POST', token: boss })
  t.match(health, { status: 'unhealthy', instances: [{ healthy: false, error: 'ERR_NOT_ALLOWED' }] })
  t.equal(upstream.seen.length, 1)
})

t.test('H-122 H-123 what comes back by way of a registered service is a loop, at the own endpoints too', async t => {
  const folder = t.testdir({ a: {}, b: {} })
  const start = async (name: string) => {
    const own = join(folder, name)
    return startGateway(t, { ...here, storage: await ownStorage(t, 'sqlite', own) }, { folder: own })
  }
  const [a, b] = [await start('a'), await start('b')]
  const loop = (port: number, path: string) => ({
    name: 'loop',
    base_url: `http://127.0.0.1:${port}${path}`,
    endpoints: [{ path: '/**', public: true }]
  })
  t.equal((await register(a.call, loop(b.port, '/api/v1'))).status, 201)
  t.equal((await register(b.call, loop(a.port, ''))).status, 201)
  for (const path of ['/api/v1/api/v1/anything', '/api/v1/health', '/api/v1/admin/routes'])
    t.equal((await a.call(path)).status, 508, path)
})

t.test(
  'H-123 nobody registers a name that a route of the files takes for a host, wherever in the route it stands',
  async t => {
    const upstream = await startUpstream(t)
    const { call } = await startGateway(t, {
      ...here,
      storage: await ownStorage(t, 'sqlite'),
      services: { filed: { url: upstream.url } },
      routes: [
        { path: '/a', split: [{ service: 'filed' }, { service: 'host-of-split' }] },
        { path: '/b', service: 'filed', canary: { service: 'host-of-canary', steps: [{ weight: 1, for: '1h' }] } },
        { path: '/c', service: 'filed', mirror: { service: 'host-of-mirror' } },
        { path: '/{version}/d', service: 'filed', versions: { v1: {}, v2: { service: 'host-of-version' } } }
      ]
    })
    for (const name of ['host-of-split', 'host-of-canary', 'host-of-mirror', 'host-of-version', 'filed']) {
      const { status } = await register(call, { name, base_url: upstream.url }, team('alice', 'services.register'))
      t.equal(status, 409, name)
    }
    t.equal(
      (await register(call, { name: 'free', base_url: upstream.url }, team('alice', 'services.register'))).status,
      201
    )
  }
)
