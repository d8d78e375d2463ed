import t from 'tap'
import type { Exchange } from '../../../../src/proxy/exchange.ts'
import { type Balancer, createBalancer } from '../../../../src/upstream/balancers/balancer.ts'
import type { BalancerConfig, HashKey } from '../../../../src/upstream/balancing-settings.ts'
import type { Instance } from '../../../../src/upstream/instance.ts'
import { seeded } from '../../../support/random.ts'

const exchange = {} as Exchange
const PLAIN = ['round_robin', 'weighted_round_robin', 'least_connections', 'random'] as const
const IP = { type: 'consistent_hash', from: 'ip', name: '' } as const

/** As much of instances as balancers look at. */
function instancesOf(...weights: number[]): Instance[] {
  return weights.map((weight, i) => {
    const url = new URL(`http://10.0.0.${i}:8080`)
    return { id: String(i), url, weight, ramp: 1, share: weight, active: 0 } as Instance
  })
}

function balancerOf(config: BalancerConfig, seed = 1): Balancer {
  return createBalancer(config, seeded(seed))
}

/** How often each was picked, in percent, if requests end before the next one comes. */
function sharesOf(balancer: Balancer, instances: readonly Instance[], picks: number): number[] {
  const counts = new Map(instances.map(instance => [instance, 0]))
  for (let i = 0; i < picks; i++) {
    const picked = balancer.pick(instances, exchange)
    counts.set(picked, (counts.get(picked) as number) + 1)
  }
  return [...counts.values()].map(count => (count / picks) * 100)
}

t.test('HLB-04 HLB-06 HLB-07 HLB-09 H-102 over 500 requests shares are within five points of the weights', async t => {
  for (const weights of [[1, 1], [1, 2, 3], [5, 1, 1], [70, 30], [1, 999], [100], [3, 1, 4, 1, 5, 9, 2, 6]]) {
    const instances = instancesOf(...weights)
    const sum = weights.reduce((total, weight) => total + weight)
    for (const type of ['weighted_round_robin', 'least_connections', 'random'] as const)
      for (const seed of [1, 2, 3]) {
        const shares = sharesOf(balancerOf({ type }, seed), instances, 500)
        for (const [i, weight] of weights.entries())
          t.ok(Math.abs((shares[i] as number) - (weight / sum) * 100) < 5, `${type} ${weights}: ${shares}`)
      }
  }
  const turns = sharesOf(balancerOf({ type: 'round_robin' }), instancesOf(1, 2, 3), 300)
  t.same(turns.map(Math.round), [33, 33, 33], 'plain round robin is the same for all')
})

t.test(
  'HLB-06 H-102 weighted turns are exact and smooth: 1:999 is one in a thousand, 5:1:1 never six in a row',
  async t => {
    const [light, heavy] = instancesOf(1, 999) as [Instance, Instance]
    const balancer = balancerOf({ type: 'weighted_round_robin' })
    const picks = Array.from({ length: 3000 }, () => balancer.pick([light, heavy], exchange))
    t.equal(picks.length, 3000)
    const list = [light, heavy]
    const exact = Array.from({ length: 5000 }, () => balancer.pick(list, exchange))
    t.equal(exact.filter(instance => instance === light).length, 5)

    const three = instancesOf(5, 1, 1)
    const smooth = balancerOf({ type: 'weighted_round_robin' }, 7)
    const turns = Array.from({ length: 70 }, () => smooth.pick(three, exchange).id).join('')
    t.equal(turns.replaceAll(/[^0]/g, '').length, 50)
    t.notMatch(turns, /0{6}/)
    t.notMatch(turns, /(?:^|0)[12]{3}/)
  }
)

t.test('HLB-06 a list that changes at every request starves nobody', async t => {
  const balancer = balancerOf({ type: 'weighted_round_robin' })
  const instances = instancesOf(1, 9)
  const light = Array.from({ length: 1000 }, () => balancer.pick([...instances], exchange)).filter(
    ({ id }) => id === '0'
  )
  t.ok(light.length > 20 && light.length < 120, String(light.length))
})

