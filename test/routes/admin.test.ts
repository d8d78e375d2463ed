import { cpSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { type Database, openDatabase } from '../../src/database/database.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { FakeClock } from '../support/clock.ts'
import { onBoth, ownStorage } from '../support/database.ts'
import { freePort } from '../support/free-port.ts'
import { startGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'

const boss = token({ sub: 'root', roles: ['admin'] })
const json = { 'content-type': 'application/json' }

t.test('C-39 H-122 administration is for administrators', async t => {
  const { call } = await startGateway(t, {})
  const operations: [string, string][] = [
    ['GET', '/gateway/status'],
    ['POST', '/gateway/reload'],
    ['GET', '/admin/routes'],
    ['PATCH', '/admin/routes'],
    ['GET', '/admin/rate-limits/user:alice'],
    ['DELETE', '/admin/rate-limits/user:alice'],
    ['POST', '/admin/revocations']
  ]
  for (const [method, path] of operations) {
    t.equal((await call(path, { method })).status, 401, path)
    t.equal((await call(path, { method, token: token({ roles: ['user'] }) })).status, 403, path)
  }
})

t.test('RTE-05 ADM-08 a route is switched off and on again without a restart', async t => {
  const upstream = await startUpstream(t)
  const { call } = await startGateway(t, {
    services: { s: { url: upstream.url } },
    routes: [{ id: 'the-one', path: '/x', service: 's', authentication: 'none' }]
  })
  const toggle = (id: string, enabled: boolean) =>
    call('/admin/routes', { method: 'PATCH', token: boss, headers: json, body: JSON.stringify({ id, enabled }) })
  t.equal((await call('/x')).status, 200)
  t.equal((await toggle('the-one', false)).status, 200)
  t.equal((await call('/x')).status, 404)
  t.match((await call('/admin/routes', { token: boss })).json, { routes: [{ id: 'the-one', enabled: false }] })
  await toggle('the-one', true)
  t.equal((await call('/x')).status, 200)
  t.equal((await toggle('another', true)).status, 404)
})

t.test('C-16 an administrator sees the routes in the order in which they are asked', async t => {
  const { call } = await startGateway(t, {
    services: { s: { url: 'http://127.0.0.1:1' } },
    routes: [
      { id: 'last', path: '/**', service: 's' },
      { id: 'first', path: '/x', service: 's' }
    ]
  })
  t.match((await call('/admin/routes', { token: boss })).json, { routes: [{ id: 'first' }, { id: 'last' }] })
})

t.test('RLM-14 RLM-15 an administrator sees what a caller has used, and forgets it', async t => {
  const upstream = await startUpstream(t)
  const { call } = await startGateway(t, {
    rate_limits: { roles: { user: 2 } },
    services: { s: { url: upstream.url } },
    routes: [{ path: '/x', service: 's' }]
  })
  const alice = token({ roles: ['user'] })
  for (const status of [200, 200, 429]) t.equal((await call('/x', { token: alice })).status, status)
  const { json: usage } = await call('/admin/rate-limits/user:alice', { token: boss })
  t.match(usage, { consumer: 'user:alice', limits: [{ limit: 2, window_seconds: 60, used: 2, remaining: 0 }] })
  t.equal((await call('/admin/rate-limits/user:alice', { method: 'DELETE', token: boss })).status, 204)
  t.equal((await call('/x', { token: alice })).status, 200)
})

t.test(
  'RLM-14 RLM-15 RLM-19 an address is seen and forgotten like a caller, IPv6 by any address of its /64',
  async t => {
    const upstream = await startUpstream(t)
    const { call } = await startGateway(t, {
      server: { trusted_proxies: ['loopback'] },
      rate_limits: { guest: 1, global: { requests_per_hour: 100 } },
      services: { s: { url: upstream.url } },
      routes: [{ path: '/x', service: 's', authentication: 'none' }]
    })
    const from = async (address: string) => (await call('/x', { headers: { 'x-forwarded-for': address } })).status
    for (const [first, neighbour, subject] of [
      ['192.0.2.1', '192.0.2.1', 'ip:192.0.2.1'],
      ['2001:db8::1', '2001:DB8:0:0:1::', 'ip:2001:db8:0:0::/64']
    ] as const) {
      t.same([await from(first), await from(neighbour)], [200, 429])
      const path = `/admin/rate-limits/ip:${neighbour}`
      t.match((await call(path, { token: boss })).json, { consumer: subject, limits: [{ name: 'user', used: 1 }] })
      t.equal((await call(path, { method: 'DELETE', token: boss })).status, 204)
      t.equal(await from(first), 200)
    }
    t.match((await call('/admin/rate-limits/global', { token: boss })).json, { limits: [{ name: 'global', used: 4 }] })
  }
)

t.test('IDN-15 ERR-02 a token that is taken back is refused at once, by its id or by itself', async t => {
  const upstream = await startUpstream(t)
  const { call } = await startGateway(t, {
    services: { s: { url: upstream.url } },
    routes: [{ path: '/x', service: 's' }]
  })
  const revoke = (body: object) =>
    call('/admin/revocations', { method: 'POST', token: boss, headers: json, body: JSON.stringify(body) })
  const withId = token({ jti: 'one' })
  const without = token({ sub: 'bob' })
  for (const good of [withId, without]) t.equal((await call('/x', { token: good })).status, 200)
  t.equal((await revoke({ jti: 'one', seconds: 60 })).status, 204)
  t.equal((await revoke({ token: without })).status, 204)
  for (const bad of [withId, without])
    t.match((await call('/x', { token: bad })).json, { error: { code: 'authentication_failed', status: 401 } })
  t.equal((await call('/x', { token: token({ sub: 'carol' }) })).status, 200)
})

t.test('IDN-15 a token that is taken back stays so for as long as it would have been good', async t => {
  const clock = new FakeClock(Date.now())
  const upstream = await startUpstream(t)
  const { call } = await startGateway(
    t,
    { services: { s: { url: upstream.url } }, routes: [{ path: '/x', service: 's' }] },
    { clock }
  )
  const days = (n: number): number => Math.floor(clock.now() / 1000) + n * 86_400
  const admin = token({ sub: 'root', roles: ['admin'], exp: days(90) })
  const stolen = token({ sub: 'alice', exp: days(30) })
  const body = JSON.stringify({ token: stolen })
  t.equal((await call('/admin/revocations', { method: 'POST', token: admin, headers: json, body })).status, 204)
  clock.advance(29 * 86_400_000)
  t.equal((await call('/x', { token: stolen })).status, 401)
  t.equal((await call('/x', { token: admin })).status, 200)
})

t.test('ERR-01 a body that does not validate is refused with the fields to blame', async t => {
  const { call } = await startGateway(t, {})
  const post = (body: string) => call('/admin/revocations', { method: 'POST', token: boss, headers: json, body })
  t.match((await post('{"jtj":"x"}')).json, {
    error: { code: 'validation_error', status: 422, details: /jtj unknown key, did you mean "jti"\?/ }
  })
  t.equal((await post('{}')).status, 422)
  t.match((await post('{"jti":"x"}')).json.error, { status: 422, details: /"jti" needs "seconds"/ })
  t.match((await post('{"token":"x"}')).json.error, { status: 422, details: /"token" is no token/ })
  t.equal((await post('{')).status, 400)
})

t.test('H-122 with a listener of its own, administration is there and nowhere else, and no route is', async t => {
  const upstream = await startUpstream(t)
  const port = await freePort()
  const { call } = await startGateway(t, {
    admin: { listen: `127.0.0.1:${port}` },
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's', authentication: 'none' }]
  })
  const { call: callAt } = await import('../support/gateway.ts')
  for (const path of ['/metrics', '/gateway/status', '/admin/routes']) {
    t.equal((await call(path, { token: boss })).status, 404, path)
    t.equal((await callAt(port, path, { token: boss })).status, 200, path)
  }
  t.equal((await callAt(port, '/anything')).status, 404)
  t.equal((await call('/anything')).status, 200)
  for (const at of [call, (path: string) => callAt(port, path)]) t.equal((await at('/health')).text, '{"status":"ok"}')
  t.equal(upstream.seen.length, 1)
})

