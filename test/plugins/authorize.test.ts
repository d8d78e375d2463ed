import t, { type Test } from 'tap'
import { call, startGateway, type TestGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { startUpstream, type Upstream } from '../support/upstream.ts'

type Document = Readonly<Record<string, unknown>>

async function start(t: Test, document: (url: string) => Document): Promise<TestGateway & { upstream: Upstream }> {
  const upstream = await startUpstream(t)
  return { ...(await startGateway(t, document(upstream.url))), upstream }
}

/** Routes for one service that echoes. */
const routes =
  (...list: object[]) =>
  (url: string): Document => ({
    services: { orders: { url } },
    routes: list.map(route => ({ service: 'orders', ...route }))
  })

t.test('AZN-01 AZN-11 one of the roles is needed', async t => {
  const { call, upstream } = await start(t, routes({ path: '/**', required_roles: ['manager', 'admin'] }))
  for (const claims of [{ role: 'admin' }, { roles: ['user', 'manager'] }, { roles: ['manager'], role: 'user' }])
    t.equal((await call('/x', { token: token(claims) })).status, 200, JSON.stringify(claims))
  const before = upstream.seen.length
  for (const claims of [
    {},
    { role: 'user' },
    { roles: ['Admin'] },
    { roles: ['admin '] },
    { roles: 'admin,manager' },
    { roles: { admin: true } },
    { permissions: ['admin'] },
    { roles: [['admin']] }
  ]) {
    const refused = await call('/x', { token: token(claims) })
    t.equal(refused.status, 403, JSON.stringify(claims))
    t.equal(refused.json.error.code, 'insufficient_permissions')
  }
  t.equal(upstream.seen.length, before)
})

t.test('AZN-05 AZN-06 all permissions are needed, or one of "any"', async t => {
  const { call } = await start(
    t,
    routes(
      { path: '/all/**', permissions: ['orders.read', 'orders.write'] },
      { path: '/any/**', permissions: { any: ['a', 'b'] } },
      { path: '/both/**', permissions: { all: ['x'], any: ['a', 'b'] } },
      { path: '/none/**', permissions: [] }
    )
  )
  const cases: [path: string, permissions: string[] | string, status: number][] = [
    ['/all/x', ['orders.read', 'orders.write'], 200],
    ['/all/x', 'orders.read', 403],
    ['/all/x', ['orders.*'], 200],
    ['/all/x', ['*'], 200],
    ['/all/x', ['orders'], 403],
    ['/any/x', ['b'], 200],
    ['/any/x', ['c'], 403],
    ['/both/x', ['x', 'a'], 200],
    ['/both/x', ['x'], 403],
    ['/both/x', ['a', 'b'], 403],
    ['/none/x', [], 200]
  ]
  for (const [path, permissions, status] of cases)
    t.equal((await call(path, { token: token({ permissions }) })).status, status, `${path} ${permissions}`)
  t.equal(
    (await call('/all/x', { token: token({ scope: 'orders.read orders.write' }) })).status,
    200,
    'scopes are permissions, too'
  )
  const told: [path: string, details: string][] = [
    ['/all/x', 'This needs the permissions orders.read, orders.write.'],
    ['/any/x', 'This needs one of the permissions a, b.'],
    ['/both/x', 'This needs the permission x and one of a, b.']
  ]
  for (const [path, details] of told) t.equal((await call(path, { token: token() })).json.error.details, details)
})

t.test(
  'AZN-11 AZN-12 a refusal names what is missing to the caller, in words and for machines, and the rule to the log',
  async t => {
    const { call, line } = await start(
      t,
      routes(
        { path: '/one/**', permissions: ['manage:integrations'] },
        { path: '/more/**', permissions: { all: ['a', 'b c', 'd"e'], any: ['f', 'ü'] } },
        { path: '/roles/**', required_roles: ['chef', 'Köchin'] }
      )
    )
    const one = await call('/one/x', { token: token() })
    t.equal(
      one.headers['www-authenticate'],
      'Bearer realm="sallyport", error="insufficient_scope", error_description="This needs the permission manage:integrations", scope="manage:integrations"'
    )
    t.equal(one.json.error.details, 'This needs the permission manage:integrations.')
    t.match(await line({ request_id: one.headers['x-request-id'] as string }), {
      error: 'insufficient_permissions',
      reason: 'permissions manage:integrations',
      consumer: 'user:alice',
      status_code: 403
    })
    const more = await call('/more/x', { token: token() })
    t.match(more.headers['www-authenticate'], / scope="a f"$/, 'what no scope can be called is left out')
    t.equal(more.status, 403)
    const roles = await call('/roles/x', { token: token() })
    t.equal(
      roles.headers['www-authenticate'],
      'Bearer realm="sallyport", error="insufficient_scope", error_description="This needs the role chef or K?chin"'
    )
    t.match(await line({ request_id: roles.headers['x-request-id'] as string }), {
      reason: 'required_roles chef, Köchin'
    })
  }
)

t.test('AZN-04 AZN-09 who is not known is asked who he is before he is told what he may', async t => {
  const { call } = await start(
    t,
    routes(
      { path: '/optional/**', authentication: 'optional', permissions: ['a'] },
      { path: '/required/**', permissions: ['a'] }
    )
  )
  for (const path of ['/optional/x', '/required/x']) {
    const refused = await call(path)
    t.equal(refused.status, 401, path)
    t.equal(refused.json.error.code, 'authentication_required')
    t.equal(refused.headers['www-authenticate'], 'Bearer realm="sallyport"')
    t.equal((await call(path, { token: token() })).status, 403)
    t.equal((await call(path, { token: token({ permissions: ['a'] }) })).status, 200)
  }
})

t.test('AZN-09 roles and permissions both have to be met', async t => {
  const { call } = await start(t, routes({ path: '/**', required_roles: ['chef'], permissions: ['cook'] }))
  t.equal((await call('/x', { token: token({ roles: ['chef'], permissions: ['cook'] }) })).status, 200)
  t.equal((await call('/x', { token: token({ roles: ['chef'] }) })).status, 403)
  t.equal((await call('/x', { token: token({ permissions: ['cook'] }) })).status, 403)
})

t.test('AZN-07 rules stand for a service, and a route’s own stand instead of them', async t => {
  const { call } = await start(t, url => ({
    services: { orders: { url, required_roles: ['clerk'] }, web: { url } },
    defaults: { required_roles: ['anybody'] },
    routes: [
      { path: '/orders/**', service: 'orders' },
      { path: '/orders/reports/**', service: 'orders', required_roles: ['chief'] },
      { path: '/orders/menu/**', service: 'orders', required_roles: false },
      { path: '/web/**', service: 'web' }
    ]
  }))
  const may = async (path: string, role: string): Promise<boolean> =>
    (await call(path, { token: token({ role }) })).status === 200
  t.same(await Promise.all(['clerk', 'chief', 'anybody'].map(role => may('/orders/1', role))), [true, false, false])
  t.same(await Promise.all(['clerk', 'chief', 'anybody'].map(role => may('/orders/reports/1', role))), [
    false,
    true,
    false
  ])
  t.same(await Promise.all(['clerk', 'chief', 'nobody'].map(role => may('/orders/menu/1', role))), [true, true, true])
  t.same(await Promise.all(['clerk', 'anybody'].map(role => may('/web/1', role))), [false, true])
})

t.test('AZN-03 endpoints of a registration bring their roles, and public ones ask nobody', async t => {
  const { call, upstream } = await start(t, url => ({
    services: {
      projects: {
        base_url: url,
        required_roles: ['member'],
        endpoints: [
          { path: '/projects', method: 'GET', name: 'list', public: true },
          { path: '/projects', method: 'POST', name: 'create', required_roles: ['admin', 'lead'] },
          { path: '/projects/{project_id}', method: 'GET', name: 'get' }
        ]
      }
    }
  }))
  const status = async (method: string, path: string, role?: string): Promise<number> =>
    (await call(`/api/v1${path}`, { method, token: role === undefined ? undefined : token({ role }) })).status
  t.equal(await status('GET', '/projects'), 200)
  t.equal(await status('POST', '/projects'), 401)
  t.equal(await status('POST', '/projects', 'member'), 403)
  t.equal(await status('POST', '/projects', 'lead'), 200)
  t.equal(await status('GET', '/projects/7'), 401)
  t.equal(await status('GET', '/projects/7', 'lead'), 403, 'what the endpoint does not say the service says')
  t.equal(await status('GET', '/projects/7', 'member'), 200)
  t.equal(upstream.last().url, '/projects/7')
})

t.test('H-69 AZN-09 a rule that nobody could meet is refused when the configuration is read', async t => {
  const refused = async (more: object, inherited: object = {}): Promise<unknown> =>
    start(t, url => ({
      services: { orders: { url, ...inherited } },
      routes: [{ path: '/x/**', service: 'orders', ...more }]
    })).then(
      () => undefined,
      error => (error as Error).message
    )
  t.match(
    await refused({ authentication: 'none', permissions: ['a'] }),
    /permissions {2}is asked of callers whom "authentication: none" leaves unknown/
  )
  t.match(
    await refused({ authentication: { mode: 'none' }, required_roles: ['a'] }),
    /required_roles {2}is asked of callers/
  )
  t.match(await refused({ authentication: 'none' }, { required_roles: ['a'] }), /required_roles {2}is asked of callers/)
  t.equal(await refused({ authentication: 'none', required_roles: false }, { required_roles: ['a'] }), undefined)
  t.match(await refused({ authentication: 'nobody' }), /authentication {2}"nobody" should be/)
  t.match(await refused({ permissions: [''] }), /must not be empty/)
})

t.test('AZN-13 H-30 H-31 no spelling of a path leads round its rules', async t => {
  const { port, upstream } = await start(
    t,
    routes(
      { path: '/public/**', authentication: 'none' },
      { path: '/office/panel/**', required_roles: ['boss'] },
      { path: '/office/**' }
    )
  )
  const tricks = [
    '/office/panel/x',
    '//office/panel/x',
    '/office//panel/x',
    '/office/./panel/x',
    '/./office/panel/x',
    '/OFFICE/Panel/x',
    '/%6fffice/panel/x',
    '/office/pane%6C/x',
    '/office/panel',
    '/office/panel/',
    '/office/x/../panel/y',
    '/office/%2e/panel/x',
    '/public/../office/panel/x',
    '/public/%2e%2e/office/panel/x',
    '/public/..%2foffice/panel/x',
    '/public/..;/office/panel/x',
    '/public/..%5coffice/panel',
    '/public/.%2e/office/panel/x',
    '/public/x/../../office/panel',
    '/office;x/panel/x',
    '/office/panel;x/y',
    '/office/panel%2f',
    '/office/panel%00',
    '/public/%252e%252e/office/panel',
    '/office/panel?x=1',
    '/office/panel#x'
  ]
  for (const path of tricks) {
    const anonymous = await call(port, path)
    if (anonymous.status === 200)
      t.match(upstream.last().url, /^\/public\/(?!.*\.\.\/)/, `${path} stayed below /public`)
    else t.ok([400, 401, 404].includes(anonymous.status), `${path} without a token: ${anonymous.status}`)
    const user = await call(port, path, { token: token({ role: 'user' }) })
    if (user.status === 200)
      t.notMatch(upstream.last().url.toLowerCase(), /^\/+office\/+panel(?:$|[/?;])/, `${path} as user`)
    else t.ok([400, 403, 404].includes(user.status), `${path} as user: ${user.status}`)
  }
})
