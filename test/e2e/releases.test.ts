import t, { type Test } from 'tap'
import { explainRequest } from '../../src/commands/explain.ts'
import { load, problemsOf } from '../support/config.ts'
import { startGateway } from '../support/gateway.ts'
import { seeded } from '../support/random.ts'
import { token } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'

const OPEN = { authentication: 'none' }

/** The services `a` and `b`, and as a third `down`, where nobody is. */
async function startServices(t: Test) {
  const [a, b] = [await startUpstream(t, undefined, 'a'), await startUpstream(t, undefined, 'b')]
  return {
    a,
    b,
    services: { a: { url: a.url }, b: { url: b.url }, down: { url: 'http://127.0.0.1:1', timeouts: { connect: '1s' } } }
  }
}

t.test('HLB-09 a split shares a route’s requests by weight, and log and metrics say where each went', async t => {
  const { services, b } = await startServices(t)
  const split = [
    { service: 'a', weight: 3 },
    { target: b.url, weight: 1, name: 'next' }
  ]
  const { call, line } = await startGateway(
    t,
    { services, routes: [{ path: '/x/**', split, ...OPEN }] },
    { random: seeded(7) }
  )
  const counts = { a: 0, b: 0 }
  let ofB = ''
  for (let i = 0; i < 200; i++) {
    const { headers } = await call(`/x/${i}`)
    counts[headers['x-from'] as 'a']++
    if (headers['x-from'] === 'b') ofB = headers['x-request-id'] as string
  }
  t.ok(Math.abs(counts.a - 150) < 20, `${counts.a} of 200 at a`)
  t.match(await line({ request_id: ofB }), { service: b.url, variant: 'next', route: '/x/**' })
  const { text } = await call('/metrics')
  t.match(text, `service_request_count{service="a",status="200"} ${counts.a}`)
  t.match(text, `service_request_count{service="${b.url}",status="200"} ${counts.b}`)
})

t.test('HLB-09 a split outlives a reload, and its services change with it', async t => {
  const { services } = await startServices(t)
  const document = (weight: number) => ({
    services,
    routes: [{ path: '/x', split: [{ service: 'a' }, { service: 'b', weight }], ...OPEN }]
  })
  const { call, configure, gateway } = await startGateway(t, document(0))
  const from = async () => {
    const seen = new Set<unknown>()
    for (let i = 0; i < 20; i++) seen.add((await call('/x')).headers['x-from'])
    return [...seen].sort()
  }
  t.same(await from(), ['a'])
  configure(document(1))
  await gateway.reload()
  t.same(await from(), ['a', 'b'])
})

t.test('HLB-09 seed 003: routes that differ in nothing but target and weight share their requests', async t => {
  const { services, a, b } = await startServices(t)
  const route = { path: '/api/v1/agents', method: 'GET' }
  const { call } = await startGateway(
    t,
    {
      services,
      defaults: OPEN,
      router: {
        routes: [
          { ...route, target: a.url, weight: 0 },
          { ...route, path: '/api/v1/threads', target: a.url, weight: 100 },
          { ...route, target: b.url, weight: 100 }
        ]
      }
    },
    { random: seeded(1) }
  )
  for (let i = 0; i < 5; i++) t.equal((await call('/api/v1/agents')).headers['x-from'], 'b')
  t.equal((await call('/api/v1/threads')).headers['x-from'], 'a')
})

t.test('HLB-09 check says what is wrong with a split, where, and what to do', async t => {
  const cases: [route: string, key: string, message: RegExp][] = [
    ['split: [{ service: a, weight: 0 }, { service: b, weight: 0 }]', 'routes[0].split', /no weight above 0/],
    ['split: [{ service: a }, { service: orderz }]', 'routes[0].split[1].service', /did you mean "orders"/],
    ['split: [{ service: a }, { service: a }]', 'routes[0].split[1]', /called "a" like another; give it a "name"/],
    ['split: [{ weight: 1 }]', 'routes[0].split[0]', /needs "service" or "target"/],
    ['service: a, split: [{ service: b }]', 'routes[0]', /has both "service" and "split"/],
    ['split: []', 'routes[0].split', /./],
    ['split: [{ service: a, weight: -1 }]', 'routes[0].split[0].weight', /./]
  ]
  for (const [route, key, message] of cases) {
    const problems = await problemsOf(t, {
      'gateway.yaml': `services: { a: { url: http://a }, b: { url: http://b }, orders: { url: http://c } }\nroutes:\n  - { path: /x, ${route} }\n`
    })
    const found = problems.filter(problem => problem.severity === 'error')
    t.match(found, [{ key, message, line: 3 }], `${route}: ${JSON.stringify(found)}`)
  }
})

