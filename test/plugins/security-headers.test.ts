import fastifyHelmet from '@fastify/helmet'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { SECURITY_HEADERS } from '../../src/proxy/headers.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { startUpstream } from '../support/upstream.ts'

const ORIGIN = 'https://app.example.com'

type HelmetOptions = Parameters<typeof fastifyHelmet>[1]

/** Our options, and the same in helmet's words. */
const OPTIONS: Readonly<Record<string, [ours: object, helmets: HelmetOptions]>> = {
  'the defaults': [{}, {}],
  'another age for HTTPS': [{ hsts_seconds: 600 }, { strictTransportSecurity: { maxAge: 600 } }],
  'no HSTS': [{ hsts_seconds: 0 }, { strictTransportSecurity: false }],
  'no content security policy': [{ content_security_policy: false }, { contentSecurityPolicy: false }],
  'helmet’s policy': [{ content_security_policy: true }, {}],
  'a policy of one’s own': [
    {
      content_security_policy: {
        'default-src': ["'none'"],
        'script-src': ["'self'", 'https://cdn.example.com'],
        'upgrade-insecure-requests': []
      }
    },
    {
      contentSecurityPolicy: {
        directives: {
          'default-src': ["'none'"],
          'script-src': ["'self'", 'https://cdn.example.com'],
          'upgrade-insecure-requests': []
        }
      }
    }
  ],
  'no frames': [{ frame_options: 'deny' }, { frameguard: { action: 'deny' } }],
  'any frames': [{ frame_options: false }, { frameguard: false }],
  'another referrer policy': [
    { referrer_policy: 'strict-origin-when-cross-origin' },
    { referrerPolicy: { policy: 'strict-origin-when-cross-origin' } }
  ],
  everything: [
    {
      hsts_seconds: 1,
      content_security_policy: { 'img-src': ['*'] },
      frame_options: 'sameorigin',
      referrer_policy: 'same-origin'
    },
    {
      strictTransportSecurity: { maxAge: 1 },
      contentSecurityPolicy: { directives: { 'img-src': ['*'] } },
      frameguard: { action: 'sameorigin' },
      referrerPolicy: { policy: 'same-origin' }
    }
  ]
}

async function oracle(t: Test, options: HelmetOptions): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(fastifyHelmet, options)
  app.get('/x', async () => 'ok')
  t.teardown(() => app.close())
  return app
}

async function start(t: Test, security_headers: unknown, own: Record<string, string> = {}): Promise<TestGateway> {
  const upstream = await startUpstream(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/plain', ...own })
    response.end('ok')
  })
  return startGateway(t, {
    services: { orders: { url: upstream.url } },
    defaults: { security_headers, cors: { origins: [ORIGIN] } },
    routes: [
      { path: '/x', service: 'orders', authentication: 'none' },
      { path: '/off', service: 'orders', authentication: 'none', security_headers: false },
      { path: '/refused', service: 'orders' },
      { path: '/limited', service: 'orders', authentication: 'none', rate_limit: { requests_per_hour: 1 } }
    ]
  })
}

function securityFields(headers: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(headers).filter(([name]) => (SECURITY_HEADERS as readonly string[]).includes(name))
  )
}

for (const [name, [ours, helmets]] of Object.entries(OPTIONS)) {
  t.test(`SEC-04 the fields are those of @fastify/helmet: ${name}`, async t => {
    const { call } = await start(t, ours)
    const app = await oracle(t, helmets)
    const theirs = securityFields((await app.inject('/x')).headers)
    t.ok(Object.keys(theirs).length >= 9)
    await call('/limited')
    const preflight = { method: 'OPTIONS', headers: { origin: ORIGIN, 'access-control-request-method': 'GET' } }
    const answers = {
      200: await call('/x'),
      401: await call('/refused'),
      404: await call('/nowhere'),
      429: await call('/limited'),
      204: await call('/refused', preflight)
    }
    for (const [status, answer] of Object.entries(answers)) {
      t.equal(answer.status, Number(status))
      t.same(securityFields(answer.headers), theirs, status)
    }
  })
}

t.test('SEC-04 a route that switches them off has none', async t => {
  const { call } = await start(t, {})
  t.same(securityFields((await call('/off')).headers), {})
  t.not(Object.keys(securityFields((await call('/x')).headers)).length, 0)
})

t.test('SEC-04 a field that the service sets itself stands, once', async t => {
  const own = {
    'Content-Security-Policy': "default-src 'self' https://cdn.example.com",
    'x-frame-options': 'DENY',
    'STRICT-TRANSPORT-SECURITY': 'max-age=5'
  }
  const { call } = await start(t, {}, own)
  const { headers, rawHeaders } = await call('/x')
  t.match(headers, {
    'content-security-policy': own['Content-Security-Policy'],
    'x-frame-options': 'DENY',
    'strict-transport-security': 'max-age=5',
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer'
  })
  for (const name of SECURITY_HEADERS)
    t.ok(rawHeaders.filter((raw, i) => i % 2 === 0 && raw.toLowerCase() === name).length <= 1, name)
})

t.test('SEC-04 what helmet does not accept is refused when the configuration is read', async t => {
  const refused = (options: object): Promise<unknown> =>
    start(t, options).then(
      () => undefined,
      error => (error as Error).message
    )
  t.match(
    await refused({ referrer_policy: 'whatever' }),
    /security_headers {2}Referrer-Policy received an unexpected policy token "whatever"/
  )
  t.match(
    await refused({ content_security_policy: { 'default-src': ['self'] } }),
    /security_headers {2}Content-Security-Policy/
  )
  t.match(
    await refused({ content_security_policy: { 'script src': ["'self'"] } }),
    /security_headers {2}Content-Security-Policy/
  )
  t.match(
    await refused({ content_security_policy: { 'script-src': ['a; b'] } }),
    /security_headers {2}Content-Security-Policy/
  )
  t.match(await refused({ frame_options: 'allow' }), /frame_options/)
})
