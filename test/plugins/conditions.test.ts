import t, { type Test } from 'tap'
import { describeRoute } from '../../src/commands/describe.ts'
import { explainRequest } from '../../src/commands/explain.ts'
import { loadConfiguration } from '../../src/gateway.ts'
import { FakeClock } from '../support/clock.ts'
import { type CallOptions, startGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'

/** A gateway with routes of these conditions, `/0`, `/1`, … */
async function start(t: Test, list: readonly object[], more: object = {}) {
  const clock = new FakeClock(Date.UTC(2026, 2, 2, 12))
  const upstream = await startUpstream(t)
  const gateway = await startGateway(
    t,
    {
      server: { trusted_proxies: ['loopback'] },
      identity: { api_keys: [{ id: 'ci', key: 'sak_test_abcdefghijklmnopqrstuvwxyz', roles: ['ci'] }] },
      services: { orders: { url: upstream.url } },
      routes: list.map((conditions, i) => ({ path: `/${i}`, service: 'orders', conditions, ...more }))
    },
    { clock }
  )
  const status = async (i: number, { claims = {}, ...options }: CallOptions & { claims?: object } = {}) =>
    (await gateway.call(`/${i}`, { token: token({ exp: 2e9, ...claims }), ...options })).status
  return { ...gateway, clock, status }
}

const from = (address: string) => ({ headers: { 'x-forwarded-for': address } })

t.test('AZN-08 by address, method and header field', async t => {
  const { status } = await start(t, [
    { allow: [{ ip: ['10.0.0.0/8', '2001:db8::/32'] }] },
    { deny: [{ ip: '192.0.2.7' }] },
    { allow: [{ methods: ['get', 'HEAD'] }] },
    { allow: [{ headers: { 'X-Device': { prefix: 'managed-' } } }] },
    { deny: [{ headers: { 'x-legacy': { present: true } } }] }
  ])
  t.equal(await status(0, from('10.1.2.3')), 200)
  t.equal(await status(0, from('2001:db8::1')), 200)
  t.equal(await status(0, from('11.0.0.1')), 403)
  t.equal(await status(1, from('192.0.2.7')), 403)
  t.equal(await status(1, from('192.0.2.8')), 200)
  t.equal(await status(2), 200)
  t.equal(await status(2, { method: 'DELETE' }), 403)
  t.equal(await status(3, { headers: { 'x-device': 'managed-1' } }), 200)
  t.equal(await status(3, { headers: { 'x-device': 'mine' } }), 403)
  t.equal(await status(3), 403)
  t.equal(await status(4), 200)
  t.equal(await status(4, { headers: { 'x-legacy': '' } }), 403)
})

t.test('AZN-08 by time, of the gateway’s clock', async t => {
  const office = { days: ['mon', 'tue', 'wed', 'thu', 'fri'], from: '08:00', to: '18:00', zone: 'Europe/Berlin' }
  const { status, clock } = await start(t, [{ allow: [{ time: office }] }, { deny: [{ time: { days: 'sun' } }] }])
  t.equal(await status(0), 200, 'Monday, 13:00')
  clock.set(Date.UTC(2026, 2, 2, 17))
  t.equal(await status(0), 403, 'Monday, 18:00')
  clock.set(Date.UTC(2026, 2, 1, 12))
  t.equal(await status(0), 403, 'Sunday')
  t.equal(await status(1), 403)
})

t.test('AZN-08 by role, permission, tenant and claim of the caller', async t => {
  const { status } = await start(t, [
    { allow: [{ roles: ['boss', 'deputy'] }] },
    { allow: [{ permissions: ['a.read', 'a.write'] }] },
    { allow: [{ tenants: ['acme', 'globex'] }] },
    { allow: [{ claims: { department: 'finance', 'address.country': { regex: '^(DE|AT)$' } } }] },
    { allow: [{ claims: { amr: 'otp' } }] },
    { deny: [{ claims: { suspended: 'true' } }] }
  ])
  const cases: [route: number, claims: object, status: number][] = [
    [0, { roles: ['deputy'] }, 200],
    [0, { roles: ['clerk'] }, 403],
    [1, { permissions: ['a.*'] }, 200],
    [1, { permissions: ['a.read'] }, 403],
    [2, { tenant: 'acme' }, 200],
    [2, { tenant_id: 'globex' }, 200],
    [2, { tenant: 'initech' }, 403],
    [2, {}, 403],
    [3, { department: 'finance', address: { country: 'AT' } }, 200],
    [3, { department: 'finance', address: { country: 'CH' } }, 403],
    [3, { department: 'finance' }, 403],
    [4, { amr: ['pwd', 'otp'] }, 200],
    [4, { amr: ['pwd'] }, 403],
    [4, { amr: [] }, 403],
    [5, { suspended: true }, 403],
    [5, { suspended: false }, 200]
  ]
  for (const [route, claims, expected] of cases)
    t.equal(await status(route, { claims }), expected, `${route} ${JSON.stringify(claims)}`)
})

t.test('AZN-09 parts of a rule hold together, one allowing rule is enough, and a denying one wins', async t => {
  const { status } = await start(t, [
    {
      allow: [{ ip: ['10.0.0.0/8'], methods: ['GET'] }, { roles: ['admin'] }],
      deny: [{ claims: { amr: { present: false } }, methods: ['DELETE'] }]
    }
  ])
  t.equal(await status(0, from('10.0.0.1')), 200)
  t.equal(await status(0, { ...from('10.0.0.1'), method: 'PUT' }), 403)
  t.equal(await status(0, { claims: { roles: ['admin'] } }), 200)
  t.equal(await status(0, { claims: { roles: ['admin'] }, method: 'DELETE' }), 403)
  t.equal(await status(0, { claims: { roles: ['admin'], amr: ['otp'] }, method: 'DELETE' }), 200)
})

t.test(
  'AZN-08 AZN-09 whoever is not known has no roles and no claims, and is asked who he is if that could help',
  async t => {
    const list = [
      { allow: [{ roles: ['boss'] }] },
      { allow: [{ methods: ['GET'] }] },
      { deny: [{ claims: { mfa: { present: false } } }] },
      { deny: [{ roles: ['guest'] }] }
    ]
    const { status } = await start(t, list, { authentication: 'optional' })
    const anonymous = { token: undefined }
    t.equal(await status(0, anonymous), 401)
    t.equal(await status(1, anonymous), 200)
    t.equal(await status(1, { ...anonymous, method: 'PUT' }), 403)
    t.equal(await status(2, anonymous), 403)
    t.equal(await status(3, anonymous), 200)
    const key = { token: undefined, headers: { 'x-api-key': 'sak_test_abcdefghijklmnopqrstuvwxyz' } }
    t.equal(await status(0, key), 403)
    t.equal(await status(2, key), 403, 'keys have no claims')
  }
)

t.test('AZN-11 AZN-12 the log says which rule it was, the caller is not told', async t => {
  const { call, line } = await start(t, [{ deny: [{ ip: ['192.0.2.0/24'] }] }, { allow: [{ tenants: ['acme'] }] }])
  const denied = await call('/0', { token: token({ exp: 2e9 }), ...from('192.0.2.7') })
  t.match(denied.json.error, { code: 'insufficient_permissions', status: 403 })
  t.notMatch(denied.text, '192.0.2')
  t.match(await line({ request_id: denied.headers['x-request-id'] as string }), {
    reason: 'conditions deny[0]: ip 192.0.2.0/24',
    consumer: 'user:alice'
  })
  const uninvited = await call('/1', { token: token({ exp: 2e9 }) })
  t.notMatch(uninvited.text, 'acme')
  t.match(await line({ request_id: uninvited.headers['x-request-id'] as string }), {
    reason: 'conditions allow: no rule is met'
  })
})

t.test('AZN-08 explain and routes show conditions', async t => {
  const { file } = await start(t, [{ deny: [{ methods: ['DELETE'] }] }])
  const loaded = await loadConfiguration({
    files: [file],
    env: {},
    overrides: [['identity.jwt.secret', 'a secret of the tests, long enough to be one', 'test']]
  })
  const imagined = { target: '/0', headers: [`authorization: Bearer ${token()}`], from: '127.0.0.1' }
  const denied = await explainRequest(loaded, { ...imagined, method: 'DELETE' })
  t.match(denied.verdict, /^conditions refuses: 403 .*deny\[0\]: methods DELETE/)
  const passed = await explainRequest(loaded, { ...imagined, method: 'GET' })
  t.match(
    passed.steps.find(({ concern }) => concern === 'conditions'),
    { outcome: 'passes', because: /"methods":\["DELETE"\]/ }
  )
  const [route] = loaded.snapshot.routes
  t.match(describeRoute(route as NonNullable<typeof route>, loaded.snapshot), /conditions/)
})

t.test('H-69 AZN-08 rules that hold always or never are refused when the configuration is read', async t => {
  const refusal = (conditions: object, more: object = {}) =>
    start(t, [conditions], more).then(
      () => 'none',
      error => (error as Error).message
    )
  const cases: [conditions: object, message: RegExp][] = [
    [{ allow: [{}] }, /allow\[0\] is empty, and would hold for every request/],
    [{ deny: [{ methods: ['GET'] }, { ip: [] }] }, /deny\[1\]\.ip is empty, and nobody could meet it/],
    [{ allow: [{ claims: {} }] }, /allow\[0\]\.claims is empty/],
    [{ allow: [{ ip: ['10.0.0.0/33'] }] }, /no address and no range/],
    [{ allow: [{ time: { zone: 'Mars' } }] }, /allow\[0\]\.time\.zone: "Mars" is no time zone/],
    [{ allow: [{ time: { from: '08:00', to: '08:00' } }] }, /"from" and "to" are the same/],
    [{ allow: [{ time: { from: '8' } }] }, /does not look right/],
    [{ allow: [{ time: { days: ['someday'] } }] }, /someday/],
    [{ allow: [{ headers: { x: { regex: '(' } } }] }, /allow\[0\]\.headers\.x: /],
    [{ allow: [{ method: ['GET'] }] }, /did you mean "methods"/]
  ]
  for (const [conditions, message] of cases) t.match(await refusal(conditions), message, JSON.stringify(conditions))
  t.match(await refusal({ deny: [{ roles: ['x'] }] }, { authentication: 'none' }), /asks about callers whom/)
  t.equal(await refusal({ deny: [{ methods: ['PUT'] }] }, { authentication: 'none' }), 'none')
})
