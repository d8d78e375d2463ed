import t from 'tap'
import { OutlierDetection } from '../../../../src/upstream/health/outliers.ts'
import { type OutlierConfig, outliersOf } from '../../../../src/upstream/health/settings.ts'
import type { Instance } from '../../../../src/upstream/instance.ts'

const STANDARD = outliersOf(true) as OutlierConfig

function instancesOf(count: number): Instance[] {
  return Array.from({ length: count }, () => ({ ejectedUntil: 0, record: undefined }) as unknown as Instance)
}

/** Counts tries at an instance, given as `+` and `-`. @returns the last reason for an ejection */
function run(
  detection: OutlierDetection,
  instance: Instance,
  among: readonly Instance[],
  tries: string,
  now: number
): string | undefined {
  let why: string | undefined
  for (const mark of tries) why = detection.count(instance, mark === '-', among, now) ?? why
  return why
}

t.test('HLB-03 H-101 failures in a row eject, a success in between does not count as one', async t => {
  const detection = new OutlierDetection(STANDARD)
  const [a, b] = instancesOf(2) as [Instance, Instance]
  t.equal(run(detection, a, [a, b], '----+----', 1000), undefined)
  t.equal(run(detection, a, [a, b], '-', 1000), '5 failures in a row')
  t.equal(a.ejectedUntil, 31_000)
  t.equal(run(detection, a, [a, b], '-----------', 1000), undefined, 'what comes in late changes nothing')
  t.equal(a.ejectedUntil, 31_000)
})

t.test('HLB-03 a share of failures ejects, from so many requests on and within the window only', async t => {
  const detection = new OutlierDetection({ ...STANDARD, consecutive: 0 })
  const [a, b] = instancesOf(2) as [Instance, Instance]
  t.equal(run(detection, a, [a, b], '-+-+-+-+-+-+-+-+-+-', 1000), undefined, '19 requests')
  t.equal(run(detection, b, [a, b], '+++++++++-----------', 1000), '11 of 20 requests failed')
  t.equal(run(detection, a, [a, b], '-', 11_000), undefined, 'another window')
  const [c, d] = instancesOf(2) as [Instance, Instance]
  t.equal(run(detection, c, [c, d], `${'+'.repeat(60)}${'-'.repeat(50)}`, 1000), undefined, '45 %')
})

t.test('HLB-03 each ejection is longer, up to a limit, and the past is forgotten', async t => {
  const detection = new OutlierDetection({ ...STANDARD, ejectionMs: 100, maxEjectionMs: 250 })
  const [a, b] = instancesOf(2) as [Instance, Instance]
  let now = 10_000
  const lengths = [1, 2, 3, 4].map(() => {
    run(detection, a, [a, b], '-----', now)
    const length = a.ejectedUntil - now
    now = a.ejectedUntil + 50
    return length
  })
  t.same(lengths, [100, 200, 250, 250])
  now += 250
  run(detection, a, [a, b], '-----', now)
  t.equal(a.ejectedUntil - now, 100)
})

t.test('HLB-03 H-101 no more than so many percent are out at once; a single instance never is', async t => {
  const eject = (count: number, percent: number): number => {
    const detection = new OutlierDetection({ ...STANDARD, maxEjectedPercent: percent })
    const all = instancesOf(count)
    for (const instance of all) run(detection, instance, all, '-----', 1000)
    return all.filter(({ ejectedUntil }) => ejectedUntil > 1000).length
  }
  t.equal(eject(1, 50), 0)
  t.equal(eject(2, 50), 1)
  t.equal(eject(5, 50), 2)
  t.equal(eject(3, 10), 0)
  t.equal(eject(3, 100), 3)
})
