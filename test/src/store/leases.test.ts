import t, { type Test } from 'tap'
import type { RedisStore } from '../../../src/store/redis.ts'
import { type Decision, type LimitRequest, limitRequest, type StoreTerms } from '../../../src/store/store.ts'
import { ALGORITHMS, makeLimit, mostWithin } from '../../contracts/store.ts'
import { FakeClock } from '../../support/clock.ts'
import { seeded } from '../../support/random.ts'
import { connectStore, noRedis, ownTerms } from '../../support/redis-store.ts'
import { until } from '../../support/until.ts'

/** Nodes on one Redis, all going by the test's clock. */
async function startNodes(t: Test, count: number, terms: StoreTerms = ownTerms({ lease: true })) {
  const clock = new FakeClock()
  const origin = clock.now() - clock.monotonic()
  const time = () => origin + clock.monotonic()
  const nodes = await Promise.all(Array.from({ length: count }, () => connectStore(t, { terms, clock, time })))
  return { nodes, clock, terms }
}

/** Makes a counter busy, so that the next one who asks gets a lease. */
async function warm(store: RedisStore, request: LimitRequest, terms: StoreTerms): Promise<void> {
  for (let i = 0; i < 8; i++) await store.decide([request], terms)
}

t.test(
  'a cold key is always asked about, a hot one is decided here while a lease holds',
  { skip: noRedis },
  async t => {
    const {
      nodes: [store],
      clock,
      terms
    } = await startNodes(t, 1)
    const request = limitRequest(makeLimit('sliding_window', 10_000, 60_000), 'user:alice', 'user')
    for (let i = 0; i < 7; i++) {
      const decision = store!.decide([request], terms)
      t.ok(decision instanceof Promise)
      await decision
    }
    await store!.decide([request], terms)
    const here: number[] = []
    for (let i = 0; i < 8; i++) {
      const decision = store!.decide([request], terms)
      t.notOk(decision instanceof Promise)
      here.push((decision as Decision).remaining)
    }
    t.same(here, [9991, 9990, 9989, 9988, 9987, 9986, 9985, 9984], 'and the answers go on where Redis left off')
    t.ok(store!.decide([request], terms) instanceof Promise, 'until the tokens are used up,')
    clock.advance(200)
    await warm(store!, request, terms)
    t.notOk(store!.decide([request], terms) instanceof Promise)
    clock.advance(1000)
    t.ok(store!.decide([request], terms) instanceof Promise, 'or their time is over')
  }
)

t.test('lease: false asks every time', { skip: noRedis }, async t => {
  const {
    nodes: [store],
    terms
  } = await startNodes(t, 1, ownTerms({ lease: false }))
  const request = limitRequest(makeLimit('sliding_window', 10_000, 60_000), 'user:alice', 'user')
  for (let i = 0; i < 30; i++) {
    const decision = store!.decide([request], terms)
    t.ok(decision instanceof Promise)
    await decision
  }
})

for (const algorithm of ALGORITHMS) {
  t.test(
    `H-85 RLM-29 ${algorithm}: three nodes with leases never let more through than the limit`,
    { skip: noRedis },
    async t => {
      const { nodes, clock, terms } = await startNodes(t, 3)
      const windowMs = 4000
      const limit = makeLimit(algorithm, 200, windowMs, 120)
      const request = limitRequest(limit, 'user:alice', 'user')
      const random = seeded(algorithm.length)
      const passed: number[] = []
      let here = 0
      for (let step = 0; step < 800; step++) {
        clock.advance(random() < 0.05 ? random() * 3000 : random() * 12)
        const asked = Array.from({ length: 1 + Math.floor(random() * 4) }, () =>
          nodes[Math.floor(random() ** 2 * 3)]!.decide([request], terms)
        )
        here += asked.filter(decision => !(decision instanceof Promise)).length
        for (const { allowed } of await Promise.all(asked)) if (allowed) passed.push(clock.now())
      }
      t.ok(here > 300, 'most of it without asking')
      if (algorithm === 'sliding_window') t.ok(mostWithin(passed, windowMs) <= 200)
      if (algorithm === 'fixed_window') {
        const perWindow = Map.groupBy(passed, time => Math.floor(time / windowMs))
        t.ok([...perWindow.values()].every(times => times.length <= 200))
        t.ok(
          [...perWindow.values()].some(times => times.length >= 190),
          'and the limit is made use of'
        )
      }
      if (algorithm === 'token_bucket')
        for (const stretch of [50, 500, 2000, 8000])
          t.ok(mostWithin(passed, stretch) <= 120 + (200 * stretch) / windowMs)
    }
  )

  t.test(`${algorithm}: with leases, too, exactly the limit passes in the end`, { skip: noRedis }, async t => {
    const { nodes, clock, terms } = await startNodes(t, 2)
    const request = limitRequest(makeLimit(algorithm, 100, 600_000), 'user:alice', 'user')
    let allowed = 0
    let here = 0
    const ask = async (times: number): Promise<void> => {
      for (let i = 0; i < times; i++) {
        const decision = nodes[i % 2]!.decide([request], terms)
        const passed = (await decision).allowed
        if (passed) allowed++
        if (passed && !(decision instanceof Promise)) here++
      }
    }
    await ask(150)
    t.ok(here >= 20, 'some of it without asking')
    t.ok(allowed <= 100 && allowed >= 90, 'what is missing is held by the nodes')
    clock.advance(1000)
    await until(async () => (await nodes[0]!.usage('user:alice', terms))[0]?.used === allowed)
    await ask(30)
    t.equal(allowed, 100)
  })

  t.test(`${algorithm}: what is not spent is given back`, { skip: noRedis }, async t => {
    const {
      nodes: [store],
      clock,
      terms
    } = await startNodes(t, 1)
    const request = limitRequest(makeLimit(algorithm, 1000, 600_000), 'user:alice', 'user')
    await warm(store!, request, terms)
    const used = async () => (await store!.usage('user:alice', terms))[0]?.used as number
    t.ok((await used()) > 8, 'held tokens count as used')
    clock.advance(1000)
    const back = algorithm === 'token_bucket' ? 7 : 8
    await until(async () => (await used()) <= back)
    await warm(store!, request, terms)
    clock.advance(algorithm === 'token_bucket' ? 1000 : 600_000 / 16)
    await warm(store!, request, terms)
    clock.advance(1000)
    // also when the next lease has begun meanwhile
    await until(async () => (await used()) <= back + 16)
  })
}

