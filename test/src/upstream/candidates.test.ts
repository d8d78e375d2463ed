import t from 'tap'
import { DEFAULT_SELECTION, type SelectionConfig } from '../../../src/upstream/balancing-settings.ts'
import { selectCandidates } from '../../../src/upstream/candidates.ts'
import type { Instance } from '../../../src/upstream/instance.ts'

const NOW = 10_000
const FRESH = {
  weight: 1,
  ramp: 1,
  zone: undefined,
  downUntil: 0,
  ejectedUntil: 0,
  unhealthy: false,
  untested: false,
  startedAt: Number.NEGATIVE_INFINITY
}

/** Who may be asked, by letters: `a` is the first. */
function asked(states: Partial<Instance>[], config: Partial<SelectionConfig> = {}): string {
  const instances = states.map((state, i) => ({ id: 'abcdefghij'[i], ...FRESH, ...state }) as Instance)
  const selected = selectCandidates(instances, { ...DEFAULT_SELECTION, ...config }, NOW).instances
  return selected.map(({ id }) => id).join('')
}

const UNWELL = { unhealthy: true }
const DOWN = { downUntil: NOW + 1 }
const EJECTED = { ejectedUntil: NOW + 5 }

t.test('HLB-01 HLB-02 HLB-03 H-101 C-21 who may be asked', async t => {
  const cases: [what: string, states: Partial<Instance>[], wanted: string][] = [
    ['all are well', [{}, {}, {}], 'abc'],
    ['unhealthy ones are left out', [UNWELL, {}, {}], 'bc'],
    ['ejected ones, too', [{}, EJECTED, {}], 'ac'],
    ['whose time is over is back', [{ ejectedUntil: NOW }, { downUntil: NOW }], 'ab'],
    ['nobody answers there: not while there are others', [DOWN, {}], 'b'],
    ['but when there are none', [DOWN, DOWN], 'ab'],
    ['which is better than asking the unhealthy', [UNWELL, DOWN], 'b'],
    ['the untested wait for their first check', [{ untested: true }, {}], 'b'],
    ['if they can', [{ untested: true }, UNWELL], 'a'],
    ['all are unhealthy', [UNWELL, UNWELL], ''],
    ['the ejected are suspects: asked when there is nobody else', [EJECTED, UNWELL, EJECTED], 'ac'],
    ['but after those at whose address nobody answers', [EJECTED, DOWN], 'b'],
    ['there are none', [], ''],
    ['weight 0 is for nobody', [{ weight: 0 }, {}, {}], 'bc'],
    ['unless there is nobody else', [{ weight: 0 }, UNWELL, { weight: 0 }], 'ac']
  ]
  for (const [what, states, wanted] of cases) t.equal(asked(states), wanted, what)
})

t.test('HLB-11 H-101 below the panic threshold all are asked', async t => {
  const panic = { panicPercent: 50 }
  t.equal(asked([UNWELL, {}], panic), 'b', 'half of them are well')
  t.equal(asked([UNWELL, UNWELL, {}], panic), 'abc')
  t.equal(asked([EJECTED, UNWELL], panic), 'ab')
  t.equal(asked([UNWELL, UNWELL, { weight: 0 }], panic), 'ab', 'drained ones even so not')
  t.equal(asked([], panic), '')
})

t.test('HLB-11 the gateway’s own zone goes first while enough of it is well', async t => {
  const here = { zone: 'x' }
  const there = { zone: 'y' }
  const config = { zone: 'x', zonePercent: 50 }
  t.equal(asked([here, there, here, {}], config), 'ac')
  t.equal(asked([here, there, { ...here, ...UNWELL }], config), 'a', 'half of it')
  t.equal(asked([here, there, { ...here, ...UNWELL }, { ...here, ...DOWN }], config), 'ab', 'a third')
  t.equal(asked([{ ...here, weight: 9 }, there, { ...here, ...UNWELL }], config), 'a', 'by weight')
  t.equal(asked([{ ...here, weight: 0 }, there], config), 'b', 'nothing of it')
  t.equal(asked([there, {}], config), 'ab', 'none of it')
  t.equal(asked([here, there], { zone: 'x', zonePercent: undefined }), 'ab', 'switched off')
  t.equal(asked([here, there, { ...here, ...UNWELL }, { ...here, ...UNWELL }], { zone: 'x', zonePercent: 0 }), 'a')
})

t.test('HLB-11 slow start: a part of the weight that grows with time; the list says until when it holds', async t => {
  const instances = [
    { ...FRESH, startedAt: NOW },
    { ...FRESH, startedAt: NOW - 2500 },
    { ...FRESH, startedAt: NOW - 10_000 },
    { ...FRESH }
  ] as Instance[]
  const { until } = selectCandidates(instances, { ...DEFAULT_SELECTION, slowStartMs: 10_000 }, NOW)
  t.same(
    instances.map(({ ramp }) => ramp),
    [0.05, 0.25, 1, 1]
  )
  t.equal(until, NOW + 500)
  const done = selectCandidates([{ ...FRESH }, { ...FRESH, ...EJECTED }] as Instance[], DEFAULT_SELECTION, NOW)
  t.equal(done.until, NOW + 5)
  t.equal(selectCandidates([{ ...FRESH } as Instance], DEFAULT_SELECTION, NOW).until, Number.POSITIVE_INFINITY)
})
