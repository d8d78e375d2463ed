import t from 'tap'
import { Breaker, type BreakerConfig } from '../../../src/upstream/breaker.ts'
import { FakeClock } from '../../support/clock.ts'

const PLAIN: BreakerConfig = {
  failureThreshold: 5,
  recoveryMs: 60_000,
  successThreshold: 3,
  failureStatuses: [500, 502, 503, 504],
  windowMs: 10_000,
  minimumCalls: 20,
  errorRate: 0,
  slowMs: 0,
  slowRate: 0.5,
  gradual: false,
  adaptive: false,
  predictive: false
}

function make(config: Partial<BreakerConfig> = {}) {
  const clock = new FakeClock()
  const changes: string[] = []
  const breaker: Breaker = new Breaker({ ...PLAIN, ...config }, clock, from => changes.push(`${from}>${breaker.state}`))
  /** One call: whether it was let through, and then how it went. */
  const call = (well: boolean, ms = 10): boolean => {
    const permit = breaker.enter()
    if (permit === 0) return false
    if (well) breaker.succeeded(permit, ms)
    else breaker.failed(permit, ms)
    return true
  }
  const calls = (count: number, well: boolean, ms?: number): void => {
    for (let i = 0; i < count; i++) call(well, ms)
  }
  return { clock, breaker, call, calls, changes }
}

t.test('RES-01 RES-02 H-100 five failures in a row open it; a minute later three probes close it', async t => {
  const { clock, breaker, call, calls, changes } = make()
  calls(4, false)
  calls(1, true)
  calls(4, false)
  t.equal(breaker.state, 'closed', 'a success in between begins the row anew')
  calls(1, false)
  t.equal(breaker.state, 'open')
  t.equal(breaker.reason, '5 failures in a row')
  t.equal(breaker.retryAfterMs, 60_000)
  t.notOk(call(true), 'nobody gets through')
  clock.advance(59_999)
  t.notOk(call(true))
  clock.advance(1)
  t.ok(call(true))
  t.equal(breaker.state, 'half_open')
  calls(2, true)
  t.equal(breaker.state, 'closed')
  t.same(changes, ['closed>open', 'open>half_open', 'half_open>closed'])
})

t.test('RES-05 its stats are totals, and states are written in lower case', async t => {
  const { breaker, calls } = make()
  calls(98, true)
  calls(2, false)
  t.same(breaker.getStats(), { state: 'closed', failure_count: 2, success_count: 98 })
  calls(3, false)
  t.same(breaker.getStats(), { state: 'open', failure_count: 5, success_count: 98 })
})

t.test('RES-09 H-100 one probe at a time; one that fails opens it for as long again', async t => {
  const { clock, breaker, calls, changes } = make()
  calls(5, false)
  clock.advance(60_000)
  const probe = breaker.enter()
  t.not(probe, 0)
  for (let i = 0; i < 10; i++) t.equal(breaker.enter(), 0, 'the others wait')
  breaker.failed(probe, 10)
  t.equal(breaker.state, 'open')
  t.equal(breaker.retryAfterMs, 60_000)
  t.same(changes, ['closed>open', 'open>half_open', 'half_open>open'])
})

t.test('H-100 a probe whose client goes away makes room for the next one', async t => {
  const { clock, breaker, calls } = make()
  calls(5, false)
  clock.advance(60_000)
  const probe = breaker.enter()
  breaker.left(probe, 10)
  const second = breaker.enter()
  t.not(second, 0)
  breaker.failed(probe, 10)
  t.equal(breaker.state, 'half_open', 'the first one has nothing to say any more')
  t.equal(breaker.enter(), 0)
  breaker.succeeded(second, 10)
  t.not(breaker.enter(), 0)
})

