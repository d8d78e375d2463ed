import { join } from 'node:path'
import t, { type Test } from 'tap'
import { explainRequest } from '../../src/commands/explain.ts'
import { checkConfiguration } from '../../src/gateway.ts'
import { FakeClock } from '../support/clock.ts'
import { load, problemsIn } from '../support/config.ts'
import { ownStorage } from '../support/database.ts'
import { type GatewayOptions, startGateway } from '../support/gateway.ts'
import { register } from '../support/services.ts'
import { token } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'

const VERSIONING = { vendor: 'berrys', query: 'version' }
const accepting = (accept: string) => ({ headers: { accept } })

/** A gateway before the services `one` and `two`. */
async function start(t: Test, document: object, options: GatewayOptions = {}) {
  const [one, two] = [await startUpstream(t, undefined, 'one'), await startUpstream(t, undefined, 'two')]
  const services = { one: { url: one.url }, two: { url: two.url } }
  const gateway = await startGateway(t, { services, defaults: { authentication: 'none' }, ...document }, options)
  /** Which service got the request, and under which path. */
  const goes = async (...request: Parameters<typeof gateway.call>) => {
    const { status, json } = await gateway.call(...request)
    return status === 200 ? `${json.from} ${json.url}` : status
  }
  return { ...gateway, goes, one, two }
}

t.test('VER-01 VER-02 VER-03 VER-05 a map of versions: by path, media type and query', async t => {
  const { call, goes } = await start(t, {
    versioning: VERSIONING,
    routes: [
      {
        path: '/api/{version}/orders/**',
        service: 'one',
        versions: { v1: {}, v2: { service: 'two' }, v3: { service: 'two', rewrite: '/new' } }
      }
    ]
  })
  t.equal(await goes('/api/v1/orders/7'), 'one /api/v1/orders/7')
  t.equal(await goes('/api/v2/orders/7?a=1'), 'two /api/v2/orders/7?a=1')
  t.equal(await goes('/API/V3/orders/7'), 'two /new/7')
  t.equal(await goes('/api/v4/orders/7'), 404)
  t.equal(await goes('/api/orders/7'), 'one /api/v1/orders/7', 'sent as if the path had said the version')
  t.equal(await goes('/api/orders/7?version=2'), 'two /api/v2/orders/7?version=2')
  t.equal(await goes('/api/orders/7', accepting('application/vnd.berrys.v3+json')), 'two /new/7')
  t.equal(
    await goes('/api/v1/orders/7', accepting('application/vnd.berrys.v2+json')),
    'one /api/v1/orders/7',
    'what the path says counts'
  )
  t.equal((await call('/api/orders/7')).headers.vary?.toLowerCase(), 'accept')
  t.equal((await call('/api/v1/orders/7')).headers.vary, undefined)
})

t.test('VER-04 406 tells which versions there are', async t => {
  const { call } = await start(t, {
    versioning: { ...VERSIONING, default: 'v2' },
    routes: [
      { path: '/orders', service: 'one', version: 'v1' },
      { path: '/orders', service: 'two', version: 'v2' },
      { path: '/orders', service: 'two', version: 10, methods: ['GET'] },
      { path: '/**', service: 'one' }
    ]
  })
  const refused = await call('/orders', accepting('application/vnd.berrys.v3+json'))
  t.match(refused, { status: 406, headers: { vary: 'accept' } })
  t.match(refused.json.error, { code: 'unsupported_version', details: 'Versions that there are: 1, 2, 10.' })
  t.match((await call('/orders?version=9', { method: 'POST' })).json.error, {
    details: 'Versions that there are: 1, 2.'
  })
  t.equal((await call('/orders')).headers['x-from'], 'two', 'the default')
  t.equal((await call('/orders', accepting('application/vnd.berrys.v1+json;q=0.9'))).headers['x-from'], 'one')
})

