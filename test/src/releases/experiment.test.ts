import t from 'tap'
import type { Consumer } from '../../../src/identity/consumer.ts'
import { compileAssignment, cookieFor, placeOf } from '../../../src/releases/experiment.ts'
import type { Experiment } from '../../../src/releases/settings.ts'

function experiment(weights: Record<string, number>, more: Partial<Experiment> = {}): Experiment {
  const variants = Object.entries(weights).map(([name, weight]) => ({ name, service: name, weight }))
  return { kind: 'experiment', name: 'page', variants, header: undefined, cookie: true, ...more }
}

const assigning = (of: Experiment, random = () => 0) =>
  compileAssignment(
    of,
    of.variants.map(({ name }) => name),
    random
  )

const from = (key?: string, headers: Record<string, string> = {}) => ({
  consumer: key === undefined ? undefined : ({ key } as Consumer),
  header: (name: string) => headers[name]
})

const USERS = Array.from({ length: 2000 }, (_, i) => `user:${i}`)

t.test('RTE-08 each caller has the same variant every time, and the shares are within five points', async t => {
  for (const [a, b] of [
    [50, 50],
    [90, 10],
    [1, 0]
  ] as const) {
    const assign = assigning(experiment({ a, b }))
    const again = assigning(experiment({ a, b }))
    let ofA = 0
    for (const user of USERS) {
      const { variant, by } = assign(from(user))
      t.equal(by, 'caller')
      if (again(from(user)).variant !== variant) t.fail(`${user} has changed sides`)
      if (variant === 'a') ofA++
    }
    t.ok(Math.abs(ofA / USERS.length - a / (a + b)) < 0.05, `${ofA} of ${USERS.length} for ${a}:${b}`)
  }
})

t.test('RTE-08 other weights move as few callers as they can, another experiment mixes them anew', async t => {
  const before = assigning(experiment({ a: 50, b: 50 }))
  const after = assigning(experiment({ a: 60, b: 40 }))
  const moved = USERS.filter(user => before(from(user)).variant !== after(from(user)).variant)
  t.ok(moved.length < USERS.length * 0.15, `${moved.length} have moved`)
  t.ok(
    moved.every(user => after(from(user)).variant === 'a'),
    'and all of them to the side that grew'
  )
  const other = assigning(experiment({ a: 50, b: 50 }, { name: 'other' }))
  const alike = USERS.filter(user => before(from(user)).variant === other(from(user)).variant).length
  t.ok(Math.abs(alike / USERS.length - 0.5) < 0.05, `${alike} have the same one in both`)
})

t.test('RTE-08 the caller counts before the header field, that before the cookie, and that before chance', async t => {
  const of = experiment({ a: 1, b: 1, off: 0 }, { header: 'X-Device' })
  const assign = assigning(of, () => 0.99)
  const [ofA, ofB] = ['a', 'b'].map(
    variant => USERS.find(user => (placeOf('page', user) < 0.5 ? 'a' : 'b') === variant) as string
  ) as [string, string]
  const cases: [who: ReturnType<typeof from>, variant: string, by: string][] = [
    [from(ofA, { 'x-device': ofB, cookie: 'ab-page=b' }), 'a', 'caller'],
    [from(undefined, { 'x-device': ofB, cookie: 'ab-page=a' }), 'b', 'header'],
    [from(undefined, { 'x-device': '', cookie: 'ab-page=a' }), 'a', 'cookie'],
    [from(undefined, { cookie: 'x=1; ab-page=a; y=2' }), 'a', 'cookie'],
    [from(undefined, { cookie: 'xab-page=a' }), 'b', 'chance'],
    [from(undefined, { cookie: 'ab-page=off' }), 'b', 'chance'],
    [from(undefined, { cookie: 'ab-page=nonsense' }), 'b', 'chance'],
    [from(), 'b', 'chance']
  ]
  for (const [who, variant, by] of cases) t.same(assign(who), { variant, by })
  const without = assigning({ ...of, cookie: false }, () => 0.99)
  t.same(without(from(undefined, { cookie: 'ab-page=a' })), { variant: 'b', by: 'chance' })
})

t.test('RTE-08 the cookie is out of reach for scripts and other sites', async t => {
  const of = experiment({ a: 1 })
  t.equal(cookieFor(of, 'a', false), 'ab-page=a; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax')
  t.match(cookieFor(of, 'a', true), /; Secure$/)
})
