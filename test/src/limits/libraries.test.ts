import t from 'tap'
import { ApiGatewayRateLimiter, RateLimitConfig, RedisRateLimiter } from '../../../src/index.ts'
import { FakeClock } from '../../support/clock.ts'
import { connectClient, noRedis } from '../../support/redis-store.ts'

t.test('TST-02 C-06 60 calls pass in a tight loop, the 61st does not, and after a reset they do again', async t => {
  const limiter = new ApiGatewayRateLimiter()
  const clientId = 'test_client'
  for (let i = 0; i < 60; i++) t.equal(limiter.isAllowed(clientId, '/api/test'), true)
  t.equal(limiter.isAllowed(clientId, '/api/test'), false)
  limiter.resetClient(clientId)
  t.equal(limiter.isAllowed(clientId, '/api/test'), true)
})

t.test('RLM-12 a client may have limits of its own; the others have 60, 1000 and 10', async t => {
  t.same({ ...new RateLimitConfig() }, { requests_per_minute: 60, requests_per_hour: 1000, burst_size: 10 })
  const clock = new FakeClock()
  const limiter = new ApiGatewayRateLimiter(undefined, clock)
  limiter.setClientConfig(
    'enterprise',
    new RateLimitConfig({ requests_per_minute: 100, requests_per_hour: 150, burst_size: 20 })
  )
  const pass = (client: string): number =>
    Array.from({ length: 200 }, () => limiter.isAllowed(client, '/')).filter(Boolean).length
  t.equal(pass('enterprise'), 100)
  t.equal(pass('other'), 60)
  clock.advance(64_000)
  t.equal(pass('enterprise'), 50, 'the hour counts, too')
  limiter.setClientConfig('enterprise', new RateLimitConfig({ requests_per_minute: 1000, requests_per_hour: 160 }))
  t.equal(pass('enterprise'), 10, 'a change holds at once and forgets nothing')
})

t.test('RLM-13 RLM-14 RLM-15 what is denied is not counted', async t => {
  const clock = new FakeClock()
  const limiter = new ApiGatewayRateLimiter(new RateLimitConfig({ requests_per_minute: 5, burst_size: 10 }), clock)
  t.same(limiter.getClientStats('a'), { requests_this_minute: 0, requests_this_hour: 0, burst_tokens: 10 })
  for (let i = 0; i < 9; i++) limiter.isAllowed('a', `/${i}`)
  t.same(limiter.getClientStats('a'), { requests_this_minute: 5, requests_this_hour: 5, burst_tokens: 5 })
  clock.advance(64_000)
  limiter.isAllowed('a', '/')
  t.same(limiter.getClientStats('a'), { requests_this_minute: 1, requests_this_hour: 6, burst_tokens: 9 })
  limiter.resetClient('a')
  t.same(limiter.getClientStats('a'), { requests_this_minute: 0, requests_this_hour: 0, burst_tokens: 10 })
})

t.test(
  'RLM-06 checkRateLimit answers allowed, remaining and the reset, and counts under {prefix}:{user}',
  { skip: noRedis },
  async t => {
    const client = connectClient(t)
    await client.script('FLUSH')
    const user = `user-${Math.random()}`
    const before = Math.floor(Date.now() / 1000)
    const limiter = new RedisRateLimiter(client)
    t.teardown(() => client.del(`rate_limit:${user}`))
    const answers = []
    for (let i = 0; i < 4; i++) answers.push(await limiter.checkRateLimit(user, 3, 60))
    t.same(
      answers.map(([allowed, remaining]) => [allowed, remaining]),
      [
        [true, 2],
        [true, 1],
        [true, 0],
        [false, 0]
      ]
    )
    for (const [, , resetTime] of answers)
      t.ok(resetTime >= before + 60 && resetTime <= Math.floor(Date.now() / 1000) + 60)
    t.equal(await client.exists(`rate_limit:${user}`), 1)
    const other = new RedisRateLimiter(client, 'other')
    t.teardown(() => client.del(`other:${user}`))
    t.same((await other.checkRateLimit(user, 3, 60)).slice(0, 2), [true, 2])
  }
)