t.test(
  'H-122 a listener of its own comes and goes with the process, never with a change of the configuration',
  async t => {
    const { call: callAt } = await import('../support/gateway.ts')
    const upstream = await startUpstream(t)
    const port = await freePort()
    const apart = (own: boolean): object => ({
      ...(own ? { admin: { listen: `127.0.0.1:${port}` } } : {}),
      services: { s: { url: upstream.url } },
      routes: [{ path: `/${own}`, service: 's', authentication: 'none' }]
    })
    for (const own of [true, false]) {
      const { call, gateway, configure, lines } = await startGateway(t, apart(own))
      configure(apart(!own))
      await gateway.reload()
      t.equal((await call(`/${!own}`)).status, 200, 'the change is there')
      t.equal((await call('/gateway/status', { token: boss })).status, own ? 404 : 200)
      if (own) {
        t.equal((await callAt(port, '/gateway/status', { token: boss })).status, 200)
        t.equal((await callAt(port, `/${!own}`)).status, 404)
      }
      t.ok(lines().some(({ msg }) => msg === '"admin.listen" has changed; that takes effect at the next start'))
      await gateway.close()
    }
  }
)

t.test('RLM-09 the guard of the gateway’s own operations counts before credentials are looked at', async t => {
  const { call } = await startGateway(t, {}, { clock: new FakeClock() })
  const statuses = new Set<number>()
  for (let i = 0; i < 130; i++) statuses.add((await call('/gateway/status')).status)
  t.strictSame([...statuses].sort(), [401, 429])
})

