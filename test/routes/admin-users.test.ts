import t, { type Test } from 'tap'
import type { Database } from '../../src/database/database.ts'
import { onBoth, ownStorage } from '../support/database.ts'
import { type Answer, type CallOptions, startGateway, type TestGateway } from '../support/gateway.ts'
import { startUpstream } from '../support/upstream.ts'
import { addUser } from '../support/users.ts'

const PASSWORD = 'correct horse battery'
const NOBODY = '00000000-0000-4000-8000-000000000000'

/** A gateway whose first administrator has logged in. */
async function start(t: Test, kind: Database['kind'] = 'sqlite') {
  const upstream = await startUpstream(t)
  const storage = await ownStorage(t, kind)
  const document = {
    storage,
    identity: { password: { memory_kib: 8, passes: 1 } },
    rate_limits: { user_tiers: { free: { requests_per_hour: 1 }, pro: { requests_per_hour: 1000 } } },
    services: { orders: { url: upstream.url } },
    routes: [
      { path: '/orders/**', service: 'orders', permissions: ['orders.read'] },
      { id: 'counted', path: '/counted/**', service: 'orders', required_roles: ['clerk'] },
      { path: '/**', service: 'orders' }
    ]
  }
  const gateway = await startGateway(t, document)
  const database = gateway.gateway.runtime.database as Database
  const root = await addUser(database, { roles: { admin: ['*'] }, username: 'root' })
  await setKnownPassword(gateway, root)
  const login = (username: string, password: string): Promise<Answer> =>
    send(gateway, 'POST', '/auth/login', {}, { username, password })
  const admin = { token: (await login('root', PASSWORD)).json.access_token as string }
  const api = (method: string, path: string, body?: object, as: CallOptions = admin): Promise<Answer> =>
    send(gateway, method, `/admin${path}`, as, body)
  const audited = async (target: string) => {
    const rows = await database.db
      .selectFrom('audit_log')
      .selectAll()
      .where('target', '=', target)
      .orderBy('seq')
      .execute()
    return rows.filter(({ action }) => action !== 'login')
  }
  return { ...gateway, document, database, root, admin, login, api, audited }
}

function send({ call }: TestGateway, method: string, path: string, as: CallOptions, body?: object): Promise<Answer> {
  const headers = { ...(body && { 'content-type': 'application/json' }), ...as.headers }
  return call(path, { method, ...as, headers, ...(body && { body: JSON.stringify(body) }) })
}

async function setKnownPassword({ gateway }: TestGateway, id: string): Promise<void> {
  const { passwords, database } = gateway.runtime
  const hash = await passwords.hash(PASSWORD, gateway.snapshot.identity.password)
  await database?.db.updateTable('users').set({ password_hash: hash }).where('id', '=', id).execute()
}

