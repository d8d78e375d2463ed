import t, { type Test } from 'tap'
import { explainRequest } from '../../src/commands/explain.ts'
import { load, problemsOf } from '../support/config.ts'
import { startGateway } from '../support/gateway.ts'
import { seeded } from '../support/random.ts'
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
