import t from 'tap'
import { load, problemsOf } from '../../../support/config.ts'

t.test('REG-12 HLB-01 CFG-03 who is checked, and how often: the service says, else the defaults', async t => {
  const { snapshot } = await load(t, {
    'gateway.yaml': `
defaults: { health_check_interval: 12 }
services:
  plain: { url: "http://a" }
  own: { url: "http://b", health_check: { type: GRPC, interval_seconds: 3, timeout_seconds: 0.5 } }
  path: { url: "http://c", health_check_path: /up, health_check: { healthy_after: 1 } }
  off: { url: "http://d", health_check: false }
  asked: { url: "http://e", health_check: { enabled: false, path: /alive } }
routes:
  - { path: /a, service: plain }
  - { path: /b, service: own }
  - { path: /c, service: path }
  - { path: /d, service: off }
  - { path: /e, service: asked }
  - { path: /f, target: "http://f" }`
  })
  const found = Object.fromEntries([...snapshot.services].map(([name, { healthCheck }]) => [name, healthCheck]))
  t.match(found, {
    plain: { type: 'http', path: '/health', intervalMs: 12_000, timeoutMs: 5000, expected: [200], unhealthyAfter: 2 },
    own: { type: 'grpc', intervalMs: 3000, timeoutMs: 500 },
    path: { path: '/up', intervalMs: 12_000, healthyAfter: 1 },
    off: { intervalMs: 0 },
    asked: { path: '/alive', intervalMs: 0 },
    'http://f': { intervalMs: 0 }
  })
  t.same(snapshot.warnings, [])
})

t.test(
  'HLB-01 HLB-11 without a word nothing is checked, ejected or preferred; zones come with the gateway’s own',
  async t => {
    const { snapshot } = await load(t, {
      'gateway.yaml': `
gateway: { zone: eu-1a }
services:
  plain: { url: "http://a" }
  told: { url: "http://b", outlier_detection: true, load_balancer: { slow_start: 5s, panic_threshold: 30, zone_threshold: false } }
routes: [{ path: /a, service: plain }, { path: /b, service: told }]`
    })
    const { plain, told } = Object.fromEntries(snapshot.services)
    t.match(plain, { healthCheck: { intervalMs: 0 }, outliers: undefined })
    t.same(plain?.selection, { slowStartMs: 0, panicPercent: 0, zone: 'eu-1a', zonePercent: 50 })
    t.match(told, { outliers: { consecutive: 5, errorPercent: 50, ejectionMs: 30_000, maxEjectedPercent: 50 } })
    t.same(told?.selection, { slowStartMs: 5000, panicPercent: 30, zone: 'eu-1a', zonePercent: undefined })
  }
)

t.test('CFG-08 what is of the instances does not stand on a route; intervals of no time are none', async t => {
  const problems = await problemsOf(t, {
    'gateway.yaml': `services:
  a: { url: "http://a", health_check: { interval_seconds: 0 } }
routes:
  - { path: /a, service: a, load_balancer: { slow_start: 3s } }`
  })
  t.match(problems, [
    { line: 2, key: 'services.a.health_check.interval_seconds', message: /more than 0/ },
    { line: 4, key: 'routes[0].load_balancer.slow_start', message: /put it under "services.a.load_balancer"/ }
  ])
})