onBoth(
  t,
  'AZN-14 AZN-02 IDN-08 C-33 C-34 C-35 users and roles are made, found, changed and deleted',
  async (t, kind) => {
    const { api, login, call, audited } = await start(t, kind)
    const role = await api('POST', '/roles', { name: 'clerk', description: 'Counts', permissions: ['orders.read'] })
    t.match(role, { status: 201, headers: { location: `/admin/roles/${role.json.id}` } })
    t.match(role.json, { name: 'clerk', description: 'Counts', permissions: ['orders.read'], users: 0 })
    const made = await api('POST', '/users', {
      username: 'Alice',
      email: 'alice@example.com',
      roles: ['clerk'],
      tier: 'pro'
    })
    t.equal(made.status, 201)
    t.match(made.headers, { 'cache-control': 'no-store', location: `/admin/users/${made.json.id}` })
    t.match(made.json, {
      id: /^[0-9a-f-]{36}$/,
      first_name: null,
      roles: ['clerk'],
      permissions: ['orders.read'],
      tier: 'pro',
      active: true,
      must_change_password: true,
      created_at: /Z$/
    })
    const { id, password } = made.json
    t.match((await login('alice', password)).json.user, { must_change_password: true })
    t.notOk((await api('GET', `/users/${id}`)).json.password)
    const bob = (await api('POST', '/users', { username: 'bob', email: 'bob@b.example', password: 'battery horse' }))
      .json
    t.equal(bob.password, undefined, 'who was given one knows it')
    const token = (await login('bob', 'battery horse')).json.access_token
    t.equal((await call('/x', { token })).status, 200)

    const names = async (query: string): Promise<string[]> =>
      ((await api('GET', `/users${query}`)).json.data as { username: string }[]).map(({ username }) => username)
    t.same(
      (await names('')).filter(name => name !== 'admin'),
      ['Alice', 'bob', 'root']
    )
    t.same(await names('?name=AL'), ['Alice'])
    t.same(await names('?name=bob@b'), ['bob'], 'the address, too')
    t.same(await names('?name=%25'), [], 'nothing stands for anything')
    t.same(await names('?role=clerk'), ['Alice'])
    t.same(await names('?active=false'), [])
    t.match((await api('GET', '/users?per_page=1&page=2')).json.meta.pagination, { page: 2, per_page: 1 })
    t.match((await api('GET', '/roles')).json.data, [{ name: 'admin' }, { name: 'clerk', users: 1 }])

    const changed = await api('PUT', `/users/${id}`, { username: 'alicia', first_name: 'Alicia', tier: null })
    t.match(changed.json, {
      username: 'alicia',
      email: 'alice@example.com',
      first_name: 'Alicia',
      tier: null,
      roles: ['clerk']
    })
    t.match((await api('PUT', `/roles/${role.json.id}`, { description: null })).json, {
      name: 'clerk',
      description: null,
      users: 1
    })
    t.match((await api('DELETE', `/users/${id}`)).json, { id, api_keys: 0, sessions: 1 })
    t.equal((await api('GET', `/users/${id}`)).status, 404)
    t.match((await api('POST', `/users/${bob.id}/roles`, { role: 'clerk' })).json, { roles: ['clerk'] })
    t.same((await api('DELETE', `/roles/${role.json.id}`)).json, { id: role.json.id, users: 1, routes: ['counted'] })
    t.match((await api('GET', `/users/${bob.id}`)).json, { roles: [], permissions: [] })

    const entries = await audited(`user:${id}`)
    t.same(
      entries.map(({ action }) => action),
      ['user.create', 'user.update', 'user.delete']
    )
    t.match(JSON.parse(entries[1]?.before as string), { username: 'Alice', tier: 'pro' })
    t.match(JSON.parse(entries[1]?.after as string), { username: 'alicia', tier: null })
    t.notMatch(JSON.stringify(entries), password)
    t.notMatch(JSON.stringify(entries), /argon2/)
  }
)

t.test('AZN-14 what administrators change takes effect at once', async t => {
  const { api, login, call } = await start(t)
  const clerk = (await api('POST', '/roles', { name: 'clerk', permissions: ['orders.read'] })).json
  const account = { username: 'bob', email: 'bob@example.com', password: 'battery horse', roles: ['clerk'] }
  const bob = (await api('POST', '/users', account)).json
  const fresh = async (): Promise<string> => (await login('bob', 'battery horse')).json.access_token
  const status = async (token: string, path = '/orders/1') => (await call(path, { token })).status
  const changes: [what: string, act: () => Promise<Answer>][] = [
    ['permissions of a role', () => api('PUT', `/roles/${clerk.id}`, { permissions: ['orders.*'] })],
    ['the name of a role', () => api('PUT', `/roles/${clerk.id}`, { name: 'teller' })],
    ['a role less', () => api('DELETE', `/users/${bob.id}/roles/teller`)],
    ['a role more', () => api('POST', `/users/${bob.id}/roles`, { role: 'teller' })],
    ['RLM-03 the tier', () => api('PUT', `/users/${bob.id}`, { tier: 'pro' })],
    ['sessions', () => api('DELETE', `/users/${bob.id}/sessions`)],
    ['not active', () => api('PUT', `/users/${bob.id}`, { active: false })]
  ]
  for (const [what, act] of changes) {
    const token = await fresh()
    t.equal(await status(token, '/x'), 200, `before: ${what}`)
    t.ok((await act()).status < 300, what)
    t.equal(await status(token, '/x'), 401, what)
  }
  t.equal((await login('bob', 'battery horse')).status, 401)
  t.equal((await api('PUT', `/users/${bob.id}`, { active: true })).status, 200)
  const token = await fresh()
  t.equal((await api('PUT', `/users/${bob.id}`, { first_name: 'Bob', active: true })).status, 200)
  t.equal(await status(token, '/x'), 200, 'a name is no reason')
})

