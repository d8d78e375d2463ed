import fastifyCors from '@fastify/cors'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { type Answer, startGateway, type TestGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { startUpstream, type Upstream } from '../support/upstream.ts'

interface Options {
  readonly origins: readonly string[]
  readonly methods?: readonly string[]
  readonly allowed_headers?: readonly string[]
  readonly exposed_headers?: readonly string[]
  readonly credentials?: boolean
  readonly max_age?: number
}

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']

const OPTIONS: Readonly<Record<string, Options>> = {
  'one origin': { origins: ['https://app.example.com'] },
  'two origins, one of them opaque': { origins: ['https://app.example.com', 'null'] },
  'any origin': { origins: ['*'] },
  'any origin, beside another': { origins: ['https://app.example.com', '*'] },
  'no origin': { origins: [] },
  credentials: { origins: ['https://app.example.com'], credentials: true },
  'exposed fields': { origins: ['https://app.example.com'], exposed_headers: ['X-Request-ID', 'RateLimit-Limit'] },
  'allowed fields': { origins: ['https://app.example.com'], allowed_headers: ['X-Custom', 'Authorization'] },
  'no allowed fields': { origins: ['https://app.example.com'], allowed_headers: [] },
  methods: { origins: ['https://app.example.com'], methods: ['GET', 'PURGE'] },
  'an age': { origins: ['*'], max_age: 600 },
  everything: {
    origins: ['https://app.example.com', 'https://b.example.com'],
    methods: ['PUT'],
    allowed_headers: ['A'],
    exposed_headers: ['B'],
    credentials: true,
    max_age: 5
  }
}

const ORIGINS = [
  'https://app.example.com',
  'https://b.example.com',
  'http://app.example.com',
  'https://app.example.com.evil.test',
  'https://evil-app.example.com',
  'https://xapp.example.com',
  'https://app.example.com:8443',
  'https://APP.example.com',
  'https://app.example.com/',
  'null',
  'app.example.com',
  '*'
]

/** What `@fastify/cors` does with these options, on a small app of its own. */
async function oracle(
  t: Test,
  { origins, methods = METHODS, allowed_headers, exposed_headers, credentials = false, max_age }: Options
): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(fastifyCors, {
    origin: origins.includes('*') ? '*' : [...origins],
    methods: [...methods],
    credentials,
    ...(allowed_headers === undefined ? {} : { allowedHeaders: [...allowed_headers] }),
    ...(exposed_headers === undefined ? {} : { exposedHeaders: [...exposed_headers] }),
    ...(max_age === undefined ? {} : { maxAge: max_age })
  })
  app.addHook('onRequest', async (request, reply) => {
    if (request.url === '/refused') return reply.code(401).send()
    if (request.url === '/limited') return reply.code(429).send()
  })
  for (const url of ['/x', '/refused', '/limited'])
    app.route({ method: ['GET', 'POST', 'PUT'], url, handler: async () => 'ok' })
  t.teardown(() => app.close())
  return app
}

async function start(t: Test, cors: unknown): Promise<TestGateway & { upstream: Upstream }> {
  const upstream = await startUpstream(t)
  const gateway = await startGateway(t, {
    services: { orders: { url: upstream.url } },
    defaults: { cors },
    routes: [
      { path: '/x', service: 'orders', authentication: 'none' },
      { path: '/refused', service: 'orders' },
      { path: '/limited', service: 'orders', authentication: 'none', rate_limit: { requests_per_hour: 1 } }
    ]
  })
  return { ...gateway, upstream }
}

/** The fields that are about CORS, by name. */
function corsFields(headers: Readonly<Record<string, unknown>>): Record<string, string> {
  const about = Object.entries(headers).filter(([name]) => name === 'vary' || name.startsWith('access-control-'))
  return Object.fromEntries(about.map(([name, value]) => [name, String(value)]))
}

for (const [name, options] of Object.entries(OPTIONS)) {
  t.test(`SEC-03 H-68 the answers are those of @fastify/cors: ${name}`, async t => {
    const { call } = await start(t, options)
    const app = await oracle(t, options)
    await call('/limited')
    const compare = async (
      url: string,
      method: 'GET' | 'POST' | 'OPTIONS',
      headers: Record<string, string>
    ): Promise<void> => {
      const [ours, theirs] = await Promise.all([call(url, { method, headers }), app.inject({ url, method, headers })])
      const what = `${method} ${url} ${JSON.stringify(headers)}`
      t.equal(ours.status, theirs.statusCode, what)
      t.same(corsFields(ours.headers), corsFields(theirs.headers), what)
      if (method === 'OPTIONS')
        t.match(
          { length: ours.headers['content-length'], body: ours.text },
          { length: theirs.headers['content-length'], body: theirs.body }
        )
    }
    for (const origin of [undefined, ...ORIGINS]) {
      const from: Record<string, string> = origin === undefined ? {} : { origin }
      for (const url of ['/x', '/refused', '/limited', '/nowhere']) await compare(url, 'GET', from)
      await compare('/x', 'POST', from)
      if (origin === undefined) continue
      for (const url of ['/x', '/refused', '/limited', '/nowhere']) {
        await compare(url, 'OPTIONS', { ...from, 'access-control-request-method': 'PUT' })
        await compare(url, 'OPTIONS', {
          ...from,
          'access-control-request-method': 'GET',
          'access-control-request-headers': 'x-custom, authorization'
        })
        await compare(url, 'OPTIONS', { ...from, 'access-control-request-method': 'NONSENSE' })
      }
    }
  })
}