t.test('VER-07 VER-01 VER-06 endpoints of two services, each a version of the same', async t => {
  const endpoint = { path: '/orders/{id}', method: 'GET', public: true }
  const [one, two] = [await startUpstream(t, undefined, 'one'), await startUpstream(t, undefined, 'two')]
  const { call } = await startGateway(t, {
    versioning: VERSIONING,
    services: {
      orders: { url: one.url, version: '1.4.0', endpoints: [{ ...endpoint, deprecated: true }] },
      'orders-next': { url: two.url, version: 'v2', endpoints: [endpoint, { ...endpoint, version: 'v3' }] }
    }
  })
  const goes = async (path: string) => {
    const { json, headers } = await call(path)
    return [json.from, json.url, headers.deprecation]
  }
  t.same(await goes('/api/v1/orders/7'), ['one', '/orders/7', '@0'])
  t.same(await goes('/api/v2/orders/7'), ['two', '/orders/7', undefined])
  t.same(await goes('/api/v3/orders/7'), ['two', '/orders/7', undefined])
  t.same(await goes('/api/orders/7'), ['one', '/orders/7', '@0'])
  t.same(await goes('/api/orders/7?version=3'), ['two', '/orders/7?version=3', undefined])
})

t.test('VER-07 two versions of a service register beside each other', async t => {
  const [one, two] = [await startUpstream(t, undefined, 'one'), await startUpstream(t, undefined, 'two')]
  const { call } = await startGateway(t, {
    versioning: VERSIONING,
    registry: { allow: ['loopback'] },
    storage: await ownStorage(t, 'sqlite')
  })
  const endpoint = { path: '/projects', method: 'GET', public: true }
  const answers = [
    await register(call, {
      name: 'v1',
      version: '1',
      base_url: one.url,
      endpoints: [{ ...endpoint, deprecated: true }]
    }),
    await register(call, { name: 'v2', version: 'v2', base_url: two.url, endpoints: [endpoint] }),
    await register(call, { name: 'v2-again', version: '2', base_url: two.url, endpoints: [endpoint] })
  ]
  t.same(
    answers.map(({ status }) => status),
    [201, 201, 409],
    'and one version but once'
  )
  const goes = async (path: string, accept = '*/*') => {
    const { json, headers } = await call(path, accepting(accept))
    return [json.from, json.url, headers.deprecation]
  }
  t.same(await goes('/api/v1/projects'), ['one', '/projects', '@0'])
  t.same(await goes('/api/v2/projects'), ['two', '/projects', undefined])
  t.same(await goes('/api/projects', 'application/vnd.berrys.v2+json'), ['two', '/projects', undefined])
})

t.test('VER-06 a deprecated version says since when, until when and what comes after it', async t => {
  const clock = new FakeClock(Date.UTC(2026, 5, 1))
  const deprecated = { since: '2026-01-31', sunset: '2026-12-31T12:00:00Z', documentation: '/news', gone: true }
  const { call } = await start(
    t,
    {
      versioning: VERSIONING,
      routes: [
        {
          path: '/api/{version}/orders/{id}',
          service: 'one',
          versions: { v1: { deprecated }, v2: { deprecated: true }, v3: { service: 'two' } }
        },
        { path: '/old', service: 'one', deprecated: { since: '2026-01-31', successor: '/new' } }
      ]
    },
    { clock }
  )
  const links = (list: string[]) => list.flatMap((name, i, all) => (name === 'link' ? [all[i + 1]] : []))
  const v1 = await call('/api/v1/orders/7')
  t.match(v1.headers, { deprecation: '@1769817600', sunset: 'Thu, 31 Dec 2026 12:00:00 GMT' })
  t.same(links(v1.rawHeaders).sort(), [
    '</api/v3/orders/7>; rel="successor-version"',
    '</news>; rel="deprecation"; type="text/html"'
  ])
  t.same(links((await call('/api/orders/7?version=2')).rawHeaders), ['</api/v3/orders/7>; rel="successor-version"'])
  t.equal((await call('/api/v3/orders/7')).headers.deprecation, undefined)
  t.same(links((await call('/old')).rawHeaders), ['</new>; rel="successor-version"'])
  clock.set(Date.UTC(2027, 0, 1))
  const gone = await call('/api/v1/orders/7')
  t.match(gone, { status: 410, headers: { deprecation: '@1769817600' } })
  t.match(gone.json.error, { code: 'gone', details: 'It was taken away at Thu, 31 Dec 2026 12:00:00 GMT.' })
  t.equal((await call('/api/v2/orders/7')).status, 200)
})