t.test(
  'RES-09 a probe that is not heard of is not waited for for ever; a stream that has begun well is well',
  async t => {
    const { clock, breaker, calls } = make({ successThreshold: 1 })
    calls(5, false)
    clock.advance(60_000)
    const lost = breaker.enter()
    clock.advance(59_999)
    t.equal(breaker.enter(), 0)
    clock.advance(1)
    const stream = breaker.enter()
    t.not(stream, 0)
    breaker.answering(lost)
    breaker.answering(stream)
    clock.advance(60_000)
    t.not(breaker.enter(), 0)
    t.equal(breaker.state, 'closed')
  }
)

t.test('H-100 what was let in before a change says nothing about how it is now', async t => {
  const { clock, breaker, calls } = make()
  const old = [breaker.enter(), breaker.enter()]
  calls(5, false)
  clock.advance(60_000)
  const probe = breaker.enter()
  for (const permit of old) breaker.failed(permit, 10)
  t.equal(breaker.state, 'half_open')
  t.equal(breaker.enter(), 0, 'nor is the probe over')
  breaker.succeeded(probe, 10)
  t.equal(breaker.getStats().failure_count, 7, 'it is counted all the same')
})

t.test('H-100 no answer below 500 is a failure, nor one that is about the request', async t => {
  const { breaker } = make()
  for (const status of [200, 301, 400, 401, 404, 409, 429, 499, 501, 505])
    t.notOk(breaker.isFailure(status), `${status}`)
  for (const status of [500, 502, 503, 504]) t.ok(breaker.isFailure(status), `${status}`)
})

t.test('H-100 a share of failures opens it, once there are enough calls', async t => {
  const { clock, breaker, calls, call } = make({ failureThreshold: 0, errorRate: 0.5 })
  for (let i = 0; i < 9; i++) {
    call(false)
    call(true)
  }
  calls(1, true)
  t.equal(breaker.state, 'closed', '19 calls say nothing')
  calls(1, false)
  t.equal(breaker.state, 'open')
  t.equal(breaker.reason, '50 % of 20 calls have failed')

  clock.advance(60_000)
  calls(3, true)
  t.equal(breaker.state, 'closed')
  calls(9, false)
  clock.advance(11_000)
  calls(11, true)
  calls(9, false)
  t.equal(breaker.state, 'closed', 'what is older than the window does not count')
})

t.test('H-99 a share of slow calls opens it, those included that their clients did not wait for', async t => {
  const { breaker, calls } = make({ slowMs: 1000 })
  calls(10, true, 999)
  for (let i = 0; i < 9; i++) breaker.left(breaker.enter(), 1000)
  for (let i = 0; i < 20; i++) breaker.left(breaker.enter(), 10)
  t.equal(breaker.state, 'closed', 'those who left early say nothing')
  calls(1, true, 5000)
  t.equal(breaker.state, 'open')
  t.equal(breaker.reason, '50 % of 20 calls took 1000 ms or more')
})

t.test('RES-13 recovery is gradual: a tenth, a quarter, a half, all; each step takes more successes', async t => {
  const { clock, breaker, call, calls } = make({ gradual: true, successThreshold: 2 })
  calls(5, false)
  clock.advance(60_000)
  calls(2, true)
  t.equal(breaker.state, 'closed')
  const needed: number[] = []
  for (const share of [0.1, 0.25, 0.5]) {
    t.equal(breaker.recoveringPercent, share * 100)
    let admitted = 0
    let asked = 0
    const due = 2 * 2 ** (needed.length + 1)
    while (admitted < due) {
      asked++
      if (call(true)) admitted++
    }
    needed.push(admitted)
    t.equal(admitted / asked, share)
  }
  t.same(needed, [4, 8, 16])
  t.equal(breaker.recoveringPercent, undefined)
  t.ok(Array.from({ length: 50 }, () => call(true)).every(Boolean), 'all')
})

