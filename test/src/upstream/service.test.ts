import t from 'tap'
import type { Exchange } from '../../../src/proxy/exchange.ts'
import { createBalancer } from '../../../src/upstream/balancers/balancer.ts'
import { DEFAULT_SELECTION } from '../../../src/upstream/balancing-settings.ts'
import type { Instance } from '../../../src/upstream/instance.ts'
import { Service, type ServiceConfig } from '../../../src/upstream/service.ts'
import { FakeClock } from '../../support/clock.ts'
import { surroundings } from '../../support/surroundings.ts'

const POOL = { connections: 1, connectTimeoutMs: 0, keepAliveMs: 1000, idleTimeoutMs: 0, maxHeaderBytes: 1024 }
const exchange = {} as Exchange

function serviceOf(clock: FakeClock, ...given: (string | Partial<ServiceConfig>)[]): Service {
  const ids = given.filter(item => typeof item === 'string')
  const config = given.find(item => typeof item === 'object')
  return new Service({ name: 's', instances: ids.map(listed), pool: POOL, ...config }, surroundings(clock))
}

function listed(id: string) {
  return { id, url: `http://${id}:80`, weight: 1 }
}

t.test('HLB-04 instances take turns, each route for itself', async t => {
  const service = serviceOf(new FakeClock(), 'a', 'b', 'c')
  const own = createBalancer({ type: 'round_robin' }, Math.random)
  const picks = (balancer = service.balancer) => [1, 2, 3, 4].map(() => service.pick(balancer, exchange)?.id)
  t.same(picks(), ['a', 'b', 'c', 'a'])
  t.same(picks(own), ['a', 'b', 'c', 'a'])
  t.same(picks(), ['b', 'c', 'a', 'b'])
})

t.test('HLB-03 an instance that nobody answers at is left out for a moment, unless all are', async t => {
  const clock = new FakeClock()
  const service = serviceOf(clock, 'a', 'b')
  const [a, b] = service.instances
  if (a === undefined || b === undefined) return t.fail('two instances')
  service.tried(a, 0, 'connect', 1)
  t.same(
    [1, 2, 3].map(() => service.pick(service.balancer, exchange)?.id),
    ['b', 'b', 'b']
  )
  t.notOk(service.hasOther(b), 'the other one is not worth asking')
  service.tried(b, 0, 'connect_timeout', 1)
  t.ok(service.pick(service.balancer, exchange), 'somebody has to find out that they are back')
  clock.advance(1001)
  const back = new Set([1, 2].map(() => service.pick(service.balancer, exchange)?.id))
  t.same([...back].sort(), ['a', 'b'])
})

t.test('REG-14 instances come and go: those that stay keep what is known of them', async t => {
  const clock = new FakeClock()
  const service = serviceOf(clock, 'a', 'b')
  const [a, b] = service.instances
  service.update([{ ...listed('b'), weight: 5 }, listed('c')])
  t.same(
    service.instances.map(({ id, weight }) => [id, weight]),
    [
      ['b', 5],
      ['c', 1]
    ]
  )
  t.equal(service.instances[0], b, 'the very same')
  t.not(service.pick(service.balancer, exchange), a)
  service.update([])
  t.equal(service.pick(service.balancer, exchange), undefined, 'none is left')
})

const OUTLIERS = {
  consecutive: 2,
  errorPercent: 100,
  minimumRequests: 100,
  windowMs: 10_000,
  ejectionMs: 30_000,
  maxEjectionMs: 300_000,
  maxEjectedPercent: 50
}

t.test('H-128 HLB-03 somebody sets the clock: nobody is out for longer or shorter, nor weighs more', async t => {
  for (const jump of [-3_600_000, 3_600_000]) {
    const clock = new FakeClock()
    const selection = { ...DEFAULT_SELECTION, slowStartMs: 10_000 }
    const service = serviceOf(clock, { outliers: OUTLIERS, selection }, 'a', 'b')
    const [a, b] = service.instances as [Instance, Instance]
    const asked = () => new Set(Array.from({ length: 60 }, () => service.pick(service.balancer, exchange)?.id)).size
    for (let i = 0; i < 2; i++) service.tried(a, 500, undefined, 1)
    service.tried(b, 0, 'connect', 1)
    clock.set(clock.now() + jump)
    service.refresh()
    t.equal(a.state, 'ejected')
    t.equal(service.pick(service.balancer, exchange), b, 'who is ejected is not asked, rather who could not be reached')
    clock.advance(29_999)
    t.equal(asked(), 1)
    clock.advance(1)
    t.equal(asked(), 2)
    t.equal(a.state, 'healthy')
    t.equal(a.ramp, 0.05)
    clock.advance(5000)
    clock.set(clock.now() - jump)
    service.refresh()
    t.equal(a.ramp, 0.5)
    clock.advance(5000)
    service.refresh()
    t.equal(a.ramp, 1)
    t.equal(b.ramp, 1)
  }
})

t.test('HLB-11 slow start: whoever comes later begins with little, whoever was there at first with all', async t => {
  const clock = new FakeClock()
  const service = serviceOf(clock, { selection: { ...DEFAULT_SELECTION, slowStartMs: 10_000 } }, 'a')
  service.update([listed('a'), listed('b')])
  const shareOfB = () => {
    const picks = Array.from({ length: 500 }, () => service.pick(service.balancer, exchange)?.id)
    return picks.filter(id => id === 'b').length / 5
  }
  t.ok(shareOfB() < 7, 'a twentieth of its weight')
  clock.advance(5000)
  const half = shareOfB()
  t.ok(half > 30 && half < 37, `half of its weight is a third of the traffic: ${half}`)
  clock.advance(5000)
  t.equal(shareOfB(), 50)
})
