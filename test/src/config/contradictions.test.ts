import t from 'tap'
import { load, problemsOf } from '../../support/config.ts'

t.test('CFG-08 what is said twice, or a level too high, is told with what to do', async t => {
  const problems = await problemsOf(t, {
    'gateway.yaml': `services:
  a: { url: "http://a", circuit_breaker: { threshold: 3, failure_threshold: 4 }, bulkhead: 3, concurrency: 4 }
  b: { url: "http://b", circuit_breaker: { treshold: 3, error_rate: 30 }, slow_start: 30s }
routes:
  - { path: /a, service: a, url: "http://x", target: "http://y" }
  - { path: /b, service: b, countries: [Germany], deprecated: { since: yesterday } }`
  })
  t.match(problems, [
    { line: 2, key: 'services.a.circuit_breaker.threshold', message: /another word for "failure_threshold".*keep one/ },
    { line: 2, key: 'services.a.bulkhead', message: /another word for "concurrency"/ },
    { line: 3, key: 'services.b.circuit_breaker.treshold', message: 'unknown key, did you mean "threshold"?' },
    { line: 3, key: 'services.b.circuit_breaker.error_rate', message: 'must be at most 1; a share of 30 % is 0.3' },
    { line: 3, key: 'services.b.slow_start', message: 'unknown key; it is a part of "load_balancer"' },
    { line: 5, key: 'routes[0].url', message: /another word for "target"/ },
    { line: 6, key: 'routes[1].countries', message: /two letters/ },
    { line: 6, key: 'routes[1].deprecated.since', message: /write 2026-01-31/ }
  ])
  t.equal(problems.length, 8)
})

t.test('CFG-08 RES-12 RTE-10 what could never do anything is an error, or a warning', async t => {
  const problems = await problemsOf(t, {
    'gateway.yaml': `geo: { database: /dev/null }
services:
  a: { url: "http://a", circuit_breaker: { depends_on: [a] } }
  b: { url: "http://b", load_balancer: sticky, load_balancer_type: random }
routes:
  - { path: /a, service: a, fallback: { service: a }, countries: [de, UK] }`
  })
  t.match(problems, [
    { line: 3, key: 'services.a.circuit_breaker.depends_on[0]', message: 'is this service itself' },
    { line: 4, key: 'services.b.load_balancer_type', message: /stands beside "load_balancer"; keep one/ },
    { line: 6, key: 'routes[0].fallback.service', message: 'is the service that it would stand in for' },
    { line: 6, key: 'routes[0].countries[1]', message: '"UK" is called GB in ISO 3166-1' }
  ])
  t.equal(problems.length, 4)

  const { snapshot } = await load(t, {
    'gateway.yaml': `services:
  plain: { url: "http://plain" }
  each: { url: "http://each", circuit_breaker: { per: instance } }
  own: { url: "http://own", circuit_breaker: {} }
  shop: { url: "http://shop", circuit_breaker: { depends_on: [plain, each, own] } }
routes: [ { path: /1, service: plain }, { path: /2, service: each }, { path: /3, service: own }, { path: /4, service: shop } ]`
  })
  t.match(snapshot.warnings, [
    { line: 5, message: /changes nothing: "plain" has no breaker of its own/ },
    { line: 5, message: /"each" has no breaker/ }
  ])
  t.equal(snapshot.warnings.length, 2)
})