t.test('RES-13 a failure on the way begins the step anew, and as many as ever open it', async t => {
  const { clock, breaker, call, calls } = make({ gradual: true, successThreshold: 1 })
  const until = (well: boolean): void => {
    while (!call(well));
  }
  calls(5, false)
  clock.advance(60_000)
  calls(1, true)
  until(true)
  until(false)
  until(true)
  t.equal(Array.from({ length: 100 }, () => breaker.enter()).filter(permit => permit !== 0).length, 10, 'still a tenth')
  for (let i = 0; i < 5; i++) until(false)
  t.equal(breaker.state, 'open')
})

t.test('RES-13 a service that is hardly asked recovers by the clock', async t => {
  const { clock, breaker, calls } = make({ gradual: true })
  calls(5, false)
  clock.advance(60_000)
  calls(3, true)
  t.equal(breaker.enter(), 0)
  for (let step = 0; step < 3; step++) {
    clock.advance(60_000)
    breaker.enter()
  }
  t.ok(Array.from({ length: 20 }, () => breaker.enter()).every(permit => permit !== 0))
})

t.test('RES-10 with an adaptive threshold it opens at far more failures than are usual', async t => {
  for (const [usual, opensAt, staysAt] of [
    [0, 3, 1],
    [0.3, 14, 9]
  ] as const) {
    const { clock, breaker, call, calls } = make({ failureThreshold: 0, adaptive: true })
    for (let second = 0; second < 60; second++) {
      for (let i = 0; i < 20; i++) call(i >= usual * 20)
      clock.advance(1000)
    }
    t.equal(breaker.state, 'closed', `${usual} of the calls fail, as ever`)
    clock.advance(10_000)
    calls(20 - staysAt, true)
    calls(staysAt, false)
    t.equal(breaker.state, 'closed', `${staysAt} of 20 is no more than chance`)
    clock.advance(10_000)
    calls(20 - opensAt, true)
    if (usual > 0) calls(20, false)
    else calls(opensAt, false)
    t.equal(breaker.state, 'open')
    t.match(breaker.reason, new RegExp(`where ${usual * 100} % is usual`))
  }
})

t.test('RES-10 while nobody knows what is usual, half of the calls is too much', async t => {
  const { breaker, calls } = make({ failureThreshold: 0, adaptive: true })
  calls(11, true)
  calls(9, false)
  t.equal(breaker.state, 'closed')
  calls(2, false)
  t.equal(breaker.state, 'open')
})

t.test('RES-11 it opens early when waiting times rise towards what is slow, and says so', async t => {
  for (const [predictive, state] of [
    [false, 'closed'],
    [true, 'open']
  ] as const) {
    const { clock, breaker, calls } = make({ slowMs: 1000, predictive })
    for (let second = 0; second < 8; second++) {
      calls(10, true, 100 + second * 110)
      clock.advance(1000)
    }
    t.equal(breaker.state, state)
    if (predictive) t.match(breaker.reason, /^calls are about to take 1\d{3} ms$/)
  }
})

t.test('RES-11 it opens early when failures rise in a line, and not when they only jump about', async t => {
  const run = (failures: readonly number[]): Breaker => {
    const { clock, breaker, call } = make({ failureThreshold: 0, errorRate: 0.5, predictive: true })
    for (const count of failures) {
      for (let i = 0; i < 20; i++) call(i >= count)
      clock.advance(1000)
    }
    return breaker
  }
  const rising = run([0, 1, 2, 3, 4, 5, 6])
  t.equal(rising.state, 'open')
  t.match(rising.reason, /are about to fail$/)
  t.equal(run([0, 6, 1, 7, 0, 6, 2, 5, 1, 6]).state, 'closed')
  t.equal(run([6, 6, 6, 6, 6, 6, 6]).state, 'closed', 'nor when they stay as they are')
})

t.test('a person opens it until a person closes it', async t => {
  const { clock, breaker, call } = make()
  breaker.force('by hand')
  clock.advance(3_600_000)
  t.notOk(call(true))
  breaker.reset('by hand')
  t.ok(call(true))
  t.same(breaker.getStats(), { state: 'closed', failure_count: 0, success_count: 1 })
})
