import { createHmac } from 'node:crypto'
import t, { type Test } from 'tap'
import { explainRequest } from '../../src/commands/explain.ts'
import { loadConfiguration } from '../../src/gateway.ts'
import { hashApiKey } from '../../src/identity/api-key.ts'
import { FakeClock } from '../support/clock.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { raw } from '../support/raw.ts'
import { SECRET, token } from '../support/tokens.ts'
import { startUpstream, type Upstream } from '../support/upstream.ts'

const KEY = 'sak_test_abcdefghijklmnopqrstuvwxyz'
/** How the configuration names a variable of the environment. */
const variable = (name: string): string => ['$', `{${name}}`].join('')
const OTHER_KEY = 'sak_test_zyxwvutsrqponmlkjihgfedcba'

async function start(t: Test, more: object = {}): Promise<TestGateway & { upstream: Upstream }> {
  const upstream = await startUpstream(t)
  const gateway = await startGateway(t, {
    services: { orders: { url: upstream.url } },
    routes: [
      { path: '/api/**', service: 'orders' },
      { path: '/maybe/**', service: 'orders', authentication: 'optional' },
      { path: '/open/**', service: 'orders', authentication: 'none' },
      {
        path: '/pass/**',
        service: 'orders',
        authentication: { mode: 'required', forward_credentials: true }
      },
      {
        path: '/query/**',
        service: 'orders',
        authentication: { mode: 'required', query_parameter: 'access_token', websocket_protocol: 'bearer' }
      }
    ],
    identity: {
      api_keys: [
        {
          id: 'ci',
          key: KEY,
          name: 'Builds',
          roles: ['ci'],
          permissions: ['orders.read', 'orders.write'],
          tier: 'pro'
        },
        { id: 'cd', hash: hashApiKey(OTHER_KEY).toString('hex') }
      ]
    },
    ...more
  })
  return { ...gateway, upstream }
}

t.test(
  'IDN-12 IDN-16 IDN-34 H-69 a route that says nothing is for callers who are known, and others never reach its service',
  async t => {
    const { call, upstream } = await start(t)
    const refused = await call('/api/orders')
    t.equal(refused.status, 401)
    t.equal(refused.json.error.code, 'authentication_required')
    t.equal(refused.headers['www-authenticate'], 'Bearer realm="sallyport"')
    t.equal(upstream.seen.length, 0)
    t.equal((await call('/api/orders', { token: token() })).status, 200)
    t.equal(upstream.seen.length, 1)
  }
)

t.test('AZN-04 "optional" takes nobody and somebody, but no bad credential; "none" looks at none', async t => {
  const { call, upstream } = await start(t)
  t.equal((await call('/maybe/x')).status, 200)
  t.equal(upstream.last().headers['x-user-id'], undefined)
  t.equal((await call('/maybe/x', { token: token() })).status, 200)
  t.equal(upstream.last().headers['x-user-id'], 'alice')
  t.equal((await call('/maybe/x', { token: 'rubbish' })).status, 401)
  t.equal((await call('/maybe/x', { headers: { 'x-api-key': 'rubbish' } })).status, 401)
  const open = await call('/open/x', { token: 'rubbish', headers: { 'x-api-key': 'rubbish' } })
  t.equal(open.status, 200)
  t.match(
    open.json.headers,
    { authorization: 'Bearer rubbish', 'x-api-key': 'rubbish' },
    'it is between caller and service'
  )
})

t.test('IDN-17 IDN-18 the service learns who calls, and does not get the credential', async t => {
  const { call } = await start(t)
  const claims = { sub: 'u1', name: 'Ann', role: 'user', roles: ['dev'], permissions: ['a', 'b'] }
  const { headers } = (await call('/api/x', { token: token(claims) })).json
  t.match(headers, {
    'x-user-id': 'u1',
    'x-user-name': 'Ann',
    'x-user-roles': 'dev,user',
    'x-user-permissions': 'a,b',
    'x-auth-method': 'jwt'
  })
  t.equal(headers.authorization, undefined)
  const { headers: ofKey } = (await call('/api/x', { headers: { 'x-api-key': KEY } })).json
  t.match(ofKey, {
    'x-client-id': 'ci',
    'x-user-name': 'Builds',
    'x-user-roles': 'ci',
    'x-user-permissions': 'orders.read,orders.write',
    'x-auth-method': 'api_key'
  })
  t.equal(ofKey['x-api-key'], undefined)
  const good = token()
  t.equal(
    (await call('/pass/x', { token: good })).json.headers.authorization,
    `Bearer ${good}`,
    'unless the route says so'
  )
})

