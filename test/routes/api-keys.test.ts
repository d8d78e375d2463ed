import t, { type Test } from 'tap'
import type { Database } from '../../src/database/database.ts'
import { raiseTokenVersion } from '../../src/database/users.ts'
import { FakeClock } from '../support/clock.ts'
import { onBoth, ownStorage } from '../support/database.ts'
import { type Answer, type CallOptions, startGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'
import { addUser } from '../support/users.ts'

const DAY_MS = 86_400_000
const UUID = /^[0-9a-f-]{36}$/

async function start(t: Test, kind: Database['kind'] = 'sqlite') {
  const upstream = await startUpstream(t)
  const clock = new FakeClock(Date.UTC(2026, 4, 1))
  const storage = await ownStorage(t, kind)
  const gateway = await startGateway(
    t,
    {
      storage,
      services: { orders: { url: upstream.url } },
      routes: [
        { path: '/queried/**', service: 'orders', authentication: { query_parameter: 'key' } },
        { path: '/orders/**', service: 'orders', permissions: ['orders.read'] },
        { path: '/**', service: 'orders' }
      ]
    },
    { clock, env: { SALLYPORT_ADMIN_PASSWORD: 'correct horse battery' } }
  )
  const database = gateway.gateway.runtime.database as Database
  const now = (): number => Math.floor(clock.now() / 1000)
  const roles = { clerk: ['orders.*', 'menu.read'] }
  const alice = await addUser(database, { roles, username: 'alice', tier: 'pro' })
  const bob = await addUser(database, { roles: {}, username: 'bob' })
  const claims = { iat: now(), exp: now() + 400 * 86_400 }
  const tokens = {
    alice: token({ ...claims, sub: alice, roles: ['clerk'], permissions: ['orders.*', 'menu.read'], ver: 0 }),
    bob: token({ ...claims, sub: bob, ver: 0 }),
    admin: token({ ...claims, sub: 'root', roles: ['admin'] })
  }
  const api = (method: string, path: string, as: CallOptions, body?: object): Promise<Answer> =>
    gateway.call(`/api-keys${path}`, {
      method,
      ...as,
      headers: { ...(body && { 'content-type': 'application/json' }), ...as.headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
  const use = async (key: string, path = '/x'): Promise<number> =>
    (await gateway.call(path, { headers: { 'x-api-key': key } })).status
  const as = { alice: { token: tokens.alice }, bob: { token: tokens.bob }, admin: { token: tokens.admin } }
  return { ...gateway, upstream, clock, database, api, use, as, alice, bob }
}

const by = (key: string): CallOptions => ({ headers: { 'x-api-key': key } })

onBoth(
  t,
  'IDN-20 IDN-21 IDN-23 IDN-25 C-33 C-35 a key is made, shown once, used, changed and taken back',
  async (t, kind) => {
    const { api, as, use, clock, alice, upstream, database } = await start(t, kind)
    const made = await api('POST', '', as.alice, { name: 'Import', expires_in_days: 30, permissions: ['orders.read'] })
    t.equal(made.status, 201)
    t.same(Object.keys(made.json), ['id', 'key', 'name', 'permissions', 'created_at', 'expires_at'])
    t.match(made.json, {
      id: UUID,
      key: /^sak_dev_[a-z2-7]{26}$/,
      name: 'Import',
      permissions: ['orders.read'],
      created_at: '2026-05-01T00:00:00.000Z',
      expires_at: new Date(clock.now() + 30 * DAY_MS).toISOString()
    })
    t.match(made.headers, { 'cache-control': 'no-store', location: `/api-keys/${made.json.id}` })
    const { id, key } = made.json
    t.equal(await use(key, '/orders/1'), 200)
    t.match(upstream.last().headers, {
      'x-client-id': id,
      'x-user-name': 'Import',
      'x-user-roles': 'clerk',
      'x-user-permissions': 'orders.read',
      'x-auth-method': 'api_key'
    })
    t.notOk(upstream.last().headers['x-api-key'])
    const read = await api('GET', `/${id}`, as.alice)
    t.match(read.json, { id, user_id: alice, name: 'Import', prefix: key.slice(0, 12), last_used_at: null })
    const list = await api('GET', '', as.alice)
    t.match(list.json, { data: [{ id }], meta: { pagination: { total: 1, pages: 1 } } })
    const changed = await api('PUT', `/${id}`, as.alice, {
      name: 'Export',
      permissions: ['menu.read'],
      expires_in_days: null
    })
    t.match(changed.json, { name: 'Export', permissions: ['menu.read'], expires_at: null })
    t.equal(await use(key, '/orders/1'), 403, 'what it may do now')
    t.equal(await use(key), 200)
    t.match((await api('PUT', `/${id}`, as.alice, { name: 'Once more' })).json, {
      permissions: ['menu.read'],
      expires_at: null
    })
    for (const answer of [read, list, changed]) t.notMatch(answer.text, key.slice(12), 'never again')
    t.equal((await api('DELETE', `/${id}`, as.alice)).status, 204)
    t.equal(await use(key), 401)
    t.equal((await api('GET', `/${id}`, as.alice)).status, 404)
    const dump = JSON.stringify([
      await database.db.selectFrom('audit_log').selectAll().where('target', '=', `api_key:${id}`).execute(),
      await database.db.selectFrom('api_keys').selectAll().execute()
    ])
    t.notMatch(dump, key.slice(12))
    const { db } = database
    const entries = await db
      .selectFrom('audit_log')
      .selectAll()
      .where('target', '=', `api_key:${id}`)
      .orderBy('seq')
      .execute()
    t.same(
      entries.map(({ action, actor }) => [action, actor]),
      ['create', 'update', 'update', 'delete'].map(action => [`api_key.${action}`, `user:${alice}`])
    )
    t.match(JSON.parse(entries[1]?.before as string), { name: 'Import' })
    t.match(JSON.parse(entries[1]?.after as string), { name: 'Export' })
  }
)

t.test('IDN-24 a key may do no more than its owner, when it is made and when it is used', async t => {
  const { api, as, use, database, alice, line } = await start(t)
  const wide = await api('POST', '', as.alice, { name: 'wide', permissions: ['orders.*', 'users.write'] })
  t.equal(wide.status, 403)
  t.match(wide.json.error, { code: 'insufficient_permissions', details: /its owner may not: users\.write/ })
  const { json } = await api('POST', '', as.alice, { name: 'orders', permissions: ['orders.*'] })
  t.equal(await use(json.key, '/orders/1'), 200)
  await database.transaction(async (trx, changed) => {
    await trx.updateTable('roles').set({ permissions: '["orders.write"]' }).where('name', '=', 'clerk').execute()
    await raiseTokenVersion(trx, changed, [alice], 1)
  })
  t.equal(await use(json.key, '/orders/1'), 403)
  await database.transaction(async (trx, changed) => {
    await trx.updateTable('users').set({ active: false }).where('id', '=', alice).execute()
    await raiseTokenVersion(trx, changed, [alice], 1)
  })
  t.equal(await use(json.key), 401)
  await line({ reason: 'inactive_owner', status_code: 401 })
})

t.test('IDN-24 a key that a key makes or changes is no wider than that one, and ends no later', async t => {
  const { api, as, clock } = await start(t)
  const maker = (await api('POST', '', as.alice, { name: 'maker', permissions: ['orders.read'], expires_in_days: 10 }))
    .json
  const wide = (await api('POST', '', as.alice, { name: 'wide', permissions: ['orders.*'] })).json
  const make = (body: object) => api('POST', '', by(maker.key), { name: 'child', ...body })
  t.match((await make({ permissions: ['orders.write'] })).json.error, {
    status: 403,
    details: /the caller may not: orders\.write/
  })
  t.match((await make({ expires_in_days: 11 })).json.error, { status: 403, details: /may not outlive/ })
  t.match((await make({ expires_in_days: null })).json.error, { status: 403 })
  const child = await make({ permissions: ['orders.read'] })
  t.equal(child.status, 201)
  t.equal(child.json.expires_at, new Date(clock.now() + 10 * DAY_MS).toISOString())
  t.equal((await api('POST', `/${wide.id}/rotate`, by(maker.key))).status, 403, 'nor got by rotating')
  t.equal((await api('PUT', `/${child.json.id}`, by(maker.key), { permissions: ['orders.*'] })).status, 403)
  t.equal((await api('PUT', `/${child.json.id}`, by(maker.key), { expires_in_days: null })).status, 403)
  t.equal((await api('PUT', `/${child.json.id}`, by(maker.key), { name: 'renamed' })).status, 200)
})

t.test('IDN-22 rotation gives a new key, and the old one what grace it was given', async t => {
  const { api, as, use, clock } = await start(t)
  const { id, key: first } = (await api('POST', '', as.alice, { name: 'k', permissions: ['orders.read'] })).json
  t.equal(await use(first), 200)
  const rotated = await api('POST', `/${id}/rotate`, as.alice, { grace_seconds: 60 })
  t.equal(rotated.status, 200)
  t.match(rotated.json, {
    id,
    name: 'k',
    permissions: ['orders.read'],
    previous_valid_until: '2026-05-01T00:01:00.000Z'
  })
  const { key: second } = rotated.json
  t.not(second, first)
  t.same([await use(first), await use(second)], [200, 200])
  clock.advance(60_000)
  t.same([await use(first), await use(second)], [401, 200])
  const { key: third } = (await api('POST', `/${id}/rotate`, as.alice)).json
  t.same([await use(second), await use(third)], [401, 200], 'none unless asked for')
  for (const grace_seconds of [-1, 604_801, 1.5, '60'])
    t.equal((await api('POST', `/${id}/rotate`, as.alice, { grace_seconds })).status, 422, `${grace_seconds}`)
})

t.test('IDN-21 C-39 keys are their owner’s and the administrators’', async t => {
  const { api, as, alice, bob } = await start(t)
  const hers = (await api('POST', '', as.alice, { name: 'hers' })).json
  const his = (await api('POST', '', as.bob, { name: 'his' })).json
  for (const [method, path, body] of [
    ['GET', `/${hers.id}`],
    ['PUT', `/${hers.id}`, { name: 'mine' }],
    ['DELETE', `/${hers.id}`],
    ['POST', `/${hers.id}/rotate`, {}]
  ] as const)
    t.equal((await api(method, path, as.bob, body)).status, 404, `${method} ${path}`)
  const ids = async (path: string, who: CallOptions): Promise<string[]> =>
    ((await api('GET', path, who)).json.data as { id: string }[]).map(({ id }) => id).sort()
  t.same(await ids('', as.bob), [his.id])
  t.same(await ids('', as.admin), [hers.id, his.id].sort())
  t.same(await ids(`?user_id=${alice}`, as.admin), [hers.id])
  t.same(await ids(`?user_id=${bob}`, as.bob), [his.id])
  t.equal((await api('GET', `?user_id=${alice}`, as.bob)).status, 403)
  t.equal((await api('PUT', `/${hers.id}`, as.admin, { permissions: ['orders.read'] })).status, 200)
  t.equal((await api('PUT', `/${hers.id}`, as.admin, { permissions: ['users.*'] })).status, 403, 'beyond its owner')
  t.equal((await api('DELETE', `/${hers.id}`, as.admin)).status, 204)
  t.match((await api('POST', '', as.admin, { name: 'nobody’s' })).json.error, {
    status: 403,
    details: /the caller is none/
  })
  t.equal((await api('GET', '', { token: undefined })).status, 401)
  t.equal((await api('GET', '/nonsense', as.alice)).status, 422)
  t.equal((await api('GET', '/00000000-0000-4000-8000-000000000000', as.admin)).status, 404)
})

onBoth(t, 'IDN-24 TRF-14 whoever is no user has no keys; pages beyond all counting are refused', async (t, kind) => {
  const { api, as } = await start(t, kind)
  const stranger = {
    token: token({ sub: 'stranger', exp: Date.UTC(2027, 0, 1) / 1000, iat: Date.UTC(2026, 4, 1) / 1000 })
  }
  t.match((await api('GET', '', stranger)).json, { data: [], meta: { pagination: { total: 0 } } })
  t.equal((await api('GET', '?page=1000000000&per_page=100', as.alice)).status, 200)
  for (const page of ['1000000001', '92233720368547758', '99999999999999999999', '1e300'])
    t.equal((await api('GET', `?page=${page}&per_page=100`, as.alice)).status, 422, page)
})

t.test('IDN-20 a body that is not good is a 422 that says everything', async t => {
  const { api, as } = await start(t)
  const bodies: [body: object, fields: string[]][] = [
    [{}, ['body']],
    [{ name: '' }, ['name']],
    [{ name: 'x'.repeat(101) }, ['name']],
    [{ name: 'a\nb' }, ['name']],
    [{ name: 'x', expires_in_days: 0 }, ['expires_in_days']],
    [
      { name: 'x', expires_in_days: 3651, permissions: ['a b', ''] },
      ['expires_in_days', 'permissions[0]', 'permissions[1]']
    ],
    [{ name: 'x', permissions: 'orders.read' }, ['permissions']],
    [{ name: 'x', user_id: 'someone' }, ['user_id']]
  ]
  for (const [body, fields] of bodies) {
    const answer = await api('POST', '', as.alice, body)
    t.equal(answer.status, 422, JSON.stringify(body))
    for (const field of fields) t.match(answer.json.error.details, field, JSON.stringify(body))
  }
})

t.test('IDN-24 H-63 a key may come in the query where the route says so, and goes no further', async t => {
  const { api, as, call, upstream } = await start(t)
  const { key } = (await api('POST', '', as.alice, { name: 'k' })).json
  t.equal((await call(`/queried/x?key=${key}&a=1`)).status, 200)
  t.match(upstream.last(), { url: '/queried/x?a=1' })
  t.equal((await call(`/queried/x?key=${key.slice(0, -1)}`)).status, 401)
  t.equal((await call(`/queried/x?key=${key}`, { headers: { 'x-api-key': key } })).status, 400)
  t.equal((await call(`/queried/x?key=${key}&key=${key}`)).status, 400)
  t.equal((await call(`/x?key=${key}`)).status, 401, 'and nowhere else')
})

t.test('H-63 two credentials, and a key where it does not belong, are refused', async t => {
  const { api, as, call, use } = await start(t)
  const { key } = (await api('POST', '', as.alice, { name: 'k' })).json
  t.equal(
    (await call('/x', { token: (as.alice as { token: string }).token, headers: { 'x-api-key': key } })).status,
    400
  )
  t.equal((await call(`/x?api_key=${key}`)).status, 401)
  t.equal((await call('/x', { headers: { authorization: `ApiKey ${key}` } })).status, 200)
  for (const wrong of [key.slice(0, -1), `${key}a`, key.toUpperCase(), 'sak_dev_', ' '])
    t.equal(await use(wrong), 401, wrong)
})
