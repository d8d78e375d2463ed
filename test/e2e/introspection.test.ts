import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { FakeClock } from '../support/clock.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { startUpstream, type Upstream } from '../support/upstream.ts'

interface Asked {
  readonly method: string
  readonly url: string
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

type Answer = (asked: Asked, response: ServerResponse) => void

/** An issuer whose tokens only it can read. */
async function startIssuer(t: Test): Promise<{ url: string; asked: Asked[]; answer(how: Answer): void }> {
  const asked: Asked[] = []
  let how: Answer = () => {}
  const server = http.createServer(async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    const one = { method: request.method as string, url: request.url as string, headers: request.headers, body }
    asked.push(one)
    how(one, response)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    return new Promise(resolve => server.close(resolve))
  })
  const { port } = server.address() as AddressInfo
  const answer = (next: Answer): void => {
    how = next
  }
  return { url: `http://127.0.0.1:${port}`, asked, answer }
}

const says =
  (value: unknown, status = 200): Answer =>
  (_asked, response) =>
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))

async function start(t: Test, settings: object): Promise<TestGateway & { clock: FakeClock; upstream: Upstream }> {
  const clock = new FakeClock(Date.now())
  const upstream = await startUpstream(t)
  const gateway = await startGateway(
    t,
    {
      services: { orders: { url: upstream.url } },
      routes: [{ path: '/**', service: 'orders', permissions: ['read'] }],
      ...settings
    },
    { clock }
  )
  return { ...gateway, clock, upstream }
}

const external = (url: string, more: object = {}) => ({
  identity: {
    issuers: [{ introspection_url: `${url}/introspect`, client_id: 'gate way', client_secret: 'pass:word', ...more }]
  }
})

t.test('IDN-32 IDN-36 an opaque token is what its issuer says, for a minute and no longer than it lives', async t => {
  const issuer = await startIssuer(t)
  const { call, clock, upstream } = await start(t, external(issuer.url))
  const exp = Math.floor(clock.now() / 1000) + 90
  issuer.answer(says({ active: true, sub: 'alice', scope: 'read', exp }))
  t.equal((await call('/x', { token: 'opaque-1' })).status, 200)
  t.match(upstream.seen.at(-1)?.headers, { 'x-user-id': 'alice', 'x-user-permissions': 'read' })
  t.match(issuer.asked[0], { method: 'POST', url: '/introspect', body: 'token=opaque-1&token_type_hint=access_token' })
  const { authorization = '' } = issuer.asked[0]?.headers ?? {}
  t.equal(Buffer.from(authorization.slice(6), 'base64').toString(), 'gate+way:pass%3Aword')
  t.equal((await call('/x', { token: 'opaque-1' })).status, 200)
  t.equal(issuer.asked.length, 1)
  clock.advance(61_000)
  t.equal((await call('/x', { token: 'opaque-1' })).status, 200)
  t.equal(issuer.asked.length, 2, 'asked again')
  clock.advance(30_000)
  t.equal((await call('/x', { token: 'opaque-1' })).status, 401, 'it has expired')
  t.equal(
    (await call('/x', { token: token({ permissions: ['read'], iss: 'sallyport' }) })).status,
    200,
    'ours are read here'
  )
  t.equal(issuer.asked.length, 2)
})

