import t, { type Test } from 'tap'
import { FixedWindow } from '../../../src/limits/fixed-window.ts'
import type { Counter } from '../../../src/limits/limit.ts'
import { SlidingWindow } from '../../../src/limits/sliding-window.ts'
import { TokenBucket } from '../../../src/limits/token-bucket.ts'

/** At `at`: this many requests are there, of which so many pass; then this is left, and it is whole or open again after so long. */
interface Row {
  readonly at: number
  readonly ask: number
  readonly pass: number
  readonly left: number
  readonly resetMs: number
  readonly retryMs: number
}

function follow(t: Test, counter: Counter, rows: readonly Row[]): void {
  for (const { at, ask, pass, ...then } of rows) {
    let passed = 0
    for (let i = 0; i < ask; i++) {
      if (counter.available(at) < 1) continue
      counter.take(at)
      passed++
    }
    t.same(
      { pass: passed, left: counter.available(at), resetMs: counter.resetMs(at), retryMs: counter.retryMs(at) },
      { pass, ...then },
      `at ${at}`
    )
  }
}

t.test('C-04 C-06 a token bucket holds its burst and is refilled evenly', async t => {
  follow(t, new TokenBucket(20, 10, () => 0), [
    { at: 0, ask: 25, pass: 20, left: 0, resetMs: 2000, retryMs: 100 },
    { at: 50, ask: 1, pass: 0, left: 0, resetMs: 1950, retryMs: 50 },
    { at: 100, ask: 2, pass: 1, left: 0, resetMs: 2000, retryMs: 100 },
    { at: 1100, ask: 4, pass: 4, left: 6, resetMs: 1400, retryMs: 0 },
    { at: 60_000, ask: 0, pass: 0, left: 20, resetMs: 0, retryMs: 0 },
    { at: 60_000, ask: 30, pass: 20, left: 0, resetMs: 2000, retryMs: 100 }
  ])
})

t.test('RLM-17 C-04 a sliding window frees the requests of a sixteenth when the last of them is out of it', async t => {
  follow(t, new SlidingWindow(4, 1600), [
    { at: 50, ask: 1, pass: 1, left: 3, resetMs: 1600, retryMs: 0 },
    { at: 90, ask: 1, pass: 1, left: 2, resetMs: 1600, retryMs: 0 },
    { at: 850, ask: 5, pass: 2, left: 0, resetMs: 1600, retryMs: 840 },
    { at: 1689, ask: 1, pass: 0, left: 0, resetMs: 761, retryMs: 1 },
    { at: 1690, ask: 1, pass: 1, left: 1, resetMs: 1600, retryMs: 0 },
    { at: 2500, ask: 0, pass: 0, left: 3, resetMs: 790, retryMs: 0 },
    { at: 1_000_000, ask: 5, pass: 4, left: 0, resetMs: 1600, retryMs: 1600 }
  ])
})

t.test('C-04 a fixed window begins anew with each window, the first of which began in 1970', async t => {
  const midnight = Date.UTC(2026, 0, 2)
  follow(t, new FixedWindow(3, 86_400_000), [
    { at: midnight - 1000, ask: 4, pass: 3, left: 0, resetMs: 1000, retryMs: 1000 },
    { at: midnight - 1, ask: 1, pass: 0, left: 0, resetMs: 1, retryMs: 1 },
    { at: midnight, ask: 1, pass: 1, left: 2, resetMs: 86_400_000, retryMs: 0 },
    { at: midnight - 1, ask: 1, pass: 1, left: 1, resetMs: 86_400_001, retryMs: 0 }
  ])
})

t.test('H-85 two bursts around the edge of a window: a sliding window lets one through, a fixed one two', async t => {
  const burst = (counter: Counter, at: number): number => {
    let passed = 0
    for (; counter.available(at) >= 1; passed++) counter.take(at)
    return passed
  }
  const sliding = new SlidingWindow(10, 60_000)
  t.same([burst(sliding, 59_999), burst(sliding, 60_001)], [10, 0])
  t.same([burst(sliding, 119_998), burst(sliding, 119_999)], [0, 10], 'a minute after the first, and no sooner')
  const fixed = new FixedWindow(10, 60_000)
  t.same([burst(fixed, 59_999), burst(fixed, 60_001)], [10, 10])
})

t.test(
  'RLM-05 TokenBucket(capacity, refill_rate): starts full, consume(tokens = 1), refilled by elapsed time',
  async t => {
    let now = 0
    const bucket = new TokenBucket(10, 2, () => now)
    t.equal(bucket.tokens, 10)
    t.equal(bucket.consume(), true)
    t.equal(bucket.consume(9), true)
    t.equal(bucket.consume(), false)
    now = 400
    t.equal(bucket.consume(), false)
    t.equal(bucket.consume(0.5), true)
    now = 1_000_000
    t.equal(bucket.consume(11), false, 'more than fits in is never there')
    t.equal(bucket.tokens, 10)
  }
)

t.test('a counter that is given another limit keeps what it has counted', async t => {
  const limit = { name: 'user', windowMs: 60_000 }
  const sliding = new SlidingWindow(10, 60_000)
  const fixed = new FixedWindow(10, 60_000)
  for (const counter of [sliding, fixed]) {
    for (let i = 0; i < 6; i++) {
      counter.available(1000)
      counter.take(1000)
    }
    counter.configure({ ...limit, algorithm: 'sliding_window', limit: 4, burst: 4 })
    t.equal(counter.available(1000), 0)
    counter.configure({ ...limit, algorithm: 'sliding_window', limit: 20, burst: 20 })
    t.equal(counter.available(1000), 14)
  }
  const bucket = new TokenBucket(10, 1, () => 0)
  bucket.consume(6)
  bucket.configure({ ...limit, algorithm: 'token_bucket', limit: 60, burst: 20 })
  t.equal(bucket.available(0), 4)
  bucket.configure({ ...limit, algorithm: 'token_bucket', limit: 60, burst: 3 })
  t.equal(bucket.available(0), 3)
})
