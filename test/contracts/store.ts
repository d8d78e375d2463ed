import type { Test } from 'tap'
import type { Algorithm, Limit } from '../../src/limits/limit.ts'
import { type Decision, type LimitRequest, limitRequest, type Store, type StoreTerms } from '../../src/store/store.ts'
import type { FakeClock } from '../support/clock.ts'
import { seeded } from '../support/random.ts'

/** A store that goes by the test's clock alone. */
export interface StoreUnderTest {
  readonly store: Store
  readonly clock: FakeClock
  readonly terms: StoreTerms
}

export const ALGORITHMS: readonly Algorithm[] = ['token_bucket', 'sliding_window', 'fixed_window']

export function makeLimit(algorithm: Algorithm, limit: number, windowMs: number, burst = limit): Limit {
  return Object.freeze({ name: 'user', algorithm, limit, windowMs, burst })
}

const MINUTE = 60_000

/** What every store promises. Run once per adapter, against the real thing. */
export function storeContract(
  t: Test,
  create: (t: Test) => Promise<StoreUnderTest>,
  options: { skip?: string | false } = {}
): void {
  const ask = (under: StoreUnderTest, ...requests: LimitRequest[]): Promise<Decision> =>
    Promise.resolve(under.store.decide(requests, under.terms))

  for (const algorithm of ALGORITHMS) {
    t.test(
      `C-04 RLM-13 ${algorithm}: as many as the limit says, and what is denied is not counted`,
      { ...options },
      async t => {
        const under = await create(t)
        const request = limitRequest(makeLimit(algorithm, 5, MINUTE), 'user:alice', 'user')
        const left: number[] = []
        for (let i = 0; i < 5; i++) left.push((await ask(under, request)).remaining)
        t.same(left, [4, 3, 2, 1, 0])
        for (let i = 0; i < 3; i++) {
          const { allowed, remaining, retryMs, resetMs } = await ask(under, request)
          t.equal(allowed, false)
          t.equal(remaining, 0)
          t.ok(retryMs > 0 && retryMs <= MINUTE)
          t.ok(resetMs >= retryMs && resetMs <= MINUTE)
        }
        const [usage] = await under.store.usage('user:alice', under.terms)
        t.equal(usage?.used, 5)
        const { retryMs } = await ask(under, request)
        under.clock.advance(retryMs)
        t.equal((await ask(under, request)).allowed, true)
      }
    )

    t.test(
      `RLM-26 ${algorithm}: another limit holds at once, and what was counted stays counted`,
      { ...options },
      async t => {
        const under = await create(t)
        const at = (limit: number): LimitRequest =>
          limitRequest(makeLimit(algorithm, limit, MINUTE), 'user:alice', 'user')
        for (let i = 0; i < 4; i++) await ask(under, at(10))
        const less = await ask(under, at(3))
        const more = await ask(under, at(20))
        // A bucket that is made smaller loses what no longer fits in; a counter knows how many there were.
        if (algorithm === 'token_bucket') t.same([less.allowed, less.remaining, more.remaining], [true, 2, 1])
        else t.same([less.allowed, more.allowed, more.remaining], [false, true, 15])
      }
    )

    t.test(`${algorithm}: after its time a counter is as good as new`, { ...options }, async t => {
      const under = await create(t)
      const request = limitRequest(makeLimit(algorithm, 3, MINUTE), 'user:alice', 'user')
      for (let i = 0; i < 3; i++) await ask(under, request)
      const { resetMs } = await ask(under, request)
      under.clock.advance(resetMs)
      t.same(await under.store.usage('user:alice', under.terms), [])
      t.equal((await ask(under, request)).remaining, 2)
    })
  }

  t.test('RLM-02 C-05 all limits have to let a request pass, or none counts it', { ...options }, async t => {
    const under = await create(t)
    const wide = limitRequest(makeLimit('sliding_window', 10, MINUTE), 'global', 'global')
    const narrow = limitRequest(makeLimit('fixed_window', 2, MINUTE), 'user:alice', 'user')
    for (let i = 0; i < 2; i++) await ask(under, wide, narrow)
    for (let i = 0; i < 5; i++) t.equal((await ask(under, wide, narrow)).allowed, false)
    t.equal((await under.store.usage('global', under.terms))[0]?.used, 2)
  })

  t.test('RLM-02 the limit with the smallest share left is the one that is reported', { ...options }, async t => {
    const under = await create(t)
    const large = limitRequest(makeLimit('sliding_window', 1000, MINUTE), 'global', 'global')
    const small = limitRequest(makeLimit('sliding_window', 10, MINUTE), 'user:alice', 'user')
    for (const remaining of [9, 8]) {
      const decision = await ask(under, large, small)
      t.same([decision.tightest, decision.remaining], [small.limit, remaining])
    }
  })

  t.test('of several limits that deny, the one that does so for longest is reported', { ...options }, async t => {
    const under = await create(t)
    const second = limitRequest(makeLimit('fixed_window', 1, 1000), 'user:alice', 'user')
    const day = limitRequest(makeLimit('fixed_window', 1, 86_400_000), 'user:alice', 'user')
    await ask(under, second, day)
    const denied = await ask(under, second, day)
    t.equal(denied.tightest, day.limit)
    t.equal(denied.retryMs, denied.resetMs)
    t.ok(denied.retryMs > 1000)
  })

  t.test(
    'RLM-08 RLM-14 usage tells every counter of a caller, whatever it was counted under',
    { ...options },
    async t => {
      const under = await create(t)
      const minute = limitRequest(makeLimit('token_bucket', 60, MINUTE, 20), 'user:alice', 'user')
      const day = limitRequest(makeLimit('fixed_window', 1000, 86_400_000), 'user:alice', 'user')
      const route = limitRequest(makeLimit('sliding_window', 5, 1000), 'user:alice', 'route:/api/**')
      const other = limitRequest(makeLimit('sliding_window', 5, 1000), 'user:bob', 'user')
      for (let i = 0; i < 3; i++) await ask(under, minute, day, route)
      await ask(under, other)
      const day1 = under.clock.now()
      const untilMidnight = 86_400_000 - (day1 % 86_400_000)
      const seen = (await under.store.usage('user:alice', under.terms)).map(usage => ({
        ...usage,
        resetMs: usage.name === 'user' ? usage.resetMs : 0
      }))
      t.same(seen, [
        {
          name: 'route:/api/**',
          algorithm: 'sliding_window',
          limit: 5,
          windowMs: 1000,
          used: 3,
          remaining: 2,
          resetMs: 0
        },
        { name: 'user', algorithm: 'token_bucket', limit: 60, windowMs: MINUTE, used: 3, remaining: 17, resetMs: 3000 },
        {
          name: 'user',
          algorithm: 'fixed_window',
          limit: 1000,
          windowMs: 86_400_000,
          used: 3,
          remaining: 997,
          resetMs: untilMidnight
        }
      ])
      under.clock.advance(2000)
      t.same(
        (await under.store.usage('user:alice', under.terms)).map(usage => usage.used),
        [1, 3]
      )
      t.same(await under.store.usage('user:carol', under.terms), [])
    }
  )

  t.test('RLM-15 a reset forgets one caller, and nobody whose name begins alike', { ...options }, async t => {
    const under = await create(t)
    const names = ['user:a', 'user:a|b', 'user:a\nuser', 'user:ab']
    const requests = names.map(subject => limitRequest(makeLimit('sliding_window', 2, MINUTE), subject, 'user'))
    for (const request of requests) await ask(under, request)
    await under.store.reset('user:a', under.terms)
    const used = await Promise.all(names.map(async subject => (await under.store.usage(subject, under.terms))[0]?.used))
    t.same(used, [undefined, 1, 1, 1])
    t.equal((await ask(under, requests[0]!)).remaining, 1)
  })

  t.test('values are kept until they are deleted', { ...options }, async t => {
    const { store } = await create(t)
    const key = `test-value:${Math.random()}`
    t.equal(await store.get(key), undefined)
    await store.set(key, 'one', MINUTE)
    await store.set(key, 'two', MINUTE)
    t.equal(await store.get(key), 'two')
    await store.delete(key)
    t.equal(await store.get(key), undefined)
  })

  t.test('of several who add a value one succeeds', { ...options }, async t => {
    const { store } = await create(t)
    const key = `test-value:${Math.random()}`
    const added = await Promise.all(['one', 'two', 'three'].map(value => store.add(key, value, MINUTE)))
    t.same(added, [true, false, false])
    t.equal(await store.get(key), 'one')
    await store.delete(key)
    t.equal(await store.add(key, 'four', MINUTE), true)
  })

  t.test('in no stretch as long as the window do more pass than the limit says', { ...options }, async t => {
    const under = await create(t)
    const random = seeded(7)
    const windowMs = 1600
    const limit = limitRequest(makeLimit('sliding_window', 20, windowMs), 'user:alice', 'user')
    const bucket = limitRequest(makeLimit('token_bucket', 10, 1000, 15), 'user:bob', 'user')
    const passed: Record<string, number[]> = { [limit.key]: [], [bucket.key]: [] }
    for (let i = 0; i < 1500; i++) {
      under.clock.advance(random() < 0.1 ? random() * 900 : random() * 20)
      const request = random() < 0.5 ? limit : bucket
      if ((await ask(under, request)).allowed) passed[request.key]?.push(under.clock.monotonic())
    }
    t.ok(mostWithin(passed[limit.key]!, windowMs) <= 20)
    t.ok(mostWithin(passed[limit.key]!, windowMs) >= 18, 'and nearly all of them do')
    for (const stretch of [100, 1000, 5000])
      t.ok(mostWithin(passed[bucket.key]!, stretch) <= 15 + (10 * stretch) / 1000)
  })
}

