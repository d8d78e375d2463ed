import t from 'tap'
import { shutFrom } from '../../../src/overload/overload.ts'
import { priorityOfCaller } from '../../../src/overload/priority.ts'
import { concurrencyOf, overloadOf } from '../../../src/overload/settings.ts'

t.test('TRC-01 what may be written for a bulkhead', async t => {
  t.equal(concurrencyOf(undefined), undefined)
  t.equal(concurrencyOf(false), undefined)
  t.same(concurrencyOf(5), { limit: 5, min: 1, max: 5, queue: 100, maxWaitMs: 1000 })
  const rest = { min: 10, max: 20, queue: 3, max_wait: 50 }
  t.same(concurrencyOf({ limit: 7, ...rest }), { limit: 7, min: 10, max: 20, queue: 3, maxWaitMs: 50 })
  t.same(concurrencyOf({ limit: 'adaptive', ...rest })?.limit, undefined)
})

t.test('TRC-02 whose priority a caller has', async t => {
  const settings = {
    event_loop_delay: 1000,
    memory: 0.9,
    descriptors: 0.9,
    unready_after: 0,
    roles: { admin: 'critical', user: 'normal' },
    tiers: { free: 'low' },
    clients: { vip: 'high' }
  } as const
  t.equal(overloadOf(false), undefined)
  t.equal(overloadOf({ ...settings, roles: {}, tiers: {}, clients: {} })?.callers, undefined)
  const callers = overloadOf(settings)?.callers
  if (callers === undefined) return t.fail('there are priorities')
  t.equal(callers.best, 0)
  const table: [string, string | undefined, string[], number | undefined][] = [
    ['vip', 'free', ['admin'], 1],
    ['a', 'free', ['admin'], 3],
    ['a', 'gold', ['user', 'admin'], 0],
    ['a', undefined, ['user'], 2],
    ['a', undefined, ['constructor', 'toString'], undefined],
    ['__proto__', undefined, [], undefined]
  ]
  for (const [id, tier, roles, wanted] of table)
    t.equal(priorityOfCaller({ id, tier, roles }, callers), wanted, `${id} ${tier} ${roles}`)
})

t.test('H-127 who is shed when so much is used', async t => {
  const table: [number, number][] = [
    [0, 4],
    [0.89, 4],
    [0.9, 3],
    [0.93, 3],
    [0.94, 2],
    [0.97, 1],
    [1, 1],
    [5, 1]
  ]
  for (const [used, wanted] of table) t.equal(shutFrom(used, 0.9), wanted, `${used}`)
})
