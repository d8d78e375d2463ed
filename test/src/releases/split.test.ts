import t from 'tap'
import { compileShares, compileSplit } from '../../../src/releases/split.ts'
import { seeded } from '../../support/random.ts'

const choices = (weights: readonly number[]) => weights.map((weight, value) => ({ value, weight }))

t.test('HLB-09 H-102 over 500 requests each share is within five points of its weight', async t => {
  const cases: number[][] = [[1, 1], [90, 10], [1, 999], [0, 1], [1, 0, 1], [5, 5, 5, 5], [100]]
  for (const weights of cases) {
    for (const seed of [1, 2, 3]) {
      const pick = compileSplit(choices(weights), seeded(seed))
      const counts = weights.map(() => 0)
      for (let i = 0; i < 500; i++) (counts[pick()] as number)++
      const total = weights.reduce((sum, weight) => sum + weight, 0)
      for (const [i, weight] of weights.entries()) {
        const points = ((counts[i] as number) / 500) * 100
        t.ok(Math.abs(points - (weight / total) * 100) <= 5, `${weights} (${seed}): ${points} % of ${i}`)
        if (weight === 0) t.equal(counts[i], 0, 'what weighs nothing is never drawn')
      }
    }
  }
})

t.test('HLB-09 each has a stretch of the unit interval, whatever its ends come to', async t => {
  const at = compileShares(choices([1, 999, 0]))
  const cases: [place: number, expected: number][] = [
    [0, 0],
    [0.000999, 0],
    [0.001, 1],
    [0.5, 1],
    [1 - Number.EPSILON / 2, 1]
  ]
  for (const [place, expected] of cases) t.equal(at(place), expected, String(place))
  const thirds = compileShares(choices([1, 1, 1]))
  t.same([0.33, 0.34, 0.66, 0.67, 0.9999999].map(thirds), [0, 1, 1, 2, 2])
})