t.test('HLB-03 whoever has just failed is not picked again while there is another', async t => {
  const from = { client: '192.0.2.1', header: () => undefined, fields: [], isSecure: false } as unknown as Exchange
  for (const config of [...PLAIN.map(type => ({ type })), IP, STICKY]) {
    for (const weights of [[1], [1, 999], [999, 1], [1, 1, 1], [1, 2, 3], Array(40).fill(1), Array(40).fill(2)]) {
      const instances = instancesOf(...weights)
      const balancer = balancerOf(config)
      for (const failed of instances) {
        const others = Array.from({ length: 5 }, () => balancer.pick(instances, from, failed))
        t.equal(others.includes(failed), weights.length === 1, `${config.type} ${weights}`)
        t.ok(others.every(other => instances.includes(other)))
      }
    }
  }
})

t.test(
  'HLB-05 H-102 least connections: whoever has least to do for its weight, in turn if all have as much',
  async t => {
    const [a, b, c] = instancesOf(1, 1, 2) as [Instance, Instance, Instance]
    const list = [a, b, c]
    const balancer = balancerOf({ type: 'least_connections' })
    const pick = (...active: number[]) => {
      for (const [i, instance] of list.entries()) instance.active = active[i] as number
      return balancer.pick(list, exchange).id
    }
    t.equal(pick(3, 1, 4), '1')
    t.equal(pick(2, 2, 3), '2', 'twice the weight')
    t.equal(pick(0, 5, 5), '0')
    const ties = Array.from({ length: 40 }, () => pick(1, 1, 2))
    t.same(
      ['0', '1', '2'].map(id => ties.filter(tie => tie === id).length),
      [10, 10, 20]
    )
  }
)

t.test('HLB-05 least connections of many: the better of two by chance, so the busy ones are spared', async t => {
  const instances = instancesOf(...Array(100).fill(1))
  const balancer = balancerOf({ type: 'least_connections' })
  for (const instance of instances.slice(0, 50)) instance.active = 10
  const shares = sharesOf(balancer, instances, 10_000)
  const busy = shares.slice(0, 50).reduce((sum, share) => sum + share)
  t.ok(busy > 15 && busy < 35, `the busier half gets about a quarter: ${busy}`)
  for (let i = 0; i < 5000; i++) balancer.pick(instances, exchange).active++
  const loads = instances.map(({ active }) => active)
  t.ok(Math.max(...loads) - Math.min(...loads) < 10, 'and the load evens out')
})

t.test('HLB-08 by header, query, cookie, user or address: one key, one instance, on every gateway', async t => {
  const instances = instancesOf(1, 1, 1, 1, 1)
  const fields: Record<string, string> = { 'x-tenant': 'acme', cookie: 'a=1; session=s-17 ; b=2' }
  const from = (over: object) =>
    ({
      client: '192.0.2.1',
      consumer: undefined,
      header: (name: string) => fields[name],
      query: (name: string) => (name === 'tenant' ? 'globex' : undefined),
      ...over
    }) as unknown as Exchange
  const keys: [HashKey['from'], string][] = [
    ['header', 'X-Tenant'],
    ['query', 'tenant'],
    ['cookie', 'session'],
    ['user', ''],
    ['ip', '']
  ]
  for (const [kind, name] of keys) {
    const picks = [1, 2, 3].map(seed => {
      const balancer = balancerOf({ type: 'consistent_hash', from: kind, name }, seed)
      return balancer.pick([...instances].reverse(), from({ consumer: { key: 'user:alice' } })).id
    })
    t.equal(new Set(picks).size, 1, kind)
  }
  const byUser = balancerOf({ type: 'consistent_hash', from: 'user', name: '' })
  const byIp = balancerOf(IP)
  t.equal(byUser.pick(instances, from({})), byIp.pick(instances, from({})), 'nobody in particular is an address')
  const without = balancerOf({ type: 'consistent_hash', from: 'header', name: 'x-none' })
  const turns = new Set(instances.map(() => without.pick(instances, from({}))))
  t.equal(turns.size, 5, 'no key: in turn')
})