onBoth(t, 'STO-01 OBS-33 SQLite is copied while it is in use; PostgreSQL is not ours to copy', async (t, kind) => {
  const { database_url } = await ownStorage(t, kind)
  const { call, gateway } = await startGateway(t, {
    storage: { database: true, ...(database_url && { database_url }) }
  })
  const database = gateway.runtime.database as Database
  const backup = () => call('/admin/backups', { method: 'POST', token: boss })
  if (kind === 'postgres') return void t.equal((await backup()).status, 409)

  const names = Array.from({ length: 50 }, (_, i) => `role-${i}`)
  const write = (name: string) =>
    database.transaction(async trx => {
      const row = { id: crypto.randomUUID(), name, description: null, permissions: '[]', created_at: 1, updated_at: 1 }
      await trx.insertInto('roles').values(row).execute()
    })
  await Promise.all(names.slice(0, 25).map(write))
  const [made] = await Promise.all([backup(), ...names.slice(25).map(write)])
  t.equal(made.status, 201, made.text)
  t.equal(statSync(made.json.file).size, made.json.bytes)
  for (const file of [made.json.file, join(gateway.snapshot.storage.data_dir, 'sallyport.db')])
    t.equal(statSync(file).mode & 0o077, 0, `${file} is nobody else’s`)
  t.match((await call('/admin/audit?action=database.backup', { token: boss })).json.data, [{ after: made.json }])

  const folder = mkdtempSync(join(tmpdir(), 'sallyport-copy-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  cpSync(made.json.file, join(folder, 'sallyport.db'))
  const copy = await openDatabase({ data_dir: folder }, { clock: systemClock, log: gateway.runtime.log })
  const found = new Set((await copy.db.selectFrom('roles').select('name').execute()).map(({ name }) => name))
  for (const name of names.slice(0, 25)) t.ok(found.has(name), `${name}, which was there before`)
  await copy.close()
})

t.test(
  'IDN-03 IDN-15 an auth service behind the gateway refreshes a token, and has the old one taken back',
  async t => {
    const fresh = token({ jti: 'fresh' })
    const upstream = await startUpstream(t, async (request, response, body) => {
      if (request.url !== '/api/auth/refresh') return void response.end()
      const { refresh_token: old } = JSON.parse(body)
      await call('/admin/revocations', {
        method: 'POST',
        token: boss,
        headers: json,
        body: JSON.stringify({ jti: old, seconds: 600 })
      })
      response.end(JSON.stringify({ access_token: fresh }))
    })
    const { call } = await startGateway(t, {
      services: { auth: { url: upstream.url } },
      routes: [
        { path: '/api/auth/**', service: 'auth', authentication: 'none' },
        { path: '/x', service: 'auth' }
      ]
    })
    const old = token({ jti: 'old' })
    t.equal((await call('/x', { token: old })).status, 200)
    const refresh = { method: 'POST', headers: json, body: '{"refresh_token":"old"}' }
    const { access_token } = (await call('/api/auth/refresh', refresh)).json
    t.equal((await call('/x', { token: access_token })).status, 200)
    t.equal((await call('/x', { token: old })).status, 401)
  }
)
