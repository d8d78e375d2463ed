import t, { type Test } from 'tap'
import { startGateway } from '../support/gateway.ts'
import { startUpstream, type Upstream } from '../support/upstream.ts'

/** Three services' instances by name, and how they stand in a configuration. */
async function instancesOf(t: Test, weights: Record<string, number>) {
  const upstreams: Record<string, Upstream> = {}
  for (const name of Object.keys(weights)) upstreams[name] = await startUpstream(t, undefined, name)
  const instances = Object.entries(weights).map(([id, weight]) => ({ id, url: upstreams[id]?.url as string, weight }))
  const seen = () => Object.fromEntries(Object.entries(upstreams).map(([id, { seen }]) => [id, seen.length]))
  return { instances, seen, upstreams }
}

const OPEN = { authentication: 'none' }

t.test('HLB-06 REG-12 C-14 seed 002’s words and weights: twice the weight, twice the requests', async t => {
  const { instances, seen } = await instancesOf(t, { a: 1, b: 2, c: 0 })
  const { call } = await startGateway(t, {
    defaults: OPEN,
    services: { s: { instances, load_balancer_type: 'WEIGHTED_ROUND_ROBIN' } },
    routes: [{ path: '/**', service: 's' }]
  })
  for (let i = 0; i < 30; i++) await call('/')
  t.same(seen(), { a: 10, b: 20, c: 0 })
})

t.test('HLB-10 a route has a balancer of its own; the others share the service’s', async t => {
  const { instances, seen } = await instancesOf(t, { a: 1, b: 2 })
  const { call } = await startGateway(t, {
    defaults: { ...OPEN, load_balancer_type: 'ROUND_ROBIN' },
    services: { s: { instances } },
    routes: [
      { path: '/weighted', service: 's', load_balancer: 'weighted_round_robin' },
      { path: '/sticky', service: 's', load_balancer: { type: 'STICKY', cookie: 'gw' } },
      { path: '/**', service: 's' }
    ]
  })
  for (let i = 0; i < 10; i++) {
    await call('/one')
    await call('/two')
  }
  t.same(seen(), { a: 10, b: 10 })
  for (let i = 0; i < 12; i++) await call('/weighted')
  t.same(seen(), { a: 14, b: 18 })
  const { headers, json } = await call('/sticky')
  const [cookie = ''] = headers['set-cookie'] ?? []
  t.match(cookie, /^gw=[\w-]+; Path=\/; HttpOnly; SameSite=Lax$/)
  for (let i = 0; i < 3; i++) {
    const again = await call('/sticky', { headers: { cookie: cookie.split(';')[0] as string } })
    t.equal(again.json.from, json.from)
    t.equal(again.headers['set-cookie'], undefined)
  }
})

t.test('HLB-08 a hash of a header field; those without one take turns', async t => {
  const { instances } = await instancesOf(t, { a: 1, b: 1, c: 1 })
  const { call } = await startGateway(t, {
    defaults: OPEN,
    services: { s: { instances, load_balancer: { type: 'consistent_hash', hash_on: 'header:X-Tenant' } } },
    routes: [{ path: '/**', service: 's' }]
  })
  const ask = async (tenant: string) =>
    (await call('/', tenant === '' ? {} : { headers: { 'x-tenant': tenant } })).json.from
  // Ports are other ones at each run: of so many one is at each instance, whatever the ports are.
  const tenants = Array.from({ length: 90 }, (_, i) => `tenant ${i}`)
  const first = await Promise.all(tenants.map(ask))
  t.same(await Promise.all(tenants.map(ask)), first)
  t.equal(new Set(first).size, 3)
  t.equal(new Set(await Promise.all(Array.from({ length: 9 }, () => ask('')))).size, 3)
})

t.test('HLB-08 the cookie’s instance crashes: another one answers, and has the client from then on', async t => {
  const { instances, upstreams } = await instancesOf(t, { a: 1, b: 1 })
  const { call } = await startGateway(t, {
    defaults: OPEN,
    services: { s: { instances, load_balancer: { type: 'sticky' } } },
    routes: [{ path: '/**', service: 's' }]
  })
  const first = await call('/')
  const [[cookie = ''] = []] = [first.headers['set-cookie']?.[0]?.split(';')]
  await upstreams[first.json.from]?.crash()
  const second = await call('/', { headers: { cookie } })
  t.equal(second.status, 200)
  t.not(second.json.from, first.json.from)
  const [moved = ''] = second.headers['set-cookie'] ?? []
  t.equal(second.headers['set-cookie']?.length, 1)
  await upstreams[first.json.from]?.revive()
  const third = await call('/', { headers: { cookie: moved.split(';')[0] as string } })
  t.equal(third.json.from, second.json.from)
})
