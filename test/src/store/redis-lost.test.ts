import tls from 'node:tls'
import { Redis } from 'ioredis'
import t from 'tap'
import type { RedisStore } from '../../../src/store/redis.ts'
import { limitRequest, type StoreTerms } from '../../../src/store/store.ts'
import { makeLimit } from '../../contracts/store.ts'
import { makeCertificate, writeCertificate } from '../../support/certificates.ts'
import { freePort } from '../../support/free-port.ts'
import { captureLog } from '../../support/gateway.ts'
import { connectStore, noRedisServer, ownRedis, ownTerms } from '../../support/redis-store.ts'
import { until } from '../../support/until.ts'

const request = limitRequest(makeLimit('sliding_window', 10, 60_000), 'user:alice', 'user')

/** Asks until Redis has answered, and says how often that was. */
async function untilAnswered(store: RedisStore): Promise<void> {
  await until(
    () =>
      store.check().then(
        () => true,
        () => false
      ),
    'redis is back'
  )
}

function without(store: RedisStore, outcome: string): number {
  return store.errors.samples().find(({ labels }) => labels.outcome === outcome)?.value ?? 0
}

t.test(
  'H-86 C-29 a Redis that is not there at the start keeps nobody waiting, and is found when it comes',
  { skip: noRedisServer },
  async t => {
    const redis = await ownRedis(t, { start: false })
    const terms = ownTerms()
    const { log, lines } = captureLog()
    const store = await connectStore(t, { url: redis.url, terms, log: log.logger })
    const decision = store.decide([request], terms)
    t.notOk(decision instanceof Promise)
    t.match(decision, { allowed: true, remaining: 9 }, 'counted here meanwhile')
    t.equal(without(store, 'local'), 1)
    await t.rejects(store.check(), { code: 'ECONNREFUSED' })
    await t.rejects(store.get('blacklist:1'), { code: 'ECONNREFUSED' })
    await redis.start()
    await untilAnswered(store)
    t.match(await store.decide([request], terms), { allowed: true, remaining: 9 })
    t.equal((await store.usage('user:alice', terms))[0]?.used, 1)
    t.equal(lines().filter(({ error }) => error === 'ECONNREFUSED').length, 1, 'said once')
  }
)

t.test(
  'H-86 C-29 a Redis that is killed is done without, and used again when it is back',
  { skip: noRedisServer },
  async t => {
    const redis = await ownRedis(t)
    const terms = ownTerms()
    const { log, lines } = captureLog()
    const store = await connectStore(t, { url: redis.url, terms, log: log.logger })
    for (let i = 0; i < 4; i++) await store.decide([request], terms)
    await redis.kill()
    const asked = await Promise.all(Array.from({ length: 20 }, () => store.decide([request], terms)))
    t.equal(asked.filter(({ allowed }) => allowed).length, 10)
    t.equal(without(store, 'local'), 20)
    await redis.start()
    await untilAnswered(store)
    t.match(await store.decide([request], terms), { remaining: 9 }, 'Redis has forgotten, and what it says counts')
    await redis.kill()
    await until(() => without(store, 'local') > 20 || !(store.decide([request], terms) instanceof Promise))
    t.match(
      store.decide([request], terms),
      { allowed: false },
      'here nothing is forgotten: a flapping Redis is no way to begin anew'
    )
    t.ok(lines().some(({ msg }) => msg === 'redis is out of reach'))
    t.ok(lines().some(({ msg, away_ms }) => msg === 'redis is back' && typeof away_ms === 'number'))
  }
)

t.test('H-86 C-29 a Redis that hangs is waited for once', { skip: noRedisServer }, async t => {
  const redis = await ownRedis(t)
  const terms = ownTerms()
  const store = await connectStore(t, { url: redis.url, terms, timeoutMs: 200 })
  await store.decide([request], terms)
  redis.pause()
  const first = store.decide([request], terms)
  t.ok(first instanceof Promise)
  t.match(await first, { allowed: true })
  t.equal(without(store, 'local'), 1)
  for (let i = 0; i < 5; i++) t.notOk(store.decide([request], terms) instanceof Promise, 'nobody else waits')
  await t.rejects(store.set('blacklist:1', '1', 1000), { code: 'ETIMEDOUT' })
  redis.resume()
  await untilAnswered(store)
  t.ok(store.decide([request], terms) instanceof Promise)
})