/** The most of `times` that lie within any `windowMs`. */
export function mostWithin(times: readonly number[], windowMs: number): number {
  let most = 0
  let first = 0
  for (let last = 0; last < times.length; last++) {
    while ((times[last] as number) - (times[first] as number) >= windowMs) first++
    most = Math.max(most, last - first + 1)
  }
  return most
}

/** Everything that happens to a store in the course of a seeded life; two stores that keep the contract tell the same. */
export async function transcript(
  { store, clock, terms }: StoreUnderTest,
  seed: number,
  steps: number
): Promise<unknown[]> {
  const random = seeded(seed)
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T
  const limits = ALGORITHMS.flatMap(algorithm =>
    [3, 10, 57].flatMap(limit =>
      [100, 1000, 60_000, 86_400_000].map(windowMs =>
        makeLimit(algorithm, limit, windowMs, pick([1, limit, limit * 2]))
      )
    )
  )
  const subjects = ['global', 'user:alice', 'user:bob', 'ip:2001:db8:0:1::/64', 'user:ünï|cødé 猫']
  const story: unknown[] = []
  for (let i = 0; i < steps; i++) {
    if (random() < 0.3) clock.advance(pick([0.25, 1, 7.3, 62.5, 333, 1000, 20_000]) * random())
    if (random() < 0.002) clock.advance(86_400_000 * random())
    const subject = pick(subjects)
    if (random() < 0.02) story.push(await store.usage(subject, terms))
    else if (random() < 0.005) await store.reset(subject, terms)
    else {
      const chosen = new Set(
        Array.from({ length: 1 + Math.floor(random() * 4) }, () =>
          limitRequest(pick(limits), random() < 0.7 ? subject : pick(subjects), 'user')
        )
      )
      const once = [...new Map([...chosen].map(request => [request.key, request])).values()]
      story.push(await store.decide(once, terms))
    }
  }
  return story
}
