import t from 'tap'
import { balancerOf } from '../../../src/upstream/balancing-settings.ts'
import { load, problemsOf } from '../../support/config.ts'

t.test('HLB-10 what says which instance is asked, in every spelling', async t => {
  const cases: [Parameters<typeof balancerOf>[0], object | undefined][] = [
    [{}, undefined],
    [{ load_balancer_type: 'random' }, { type: 'random' }],
    [{ load_balancer: {} }, { type: 'weighted_round_robin' }],
    [{ load_balancer: { type: 'consistent_hash' } }, { type: 'consistent_hash', from: 'ip', name: '' }],
    [
      { load_balancer_type: 'consistent_hash', load_balancer: { hash_on: 'header:X-A:b' } },
      { type: 'consistent_hash', from: 'header', name: 'X-A:b' }
    ],
    [{ load_balancer_type: 'sticky' }, { type: 'sticky', name: 'sallyport_instance', maxAge: undefined }],
    [
      { load_balancer: { type: 'sticky', cookie: 'gw', cookie_max_age: 1500 } },
      { type: 'sticky', name: 'gw', maxAge: 2 }
    ]
  ]
  for (const [keys, wanted] of cases) t.same(balancerOf(keys), wanted)
})

t.test('HLB-10 route, service, defaults: the most specific one counts, as a whole', async t => {
  const { snapshot } = await load(t, {
    'gateway.yaml': `
defaults: { load_balancer: LEAST_CONNECTIONS }
services:
  a: { url: "http://a" }
  b: { url: "http://b", load_balancer: { type: RANDOM } }
routes:
  - { path: /a, service: a }
  - { path: /b, service: b, load_balancer_type: STICKY }
  - { path: /c, target: "http://c" }`
  })
  t.equal(snapshot.services.get('a')?.balancer?.type, 'least_connections')
  t.equal(snapshot.services.get('b')?.balancer?.type, 'random')
  t.equal(snapshot.services.get('http://c')?.balancer?.type, 'least_connections')
  t.same(
    snapshot.routes.map(({ balancer }) => balancer?.type),
    [undefined, 'sticky', undefined]
  )
})

t.test(
  'CFG-08 options that mean nothing here are errors with place and fix; weights that nobody looks at a warning',
  async t => {
    const problems = await problemsOf(t, {
      'gateway.yaml': `defaults: { load_balancer: { cookie: x } }
services:
  a: { url: "http://a", load_balancer_type: random, load_balancer: { type: sticky } }
routes:
  - { path: /a, service: a, load_balancer: { type: random, hash_on: ip } }
  - { path: /b, service: a, load_balancer: best }
  - { path: /c, service: a, load_balancer: { type: consistent_hash, hash_on: header } }`
    })
    t.match(problems, [
      { line: 1, key: 'defaults.load_balancer.cookie', message: /is for "type: sticky"; this is weighted_round_robin/ },
      { line: 3, key: 'services.a.load_balancer_type', message: /keep one of them/ },
      { line: 5, key: 'routes[0].load_balancer.hash_on', message: /is for "type: consistent_hash"; this is random/ },
      { line: 6, key: 'routes[1].load_balancer', message: /"best" should be "round_robin"/ },
      { line: 7, key: 'routes[2].load_balancer.hash_on', message: /write ip, user, header:X-Tenant/ }
    ])
    const { snapshot } = await load(t, {
      'gateway.yaml': `services:
  a:
    instances: [{ url: "http://a" }, { url: "http://b", weight: 2 }, { url: "http://c", weight: 0 }]
    load_balancer_type: round_robin
routes: [{ path: /a, service: a }]`
    })
    t.match(snapshot.warnings, [{ line: 3, message: /weighted_round_robin/ }])
  }
)