t.test('AZN-14 a password that is reset is told once, ends all sessions, and has to be replaced', async t => {
  const { api, login, call } = await start(t)
  const account = { username: 'bob', email: 'bob@example.com', password: 'battery horse' }
  const bob = (await api('POST', '/users', account)).json
  const { access_token: token, refresh_token } = (await login('bob', 'battery horse')).json
  const status = async (token: string, path: string) => (await call(path, { token })).status
  const reset = await api('POST', `/users/${bob.id}/password`)
  t.match(reset, { status: 200, headers: { 'cache-control': 'no-store' } })
  const { password } = reset.json
  const body = JSON.stringify({ refresh_token })
  const headers = { 'content-type': 'application/json' }
  t.equal((await call('/auth/refresh', { method: 'POST', headers, body })).status, 401)
  t.equal(await status(token, '/x'), 401)
  t.equal((await login('bob', 'battery horse')).status, 401)
  t.equal((await login('bob', password)).json.user.must_change_password, true)
  await api('DELETE', `/users/${bob.id}`)
  t.equal((await login('bob', password)).status, 401)
})

t.test('RLM-03 a user’s tier changes its limit at run time, and its keys’', async t => {
  const { api, login, call } = await start(t)
  const account = { username: 'bob', email: 'bob@example.com', password: 'battery horse', tier: 'free' }
  const { id } = (await api('POST', '/users', account)).json
  const fresh = async (): Promise<string> => (await login('bob', 'battery horse')).json.access_token
  const free = await call('/x', { token: await fresh() })
  t.equal(free.headers['ratelimit-limit'], '1')
  await api('PUT', `/users/${id}`, { tier: 'pro' })
  const pro = await call('/x', { token: await fresh() })
  t.equal(pro.headers['ratelimit-limit'], '1000')
})

onBoth(
  t,
  'AZN-14 the last administrator who is active stays, whatever is tried, and however often at once',
  async (t, kind) => {
    const { api, root, database } = await start(t, kind)
    const others = await database.db.selectFrom('users').select('id').where('id', '!=', root).execute()
    for (const { id } of others) await database.db.deleteFrom('users').where('id', '=', id).execute()
    const { id: adminRole } = await database.db
      .selectFrom('roles')
      .select('id')
      .where('name', '=', 'admin')
      .executeTakeFirstOrThrow()
    const attempts: [method: string, path: string, body?: object][] = [
      ['DELETE', `/users/${root}`],
      ['PUT', `/users/${root}`, { active: false }],
      ['DELETE', `/users/${root}/roles/admin`],
      ['DELETE', `/roles/${adminRole}`],
      ['PUT', `/roles/${adminRole}`, { name: 'boss' }]
    ]
    for (const [method, path, body] of attempts) {
      const answer = await api(method, path, body)
      t.match(answer.json.error, { status: 409, code: 'conflict' }, `${method} ${path}`)
    }
    const second = await addUser(database, { roles: { admin: [] } })
    t.equal((await api('PUT', `/users/${second}`, { active: false })).status, 200, 'one of two may go')
    t.equal((await api('DELETE', `/users/${root}`)).status, 409, 'one who is not active does not count')
    t.equal((await api('GET', `/users/${root}`)).json.active, true)
  }
)

