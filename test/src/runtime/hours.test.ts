import t from 'tap'
import { compileHours, type Hours } from '../../../src/runtime/hours.ts'

const hours = (more: Partial<Hours>) => compileHours({ days: [], from: '00:00', to: '24:00', zone: 'UTC', ...more })
const at = (time: string): number => Date.parse(time)

t.test('AZN-08 hours begin with their first minute and are over with their last', async t => {
  const holds = hours({ from: '08:00', to: '18:00' })
  t.equal(holds(at('2026-03-02T07:59:59.999Z')), false)
  t.equal(holds(at('2026-03-02T08:00:00Z')), true)
  t.equal(holds(at('2026-03-02T17:59:59.999Z')), true)
  t.equal(holds(at('2026-03-02T18:00:00Z')), false)
  t.equal(hours({})(at('2026-03-02T23:59:59Z')), true)
})

t.test('AZN-08 a night belongs to the day on which it begins', async t => {
  const holds = hours({ days: ['fri'], from: '22:00', to: '06:00' })
  t.equal(holds(at('2026-03-06T05:00:00Z')), false, 'the night from Thursday to Friday')
  t.equal(holds(at('2026-03-06T22:00:00Z')), true)
  t.equal(holds(at('2026-03-07T05:59:00Z')), true)
  t.equal(holds(at('2026-03-07T06:00:00Z')), false)
  t.equal(holds(at('2026-03-07T22:00:00Z')), false)
  t.equal(hours({ days: ['sat'], from: '22:00', to: '06:00' })(at('2026-03-08T01:00:00Z')), true, 'into Sunday')
})

t.test('AZN-08 days and hours are those of the time zone, in summer and in winter', async t => {
  const berlin = hours({ days: ['mon'], from: '08:00', to: '18:00', zone: 'Europe/Berlin' })
  t.equal(berlin(at('2026-01-05T07:00:00Z')), true, 'winter: one hour ahead')
  t.equal(berlin(at('2026-01-05T06:59:00Z')), false)
  t.equal(berlin(at('2026-07-06T06:00:00Z')), true, 'summer: two')
  t.equal(berlin(at('2026-07-06T05:59:00Z')), false)
  const kathmandu = hours({ days: ['tue'], zone: 'Asia/Kathmandu' })
  t.equal(kathmandu(at('2026-01-05T18:14:59Z')), false)
  t.equal(kathmandu(at('2026-01-05T18:15:00Z')), true, 'a quarter to six ahead')
  t.throws(() => hours({ zone: 'Europe/Atlantis' }), RangeError)
})

t.test('AZN-08 what was found out about a minute is not said of another', async t => {
  const holds = hours({ from: '00:00', to: '00:01' })
  for (let minute = 0; minute < 5; minute++)
    for (const second of [0, 30, 59])
      t.equal(holds(at('2026-03-02T00:00:00Z') + minute * 60_000 + second * 1000), minute === 0)
})