t.test('VER-06 H-126 use of what is deprecated is counted by caller, and callers are bounded', async t => {
  const { call } = await start(t, {
    defaults: { authentication: 'optional' },
    routes: [{ path: '/old', service: 'one', deprecated: true }]
  })
  await call('/old')
  for (let i = 0; i < 101; i++) await call('/old', { token: token({ sub: `user-${i}`, exp: 2e9 }) })
  await call('/old', { token: token({ sub: 'user-1', exp: 2e9 }) })
  const { text } = await call('/metrics')
  const counts = [...text.matchAll(/^gateway_deprecated_requests_total\{endpoint="\/old",consumer="(.*?)"\} (\d+)$/gm)]
  const byCaller = Object.fromEntries(counts.map(([, caller, count]) => [caller, Number(count)]))
  t.match(byCaller, { anonymous: 1, 'user:user-0': 1, 'user:user-1': 2, __others__: 2 })
  t.equal(counts.length, 101)
})

t.test('VER-01 VER-05 VER-06 VER-07 check says what is wrong with versions', async t => {
  const cases: [route: string, versioning: string, key: string, message: RegExp][] = [
    ['path: /x, service: a, version: v1', '', 'routes[0].version', /asked for by nobody: put "\{version\}"/],
    ['path: /x, service: a, versions: { v1: {} }', '', 'routes[0].versions', /asked for by nobody/],
    ['path: "/{version}/x", service: a, version: 1, versions: { v2: {} }', '', 'routes[0].version', /stands beside/],
    [
      'path: "/{version}/x", service: a, versions: { v1: { service: "a b" } }',
      '',
      'routes[0].versions.v1.service',
      /./
    ],
    ['path: "/{version}/x", versions: { v1: {} }', '', 'routes[0].versions.v1', /needs "service" or "target"/],
    [
      'path: "/{version}/x", service: a, versions: { v1: { timeout: 3 } }',
      '',
      'routes[0].versions.v1.timeout',
      /unknown/
    ],
    ['path: /x, service: a, deprecated: { sunset: "2026-99-01" }', '', 'deprecated', /is no date; write 2026-01-31/],
    ['path: /x, service: a, deprecated: { gone: true }', '', 'deprecated', /"gone" needs "sunset"/],
    ['path: /x, service: a, deprecated: { since: "2027-01-01", sunset: "2026-01-01" }', '', 'deprecated', /before/],
    ['path: /x, service: a, version: 2 }, { path: /x, service: b, version: v2', 'query: v', 'routes[1].path', /same/]
  ]
  for (const [route, versioning, key, message] of cases) {
    const text = `services: { a: { url: http://a }, b: { url: http://b } }\nversioning: { ${versioning} }\nroutes: [{ ${route} }]\n`
    const files = [join(t.testdir({ 'gateway.yaml': text }), 'gateway.yaml')]
    const problems = await problemsIn(checkConfiguration({ files, env: {}, overrides: [] }))
    const errors = problems.filter(({ severity }) => severity === 'error')
    t.ok(
      errors.some(error => error.line === 3 && error.key.endsWith(key) && message.test(error.message)),
      `${route}: ${JSON.stringify(errors)}`
    )
  }
})

t.test('VER-04 explain negotiates, too', async t => {
  const loaded = await load(t, {
    'gateway.yaml': `services: { a: { url: http://a }, b: { url: http://b } }
versioning: { vendor: acme }
routes: [{ path: "/{version}/x", authentication: none, service: a, versions: { v1: {}, v2: { service: b } } }]
`
  })
  const explained = (...headers: string[]) =>
    explainRequest(loaded, { method: 'GET', target: '/x', headers, from: '127.0.0.1' })
  t.match(await explained('Accept: application/vnd.acme.v2+json'), {
    route: { id: '/x (v2)', service: 'b' },
    verdict: 'forwarded to b',
    forward: { path: '/v2/x' },
    near: [{ id: '/x (v1)', because: 'is version 1, and the request wants 2' }]
  })
  t.match((await explained('Accept: application/vnd.acme.v3+json')).verdict, /^406 unsupported_version.*1, 2/)
})