t.test('HLB-08 H-102 when an instance goes its keys alone move, at most 1/N; when it is back they return', async t => {
  const keys = Array.from({ length: 20_000 }, (_, i) => ({ client: `10.${i >> 8}.${i & 255}.7` }) as Exchange)
  for (const count of [2, 5, 10, 100]) {
    const instances = instancesOf(...Array(count).fill(1))
    const balancer = balancerOf(IP)
    const before = keys.map(key => balancer.pick(instances, key))
    const gone = instances[Math.floor(count / 2)] as Instance
    const rest = instances.filter(instance => instance !== gone)
    const after = keys.map(key => balancer.pick(rest, key))
    const moved = keys.filter((_, i) => before[i] !== after[i]).length
    t.equal(moved, before.filter(instance => instance === gone).length, 'nobody else’s keys')
    t.ok(moved / keys.length <= (1 / count) * 1.5, `${moved} of ${keys.length} at ${count}`)
    const again = [...instances]
    t.same(
      keys.map(key => balancer.pick(again, key).id),
      before.map(({ id }) => id),
      'as it was'
    )
    const fresh = balancerOf(IP)
    t.same(
      keys.map(key => fresh.pick(rest, key).id),
      after.map(({ id }) => id),
      'whatever came before'
    )
  }
})

t.test('HLB-08 H-102 keys fall to instances by their weights, and move for a weight that changes', async t => {
  const keys = Array.from({ length: 20_000 }, (_, i) => ({ client: `key ${i}` }) as Exchange)
  const instances = instancesOf(1, 2, 1)
  const balancer = balancerOf(IP)
  const shareOf = (list: Instance[], i: number) =>
    keys.filter(key => balancer.pick(list, key) === instances[i]).length / keys.length
  t.ok(Math.abs(shareOf(instances, 1) - 0.5) < 0.03)
  ;(instances[1] as Instance).weight = 6
  t.ok(Math.abs(shareOf([...instances], 1) - 0.75) < 0.03)
})

const STICKY = { type: 'sticky', name: 'gw', maxAge: undefined } as const

t.test('HLB-08 a sticky cookie keeps a client to its instance, and finds another when that is gone', async t => {
  const instances = instancesOf(1, 1, 1)
  const balancer = balancerOf({ ...STICKY, maxAge: 60 })
  const ask = (cookie: string | undefined, list = instances, isSecure = false, after?: Instance) => {
    const request = { header: () => cookie, fields: ['x-request-id', '1'] as string[], isSecure }
    const picked = balancer.pick(list, request as unknown as Exchange, after)
    return { picked, set: request.fields.slice(2) }
  }
  const first = ask(undefined)
  const [field, value = ''] = first.set
  t.equal(field, 'set-cookie')
  t.match(value, /^gw=[\w-]{16}; Path=\/; Max-Age=60; HttpOnly; SameSite=Lax$/)
  t.notMatch(value, /10\.0\.0/, 'which shows no address')
  t.match(ask(undefined, instances, true).set[1], /; Secure$/)

  const cookie = `theme=dark; ${value.split(';')[0]}; gwx=1`
  for (let i = 0; i < 5; i++) t.same(ask(cookie), { picked: first.picked, set: [] })
  const rest = instances.filter(instance => instance !== first.picked)
  const second = ask(cookie, rest)
  t.ok(rest.includes(second.picked))
  t.equal(second.set.length, 2, 'assigned anew')
  t.not(ask(cookie, instances, false, first.picked).picked, first.picked, 'a failed one is not kept to')
  t.equal(ask(cookie, [first.picked]).picked, first.picked)
  t.equal(ask('gw=made-up').set.length, 2)
})

t.test('HLB-08 whoever is tried after a failure is the one that the cookie names, once', async t => {
  const instances = instancesOf(1, 1)
  const balancer = balancerOf(STICKY)
  const request = { header: () => undefined, fields: [] as string[], isSecure: false }
  const failed = balancer.pick(instances, request as unknown as Exchange)
  const [, before] = request.fields
  balancer.pick(instances, request as unknown as Exchange, failed)
  t.equal(request.fields.length, 2)
  t.not(request.fields[1], before)
})
