import t from 'tap'
import { Throttle } from '../../../src/overload/throttle.ts'

/** Requests in a tenth of a second: critical, high, normal, low. */
type Load = readonly [number, number, number, number]

/**
 * A gateway that serves `capacity` requests in a tenth of a second. What is let in beyond that waits, and makes the next
 * interval late.
 */
class Simulated {
  readonly throttle = new Throttle()
  readonly #capacity: number
  #backlog = 0

  constructor(capacity: number) {
    this.#capacity = capacity
  }

  /** One interval. @returns what was let in */
  interval(load: Load): number[] {
    const admitted = [0, 0, 0, 0]
    const most = Math.max(...load)
    for (let i = 0; i < most; i++) {
      for (const [priority, count] of load.entries())
        if (Math.floor(((i + 1) * count) / most) > Math.floor((i * count) / most) && this.throttle.admits(priority))
          admitted[priority] = (admitted[priority] as number) + 1
    }
    const all = admitted.reduce((sum, count) => sum + count, 0)
    this.#backlog = Math.max(0, this.#backlog + all - this.#capacity)
    this.throttle.next((this.#backlog / this.#capacity) * 10)
    return admitted
  }

  /** What was let in of each priority over some intervals, as a share of what was asked. */
  shares(load: Load, intervals: number): number[] {
    const sums = [0, 0, 0, 0]
    for (let i = 0; i < intervals; i++)
      for (const [priority, count] of this.interval(load).entries()) sums[priority] = (sums[priority] as number) + count
    return sums.map((sum, i) => (load[i] === 0 ? 1 : sum / ((load[i] as number) * intervals)))
  }

  get backlog(): number {
    return this.#backlog
  }
}

t.test('TRC-01 as long as all is in time everything is let through', async t => {
  const gateway = new Simulated(1000)
  t.same(gateway.shares([100, 100, 600, 100], 50), [1, 1, 1, 1])
  t.notOk(gateway.throttle.on)
})

t.test('TRC-02 at three times the capacity the least important is shed, and nothing critical', async t => {
  const gateway = new Simulated(1000)
  gateway.shares([200, 400, 1200, 1200], 30)
  const [critical = 0, high = 0, normal = 0, low = 0] = gateway.shares([200, 400, 1200, 1200], 300)
  t.equal(critical, 1)
  t.ok(high > 0.9, `high ${high}`)
  t.ok(normal > 0.15 && normal < 0.4, `normal ${normal}`)
  t.ok(low < 0.05, `low ${low}`)
  const used = 200 * critical + 400 * high + 1200 * normal + 1200 * low
  t.ok(used > 850, `of 1000 that can be served ${used} are`)
  t.ok(gateway.backlog < 200, `and ${gateway.backlog} wait`)
})

t.test('TRC-01 as soon as the load is gone nothing is shed any more', async t => {
  const gateway = new Simulated(1000)
  gateway.shares([200, 400, 1200, 1200], 100)
  gateway.shares([50, 100, 300, 300], 2)
  t.same(
    gateway.shares([50, 100, 300, 300], 5).map(share => share > 0.99),
    [true, true, true, true]
  )
  gateway.shares([50, 100, 300, 300], 15)
  t.notOk(gateway.throttle.on)
})

t.test('TRC-01 when all of it is critical, what can be served of it is', async t => {
  const gateway = new Simulated(1000)
  gateway.shares([3000, 0, 0, 0], 50)
  const [critical = 0] = gateway.shares([3000, 0, 0, 0], 300)
  t.ok(critical > 0.2 && critical < 0.6, `critical ${critical}`)
})

t.test('H-127 one pause is no overload, whatever came meanwhile; two in a row are', async t => {
  const throttle = new Throttle()
  throttle.next(20)
  throttle.next(0)
  throttle.next(20)
  t.notOk(throttle.on)
  throttle.next(20)
  t.ok(throttle.on)
})

t.test('TRC-01 somebody is always let through, to find out that it is over', async t => {
  const throttle = new Throttle()
  let admitted = 0
  for (let i = 0; i < 100; i++) {
    admitted = 0
    for (let n = 0; n < 1000; n++) if (throttle.admits(3)) admitted++
    throttle.next(100)
  }
  t.equal(admitted, 5)
  t.notOk(throttle.isShutTo(3))
})
