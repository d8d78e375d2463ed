import t from 'tap'
import { Gradient } from '../../../src/overload/gradient.ts'

/** A service that works on so many requests side by side, each in so many milliseconds; the others queue up inside it. */
interface Simulated {
  workers: number
  ms: number
}

/** As many requests as are let in, for so many seconds; the limit afterwards. */
function run(
  gradient: Gradient,
  { workers, ms }: Simulated,
  seconds: number,
  demand = Number.POSITIVE_INFINITY
): number {
  let now = run.now
  const until = now + seconds * 1000
  while (now < until) {
    const inside = Math.min(gradient.limit, demand)
    const takes = ms * Math.max(1, inside / workers)
    now += takes / inside
    gradient.observe(takes, inside, now)
  }
  run.now = now
  return gradient.limit
}
run.now = 0

const between = (value: number, low: number, high: number): boolean => value >= low && value <= high

t.test('TRC-01 the limit finds what a service takes, and follows it', async t => {
  const gradient = new Gradient({ min: 4, max: 1000 })
  const busy = run(gradient, { workers: 50, ms: 20 }, 60)
  t.ok(between(busy, 50, 90), `50 workers: ${busy}`)
  const fewer = run(gradient, { workers: 10, ms: 20 }, 60)
  t.ok(between(fewer, 10, 25), `10 workers: ${fewer}`)
  const more = run(gradient, { workers: 100, ms: 20 }, 120)
  t.ok(between(more, 100, 180), `100 workers: ${more}`)
})

t.test('TRC-01 a service that is slower whatever it is asked gets no less for it', async t => {
  const gradient = new Gradient({ min: 4, max: 1000 })
  const before = run(gradient, { workers: 50, ms: 20 }, 60)
  const after = run(gradient, { workers: 50, ms: 80 }, 120)
  t.ok(after > before * 0.8, `${before} before, ${after} after`)
  t.ok(after < 110, `and no more than it takes: ${after}`)
})

t.test('TRC-01 an overload that lasts is not taken for the new normal', async t => {
  const gradient = new Gradient({ min: 4, max: 1000 })
  const limit = run(gradient, { workers: 20, ms: 50 }, 3600)
  t.ok(between(limit, 20, 45), `after an hour: ${limit}`)
})

t.test('TRC-01 who is asked for little is not believed to take more', async t => {
  const gradient = new Gradient({ min: 4, max: 1000 })
  t.equal(run(gradient, { workers: 50, ms: 20 }, 60, 5), 20)
})

t.test('TRC-01 the limit stays within its bounds', async t => {
  t.equal(new Gradient({ min: 30, max: 1000 }).limit, 30)
  t.equal(new Gradient({ min: 1, max: 5 }).limit, 5)
  t.equal(run(new Gradient({ min: 1, max: 40 }), { workers: 1000, ms: 20 }, 60), 40)
  const low = new Gradient({ min: 8, max: 100 })
  run(low, { workers: 50, ms: 20 }, 60)
  const least = run(low, { workers: 1, ms: 20 }, 60)
  t.ok(between(least, 8, 16), `with next to no workers: ${least}`)
})