t.test('H-43 IDN-33 C-37 nobody introduces himself, also where nobody is asked', async t => {
  const { call } = await start(t)
  const forged = {
    'X-User': 'root',
    'x-user-id': 'root',
    'X-USER-NAME': 'root',
    'X-User-Roles': 'admin',
    'x-user-permissions': '*',
    'X-Client-ID': 'ci',
    'X-Auth-Method': 'jwt',
    'X-Consumer-Id': 'root',
    'X-Consumer-Username': 'root',
    'X-Authenticated-User': 'root',
    X_User_Id: 'root',
    x_user_roles: 'admin',
    'X-User_Roles': 'admin',
    X_Consumer_Id: 'root',
    x_client_id: 'ci'
  }
  for (const path of ['/open/x', '/maybe/x', '/api/x']) {
    const options = path === '/api/x' ? { headers: forged, token: token({ sub: 'u1' }) } : { headers: forged }
    const { headers } = (await call(path, options)).json
    const told = Object.entries(headers as Record<string, string>).filter(([name]) =>
      /user|client|auth|consumer/.test(name)
    )
    t.same(Object.fromEntries(told), path === '/api/x' ? { 'x-user-id': 'u1', 'x-auth-method': 'jwt' } : {}, path)
  }
})

t.test('IDN-38 H-59 the scheme comes in any case and with more than one space', async t => {
  const { call, line } = await start(t)
  const good = token()
  for (const authorization of [
    `bearer ${good}`,
    `BEARER ${good}`,
    `Bearer    ${good}`,
    `ApiKey ${KEY}`,
    `apikey ${KEY}`,
    `APIKEY   ${KEY}`
  ])
    t.equal((await call('/api/x', { headers: { authorization } })).status, 200, authorization.slice(0, 12))
  const refused: [authorization: string, reason: string][] = [
    ['Bearer', 'unknown_scheme'],
    ['Bearerx', 'unknown_scheme'],
    [`Bearer${good}`, 'unknown_scheme'],
    [`Bearer\t${good}`, 'unknown_scheme'],
    [`Bearer ${good} ${good}`, 'malformed'],
    [`Bearer "${good}"`, 'malformed'],
    [`Bearer ${good},`, 'malformed'],
    [good, 'unknown_scheme'],
    ['Basic YWxpY2U6c2VjcmV0', 'unknown_scheme'],
    [`Token ${good}`, 'unknown_scheme'],
    [KEY, 'unknown_scheme'],
    [`apikey${KEY}`, 'unknown_scheme']
  ]
  for (const [authorization, reason] of refused) {
    const answer = await call('/api/x', { headers: { authorization } })
    t.equal(answer.status, 401, authorization.slice(0, 12))
    t.equal(answer.json.error.code, 'authentication_failed')
    t.match(await line({ request_id: answer.headers['x-request-id'] as string }), { reason })
  }
})

t.test('H-59 two credentials are refused, wherever they are', async t => {
  const { call, upstream, port } = await start(t)
  const [a, b] = [token({ sub: 'a' }), token({ sub: 'b' })]
  const cases: [path: string, headers: Record<string, string>][] = [
    ['/api/x', { authorization: `Bearer ${a}`, 'x-api-key': KEY }],
    ['/maybe/x', { authorization: `ApiKey ${KEY}`, 'x-api-key': KEY }],
    [`/query/x?access_token=${a}`, { authorization: `Bearer ${b}` }],
    [`/query/x?access_token=${a}`, { authorization: `Bearer ${a}` }],
    [`/query/x?access_token=${a}`, { 'x-api-key': KEY }],
    [`/query/x?access_token=${a}&access_token=${b}`, {}],
    [`/query/x?access_token=${a}&access%5Ftoken=${b}`, {}],
    [`/query/x?access_token=${a}&access_token=`, {}],
    [`/query/x?access_token=${a}`, { 'sec-websocket-protocol': `bearer, ${b}` }]
  ]
  for (const [path, headers] of cases) {
    const answer = await call(path, { headers })
    t.equal(answer.status, 400, path.slice(0, 30))
    t.equal(answer.json.error.code, 'bad_request')
    t.match(answer.headers['www-authenticate'], /^Bearer realm="sallyport", error="invalid_request"/)
  }
  for (const pair of [
    [`Authorization: Bearer ${a}`, `Authorization: Bearer ${b}`],
    [`Authorization: Bearer ${a}`, `authorization: Bearer ${a}`],
    [`X-API-Key: ${KEY}`, `X-API-Key: ${OTHER_KEY}`]
  ]) {
    const answer = await raw(port, `GET /api/x HTTP/1.1\r\nHost: a\r\n${pair.join('\r\n')}\r\n\r\n`)
    t.equal(answer.status, 400)
  }
  t.equal(upstream.seen.length, 0)
})