t.test('C-29 on_store_error: allow lets everything through, deny nothing', { skip: noRedisServer }, async t => {
  const redis = await ownRedis(t, { start: false })
  const terms = ownTerms()
  const store = await connectStore(t, { url: redis.url, terms })
  const ask = (on_store_error: StoreTerms['on_store_error']) => store.decide([request], { ...terms, on_store_error })
  for (let i = 0; i < 30; i++) t.match(ask('allow'), { allowed: true, tightest: undefined })
  t.match(ask('deny'), { allowed: false, tightest: undefined })
  t.match(ask('local'), { allowed: true, tightest: request.limit })
  t.same(
    ['allow', 'deny', 'local'].map(outcome => without(store, outcome)),
    [30, 1, 1]
  )
})

t.test(
  'C-29 without Redis each of two gateways has half the limit, and one that was closed counts no more',
  { skip: noRedisServer },
  async t => {
    const redis = await ownRedis(t)
    const terms = ownTerms()
    const [a, b, c] = await Promise.all([1, 2, 3].map(() => connectStore(t, { url: redis.url, terms })))
    await c!.close()
    for (const store of [a, b])
      await until(async () => (await store!.check()).gateways === 2, 'they know of each other')
    await redis.kill()
    const bucket = limitRequest(makeLimit('token_bucket', 60, 60_000, 8), 'user:alice', 'user')
    for (const store of [a, b]) {
      const asked = await Promise.all(Array.from({ length: 20 }, () => store!.decide([request], terms)))
      t.equal(asked.filter(({ allowed }) => allowed).length, 5)
      t.match(asked.at(-1), { tightest: { limit: 5 } })
      t.match(store!.decide([bucket], terms), { remaining: 3, tightest: { limit: 30, burst: 4 } })
    }
  }
)

t.test(
  'a Redis that answers but cannot write is done without, and still counts as there',
  { skip: noRedisServer },
  async t => {
    const redis = await ownRedis(t)
    const admin = new Redis(redis.url)
    t.teardown(() => admin.disconnect())
    const terms = ownTerms()
    const { log, lines } = captureLog()
    const store = await connectStore(t, { url: redis.url, terms, log: log.logger })
    await admin.config('SET', 'maxmemory', '1')
    t.match(await store.decide([request], terms), { allowed: true })
    t.equal(without(store, 'local'), 1)
    t.ok(lines().some(({ error }) => error === 'OOM'))
    await admin.config('SET', 'maxmemory', '0')
    await store.decide([request], terms)
    t.equal(without(store, 'local'), 1)
  }
)

t.test(
  'a password in the URL works, and neither it nor a wrong one is ever logged',
  { skip: noRedisServer },
  async t => {
    const redis = await ownRedis(t, { settings: ['--requirepass', 'p@ss:w/rd'] })
    const { log, lines } = captureLog('trace')
    const connect = (password: string) =>
      connectStore(t, { url: redis.url.replace('//', `//default:${password}@`), terms: ownTerms(), log: log.logger })
    const right = await connect('p%40ss%3Aw%2Frd')
    t.ok(await right.check())
    const wrong = await connect('gu%C3%A9ssed')
    await t.rejects(wrong.check(), { code: 'WRONGPASS' })
    const text = JSON.stringify(lines())
    for (const secret of ['p@ss', 'p%40ss', 'guéss', 'gu%C3']) t.notOk(text.includes(secret))
    t.match(text, 'WRONGPASS')
  }
)

t.test('rediss:// is encrypted, and takes only a certificate that is trusted', { skip: noRedisServer }, async t => {
  const authority = makeCertificate({ name: 'authority of the redis tests', authority: true })
  const folder = t.testdir({})
  const files = writeCertificate(
    folder,
    'redis',
    makeCertificate({ name: 'redis', hosts: ['127.0.0.1'], issuer: authority })
  )
  const tlsPort = await freePort()
  await ownRedis(t, {
    settings: [
      '--tls-port',
      String(tlsPort),
      '--tls-cert-file',
      files.cert,
      '--tls-key-file',
      files.key,
      '--tls-ca-cert-file',
      files.cert,
      '--tls-auth-clients',
      'no'
    ]
  })
  const url = `rediss://127.0.0.1:${tlsPort}`
  const distrustful = await connectStore(t, { url, terms: ownTerms() })
  await t.rejects(distrustful.check(), { code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' })
  tls.setDefaultCACertificates([...tls.getCACertificates('default'), authority.cert])
  const trustful = await connectStore(t, { url, terms: ownTerms() })
  t.ok(await trustful.check())
})