t.test('AZN-14 what is not good is refused, and says why', async t => {
  const { api, login, root } = await start(t)
  const user = { username: 'bob', email: 'bob@example.com' }
  const bob = (await api('POST', '/users', { ...user, password: 'battery horse' })).json
  const role = (await api('POST', '/roles', { name: 'clerk' })).json
  const cases: [status: number, method: string, path: string, body: object | undefined, says: RegExp][] = [
    [409, 'POST', '/users', { ...user, email: 'other@example.com' }, /taken/],
    [409, 'POST', '/users', { username: 'robert', email: 'BOB@example.com' }, /taken/],
    [409, 'PUT', `/users/${root}`, { username: 'BOB' }, /taken/],
    [409, 'POST', '/roles', { name: 'clerk' }, /taken/],
    [
      422,
      'POST',
      '/users',
      { username: 'x', email: 'x@x.example', roles: ['clerk', 'ghost'] },
      /roles "ghost" is no role/
    ],
    [422, 'POST', `/users/${bob.id}/roles`, { role: 'ghost' }, /"ghost" is no role/],
    [422, 'POST', '/users', { username: 'a@b', email: 'nonsense', password: 'short' }, /username.*email.*password/],
    [422, 'POST', '/roles', { name: 'a b', permissions: ['x y'] }, /name.*permissions\[0\]/],
    [422, 'GET', '/users/nobody', undefined, /user_id/],
    [404, 'GET', `/users/${NOBODY}`, undefined, /no such user/],
    [404, 'PUT', `/users/${NOBODY}`, { tier: 'pro' }, /no such user/],
    [404, 'DELETE', `/users/${NOBODY}`, undefined, /no such user/],
    [404, 'POST', `/users/${NOBODY}/password`, undefined, /no such user/],
    [404, 'DELETE', `/users/${bob.id}/roles/clerk`, undefined, /does not have the role/],
    [404, 'GET', `/roles/${NOBODY}`, undefined, /no such role/],
    [404, 'DELETE', `/roles/${NOBODY}`, undefined, /no such role/]
  ]
  for (const [status, method, path, body, says] of cases) {
    const answer = await api(method, path, body)
    t.match(answer.json.error, { status, details: says }, `${method} ${path} ${JSON.stringify(body)}`)
  }
  t.match((await api('GET', `/users/${bob.id}`)).json, { roles: [] }, 'nothing of it was done')
  const token = (await login('bob', 'battery horse')).json.access_token
  for (const [method, path] of [
    ['GET', '/users'],
    ['POST', '/users'],
    ['GET', `/users/${bob.id}`],
    ['DELETE', `/users/${bob.id}`],
    ['POST', `/users/${bob.id}/password`],
    ['POST', `/users/${bob.id}/roles`],
    ['GET', '/roles'],
    ['DELETE', `/roles/${role.id}`]
  ] as const) {
    t.equal((await api(method, path, undefined, { token })).status, 403, `C-39 ${method} ${path} as a user`)
    t.equal((await api(method, path, undefined, { token: undefined })).status, 401, `C-39 ${method} ${path} as nobody`)
  }
})

onBoth(t, 'AZN-02 AZN-03 C-33 C-35 which roles registered endpoints ask for', async (t, kind) => {
  const { api, database } = await start(t, kind)
  const clerk = (await api('POST', '/roles', { name: 'clerk' })).json
  const teller = (await api('POST', '/roles', { name: 'teller' })).json
  const time = Date.UTC(2030, 0, 1)
  const id = '11111111-1111-4111-8111-111111111111'
  const service = { id, name: 's', version: null, description: null, base_url: 'http://192.0.2.1', owner: 'user:x' }
  await database.db
    .insertInto('services')
    .values({ ...service, active: false, tags: '[]', settings: '{}', revision: 1, created_at: time, updated_at: time })
    .execute()
  const endpoint = (id: string, path: string, roles: string[]) => ({
    ...{ id, service_id: service.id, position: 0, path, method: 'GET', name: null, description: null, version: null },
    ...{ public: false, deprecated: false, required_roles: JSON.stringify(roles), created_at: time, updated_at: time }
  })
  const [one, two] = ['22222222-2222-4222-8222-222222222222', '33333333-3333-4333-8333-333333333333'] as const
  await database.db
    .insertInto('endpoints')
    .values([endpoint(one, '/a', ['clerk', 'teller', 'elsewhere']), endpoint(two, '/b', ['clerk'])])
    .execute()
  const list = async (query: string) => (await api('GET', `/endpoint-permissions${query}`)).json
  const { data, meta } = await list('')
  t.match(data, [
    { id: /^[0-9a-f-]{14}8/, endpoint_id: one, role_id: clerk.id, endpoint: 'GET /a', role: 'clerk' },
    { endpoint_id: one, role_id: teller.id, created_at: '2030-01-01T00:00:00.000Z' },
    { endpoint_id: two, role_id: clerk.id }
  ])
  t.equal(meta.pagination.total, 3)
  t.same(await list('').then(again => again.data), data, 'with the same ids')
  t.equal((await list(`?role_id=${teller.id}`)).meta.pagination.total, 1)
  t.same((await list(`?endpoint_id=${two}`)).data, [data[2]])
  t.equal((await list('?per_page=2&page=2')).data.length, 1)
})