t.test('HLB-09 explain tells the odds', async t => {
  const loaded = await load(t, {
    'gateway.yaml':
      'services: { a: { url: http://a }, b: { url: http://b } }\nroutes: [{ path: /x, authentication: none, split: [{ service: a, weight: 1 }, { service: b, weight: 7, name: next }] }]\n'
  })
  const { verdict, forward } = await explainRequest(loaded, {
    method: 'GET',
    target: '/x',
    headers: [],
    from: '127.0.0.1'
  })
  t.equal(verdict, 'forwarded to a (12.5 %) or next (87.5 %)')
  t.match(forward, {
    odds: [
      { service: 'a', variant: 'a', percent: 12.5 },
      { service: 'b', variant: 'next', percent: 87.5 }
    ],
    instances: ['http://a', 'http://b']
  })
})

t.test('RTE-08 H-7 a variant that a client claims reaches no service, however it is spelled', async t => {
  const { services, a } = await startServices(t)
  const experiment = { name: 'page', variants: [{ service: 'a', name: 'blue' }] }
  const { call } = await startGateway(t, { services, routes: [{ path: '/x', experiment, authentication: 'none' }] })
  await call('/x', { headers: { X_Variant: 'forged', x_other: 'kept' } })
  t.match(a.last().headers, { 'x-variant': 'blue', x_other: 'kept' })
  t.notOk('x_variant' in a.last().headers)
})

t.test('RTE-08 an experiment keeps each caller with one variant, and says so to caller, service and log', async t => {
  const { services, a, b } = await startServices(t)
  const experiment = {
    name: 'page',
    header: 'X-Device',
    variants: [
      { service: 'a', name: 'blue' },
      { service: 'b', name: 'green' }
    ]
  }
  const { call, line } = await startGateway(
    t,
    { services, routes: [{ path: '/x', experiment, authentication: 'optional' }] },
    { random: seeded(3) }
  )
  for (let i = 0; i < 12; i++) {
    const credentials = { token: token({ sub: `user-${i}`, exp: 2e9 }) }
    const first = await call('/x', { ...credentials, headers: { 'X-Variant': 'forged' } })
    const again = await call('/x', { ...credentials, headers: { 'x-device': `other-${i}` } })
    t.equal(first.headers['x-from'], again.headers['x-from'], 'whatever else he sends')
    t.equal(first.headers['x-variant'], first.headers['x-from'] === 'a' ? 'blue' : 'green')
    t.equal(first.headers['set-cookie'], undefined, 'a caller who is known needs no cookie')
    t.match(await line({ request_id: first.headers['x-request-id'] as string }), {
      service: first.headers['x-from'],
      variant: first.headers['x-variant']
    })
  }
  const told = [...a.seen.map(({ headers }) => ['blue', headers]), ...b.seen.map(({ headers }) => ['green', headers])]
  for (const [variant, headers] of told as [string, Record<string, string>][]) t.equal(headers['x-variant'], variant)
  const devices = new Set<unknown>()
  for (let i = 0; i < 12; i++) {
    const headers = { 'x-device': `device-${i}` }
    const { 'x-variant': variant } = (await call('/x', { headers })).headers
    t.equal((await call('/x', { headers })).headers['x-variant'], variant)
    devices.add(variant)
  }
  t.equal(devices.size, 2, 'devices get the one or the other')
  const stranger = await call('/x')
  const [cookie = ''] = stranger.headers['set-cookie'] ?? []
  t.match(cookie, `ab-page=${stranger.headers['x-variant']}; Path=/`)
  for (let i = 0; i < 10; i++) {
    const { headers } = await call('/x', { headers: { cookie: cookie.split(';')[0] as string } })
    t.equal(headers['x-variant'], stranger.headers['x-variant'])
    t.equal(headers['set-cookie'], undefined)
  }
})