t.test('H-65 whatever does not say that a token is active lets nobody in', async t => {
  const issuer = await startIssuer(t)
  const { call, clock } = await start(t, external(issuer.url, { timeout: '200ms' }))
  const claims = { sub: 'alice', scope: 'read' }
  let count = 0
  for (const [name, answer, status] of [
    ['inactive', says({ active: false }), 401],
    ['no word of it', says(claims), 503],
    ['"true"', says({ ...claims, active: 'true' }), 503],
    ['a list', says([{ ...claims, active: true }]), 503],
    ['an error', says({ ...claims, active: true }, 500), 503],
    ['a redirect', (_, response) => response.writeHead(302, { location: '/elsewhere' }).end(), 503],
    ['no JSON', (_, response) => response.end('active'), 503],
    ['no answer', () => {}, 503],
    ['a cut', (_, response) => response.destroy(), 503],
    ['far too much', (_, response) => response.end(JSON.stringify({ active: true, sub: 'x'.repeat(1 << 19) })), 503],
    ['nobody', says({ active: true, scope: 'read' }), 401]
  ] satisfies [string, Answer, number][]) {
    issuer.answer(answer)
    // After some failures in a row there is a pause, which is not what this is about.
    clock.advance(6000)
    t.equal((await call('/x', { token: `opaque-${count++}` })).status, status, name)
  }
  t.notOk(issuer.asked.some(({ url }) => url === '/elsewhere'))
})

t.test('H-65 an issuer that does not answer is given a pause, and one that does is not asked twice', async t => {
  const issuer = await startIssuer(t)
  const { call, clock, lines } = await start(t, external(issuer.url))
  issuer.answer(says({}, 500))
  for (let i = 0; i < 20; i++) t.equal((await call('/x', { token: `opaque-${i}` })).status, 503)
  t.equal(issuer.asked.length, 5)
  t.equal(lines().filter(({ msg }) => /cannot be asked about its tokens/.test(String(msg))).length, 1)
  const { dependencies } = (await call('/health/dependencies')).json
  t.match(JSON.stringify(dependencies), 'introspection by')
  clock.advance(5000)
  issuer.answer(says({ active: false }))
  for (let i = 0; i < 5; i++) t.equal((await call('/x', { token: 'opaque' })).status, 401)
  t.equal(issuer.asked.length, 6, 'that a token is not active is remembered')
  issuer.answer(says({ active: true, sub: 'alice', scope: 'read' }))
  const many = await Promise.all(Array.from({ length: 20 }, () => call('/x', { token: 'opaque-many' })))
  t.ok(many.every(({ status }) => status === 200))
  t.equal(issuer.asked.length, 7, 'of many who ask at once one does')
  t.equal((await call('/x', { token: 'spaces and "quotes"' })).status, 401)
  t.equal(issuer.asked.length, 7, 'what is no token is not sent anywhere')
})

t.test('IDN-36 seed 004’s block loads as it stands; userinfo says who it is, and nobody else', async t => {
  const issuer = await startIssuer(t)
  const { call, upstream } = await start(t, {
    auth: {
      external: {
        introspection_url: `${issuer.url}/introspect`,
        userinfo_url: `${issuer.url}/userinfo`,
        jwks_url: `${issuer.url}/jwks`,
        timeout: '2s'
      }
    }
  })
  const answers =
    (user: object): Answer =>
    (asked, response) =>
      says(asked.url === '/userinfo' ? user : { active: true, sub: 'alice', scope: 'read' })(asked, response)
  issuer.answer(answers({ sub: 'alice', name: 'Alice', permissions: ['everything'] }))
  t.equal((await call('/x', { token: 'opaque-1' })).status, 200)
  t.match(upstream.seen.at(-1)?.headers, { 'x-user-id': 'alice', 'x-user-name': 'Alice' })
  t.equal(issuer.asked.at(-1)?.headers.authorization, 'Bearer opaque-1')
  issuer.answer(answers({ sub: 'mallory', name: 'Mallory' }))
  t.equal((await call('/x', { token: 'opaque-2' })).status, 503)
})

t.test(
  'IDN-36 an issuer of whom nothing could be learned, and two that could not be told apart, are refused',
  async t => {
    await t.rejects(startGateway(t, 'identity: { issuers: [ { issuer: a } ] }'), /needs "secret".*"introspection_url"/)
    const two = '[ { introspection_url: "https://a.example/i" }, { issuer: b, userinfo_url: "https://b.example/u" } ]'
    await t.rejects(startGateway(t, `identity: { issuers: ${two} }`), /second one that is asked about its tokens/)
  }
)
