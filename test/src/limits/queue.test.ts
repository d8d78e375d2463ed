import t, { type Test } from 'tap'
import type { Limit } from '../../../src/limits/limit.ts'
import { LimitQueue } from '../../../src/limits/queue.ts'
import { MemoryStore } from '../../../src/store/memory.ts'
import { type LimitRequest, limitRequest } from '../../../src/store/store.ts'
import { RequestMetrics } from '../../../src/telemetry/metrics.ts'
import { FakeClock } from '../../support/clock.ts'
import { until } from '../../support/until.ts'

const TERMS = { prefix: 'rl:', lease: false, on_store_error: 'local' } as const
/** One request in 20 ms; the next one passes 20 ms after the last. */
const LIMIT: Limit = { name: 'user', algorithm: 'token_bucket', limit: 50, windowMs: 1000, burst: 1 }

async function start(t: Test, config = { most: 3, maxWaitMs: 1000 }) {
  const clock = new FakeClock()
  const store = new MemoryStore(clock)
  const metrics = new RequestMetrics()
  const queue = new LimitQueue(config, { store, clock, metrics, terms: TERMS })
  t.teardown(() => store.close())
  const events: string[] = []
  const requests = [limitRequest(LIMIT, 'user:alice', 'user')]
  const ask = async (name: string, as: readonly LimitRequest[] = requests) => {
    const decision = queue.has(as) ? undefined : store.decide(as)
    if (decision?.allowed) return void events.push(`${name} at once`)
    const leave = queue.join(as, decision, {
      settled: ({ allowed }) => events.push(`${name} ${allowed ? 'passes' : 'refused'}`),
      failed: error => events.push(`${name} ${error.message}`)
    })
    if (leave === undefined) events.push(`${name} does not wait`)
    return leave
  }
  return { clock, store, metrics, queue, events, requests, ask }
}

t.test('RLM-11 who waits passes when the limit lets him, one after the other', async t => {
  const { clock, ask, events, metrics, queue, requests } = await start(t)
  for (const name of ['a', 'b', 'c', 'd', 'e']) await ask(name)
  t.same(events, ['a at once', 'e does not wait'], 'three may wait')
  t.equal(metrics.limitsWaiting, 3)
  for (const count of [3, 4, 5]) {
    clock.advance(20)
    await until(() => events.length === count)
  }
  t.same(events.slice(2), ['b passes', 'c passes', 'd passes'])
  t.equal(metrics.limitsWaiting, 0)
  t.equal(metrics.limitWaits.count, 3)
  t.ok(Math.abs(metrics.limitWaits.sum - 0.12) < 0.001, `${metrics.limitWaits.sum} s in all`)
  t.notOk(queue.has(requests))
})

t.test('RLM-11 who would have to wait for too long is refused, at the latest when that is known', async t => {
  const { clock, ask, events } = await start(t, { most: 3, maxWaitMs: 30 })
  for (const name of ['a', 'b', 'c']) await ask(name)
  clock.advance(20)
  await until(() => events.length === 3)
  t.same(events, ['a at once', 'b passes', 'c refused'], 'c would have waited for 40 ms')
  const slow = limitRequest({ ...LIMIT, limit: 10 }, 'user:bob', 'user')
  await ask('d', [slow])
  await ask('e', [slow])
  t.same(events.slice(3), ['d at once', 'e does not wait'])
})

t.test('RLM-11 H-98 who goes away waits no more, and others move up', async t => {
  const { clock, ask, events, metrics, queue, requests } = await start(t)
  await ask('a')
  const leave = await ask('b')
  await ask('c')
  leave?.()
  leave?.()
  t.equal(metrics.limitsWaiting, 1)
  clock.advance(20)
  await until(() => events.length === 2)
  t.same(events, ['a at once', 'c passes'])
  const last = await ask('d')
  last?.()
  t.notOk(queue.has(requests))
})

t.test('RLM-11 each caller has a line of his own', async t => {
  const { clock, ask, events } = await start(t)
  const bob = [limitRequest(LIMIT, 'user:bob', 'user')]
  for (const name of ['a', 'b']) await ask(name)
  for (const name of ['x', 'y']) await ask(name, bob)
  t.same(events, ['a at once', 'x at once'])
  clock.advance(20)
  await until(() => events.length === 4)
  t.same(events.slice(2).sort(), ['b passes', 'y passes'])
})
