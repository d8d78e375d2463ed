import t from 'tap'
import { ServiceRegistry } from '../../../src/index.ts'
import { FakeClock } from '../../support/clock.ts'
import { seeded } from '../../support/random.ts'

const [A, B, C] = [
  { id: 'a', url: 'http://a:80' },
  { id: 'b', url: 'http://b:80/base', weight: 3 },
  { id: 'c', url: 'https://c', weight: 0 }
] as const

const picks = (registry: ServiceRegistry, count: number) =>
  Array.from({ length: count }, () => registry.getBestInstance('orders')?.id).join('')

t.test('REG-13 REG-11 the instance whose turn it is, by either name', async t => {
  const registry = new ServiceRegistry()
  registry.register_service({ name: 'orders', instances: [A, B] })
  t.strictSame(registry.get_best_instance('orders'), {
    ...A,
    weight: 1,
    healthy: true,
    last_health_check: null,
    response_time_ms: null
  })
  t.equal(picks(registry, 4), 'baba', 'in turn unless said otherwise')
  t.equal(registry.getBestInstance('other'), undefined)
  t.ok(registry.deregisterService('orders'))
  t.notOk(registry.deregisterService('orders'))
  t.equal(registry.getBestInstance('orders'), undefined)
})

t.test('REG-13 HLB-05 each strategy is the gateway’s own', async t => {
  const registry = new ServiceRegistry({ random: seeded(7) })
  const instances = [A, B, C]
  const shares = (type: 'weighted_round_robin' | 'random') => {
    registry.registerService({ name: 'orders', instances, load_balancer_type: type })
    const picked = picks(registry, 4000)
    return { a: picked.split('a').length - 1, b: picked.split('b').length - 1, c: picked.split('c').length - 1 }
  }
  t.strictSame(shares('weighted_round_robin'), { a: 1000, b: 3000, c: 0 })
  const { a, b, c } = shares('random')
  t.ok(a > 900 && a < 1100 && a + b === 4000 && c === 0, `${a}`)
  registry.registerService({
    name: 'orders',
    instances: [A, { ...B, weight: 1 }],
    load_balancer_type: 'least_connections'
  })
  registry.reportHealth('orders', 'a', { healthy: true, active_connections: 5 })
  t.equal(picks(registry, 3), 'bbb')
  registry.reportHealth('orders', 'b', { healthy: true, active_connections: 9 })
  t.equal(picks(registry, 3), 'aaa')
})

t.test('REG-13 what is not healthy is not picked; what weighs nothing only if nobody else is', async t => {
  const clock = new FakeClock()
  const registry = new ServiceRegistry({ clock })
  registry.registerService({ name: 'orders', instances: [A, B, C] })
  t.ok(registry.reportHealth('orders', 'a', { healthy: false, response_time_ms: 12 }))
  t.equal(picks(registry, 3), 'bbb')
  t.match(registry.getInstances('orders')[0], { healthy: false, last_health_check: clock.now(), response_time_ms: 12 })
  registry.reportHealth('orders', 'b', { healthy: false })
  t.equal(picks(registry, 2), 'cc')
  registry.reportHealth('orders', 'c', { healthy: false })
  t.equal(registry.getBestInstance('orders'), undefined)
  registry.registerService({ name: 'orders', instances: [{ ...A, url: 'http://elsewhere' }, B] })
  t.equal(picks(registry, 2), 'aa', 'at another address it is another instance; the others stay what they were')
  t.notOk(registry.reportHealth('orders', 'x', { healthy: true }))
  t.notOk(registry.reportHealth('x', 'a', { healthy: true }))
  t.strictSame(registry.getInstances('x'), [])
})

t.test('REG-13 what is no service is refused', async t => {
  const registry = new ServiceRegistry()
  const add =
    (...instances: { id?: string; url: string; weight?: number }[]) =>
    () =>
      registry.registerService({ name: 'orders', instances })
  t.throws(add(A, A), /two instances of "orders" have the id "a"/)
  t.throws(add({ url: 'a:80' }), /is no HTTP address/)
  t.throws(add({ url: 'http://[' }), /is no HTTP address/)
  t.throws(add({ url: 'http://a', weight: -1 }), /the weight of "0" is -1/)
  t.equal(registry.getBestInstance('orders'), undefined, 'and nothing is left of it')
})
