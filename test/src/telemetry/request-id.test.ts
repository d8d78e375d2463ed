import t from 'tap'
import { createRequestIds } from '../../../src/telemetry/request-id.ts'
import { FakeClock } from '../../support/clock.ts'

t.test('C-23 ids are req_ and the 26 lower-case letters of a ULID', async t => {
  const next = createRequestIds(new FakeClock())
  for (let i = 0; i < 1000; i++) t.match(next(), /^req_[0-9a-hjkmnp-tv-z]{26}$/)
})

t.test('OBS-14 ids do not repeat within a process, nor between two in the same millisecond', async t => {
  const clock = new FakeClock()
  const seen = new Set<string>()
  for (const next of [createRequestIds(clock), createRequestIds(clock)])
    for (let i = 0; i < 50_000; i++) seen.add(next())
  t.equal(seen.size, 100_000)
})

t.test('C-23 the first ten letters are the time, so that ids sort by it', async t => {
  const clock = new FakeClock(Date.UTC(2026, 10, 20))
  const next = createRequestIds(clock)
  const before = next().slice(0, 14)
  clock.advance(1)
  const after = next().slice(0, 14)
  t.ok(before < after)
  const time = [...after.slice(4)].reduce(
    (sum, letter) => sum * 32 + '0123456789abcdefghjkmnpqrstvwxyz'.indexOf(letter),
    0
  )
  t.equal(time, clock.now())
})
