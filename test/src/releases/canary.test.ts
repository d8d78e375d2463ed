import t from 'tap'
import {
  after,
  Canary,
  type CanaryAction,
  type CanaryRecord,
  progressOf,
  startOf,
  type Tally,
  verdict
} from '../../../src/releases/canary.ts'
import { type CanaryRelease, canaryRelease } from '../../../src/releases/settings.ts'
import { FakeClock } from '../../support/clock.ts'

const MINUTE = 60_000
const STEPS = [
  { weight: 5, forMs: 10 * MINUTE },
  { weight: 50, forMs: 20 * MINUTE }
]
const who = (now: number) => ({ now, by: 'user:root', reason: 'because' })

t.test('RTE-09 the share of a canary follows from when it began', async t => {
  const record = startOf(0, 'gateway')
  const cases: [minutes: number, weight: number, step: number | undefined, until: number][] = [
    [0, 5, 0, 10],
    [9.99, 5, 0, 10],
    [10, 50, 1, 30],
    [29.99, 50, 1, 30],
    [30, 100, undefined, Number.POSITIVE_INFINITY],
    [3000, 100, undefined, Number.POSITIVE_INFINITY],
    [-5, 5, 0, 10]
  ]
  for (const [minutes, weight, step, until] of cases)
    t.same(progressOf(record, STEPS, minutes * MINUTE), { weight, step, until: until * MINUTE }, `after ${minutes} min`)
})

t.test('RTE-09 what is done by hand', async t => {
  const running = startOf(0, 'gateway')
  const paused = after(running, 'pause', who(4 * MINUTE)) as CanaryRecord
  t.match(progressOf(paused, STEPS, 500 * MINUTE), { weight: 5, until: Number.POSITIVE_INFINITY }, 'it stands still')
  const resumed = after(paused, 'resume', who(500 * MINUTE)) as CanaryRecord
  t.match(progressOf(resumed, STEPS, 505 * MINUTE), { weight: 5, until: 506 * MINUTE })
  t.match(progressOf(resumed, STEPS, 506 * MINUTE), { weight: 50 })
  const promoted = after(paused, 'promote', who(5)) as CanaryRecord
  t.match(progressOf(promoted, STEPS, 5), { weight: 100 })
  const aborted = after(running, 'abort', who(5)) as CanaryRecord
  t.match(progressOf(aborted, STEPS, 5000 * MINUTE), { weight: 0 })
  t.match(aborted, { by: 'user:root', reason: 'because', changedAt: 5 })
  t.match(after(aborted, 'restart', who(7)), { startedAt: 7, outcome: 'running', pausedMs: 0 })
  const senseless: [CanaryRecord, CanaryAction][] = [
    [running, 'resume'],
    [paused, 'pause'],
    [promoted, 'promote'],
    [promoted, 'pause'],
    [aborted, 'abort'],
    [aborted, 'resume']
  ]
  for (const [record, action] of senseless) t.equal(after(record, action, who(9)), undefined, action)
  t.ok(after(promoted, 'abort', who(9)), 'even what was promoted can be taken back')
})

t.test('RTE-09 what a canary is aborted for', async t => {
  const limits = { errors: 5, latency: 2, minimum: 50 }
  const tally = (calls: number, failures = 0, p95: number | null = 20): Tally => ({ calls, failures, p95 })
  const cases: [control: Tally, canary: Tally, reason: string | undefined][] = [
    [tally(100), tally(100), undefined],
    [tally(100), tally(100, 5), undefined],
    [tally(100), tally(100, 6), 'errors: 6 % beside 0 %'],
    [tally(1000, 20), tally(100, 7), undefined],
    [tally(1000, 20), tally(100, 8), 'errors: 8 % beside 2 %'],
    [tally(1000, 500), tally(100, 20), undefined],
    [tally(100), tally(49, 49), undefined],
    [tally(49), tally(100, 100), undefined],
    [tally(100), tally(100, 100, null), 'errors: 100 % beside 0 %'],
    [tally(100, 0, 20), tally(100, 0, 40), undefined],
    [tally(100, 0, 20), tally(100, 0, 41), 'latency: p95 41 ms beside 20 ms'],
    [tally(100, 0, 1), tally(100, 0, 9), undefined],
    [tally(100, 100, null), tally(100, 100, 50), undefined]
  ]
  for (const [control, canary, reason] of cases)
    t.equal(verdict(control, canary, limits), reason, JSON.stringify([control, canary]))
})

function release(abort: Partial<CanaryRelease['abort']> = {}): CanaryRelease {
  const settings = {
    service: 'next',
    steps: [{ weight: 50, for: MINUTE }],
    abort: { errors: 5, latency: 2, window: MINUTE, minimum: 10, ...abort }
  }
  return canaryRelease(settings, { route: '/x', control: 'now', canary: 'next' })
}

t.test('RTE-09 a canary is judged by what it did lately, and only once', async t => {
  const clock = new FakeClock()
  const aborted: string[] = []
  const canary = new Canary(release(), clock, (it, reason) => {
    aborted.push(reason)
    it.record = after(it.record as CanaryRecord, 'abort', { now: clock.now(), by: 'gateway', reason }) as CanaryRecord
  })
  t.equal(canary.weight, 0, 'nothing while nobody knows how it stands')
  canary.record = startOf(clock.now(), 'gateway')
  t.equal(canary.weight, 50)
  const serve = (status: number, count = 20) => {
    for (let i = 0; i < count; i++) {
      canary.control.tried(200, undefined, 5)
      canary.canary.tried(status, undefined, 5)
    }
  }
  serve(404)
  clock.advance(2000)
  serve(500, 3)
  t.same(aborted, ['errors: 8.7 % beside 0 %'].slice(0, aborted.length), 'judged once a second')
  clock.advance(60_000)
  t.same(canary.canary.tally(clock.monotonic()), { calls: 0, failures: 0, p95: null }, 'what is old is forgotten')
  serve(200)
  clock.advance(2000)
  t.equal(canary.control.tally(clock.monotonic()).calls, 20)
})

t.test('RTE-09 failures without an answer count, client errors do not; after an abort nobody judges', async t => {
  const clock = new FakeClock()
  const aborted: string[] = []
  const canary = new Canary(release(), clock, (it, reason) => {
    aborted.push(reason)
    it.record = after(it.record as CanaryRecord, 'abort', { now: clock.now(), by: 'gateway', reason }) as CanaryRecord
  })
  canary.record = startOf(clock.now(), 'gateway')
  for (let i = 0; i < 30; i++) {
    clock.advance(100)
    canary.control.tried(200, undefined, 5)
    canary.canary.tried(429, undefined, 5)
  }
  t.same(aborted, [])
  for (let i = 0; i < 30; i++) {
    clock.advance(100)
    canary.control.tried(200, undefined, 5)
    canary.canary.tried(0, 'connect', 5)
  }
  t.equal(aborted.length, 1)
  t.equal(canary.weight, 0)
})
