import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { type Answer, call, captureLog, startGateway, type TestGateway } from '../support/gateway.ts'
import { startProcess, writeConfiguration } from '../support/gateway-process.ts'
import { many, tally } from '../support/many.ts'
import { connectStore, noRedisServer, type OwnRedis, ownRedis, ownTerms } from '../support/redis-store.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

const skip = noRedisServer
const bearer = token({ roles: ['user'] })

/** A gateway on a Redis of its own, and what its store has to say; the Redis is not there yet if `start` is false. */
async function startOnRedis(
  t: Test,
  { limits = {}, redis: options = {} }: { limits?: object; redis?: { start?: boolean } } = {}
): Promise<TestGateway & { redis: OwnRedis; said(): unknown[] }> {
  const [redis, service] = await Promise.all([ownRedis(t, options), startUpstream(t)])
  const { log, lines } = captureLog()
  const terms = ownTerms({ prefix: 'rl:' })
  const store = await connectStore(t, { url: redis.url, terms, timeoutMs: 250, log: log.logger })
  const document = {
    rate_limits: { lease: false, roles: { user: 20 }, ...limits },
    services: { s: { url: service.url } },
    routes: [{ path: '/api/**', service: 's', authentication: 'optional' }]
  }
  const said = () => lines().map(({ msg }) => msg)
  return { ...(await startGateway(t, document, { store })), redis, said }
}

const status = async ({ port }: { readonly port: number }): Promise<string> =>
  (await call(port, '/health/dependencies')).json.dependencies.redis.status

/** Asks without a pause, one request after the other on each of a few connections, until told to stop. */
function underLoad(port: number): { stop(): Promise<Answer[]>; answered(): number } {
  const answers: Answer[] = []
  let stopped = false
  const connections = Array.from({ length: 4 }, async (_, i) => {
    for (let n = 0; !stopped; n++)
      answers.push(await call(port, '/api/x', { token: token({ sub: `${i}.${n % 5}`, roles: ['user'] }) }))
  })
  return {
    answered: () => answers.length,
    async stop() {
      stopped = true
      await Promise.all(connections)
      return answers
    }
  }
}

t.test(
  'H-86 Redis is killed, started, paused and woken under load: no 5xx, and it is used again each time',
  { skip },
  async t => {
    const gateway = await startOnRedis(t, { limits: { roles: { user: { requests_per_hour: 100_000 } } } })
    const { redis } = gateway
    const load = underLoad(gateway.port)
    const more = async (): Promise<void> => {
      const before = load.answered()
      await until(() => load.answered() > before + 50, 'requests are answered')
    }
    await more()
    for (const [lose, bringBack] of [
      [() => redis.kill(), () => redis.start()],
      [async () => redis.pause(), async () => redis.resume()],
      [() => redis.kill(), () => redis.start()]
    ] as const) {
      await lose()
      await until(async () => (await status(gateway)) === 'down')
      await more()
      await bringBack()
      await until(async () => (await status(gateway)) === 'ok')
      await more()
    }
    const answers = await load.stop()
    t.same(Object.keys(tally(answers)), ['200'])
    t.ok(
      answers.every(({ headers }) => 'ratelimit-remaining' in headers),
      'and every one was counted somewhere'
    )
    const { text } = await gateway.call('/metrics')
    t.match(text, /^gateway_store_errors_total\{outcome="local"\} [1-9]/m)
    t.equal(gateway.said().filter(msg => msg === 'redis is back').length, 3)
    t.ok(gateway.said().length <= 12, 'no flood of lines')
  }
)

t.test('H-86 while Redis hangs requests are answered without it', { skip }, async t => {
  const gateway = await startOnRedis(t)
  gateway.redis.pause()
  t.same(tally(await many(gateway.port, 30, '/api/x', { token: bearer })), { 200: 20, 429: 10 }, 'and counted here')
  t.equal((await gateway.call('/health/ready')).status, 200)
  t.equal(await status(gateway), 'down')
  gateway.redis.resume()
  await until(async () => (await status(gateway)) === 'ok')
})

