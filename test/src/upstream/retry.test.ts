import t from 'tap'
import { afterFailure, type FailedTry, type NextStep, RetryBudget, retryAfterMs } from '../../../src/upstream/retry.ts'
import { FakeClock } from '../../support/clock.ts'

const POLICY = {
  attempts: 2,
  backoffMs: 0,
  maxBackoffMs: 0,
  methods: new Set(['GET', 'PUT']),
  on: new Set(['connect', 'reset', 'timeout', 503] as const),
  budget: 0.15
}
const NONE = { ...POLICY, attempts: 0, on: new Set<never>() }
const GET = { method: 'GET', repeatable: false, body: 'whole', tries: 1, hasOther: false, stale: false } as const
const POST = { ...GET, method: 'POST' } as const

const TABLE: readonly (readonly [
  name: string,
  failed: FailedTry,
  policy: typeof POLICY | typeof NONE,
  next: NextStep
])[] = [
  ['no connection, and another instance', { ...GET, failure: 'connect', hasOther: true }, POLICY, 'other'],
  ['that takes no policy', { ...GET, failure: 'connect', hasOther: true }, NONE, 'other'],
  ['nor a method that may be repeated', { ...POST, failure: 'connect', hasOther: true }, NONE, 'other'],
  [
    'nor a body at hand, so long as nothing of it has gone',
    { ...POST, failure: 'connect', body: 'untouched', hasOther: true },
    NONE,
    'other'
  ],
  [
    'but not a body of which a part has gone',
    { ...GET, failure: 'connect', body: 'begun', hasOther: true },
    POLICY,
    'give'
  ],
  ['no connection, and nobody else', { ...GET, failure: 'connect' }, POLICY, 'again'],
  ['whatever the method', { ...POST, failure: 'connect', body: 'untouched' }, POLICY, 'again'],
  ['if the policy says so', { ...GET, failure: 'connect' }, NONE, 'give'],
  ['a stale connection', { ...GET, failure: 'reset', stale: true }, NONE, 'afresh'],
  ['which costs no try', { ...GET, failure: 'reset', stale: true, tries: 3 }, POLICY, 'afresh'],
  ['what may not be repeated is not, on a new one either', { ...POST, failure: 'reset', stale: true }, POLICY, 'give'],
  ['a connection cut', { ...GET, failure: 'reset' }, POLICY, 'again'],
  ['another instance is no reason to send it twice', { ...GET, failure: 'reset', hasOther: true }, NONE, 'give'],
  ['a method that may not be repeated', { ...POST, failure: 'reset', hasOther: true }, POLICY, 'give'],
  ['unless its service does it but once', { ...POST, failure: 'reset', repeatable: true }, POLICY, 'again'],
  ['a body that is a stream', { ...GET, method: 'PUT', failure: 'reset', body: 'untouched' }, POLICY, 'give'],
  ['no answer in time', { ...GET, failure: 'timeout', hasOther: true }, POLICY, 'again'],
  ['no answer in time, unasked', { ...GET, failure: 'timeout' }, NONE, 'give'],
  ['a status that is named', { ...GET, failure: 503 }, POLICY, 'again'],
  ['a status that is not', { ...GET, failure: 502 }, POLICY, 'give'],
  ['the last try', { ...GET, failure: 503, tries: 2 }, POLICY, 'again'],
  ['one after the last', { ...GET, failure: 503, tries: 3 }, POLICY, 'give']
]

t.test('H-88 H-91 H-92 C-17 what follows a failed try', async t => {
  for (const [name, failed, policy, next] of TABLE) t.equal(afterFailure(policy, failed), next, name)
})

t.test('RES-15 Retry-After is seconds or a date; what is neither says nothing', async t => {
  const now = Date.parse('Wed, 21 Oct 2026 07:28:00 GMT')
  t.equal(retryAfterMs('0', now), 0)
  t.equal(retryAfterMs('120', now), 120_000)
  t.equal(retryAfterMs('Wed, 21 Oct 2026 07:28:05 GMT', now), 5000)
  t.equal(retryAfterMs('Wed, 21 Oct 2026 07:27:00 GMT', now), 0)
  for (const nonsense of ['', 'soon', '-1x']) t.equal(retryAfterMs(nonsense, now), 0)
})

t.test('H-93 RES-15 retries are paid for by requests, and by time', async t => {
  const clock = new FakeClock()
  const budget = new RetryBudget(clock)
  const spend = (): number => {
    let spent = 0
    while (budget.withdraw()) spent++
    return spent
  }
  t.equal(spend(), 10, 'what a quiet service has saved')
  for (let i = 0; i < 41; i++) budget.deposit(0.1)
  t.equal(spend(), 4)
  for (let i = 0; i < 100; i++) budget.deposit(0)
  t.equal(spend(), 0)
  clock.advance(3000)
  t.equal(spend(), 3)
})
