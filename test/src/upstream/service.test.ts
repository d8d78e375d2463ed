import t from 'tap'
import type { Exchange } from '../../../src/proxy/exchange.ts'
import { createBalancer } from '../../../src/upstream/balancers/balancer.ts'
import { Service } from '../../../src/upstream/service.ts'
import { FakeClock } from '../../support/clock.ts'
import { surroundings } from '../../support/surroundings.ts'

const POOL = { connections: 1, connectTimeoutMs: 0, keepAliveMs: 1000, idleTimeoutMs: 0, maxHeaderBytes: 1024 }
const exchange = {} as Exchange

function serviceOf(clock: FakeClock, ...ids: string[]): Service {
  return new Service({ name: 's', instances: ids.map(listed), pool: POOL }, surroundings(clock))
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