t.test(
  'a request takes tokens at hand where there are some, and gets them back when another limit denies it',
  { skip: noRedis },
  async t => {
    const {
      nodes: [store],
      terms
    } = await startNodes(t, 1)
    const global = limitRequest(makeLimit('sliding_window', 10_000, 600_000), 'global', 'global')
    await warm(store!, global, terms)
    const before = (await store!.usage('global', terms))[0]?.used
    const alice = limitRequest(makeLimit('fixed_window', 2, 600_000), 'user:alice', 'user')
    const decisions = []
    for (let i = 0; i < 5; i++) decisions.push(await store!.decide([global, alice], terms))
    t.same(
      decisions.map(({ allowed }) => allowed),
      [true, true, false, false, false]
    )
    t.equal(decisions[0]?.tightest, alice.limit)
    t.equal((await store!.usage('global', terms))[0]?.used, before, 'Redis was asked about one of them alone')
    t.equal((store!.decide([global], terms) as Decision).remaining, 10_000 - 8 - 2 - 1)
  }
)

t.test('a busy counter that is used up is refused here for a moment', { skip: noRedis }, async t => {
  const {
    nodes: [store],
    clock,
    terms
  } = await startNodes(t, 1)
  const request = limitRequest(makeLimit('fixed_window', 9, 86_400_000), 'user:alice', 'user')
  for (let i = 0; i < 10; i++) await store!.decide([request], terms)
  const asked = await store!.decide([request], terms)
  const here = store!.decide([request], terms)
  t.notOk(here instanceof Promise)
  t.same(here, asked)
  clock.advance(251)
  t.ok(store!.decide([request], terms) instanceof Promise)
})

t.test('RLM-26 a lease under the old limit is void under the new one', { skip: noRedis }, async t => {
  const {
    nodes: [store],
    terms
  } = await startNodes(t, 1)
  await warm(store!, limitRequest(makeLimit('sliding_window', 1000, 60_000), 'user:alice', 'user'), terms)
  const smaller = limitRequest(makeLimit('sliding_window', 5, 60_000), 'user:alice', 'user')
  const decision = store!.decide([smaller], terms)
  t.ok(decision instanceof Promise)
  t.equal((await decision).allowed, false)
})

t.test('RLM-15 a reset voids what is held here, too', { skip: noRedis }, async t => {
  const {
    nodes: [store],
    terms
  } = await startNodes(t, 1)
  const request = limitRequest(makeLimit('fixed_window', 9, 86_400_000), 'user:alice', 'user')
  for (let i = 0; i < 12; i++) await store!.decide([request], terms)
  await store!.reset('user:alice', terms)
  t.equal((await store!.decide([request], terms)).remaining, 8)
})

t.test('the prefix may change while there are leases', { skip: noRedis }, async t => {
  const {
    nodes: [store],
    terms
  } = await startNodes(t, 1)
  const request = limitRequest(makeLimit('sliding_window', 1000, 60_000), 'user:alice', 'user')
  await warm(store!, request, terms)
  const other = ownTerms({ lease: true })
  t.equal((await store!.decide([request], other)).remaining, 999)
})