t.test(
  'IDN-38 H-59 H-121 a token in the query or the subprotocols is taken where the route allows it, and taken out',
  async t => {
    const { call, upstream, lines } = await start(t)
    const good = token()
    const answer = await call(`/query/x?a=1&access_token=${good}&b=%20`)
    t.equal(answer.status, 200)
    t.equal(answer.json.url, '/query/x?a=1&b=%20')
    t.equal((await call(`/query/x?access%5Ftoken=${good}`)).json.url, '/query/x')
    t.equal((await call('/query/x?xaccess_token=1', { token: good })).json.url, '/query/x?xaccess_token=1')
    t.equal((await call(`/api/x?access_token=${good}`)).status, 401, 'elsewhere it is a parameter like any other')
    t.equal((await call('/query/x?access_token=')).status, 401)
    const offered = await call('/query/x', { headers: { 'sec-websocket-protocol': `chat, bearer, ${good}, json` } })
    t.equal(offered.json.headers['sec-websocket-protocol'], 'chat, bearer, json')
    t.notMatch(JSON.stringify(lines()), good.slice(-20))
    t.notMatch(JSON.stringify(upstream.seen), good.slice(-20))
  }
)

t.test('IDN-26 H-63 H-84 a key is one caller however it is spelled; nothing else is a key', async t => {
  const { call, line } = await start(t)
  for (const headers of [
    { 'x-api-key': KEY },
    { 'X-Api-Key': KEY },
    { authorization: `ApiKey ${KEY}` },
    { authorization: `APIKEY  ${KEY}` }
  ]) {
    const answer = await call('/api/x', { headers })
    t.equal(answer.status, 200)
    t.match(await line({ request_id: answer.headers['x-request-id'] as string }), {
      consumer: 'key:ci',
      credential: 'api_key'
    })
  }
  t.equal(
    (await call('/api/x', { headers: { 'x-api-key': OTHER_KEY } })).status,
    200,
    'one that the configuration knows by its hash'
  )
  const wrong = [
    'x',
    KEY.slice(0, -1),
    `${KEY}x`,
    KEY.toUpperCase(),
    hashApiKey(KEY).toString('hex'),
    KEY.replace('a', '\xe0')
  ]
  for (const key of wrong) {
    const answer = await call('/api/x', { headers: { 'x-api-key': key } })
    t.equal(answer.status, 401, key)
    t.match(answer.json.error, {
      code: 'authentication_failed',
      message: 'Invalid credentials provided.',
      details: 'The provided API key is not valid.'
    })
    t.equal(answer.headers['www-authenticate'], 'ApiKey realm="sallyport"')
  }
  for (const headers of [{ 'x-api-key': '' }, { 'x-api-key': '   ' }, { authorization: '' }])
    t.equal((await call('/api/x', { headers })).status, 401)
  t.equal((await call('/api/x', { headers: { authorization: 'ApiKey ' } })).status, 401)
})

t.test(
  'IDN-26 keys come from the environment, end when they say, and an empty one is refused at the start',
  async t => {
    const clock = new FakeClock(Date.parse('2026-05-01T12:00:00Z'))
    const upstream = await startUpstream(t)
    const document = (key: object): object => ({
      services: { orders: { url: upstream.url } },
      routes: [{ path: '/api/**', service: 'orders' }],
      identity: { api_keys: [{ id: 'ci', ...key }] }
    })
    const { call } = await startGateway(t, document({ key: variable('CI_KEY'), expires_at: '2026-05-01T13:00:00Z' }), {
      clock,
      env: { CI_KEY: KEY }
    })
    t.equal((await call('/api/x', { headers: { 'x-api-key': KEY } })).status, 200)
    clock.advance(3_600_000)
    const late = await call('/api/x', { headers: { 'x-api-key': KEY } })
    t.match(late.json.error, { code: 'authentication_failed', details: 'The API key has expired.' })
    await t.rejects(
      startGateway(t, document({ key: variable('CI_KEY:-') })),
      /identity\.api_keys\[0\]\.key {2}is empty/
    )
    await t.rejects(
      startGateway(t, document({ key: KEY, expires_at: 'never' })),
      /api_keys\[0\]\.expires_at {2}"never" is no RFC 3339 time/
    )
  }
)

