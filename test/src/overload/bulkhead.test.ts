import t from 'tap'
import { Bulkhead, type Guest, Place } from '../../../src/overload/bulkhead.ts'
import { type PriorityName, priorityOf } from '../../../src/overload/priority.ts'
import { Deadlines } from '../../../src/upstream/deadline.ts'
import { FakeClock } from '../../support/clock.ts'

/** A bulkhead, what has happened in it so far, and a way to ask for a place. */
function start(config: { limit: number; queue?: number; maxWaitMs?: number }) {
  const clock = new FakeClock()
  const deadlines = new Deadlines(clock)
  const bulkhead = new Bulkhead({ queue: 0, maxWaitMs: 100, min: 1, max: 1, ...config }, clock, deadlines)
  const events: string[] = []
  const ask = (name: string, priority: PriorityName = 'normal', guest: Partial<Guest> = {}): Place => {
    const place = new Place(
      bulkhead,
      {
        admitted: guest.admitted ?? (() => events.push(`${name} in`)),
        turnedAway: guest.turnedAway ?? (reason => events.push(`${name} ${reason}`))
      },
      priorityOf(priority)
    )
    place.enter()
    return place
  }
  const pass = (ms: number): void => {
    clock.advance(ms)
    deadlines.tick()
  }
  t.teardown(() => deadlines.stop())
  return { bulkhead, events, ask, pass, happened: () => events.splice(0) }
}

t.test('TRC-01 so many are inside at once; without a queue the next one is refused', async t => {
  const { bulkhead, ask, happened } = start({ limit: 2 })
  const a = ask('a')
  ask('b')
  ask('c')
  t.same(happened(), ['a in', 'b in', 'c queue_full'])
  a.leave()
  ask('d')
  t.same(happened(), ['d in'])
  t.equal(bulkhead.inside, 2)
})

t.test('H-98 a place is given back once, however often it is said', async t => {
  const { bulkhead, ask } = start({ limit: 2, queue: 1 })
  const a = ask('a')
  ask('b')
  a.leave()
  a.leave()
  t.equal(bulkhead.inside, 1)
  const refused = ask('c')
  refused.leave()
  refused.leave()
  t.equal(bulkhead.inside, 1)
})

t.test('RLM-11 who waits gets the next free place, in order, and no later than the longest wait', async t => {
  const { bulkhead, ask, pass, happened } = start({ limit: 1, queue: 2 })
  const a = ask('a')
  const b = ask('b')
  pass(60)
  ask('c')
  ask('d')
  t.same(happened(), ['a in', 'd queue_full'])
  t.equal(bulkhead.waiting, 2)
  a.leave()
  t.same(happened(), ['b in'])
  pass(60)
  t.same(happened(), [], 'c has waited for 60 ms of 100')
  pass(40)
  t.same(happened(), ['c queue_timeout'])
  b.leave()
  t.same([bulkhead.inside, bulkhead.waiting], [0, 0])
  t.equal(bulkhead.waits.count, 2)
  t.same(bulkhead.refused, { queue_full: [0, 0, 1, 0], queue_timeout: [0, 0, 1, 0] })
})

t.test('TRC-02 the most important of those who wait goes first, and gives way last', async t => {
  const { ask, happened } = start({ limit: 1, queue: 3 })
  const first = ask('first')
  ask('low 1', 'low')
  ask('low 2', 'low')
  ask('normal', 'normal')
  ask('critical', 'critical')
  ask('another low', 'low')
  ask('high', 'high')
  ask('another normal', 'normal')
  t.same(happened(), [
    'first in',
    'low 2 queue_full',
    'another low queue_full',
    'low 1 queue_full',
    'another normal queue_full'
  ])
  first.leave()
  t.same(happened(), ['critical in'])
})

t.test('H-98 a client that goes away leaves the queue', async t => {
  const { bulkhead, ask, pass, happened } = start({ limit: 1, queue: 3 })
  const a = ask('a')
  const b = ask('b')
  const c = ask('c')
  ask('d')
  c.leave()
  b.leave()
  b.leave()
  t.equal(bulkhead.waiting, 1)
  a.leave()
  t.same(happened(), ['a in', 'd in'])
  pass(1000)
  t.same(happened(), [], 'nobody hears of a place that is not waited for')
})

t.test('H-98 whoever fails as soon as he is admitted lets the next one in, however many there are', async t => {
  const { bulkhead, ask } = start({ limit: 1, queue: 20_000 })
  const first = ask('first')
  let admitted = 0
  for (let i = 0; i < 20_000; i++) {
    const place: Place = ask('hapless', 'normal', {
      admitted: () => {
        admitted++
        place.leave()
      }
    })
  }
  first.leave()
  t.equal(admitted, 20_000)
  t.same([bulkhead.inside, bulkhead.waiting], [0, 0])
})
