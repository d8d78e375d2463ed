import t from 'tap'
import {
  ApiFallbackService,
  CircuitBreakerConfig,
  CircuitBreakerManager,
  CircuitBreakerOpenError
} from '../../../src/index.ts'
import { FakeClock } from '../../support/clock.ts'

const broken = (): never => {
  throw new Error('broken')
}

t.test('RES-02 RES-03 RES-05 RES-06 the example of seed 003', async t => {
  const manager = new CircuitBreakerManager()
  const config = new CircuitBreakerConfig({ failure_threshold: 5, recovery_timeout: 60, success_threshold: 3 })
  t.same(config, new CircuitBreakerConfig(), 'these are the defaults')
  const breaker = manager.get_circuit_breaker('/api/v1/agents', config)
  t.equal(manager.getCircuitBreaker('/api/v1/agents'), breaker, 'one per endpoint')
  t.not(manager.getCircuitBreaker('/api/v1/other'), breaker)
  for (let i = 0; i < 98; i++)
    t.equal(
      breaker.call((a, b) => a + b, 1, i),
      1 + i
    )
  for (let i = 0; i < 2; i++) t.throws(() => breaker.call(broken), { message: 'broken' })
  t.same(breaker.get_stats(), { state: 'closed', failure_count: 2, success_count: 98 })
  t.same(manager.fallback_service.get_fallback('/api/v1/agents'), { error: 'Service unavailable' })
})

t.test('RES-01 RES-04 it opens, says so without calling anything, and closes again', async t => {
  const clock = new FakeClock()
  const manager = new CircuitBreakerManager(undefined, clock)
  const breaker = manager.getCircuitBreaker(
    '/x',
    new CircuitBreakerConfig({ failure_threshold: 2, success_threshold: 1 })
  )
  await t.rejects(
    breaker.call(async () => broken()),
    { message: 'broken' }
  )
  t.throws(() => breaker.call(broken), { message: 'broken' })
  let calls = 0
  const count = async (by: number): Promise<number> => {
    calls += by
    return calls
  }
  t.throws(() => breaker.call(count, 1), { name: 'CircuitBreakerOpenError', endpoint: '/x', retryAfter: 60 })
  t.ok(new CircuitBreakerOpenError('/x', 1) instanceof Error)
  t.equal(calls, 0)
  clock.advance(60_000)
  const probe = breaker.call(count, 2)
  t.throws(() => breaker.call(count, 1), { name: 'CircuitBreakerOpenError' }, 'one at a time')
  t.equal(await probe, 2)
  t.equal(breaker.getStats().state, 'closed')
})

t.test('RES-06 fallbacks by endpoint, as values and as functions', async t => {
  const fallbacks = new ApiFallbackService(null)
  fallbacks.setFallback('/a', { items: [] })
  fallbacks.set_fallback('/b', (endpoint: string) => `sorry for ${endpoint}`)
  t.same(fallbacks.getFallback('/a'), { items: [] })
  t.equal(fallbacks.get_fallback('/b'), 'sorry for /b')
  t.equal(fallbacks.getFallback('/c'), null)
})