t.test('IDN-19 AZN-12 who came with what, and why he was refused, is in the log under the request’s id', async t => {
  const { call, line } = await start(t, {})
  const passed = await call('/api/x', { token: token() })
  t.match(await line({ request_id: passed.headers['x-request-id'] as string }), {
    status_code: 200,
    client: '127.0.0.1',
    consumer: 'user:alice',
    credential: 'jwt'
  })
  const refused = await call('/api/x', { token: token({}, { secret: 'another' }) })
  const written = await line({ request_id: refused.headers['x-request-id'] as string })
  t.match(written, { status_code: 401, client: '127.0.0.1', error: 'authentication_failed', reason: 'wrong_signature' })
  t.equal(written.consumer, undefined)
  const nobody = await call('/api/x')
  t.match(await line({ request_id: nobody.headers['x-request-id'] as string }), { reason: 'no_credentials' })
})

t.test('IDN-39 what is wrong with a token has its own reason in the log, and its own advice by explain', async t => {
  const { call, line, file } = await start(t, {
    identity: {
      jwt: { issuer: 'us', audience: 'api' },
      issuers: [{ issuer: 'them', secret: 'another secret, of somebody else, as long', algorithms: 'HS512' }]
    }
  })
  const files = [file.replace('gateway.yaml', 'base.yaml'), file]
  const loaded = await loadConfiguration({ files, env: {}, overrides: [] })
  const ours = { iss: 'us', aud: 'api' }
  const seconds = Math.floor(Date.now() / 1000)
  const advice = new Set<string>()
  for (const [reason, bad, hint] of [
    ['expired', token({ ...ours, exp: seconds - 5 }), /clock_skew/],
    ['not_yet_valid', token({ ...ours, nbf: seconds + 60 }), /"nbf"/],
    ['no_expiry', token({ ...ours, exp: undefined }), /set "exp"/],
    ['wrong_time', token({ ...ours, exp: 'soon' }), /seconds since 1970/],
    ['wrong_audience', token({ ...ours, aud: 'API' }), /"aud"/],
    ['wrong_issuer', token({ ...ours, iss: 'nobody' }), /identity\.issuers/],
    ['no_subject', token({ ...ours, sub: undefined }), /"sub"/],
    ['wrong_signature', token(ours, { secret: 'not the one that is configured here' }), /JWT_SECRET_KEY/],
    ['wrong_algorithm', token({ ...ours, iss: 'them' }), /"algorithms"/],
    ['malformed', token(ours).slice(0, -60), /compact form/],
    ['critical_extension', token(ours, { header: { crit: ['exp'] } }), /"crit"/]
  ] as const) {
    const { status, headers } = await call('/api/x', { token: bad })
    t.equal(status, 401, reason)
    t.match(await line({ request_id: headers['x-request-id'] as string }), {
      reason,
      error: /^(authentication_failed|expired_token)$/
    })
    const { verdict } = await explainRequest(loaded, {
      method: 'GET',
      target: '/api/x',
      headers: [`authorization: Bearer ${bad}`],
      from: '127.0.0.1'
    })
    t.match(verdict, new RegExp(`: 401 .*\\(${reason}\\)`))
    t.match(verdict, hint)
    advice.add(verdict.slice(verdict.indexOf('—')))
  }
  t.equal(advice.size, 11)
})

t.test('OBS-03 failures are counted by reason; who brings no credentials has not failed yet', async t => {
  const { call } = await start(t)
  await call('/api/x')
  await call('/api/x', { token: token({}, { secret: 'another' }) })
  await call('/api/x', { token: 'rubbish' })
  await call('/api/x', { token: 'rubbish' })
  const { text } = await call('/metrics')
  const counted = text.split('\n').filter(row => row.startsWith('authentication_failures{'))
  t.same(counted.sort(), [
    'authentication_failures{reason="malformed"} 2',
    'authentication_failures{reason="wrong_signature"} 1'
  ])
})

t.test('H-121 no secret is in what is logged, answered, measured or shown', async t => {
  const gateway = await start(t, { logging: { trace_requests: true } })
  const good = token({ sub: 'alice' })
  await gateway.call('/api/x', { token: good })
  await gateway.call('/api/x', { headers: { 'x-api-key': KEY } })
  await gateway.call('/api/x', { headers: { 'x-api-key': `${KEY}x` } })
  await gateway.call('/api/x', { token: `${good}x` })
  const admin = token({ sub: 'root', roles: ['admin'] })
  const shown = [
    JSON.stringify(gateway.lines()),
    (await gateway.call('/metrics')).text,
    (await gateway.call('/health/dependencies')).text,
    (await gateway.call('/gateway/status', { token: admin })).text,
    (await gateway.call('/admin/routes', { token: admin })).text,
    (await gateway.call('/api/x', { token: `${good}x` })).text
  ].join('\n')
  const signature = createHmac('sha256', SECRET).update(good.split('.').slice(0, 2).join('.')).digest('base64url')
  for (const secret of [SECRET, KEY, OTHER_KEY, signature, hashApiKey(KEY).toString('hex')])
    t.notOk(shown.includes(secret), secret)
})
