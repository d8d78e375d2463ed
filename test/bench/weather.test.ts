import t from 'tap'
import { DETECTION_MS, Weather } from '../../bench/chaos/weather.ts'

const SECOND = 1000

t.test(
  'a request that the chaos run counts is excused by nothing but a fresh fault, or by nobody being well',
  async t => {
    const weather = new Weather(3)
    t.equal(weather.excuse(0, SECOND), undefined)
    weather.worsens(0, true, 10 * SECOND)
    const noticed = 10 * SECOND + DETECTION_MS
    for (const [from, to, excuse] of [
      [8 * SECOND, 9.9 * SECOND, undefined],
      [8 * SECOND, 10 * SECOND, 'detection'],
      [11 * SECOND, 11.1 * SECOND, 'detection'],
      [noticed, noticed + SECOND, 'detection'],
      [noticed + 1, noticed + SECOND, undefined]
    ] as const)
      t.equal(weather.excuse(from, to), excuse, `${from} to ${to}`)
  }
)

t.test('what the gateway is told, or only a health check says, excuses nothing', async t => {
  const weather = new Weather(2)
  weather.worsens(0, false, SECOND)
  t.equal(weather.excuse(SECOND, 2 * SECOND), undefined)
})

t.test('an instance counts as well when its recovery could have been seen', async t => {
  const weather = new Weather(2)
  weather.worsens(0, false, 0)
  weather.clears(0, 10 * SECOND)
  weather.worsens(1, false, 11 * SECOND)
  const seen = 10 * SECOND + DETECTION_MS
  t.equal(weather.excuse(9 * SECOND, 10.9 * SECOND), undefined)
  t.equal(weather.excuse(9 * SECOND, 11 * SECOND), 'nobody', 'also when it was under way before')
  t.equal(weather.excuse(seen - 1, seen), 'nobody')
  t.equal(weather.excuse(seen, seen + SECOND), undefined)
})

t.test('what is long ago is forgotten, and what goes on is not', async t => {
  const weather = new Weather(1)
  weather.worsens(0, true, 0)
  weather.forget(1000 * SECOND)
  t.equal(weather.excuse(999 * SECOND, 1000 * SECOND), 'nobody')
})