t.test('RTE-08 check and explain know experiments', async t => {
  const yaml = (experiment: string) => ({
    'gateway.yaml': `services: { a: { url: http://a }, b: { url: http://b } }\nroutes:\n  - { path: /x, authentication: none, experiment: { ${experiment} } }\n`
  })
  t.match(await problemsOf(t, yaml('name: x, variants: [{ target: "http://c" }]')), [
    { key: 'routes[0].experiment.variants[0]', message: /needs a "name"/, line: 3 }
  ])
  t.match(await problemsOf(t, yaml('variants: [{ service: a }]')), [{ key: /experiment/, message: /name/ }])
  const loaded = await load(t, yaml('name: x, header: X-Device, variants: [{ service: a }, { service: b }]'))
  const explained = async (headers: string[]) =>
    (await explainRequest(loaded, { method: 'GET', target: '/x', headers, from: '127.0.0.1' })).verdict
  t.equal(await explained([]), 'forwarded to a (50 %) or b (50 %)')
  t.match(await explained(['X-Device: 7']), /^forwarded to [ab], as always for this header \(experiment x\)$/)
  t.equal(await explained(['Cookie: ab-x=b']), 'forwarded to b, as always for this cookie (experiment x)')
})

t.test('RTE-07 requests are told apart by header field and user agent', async t => {
  const { services, a, b } = await startServices(t)
  const { call } = await startGateway(t, {
    services,
    defaults: OPEN,
    routes: [
      { path: '/app/**', service: 'a', rewrite: '/beta', headers: { 'X-Beta': 'yes' } },
      { path: '/app/**', service: 'a', rewrite: '/mobile', headers: { 'User-Agent': { regex: '(?i)android|iphone' } } },
      { path: '/app/**', service: 'a', rewrite: '/tool', headers: { 'User-Agent': { prefix: 'curl/' } } },
      { path: '/app/**', service: 'a', rewrite: '/silent', headers: { 'User-Agent': { present: false } } },
      { path: '/app/**', service: 'b', rewrite: '/rest' }
    ]
  })
  const phone = 'Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15'
  const cases: [headers: Record<string, string>, path: string][] = [
    [{ 'user-agent': phone }, '/mobile'],
    [{ 'user-agent': 'Dalvik/2.1.0 (Linux; U; ANDROID 13)' }, '/mobile'],
    [{ 'user-agent': phone, 'x-beta': 'yes' }, '/beta'],
    [{ 'user-agent': 'curl/8.4.0' }, '/tool'],
    [{ 'user-agent': 'libcurl/8.4.0' }, '/rest'],
    [{ 'user-agent': 'Mozilla/5.0 (X11; Linux x86_64)', 'x-beta': 'no' }, '/rest'],
    [{}, '/silent']
  ]
  for (const [headers, path] of cases) {
    const { json } = await call('/app/x', { headers })
    t.equal(json.url, `${path}/x`, JSON.stringify(headers))
  }
  t.equal(a.seen.length + b.seen.length, cases.length)
})

t.test('RTE-03 RTE-06 a route map of prefixes and an expression share a gateway with releases', async t => {
  const { services } = await startServices(t)
  const { call } = await startGateway(
    t,
    {
      services,
      defaults: OPEN,
      routes: [
        { path: '/api/auth/*', service: 'a' },
        { path: '/api/users/*', split: [{ service: 'b', weight: 1 }] },
        {
          regex: '^/files/[a-z]+\\.pdf$',
          split: [
            { service: 'b', weight: 1 },
            { service: 'a', weight: 0 }
          ]
        }
      ]
    },
    { random: seeded(1) }
  )
  const from = async (path: string) => (await call(path)).headers['x-from'] ?? (await call(path)).status
  t.same(await Promise.all(['/api/auth/x', '/api/users/7', '/files/a.pdf', '/files/a.txt'].map(from)), [
    'a',
    'b',
    'b',
    404
  ])
})

t.test('HLB-09 RTE-08 WebSockets go where their callers’ requests go', async t => {
  const { services } = await startServices(t)
  const variants = [
    { service: 'a', name: 'blue' },
    { service: 'b', name: 'green' }
  ]
  const experiment = { name: 'x', header: 'X-Device', variants }
  const { call, line } = await startGateway(t, {
    services,
    routes: [{ path: '/x', experiment, websocket: true, ...OPEN }]
  })
  // These services know no WebSockets, and answer the handshake as any other request.
  const handshake = {
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ=='
  }
  const seen = new Set<unknown>()
  for (let i = 0; i < 12; i++) {
    const device = { 'x-device': `device-${i}` }
    const plain = await call('/x', { headers: device })
    const upgraded = await call('/x', { headers: { ...device, ...handshake } })
    t.equal(upgraded.headers['x-variant'], plain.headers['x-variant'])
    t.equal(upgraded.headers['x-from'], plain.headers['x-from'])
    t.match(await line({ request_id: upgraded.headers['x-request-id'] as string }), {
      variant: upgraded.headers['x-variant'],
      service: upgraded.headers['x-from']
    })
    seen.add(upgraded.headers['x-variant'])
  }
  t.equal(seen.size, 2)
})