t.test('C-29 H-86 on_store_error: allow lets everybody through, and says nothing of limits', { skip }, async t => {
  const gateway = await startOnRedis(t, { limits: { on_store_error: 'allow' } })
  t.same(tally(await many(gateway.port, 25, '/api/x', { token: bearer })), { 200: 20, 429: 5 })
  await gateway.redis.kill()
  const answers = await many(gateway.port, 40, '/api/x', { token: bearer })
  t.same(tally(answers), { 200: 40 })
  t.notOk(answers.some(({ headers }) => 'ratelimit-limit' in headers))
})

t.test('C-29 H-86 on_store_error: deny lets nobody through, but those who have no limit', { skip }, async t => {
  const gateway = await startOnRedis(t, { limits: { on_store_error: 'deny', roles: { user: 20, admin: null } } })
  await gateway.redis.kill()
  const refused = await gateway.call('/api/x', { token: bearer })
  t.equal(refused.status, 503)
  t.match(refused.json, { error: { code: 'service_unavailable', status: 503 } })
  t.match(refused.headers, { 'retry-after': /^\d+$/, 'cache-control': 'no-store' })
  await gateway.line({ status_code: 503, reason: 'store lost' })
  const boss = token({ sub: 'root', roles: ['admin'] })
  t.equal((await gateway.call('/api/x', { token: boss })).status, 200)
  t.equal((await gateway.call('/gateway/status', { token: boss })).status, 200, 'who has to mend it gets in')
  t.match((await gateway.call('/admin/rate-limits/user:alice', { token: boss })).json, {
    error: { code: 'service_unavailable', status: 503 }
  })
  await gateway.redis.start()
  await until(async () => (await status(gateway)) === 'ok')
  t.equal((await gateway.call('/api/x', { token: bearer })).status, 200)
})

t.test(
  'MON-06 H-86 C-29 a gateway starts without its Redis, says so, and finds it when it comes',
  { skip },
  async t => {
    const [redis, service] = await Promise.all([ownRedis(t, { start: false }), startUpstream(t)])
    const { file } = writeConfiguration(t, {
      storage: { redis_url: redis.url },
      rate_limits: { lease: false, roles: { user: 3 } },
      services: { s: { url: service.url } },
      routes: [{ path: '/api/**', service: 's' }]
    })
    const gateway = await startProcess(t, file)
    t.same(tally(await many(gateway.port, 5, '/api/x', { token: bearer })), { 200: 3, 429: 2 })
    t.match((await call(gateway.port, '/health/dependencies')).json, {
      status: 'degraded',
      store: 'redis',
      dependencies: { redis: { status: 'down', error: 'ECONNREFUSED' } }
    })
    t.equal((await call(gateway.port, '/health/ready')).status, 200, 'and takes requests')
    await redis.start()
    await until(async () => (await status(gateway)) === 'ok')
    t.same(
      tally(await many(gateway.port, 5, '/api/x', { token: bearer })),
      { 200: 3, 429: 2 },
      'counted there from now on'
    )
  }
)

t.test('H-86 scripts that Redis has forgotten are sent again, and no request notices', { skip }, async t => {
  const gateway = await startOnRedis(t)
  await gateway.call('/api/x', { token: bearer })
  const admin = new Redis(gateway.redis.url)
  t.teardown(() => admin.disconnect())
  await admin.script('FLUSH')
  t.same(tally(await many(gateway.port, 25, '/api/x', { token: bearer })), { 200: 19, 429: 6 })
  t.notMatch((await gateway.call('/metrics')).text, /^gateway_store_errors_total\{/m)
})

t.test('a Redis of which only one database is ours, behind a password', { skip }, async t => {
  const [redis, service] = await Promise.all([ownRedis(t), startUpstream(t)])
  const admin = new Redis(redis.url)
  t.teardown(() => admin.disconnect())
  await admin.config('SET', 'requirepass', 'hunter2')
  const { file } = writeConfiguration(t, {
    storage: { redis_url: redis.url.replace('//', '//:hunter2@').concat('/3') },
    rate_limits: { lease: false, roles: { user: 3 } },
    services: { s: { url: service.url } },
    routes: [{ path: '/api/**', service: 's' }]
  })
  const gateway = await startProcess(t, file)
  t.same(tally(await many(gateway.port, 4, '/api/x', { token: bearer })), { 200: 3, 429: 1 })
  t.same(await admin.keys('*'), [])
  await admin.select(3)
  t.same((await admin.keys('*')).sort(), ['rl:nodes', 'rl:user:alice'])
  t.notMatch(JSON.stringify(gateway.lines()), 'hunter2')
})
