import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { order } from '../plugins/index.ts'
import { explainRequest } from '../src/commands/explain.ts'
import { loadConfiguration } from '../src/gateway.ts'
import { ROOT } from './support/config.ts'
import { type Answer, type CallOptions, startGateway } from './support/gateway.ts'
import { token } from './support/tokens.ts'
import { startUpstream } from './support/upstream.ts'

t.test('C-20 concerns see a request in this order', async t => {
  t.strictSame(
    order.map(concern => `${'policy' in concern ? 'policy' : 'plugin'} ${concern.name}`),
    [
      'plugin errors',
      'policy errors',
      'plugin context',
      'plugin telemetry',
      'policy ip_block',
      'policy request_priority',
      'policy ip_filter',
      'policy security_headers',
      'policy cors',
      'policy deprecated',
      'policy pre_limit',
      'plugin jwt',
      'policy authentication',
      'policy caller_priority',
      'policy permissions',
      'policy required_roles',
      'policy conditions',
      'policy rate_limit',
      'policy body_limit',
      'policy idempotency'
    ]
  )
})

t.test('PLG-04 the page on the walk names, in order, what a plugin can stand next to', async t => {
  const page = readFileSync(join(ROOT, 'docs', 'walk.md'), 'utf8')
  const names = order
    .filter(concern => 'policy' in concern && concern.name !== 'errors')
    .map(({ name }) => `\`${name}\``)
  t.ok(page.includes(`${names.join(', ')}.`), names.join(', '))
})

const BLOCKED = '192.0.2.1'
const CALLER = '198.51.100.1'
const ORIGIN = { origin: 'https://app.example.com' }
const PREFLIGHT: CallOptions = { method: 'OPTIONS', headers: { ...ORIGIN, 'access-control-request-method': 'POST' } }

/** One route on which every concern has something to refuse. */
async function startStrict(t: Test, ipLimit = 100) {
  const upstream = await startUpstream(t)
  const gateway = await startGateway(t, {
    server: { trusted_proxies: ['127.0.0.1'] },
    rate_limits: { ip: { requests_per_minute: ipLimit } },
    defaults: { cors: { origins: [ORIGIN.origin] }, security_headers: {} },
    services: { orders: { url: upstream.url } },
    routes: [
      {
        path: '/orders',
        service: 'orders',
        ip_filter: { deny: [BLOCKED] },
        permissions: ['orders.write'],
        required_roles: ['clerk'],
        conditions: { deny: [{ headers: { 'x-device': 'unknown' } }] },
        rate_limit: { requests_per_minute: 1 },
        body_limit: '4b'
      }
    ]
  })
  const from = (address: string, options: CallOptions = {}): Promise<Answer> =>
    gateway.call('/orders', {
      method: 'POST',
      body: 'too long',
      ...options,
      headers: { ...ORIGIN, 'x-forwarded-for': address, ...options.headers }
    })
  return { ...gateway, upstream, from }
}

const clerk = (claims: object = {}): string => token({ roles: ['clerk'], permissions: ['orders.write'], ...claims })

t.test('C-20 a request that everybody would refuse is refused by the first, and so on until it passes', async t => {
  const { from, upstream } = await startStrict(t)
  const small = { body: 'ok', token: clerk() }
  const steps: [by: string, address: string, options: CallOptions, status: number, code: string, says: RegExp][] = [
    ['ip_filter', BLOCKED, {}, 403, 'ip_blocked', /./],
    ['authentication', CALLER, {}, 401, 'authentication_required', /./],
    ['permissions', CALLER, { token: token() }, 403, 'insufficient_permissions', /orders\.write/],
    ['required_roles', CALLER, { token: clerk({ roles: [] }) }, 403, 'insufficient_permissions', /clerk/],
    [
      'conditions',
      CALLER,
      { token: clerk(), headers: { 'x-device': 'unknown' } },
      403,
      'insufficient_permissions',
      /conditions/
    ],
    ['body_limit', CALLER, { token: clerk() }, 413, 'payload_too_large', /4 bytes/],
    ['rate_limit', CALLER, { token: clerk() }, 429, 'rate_limit_exceeded', /1 requests per minute/],
    ['rate_limit', CALLER, small, 429, 'rate_limit_exceeded', /1 requests per minute/]
  ]
  for (const [by, address, options, status, code, says] of steps) {
    const answer = await from(address, options)
    t.match({ status: answer.status, ...answer.json.error }, { status, code }, by)
    t.match(answer.text, says, by)
  }
  t.equal((await from(CALLER, { ...small, token: clerk({ sub: 'bob' }) })).status, 200)
  t.equal(upstream.seen.length, 1, 'and only what passes them all reaches the service')
})

t.test('C-20 SEC-05 an address that is blocked is neither counted nor asked who it is', async t => {
  const { from } = await startStrict(t, 1)
  for (let i = 0; i < 3; i++) t.equal((await from(BLOCKED)).json.error.code, 'ip_blocked')
  t.equal((await from(BLOCKED, { token: 'no token at all' })).json.error.code, 'ip_blocked')
})

t.test('C-20 SEC-03 a preflight needs no credentials, and is not counted; a blocked address gets none', async t => {
  const { from, upstream } = await startStrict(t, 1)
  for (let i = 0; i < 3; i++) {
    const answer = await from(CALLER, PREFLIGHT)
    t.match(answer, { status: 204, headers: { 'access-control-allow-origin': ORIGIN.origin } })
  }
  t.equal((await from(BLOCKED, PREFLIGHT)).status, 403)
  t.equal(upstream.seen.length, 0)
})

t.test(
  'C-20 the guard by address comes before credentials are looked at, and before the limits of callers',
  async t => {
    const { from } = await startStrict(t, 2)
    t.equal((await from(CALLER, { token: 'no token at all' })).status, 401)
    t.equal((await from(CALLER, { token: 'no token at all' })).status, 401)
    const guarded = await from(CALLER, { token: clerk(), body: 'ok' })
    t.equal(guarded.status, 429)
    t.match(guarded.text, /2 requests per minute/)
    t.equal((await from('198.51.100.2', { token: clerk(), body: 'ok' })).status, 200, 'alice has lost nothing by it')
  }
)

t.test('C-20 SEC-04 refusals have the fields that browsers go by, from the address list’s on', async t => {
  const { from } = await startStrict(t, 2)
  const refusals = [await from(CALLER), await from(CALLER, { token: token() }), await from(CALLER)]
  t.strictSame(
    refusals.map(({ status }) => status),
    [401, 403, 429]
  )
  for (const { headers } of refusals) {
    t.match(headers, { 'x-content-type-options': 'nosniff', 'access-control-allow-origin': ORIGIN.origin })
    t.match(headers, { 'x-request-id': /^req_/ })
  }
  const { headers } = await from(BLOCKED)
  t.match(headers, { 'x-request-id': /^req_/ }, 'the request id comes before everything')
})

t.test('C-20 explain walks through the same list', async t => {
  const { file } = await startStrict(t)
  const loaded = await loadConfiguration({
    files: [file],
    env: {},
    overrides: [['identity.jwt.secret', 'x'.repeat(32), 'test']]
  })
  const { steps } = await explainRequest(loaded, { method: 'POST', target: '/orders', headers: [], from: CALLER })
  t.strictSame(
    steps.map(({ concern }) => concern),
    order.flatMap(concern => ('policy' in concern && concern.name !== 'errors' ? [concern.name] : []))
  )
})
