import t, { type Test } from 'tap'
import { MemoryStore } from '../../../src/store/memory.ts'
import { limitRequest } from '../../../src/store/store.ts'
import { makeLimit, type StoreUnderTest, storeContract, transcript } from '../../contracts/store.ts'
import { FakeClock } from '../../support/clock.ts'
import { connectClient, connectStore, noRedis, ownTerms } from '../../support/redis-store.ts'

/** Both stores begin their time where the test's clock stands, and go on with it. */
async function create(t: Test): Promise<StoreUnderTest> {
  const clock = new FakeClock()
  const origin = clock.now() - clock.monotonic()
  const terms = ownTerms()
  return { store: await connectStore(t, { terms, clock, time: () => origin + clock.monotonic() }), clock, terms }
}

storeContract(t, create, { skip: noRedis })

for (const seed of [1, 2, 3, 4]) {
  t.test(`C-04 both stores tell the same story (seed ${seed})`, { skip: noRedis }, async t => {
    const clock = new FakeClock()
    const memory = await transcript({ store: new MemoryStore(clock), clock, terms: ownTerms() }, seed, 1500)
    const redis = await transcript(await create(t), seed, 1500)
    t.same(redis, memory)
    t.ok(
      memory.some(entry => (entry as { allowed?: boolean }).allowed === false),
      'in which some are refused'
    )
  })
}

t.test(
  'RLM-23 RLM-09 a caller is one key behind the prefix, which goes when nothing of it counts any more',
  { skip: noRedis },
  async t => {
    const terms = ownTerms()
    const store = await connectStore(t, { terms })
    const client = connectClient(t)
    await store.decide(
      [
        limitRequest(makeLimit('sliding_window', 60, 60_000), 'user:alice', 'user'),
        limitRequest(makeLimit('fixed_window', 9, 1000), 'user:alice', 'user')
      ],
      terms
    )
    t.same(await client.keys(`${terms.prefix}*`).then(keys => keys.filter(key => !key.endsWith('nodes'))), [
      `${terms.prefix}user:alice`
    ])
    t.same((await client.hkeys(`${terms.prefix}user:alice`)).sort(), ['user|1000f', 'user|60000s'])
    const ttl = await client.pttl(`${terms.prefix}user:alice`)
    t.ok(ttl > 55_000 && ttl < 75_000)
    await store.decide([limitRequest(makeLimit('fixed_window', 9, 1000), 'user:alice', 'user')], terms)
    t.ok((await client.pttl(`${terms.prefix}user:alice`)) > 55_000, 'a short window does not cut a long one off')
  }
)

t.test('revocations stand at blacklist:{jti}, for as long as they are told to', { skip: noRedis }, async t => {
  const store = await connectStore(t, { terms: ownTerms() })
  const client = connectClient(t)
  const key = `blacklist:test-${Math.random()}`
  await store.set(key, '1', 30_000)
  t.equal(await client.get(key), '1')
  t.ok((await client.pttl(key)) > 25_000)
  await client.set(key, 'by another gateway')
  t.equal(await store.get(key), 'by another gateway')
  await store.delete(key)
  t.equal(await client.exists(key), 0)
})

t.test('SCRIPT FLUSH is survived', { skip: noRedis }, async t => {
  const terms = ownTerms()
  const store = await connectStore(t, { terms })
  const client = connectClient(t)
  const request = limitRequest(makeLimit('sliding_window', 10, 60_000), 'user:alice', 'user')
  await store.decide([request], terms)
  await client.script('FLUSH')
  const all = await Promise.all(Array.from({ length: 4 }, () => store.decide([request], terms)))
  t.same(
    all.map(({ remaining }) => remaining),
    [8, 7, 6, 5]
  )
  t.equal(store.errors.samples().length, 0)
})

t.test('many requests at once are decided one after the other', { skip: noRedis }, async t => {
  const terms = ownTerms()
  const store = await connectStore(t, { terms })
  const global = limitRequest(makeLimit('sliding_window', 150, 60_000), 'global', 'global')
  const users = Array.from({ length: 10 }, (_, i) =>
    limitRequest(makeLimit('sliding_window', 20, 60_000), `user:${i}`, 'user')
  )
  const decisions = await Promise.all(
    Array.from({ length: 300 }, (_, i) => store.decide([global, users[i % 10]!], terms))
  )
  t.equal(decisions.filter(({ allowed }) => allowed).length, 150)
  t.same(await store.usage('user:3', terms).then(([usage]) => usage?.used), 15)
})

t.test('RLM-28 a clock that was set back neither frees nor locks anybody for long', { skip: noRedis }, async t => {
  const clock = new FakeClock()
  const terms = ownTerms()
  let time = clock.now()
  const store = await connectStore(t, { terms, clock, time: () => time })
  for (const algorithm of ['token_bucket', 'sliding_window', 'fixed_window'] as const) {
    const request = limitRequest(makeLimit(algorithm, 2, 60_000), `user:${algorithm}`, 'user')
    const ask = () => store.decide([request], terms)
    time = 1_000_000 * 60_000
    for (let i = 0; i < 2; i++) await ask()
    time -= 1
    t.equal((await ask()).allowed, false, 'a moment is no reason to begin anew')
    time -= 3_600_000
    t.equal((await ask()).allowed, true, 'nobody waits for an hour to come again')
  }
})

t.test('RLM-28 the difference between the clocks is known', { skip: noRedis }, async t => {
  class Ahead extends FakeClock {
    override now = () => Date.now() + 5000
  }
  const store = await connectStore(t, { terms: ownTerms(), clock: new Ahead() })
  t.ok(Math.abs(store.clockSkewMs - 5000) < 1000)
})

t.test('what somebody else wrote over a key fails that decision alone', { skip: noRedis }, async t => {
  const terms = ownTerms()
  const store = await connectStore(t, { terms })
  const client = connectClient(t)
  await client.set(`${terms.prefix}user:mallory`, 'not a hash')
  const request = limitRequest(makeLimit('sliding_window', 2, 60_000), 'user:mallory', 'user')
  t.equal((await store.decide([request], terms)).allowed, true)
  t.equal(store.errors.samples()[0]?.labels.outcome, 'local')
  await t.rejects(store.usage('user:mallory', terms), { code: 'WRONGTYPE' })
  t.ok(await store.check(), 'and Redis still counts as there')
})
