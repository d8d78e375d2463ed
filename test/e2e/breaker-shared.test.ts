import t, { type Test } from 'tap'
import { FakeClock } from '../support/clock.ts'
import { startGateway } from '../support/gateway.ts'
import { connectStore, noRedisServer, ownRedis, ownTerms } from '../support/redis-store.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

/** Two gateways that share their view of one service, whose answers have the status in the path. */
async function two(t: Test) {
  const redis = await ownRedis(t)
  const upstream = await startUpstream(t, (request, response) =>
    response.writeHead(Number((request.url as string).slice(1))).end()
  )
  const start = async (name: string) => {
    const clock = new FakeClock()
    const store = await connectStore(t, { url: redis.url, terms: ownTerms({ prefix: 'rl:' }), timeoutMs: 250 })
    const running = await startGateway(
      t,
      {
        defaults: { authentication: 'none' },
        services: {
          s: { url: upstream.url, circuit_breaker: { failure_threshold: 2, success_threshold: 1, shared: true } }
        },
        routes: [{ path: '/**', service: 's' }]
      },
      { clock, store, folder: t.testdir({ [name]: '' }) }
    )
    const { breakers } = running.gateway.runtime
    const ask = async (status: number) => (await running.call(`/${status}`)).status
    return { clock, store, breakers, ask, state: () => breakers.all()[0]?.breaker.state }
  }
  const a = await start('a')
  return { redis, upstream, a, b: await start('b') }
}

t.test(
  'RES-14 what opens on one gateway opens on the others, each of which tries for itself',
  {
    skip: noRedisServer
  },
  async t => {
    const { a, b, upstream } = await two(t)
    await a.ask(500)
    await b.ask(500)
    await a.breakers.look()
    await b.breakers.look()
    t.same([a.state(), b.state()], ['closed', 'closed'], 'failures are each one’s own')
    await a.ask(500)
    t.equal(a.state(), 'open')
    await until(async () => {
      await b.breakers.look()
      return b.state() === 'open'
    })
    t.equal(b.breakers.all()[0]?.breaker.reason, 'open on another gateway')
    t.equal(await b.ask(200), 503)
    t.equal(upstream.seen.length, 3)

    // The first one has recovered; the second hears of it and sees for itself.
    a.clock.advance(60_000)
    t.equal(await a.ask(200), 200)
    t.equal(a.state(), 'closed')
    t.equal(await b.ask(200), 503)
    await until(async () => {
      await b.breakers.look()
      return (await b.ask(200)) === 200
    })
    t.equal(b.state(), 'closed')
  }
)

t.test(
  'RES-14 C-29 without Redis each gateway goes by what it sees, and shares again once it is back',
  {
    skip: noRedisServer
  },
  async t => {
    const { a, b, redis } = await two(t)
    await redis.kill()
    for (let i = 0; i < 2; i++) await a.ask(500)
    await b.breakers.look()
    t.same([a.state(), b.state()], ['open', 'closed'])
    t.equal(await b.ask(200), 200)
    await redis.start()
    for (let i = 0; i < 2; i++) await b.ask(500)
    t.equal(b.state(), 'open')
    a.clock.advance(60_000)
    await a.ask(200)
    t.equal(a.state(), 'closed')
    t.ok(a.breakers.all()[0]?.use.shared)
  }
)