t.test(
  'H-68 a preflight to a protected route is answered without credentials, without a limit, and goes no further',
  async t => {
    const upstream = await startUpstream(t)
    const { call, line } = await startGateway(t, {
      services: { orders: { url: upstream.url } },
      defaults: { cors: { origins: ['https://app.example.com'] } },
      rate_limits: { guest: 1 },
      routes: [{ path: '/x', service: 'orders', methods: ['POST'], required_roles: ['admin'] }]
    })
    const headers = {
      origin: 'https://app.example.com',
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization'
    }
    let last: Answer | undefined
    for (let i = 0; i < 5; i++) {
      last = await call('/x', { method: 'OPTIONS', headers })
      t.equal(last.status, 204)
      t.equal(last.headers['access-control-allow-origin'], 'https://app.example.com')
      t.equal(last.headers['access-control-allow-headers'], 'authorization')
    }
    t.equal(upstream.seen.length, 0)
    t.match(await line({ request_id: last?.headers['x-request-id'] as string }), { status_code: 204, route: 'POST /x' })
    const real = await call('/x', { method: 'POST', headers: { origin: 'https://app.example.com' } })
    t.equal(real.status, 401)
    t.equal(real.headers['access-control-allow-origin'], 'https://app.example.com', 'the page may read why')
  }
)

t.test('SEC-03 an OPTIONS request that is no preflight is a request like any other', async t => {
  const { call, upstream } = await start(t, { origins: ['https://app.example.com'] })
  for (const headers of [{}, { origin: 'https://app.example.com' }, { 'access-control-request-method': 'GET' }])
    t.equal((await call('/x', { method: 'OPTIONS', headers })).status, 200)
  t.equal(upstream.seen.length, 3)
  t.equal((await call('/refused', { method: 'OPTIONS', headers: { origin: 'https://app.example.com' } })).status, 401)
})

t.test(
  'SEC-03 TST-07 a service’s own word on CORS is replaced where the route has a policy, and passes where it has none',
  async t => {
    const upstream = await startUpstream(t, (_request, response) => {
      response.writeHead(200, {
        'Access-Control-Allow-Origin': '*',
        'access-control-allow-credentials': 'true',
        'ACCESS-CONTROL-EXPOSE-HEADERS': 'x-secret',
        vary: 'Accept-Encoding'
      })
      response.end('ok')
    })
    const { call } = await startGateway(t, {
      services: { orders: { url: upstream.url } },
      routes: [
        { path: '/ours', service: 'orders', authentication: 'none', cors: { origins: ['https://app.example.com'] } },
        { path: '/theirs', service: 'orders', authentication: 'none' }
      ]
    })
    const ours = await call('/ours', { headers: { origin: 'https://evil.example.com' } })
    t.same(corsFields(ours.headers), { vary: 'Accept-Encoding, Origin' })
    const allowed = await call('/ours', { headers: { origin: 'https://app.example.com' } })
    t.same(corsFields(allowed.headers), {
      vary: 'Accept-Encoding, Origin',
      'access-control-allow-origin': 'https://app.example.com'
    })
    t.equal(allowed.rawHeaders.filter(name => name.toLowerCase() === 'access-control-allow-origin').length, 1)
    const theirs = await call('/theirs', { headers: { origin: 'https://evil.example.com' } })
    t.match(theirs.headers, { 'access-control-allow-origin': '*', 'access-control-allow-credentials': 'true' })
  }
)

t.test('CFG-01 SEC-03 CORS_ORIGINS lists origins', async t => {
  const upstream = await startUpstream(t)
  const document = {
    services: { orders: { url: upstream.url } },
    routes: [{ path: '/x', service: 'orders', authentication: 'none' }]
  }
  const { call } = await startGateway(t, document, {
    env: { CORS_ORIGINS: 'https://dashboard.example.com, https://admin.example.com' }
  })
  for (const origin of ['https://dashboard.example.com', 'https://admin.example.com'])
    t.equal((await call('/x', { headers: { origin } })).headers['access-control-allow-origin'], origin)
  t.equal(
    (await call('/x', { headers: { origin: 'https://example.com' } })).headers['access-control-allow-origin'],
    undefined
  )
})

t.test('H-68 what could not be meant so is refused when the configuration is read', async t => {
  const refused = (cors: object): Promise<unknown> =>
    start(t, cors).then(
      () => undefined,
      error => (error as Error).message
    )
  t.match(await refused({ origins: ['*'], credentials: true }), /cors {2}any origin \("\*"\) with credentials/)
  for (const origin of [
    'app.example.com',
    'https://app.example.com/',
    'https://app.example.com/x',
    'https://APP.example.com',
    'HTTPS://app.example.com',
    'https://app.example.com:443',
    'https://*.example.com',
    'https://',
    'javascript:alert(1)'
  ])
    t.match(await refused({ origins: [origin] }), /is no origin: write https/, origin)
  for (const origin of [
    'http://localhost:3000',
    'capacitor://localhost',
    'chrome-extension://abcdef',
    'http://[::1]:8080',
    'null'
  ])
    t.equal(await refused({ origins: [origin] }), undefined, origin)
  t.match(await refused({ origins: [], methods: ['GET\r\nX: 1'] }), /methods\[0\]/)
  t.match(await refused({ origins: [], exposed_headers: ['ü'] }), /exposed_headers\[0\]/)
  t.match(await refused({ origins: [], allowed_headers: ['a b'] }), /allowed_headers\[0\]/)
})

t.test('SEC-03 a token in the answer to a preflight is nobody’s business: it is not asked for', async t => {
  const { call, upstream } = await start(t, { origins: ['https://app.example.com'] })
  const headers = {
    origin: 'https://app.example.com',
    'access-control-request-method': 'GET',
    authorization: `Bearer ${token()}`
  }
  t.equal((await call('/refused', { method: 'OPTIONS', headers })).status, 204)
  t.equal(upstream.seen.length, 0)
})
