import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseDictionary, parseItem } from 'structured-headers'
import t, { type Test } from 'tap'
import { FakeClock } from '../support/clock.ts'
import { ROOT, SEEDS } from '../support/config.ts'
import { type Answer, type GatewayOptions, startGateway, type TestGateway } from '../support/gateway.ts'
import { many, tally } from '../support/many.ts'
import { token } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'

const MINUTE = 60_000

/** A gateway whose time stands still, before one service with a route for everything; and its clock. */
async function startLimited(
  t: Test,
  document: { rate_limits?: object; route?: object; server?: object; routes?: object[] },
  options: GatewayOptions = {}
): Promise<TestGateway & { clock: FakeClock; upstream: Awaited<ReturnType<typeof startUpstream>> }> {
  const upstream = await startUpstream(t)
  const clock = new FakeClock()
  const { route, routes, ...settings } = document
  const gateway = await startGateway(
    t,
    {
      services: { s: { url: upstream.url } },
      routes: routes ?? [{ path: '/api/**', service: 's', authentication: 'optional', ...route }],
      ...settings
    },
    { clock, ...options }
  )
  return { ...gateway, clock, upstream }
}

/** How many of `count` requests pass. */
async function passing({ port }: TestGateway, count: number, bearer?: string, path = '/api/x'): Promise<number> {
  const counts = tally(await many(port, count, path, { token: bearer }))
  if ((counts[200] ?? 0) + (counts[429] ?? 0) !== count) throw new Error(`answers were ${JSON.stringify(counts)}`)
  return counts[200] ?? 0
}

/** Fields that speak of limits, but for the warning of one that is near. */
const bare = ({ headers }: Answer) =>
  Object.keys(headers).filter(name => /ratelimit-(?!warning)|retry-after/.test(name))

t.test('RLM-22 RLM-27 RLM-19 the limits of seed 004, from examples/roles.yaml as it stands', async t => {
  const upstream = await startUpstream(t)
  const clock = new FakeClock()
  const example = readFileSync(join(ROOT, 'examples', 'roles.yaml'), 'utf8')
  const gateway = await startGateway(t, example.replace(/^server:.*$/m, ''), {
    clock,
    env: { ORDERS_URL: upstream.url }
  })
  const as = (role: string) => token({ sub: `the ${role}`, roles: [role] })
  for (const [role, limit] of [
    ['guest', 10],
    ['user', 60],
    ['manager', 120],
    ['auditor', 10]
  ] as const) {
    t.equal(await passing(gateway, limit + 5, as(role)), limit, role)
    const refused = await gateway.call('/api/x', { token: as(role) })
    t.match(refused.headers, { 'ratelimit-limit': String(limit), 'ratelimit-remaining': '0', 'retry-after': '60' })
  }
  t.equal(await passing(gateway, 15), 10, 'without credentials')
  const admin = await many(gateway.port, 150, '/api/x', { token: as('admin') })
  t.same(tally(admin), { 200: 150 })
  t.same(admin.flatMap(bare), [], 'and are told nothing')

  clock.advance(MINUTE - 1)
  t.equal(await passing(gateway, 1, as('user')), 0)
  clock.advance(1)
  t.equal(await passing(gateway, 61, as('user')), 60, 'a minute later all is as at the beginning')
})

t.test('C-08 RLM-10 RLM-24 H-87 the fields of an answer are structured fields, and true', async t => {
  const gateway = await startLimited(t, { rate_limits: { roles: { user: 3 } } })
  const bearer = token({ roles: ['user'] })
  const seen: object[] = []
  for (const wait of [0, 15_000, 15_000, 10_000]) {
    gateway.clock.advance(wait)
    const { headers, status } = await gateway.call('/api/x', { token: bearer })
    const number = (name: string) => parseItem(headers[name] as string)[0]
    seen.push([status, number('ratelimit-limit'), number('ratelimit-remaining'), number('ratelimit-reset')])
    const [[policy, parameters]] = [parseItem(headers['ratelimit-policy'] as string)]
    t.equal(policy, 3)
    t.same([...parameters], [['w', 60]])
    t.notOk('x-ratelimit-limit' in headers)
  }
  t.same(seen, [
    [200, 3, 2, 60],
    [200, 3, 1, 60],
    [200, 3, 0, 60],
    [429, 3, 0, 50]
  ])
  const refused = await gateway.call('/api/x', { token: bearer })
  t.equal(refused.headers['retry-after'], '20', 'when the first of them is a minute old')
  t.equal(refused.headers['cache-control'], 'no-store')
  t.match(refused.json, {
    error: { code: 'rate_limit_exceeded', status: 429, details: /3 requests per minute.* 20 s/ }
  })
})

for (const [style, names] of [
  ['legacy', ['x-ratelimit-limit', 'x-ratelimit-remaining', 'x-ratelimit-reset']],
  ['none', []],
  [
    'both',
    [
      'ratelimit-limit',
      'ratelimit-policy',
      'ratelimit-remaining',
      'ratelimit-reset',
      'x-ratelimit-limit',
      'x-ratelimit-remaining',
      'x-ratelimit-reset'
    ]
  ]
] as const) {
  t.test(`C-08 headers: ${style}`, async t => {
    const upstream = await startUpstream(t, (_request, response) =>
      response.writeHead(200, { 'x-ratelimit-limit': '999', 'ratelimit-remaining': '999', 'x-kept': '1' }).end()
    )
    const routes = [{ path: '/api/**', service: 'o', authentication: 'none' }]
    const gateway = await startGateway(t, {
      services: { o: { url: upstream.url } },
      routes,
      rate_limits: { guest: 1, headers: style }
    })
    const passed = await gateway.call('/api/x')
    t.equal(passed.headers['x-kept'], '1')
    const said = style === 'none' ? ['ratelimit-remaining', 'x-ratelimit-limit'] : names
    t.same(bare(passed).sort(), said, 'and where the gateway speaks of limits, a service does not')
    const refused = await gateway.call('/api/x')
    t.equal(refused.status, 429)
    t.same(bare(refused).sort(), [...names, 'retry-after'].sort(), 'Retry-After is in every 429')
  })
}

t.test('H-87 every figure is a whole number, none negative, whatever the limit is', async t => {
  const gateway = await startLimited(t, {
    routes: [
      { path: '/slow', rate_limit: { requests_per_second: 0.3 } },
      { path: '/bucket', rate_limit: { requests_per_second: 0.25, burst: 2 } },
      { path: '/day', rate_limit: { daily_limit: 2 } },
      { path: '/two', rate_limit: { requests_per_minute: 100, requests_per_hour: 2, burst_size: 10 } }
    ].map(route => ({ ...route, service: 's', authentication: 'none' }))
  })
  for (const path of ['/slow', '/bucket', '/day', '/two']) {
    const statuses = new Set<number>()
    for (let i = 0; i < 4; i++) {
      const { headers, status } = await gateway.call(path)
      statuses.add(status)
      for (const name of bare({ headers } as Answer)) {
        const [value] = [...parseDictionary(`v=${headers[name]}`).values()].flat() as [number]
        t.ok(Number.isInteger(value) && value >= 0, `${path} ${name}: ${headers[name]}`)
      }
      if (status === 429) t.ok(Number(headers['retry-after']) >= 1)
      gateway.clock.advance(1.7)
    }
    t.same([...statuses], [200, 429], path)
  }
})

t.test(
  'C-06 RLM-04 RLM-07 burst is the size of a bucket; of counters by the minute and hour it is only told',
  async t => {
    const gateway = await startLimited(t, {
      routes: [
        { path: '/api/bucket', rate_limit: { requests_per_minute: 100, burst: 20 } },
        { path: '/api/counter', rate_limit: { requests_per_minute: 30, requests_per_hour: 45, burst_size: 10 } }
      ].map(route => ({ ...route, service: 's' }))
    })
    const [alice, bob] = [token({ sub: 'alice' }), token({ sub: 'bob' })]
    t.equal(await passing(gateway, 30, alice, '/api/bucket'), 20)
    t.equal(await passing(gateway, 30, bob, '/api/bucket'), 20, 'each caller has a bucket of his own')
    gateway.clock.advance(6000)
    t.equal(await passing(gateway, 30, alice, '/api/bucket'), 10, 'refilled at 100 a minute')
    t.match((await gateway.call('/api/bucket', { token: alice })).headers, { 'ratelimit-policy': '100;w=60;burst=20' })

    t.equal(await passing(gateway, 40, alice, '/api/counter'), 30, 'more than the burst size at once')
    gateway.clock.advance(MINUTE)
    t.equal(await passing(gateway, 40, alice, '/api/counter'), 15, 'then the hour is used up')
    t.match((await gateway.call('/api/counter', { token: alice })).headers, { 'ratelimit-limit': '45' })
  }
)

t.test(
  'RLM-01 RLM-02 RLM-03 the limits of seed 000, from its own file, by tier, service, endpoint and all',
  async t => {
    const upstream = await startUpstream(t)
    const clock = new FakeClock()
    const limits = JSON.parse(readFileSync(join(SEEDS, '000-rate-limits.json'), 'utf8'))
    const services = Object.fromEntries(
      ['model-orchestration', 'other'].map(name => [
        name,
        { url: upstream.url, endpoints: [{ name: 'execute', path: `/${name}/execute`, method: 'GET' }] }
      ])
    )
    const gateway = await startGateway(t, { rate_limits: limits, services }, { clock })
    const of = (tier: string, sub = `the ${tier}`) => token({ sub, tier })
    for (const [tier, burst] of [
      ['free', 10],
      ['pro', 40]
    ] as const)
      t.equal(await passing(gateway, burst + 5, of(tier), '/api/v1/other/execute'), burst, tier)
    t.equal(
      await passing(gateway, 160, of('enterprise'), '/api/v1/model-orchestration/execute'),
      100,
      'the endpoint is tightest'
    )
    clock.advance(1000)
    t.equal(
      await passing(gateway, 60, of('enterprise'), '/api/v1/model-orchestration/execute'),
      50,
      'and is refilled at 50 a second'
    )
    clock.advance(10_000)
    t.equal(await passing(gateway, 5, of('pro', 'the free'), '/api/v1/other/execute'), 5)
    const { headers } = await gateway.call('/api/v1/other/execute', { token: of('pro', 'the free') })
    t.equal(headers['ratelimit-limit'], '40', 'a caller whose tier changes has the new limit from then on')
  }
)

t.test('RLM-01 the daily limit of a tier ends with the UTC day', async t => {
  const gateway = await startLimited(t, { rate_limits: { user_tiers: { free: { daily_limit: 3 } } } })
  const bearer = token({ tier: 'free' })
  gateway.clock.advance(86_400_000 - 5000)
  t.equal(await passing(gateway, 5, bearer), 3)
  t.equal((await gateway.call('/api/x', { token: bearer })).headers['retry-after'], '5')
  gateway.clock.advance(5000)
  t.equal(await passing(gateway, 5, bearer), 3)
})

t.test('RLM-02 what one limit refuses, no other counts; the tightest is told', async t => {
  const gateway = await startLimited(t, {
    rate_limits: { global: { requests_per_hour: 8 }, services: { s: { requests_per_hour: 100 } }, roles: { user: 5 } }
  })
  const of = (sub: string) => token({ sub, roles: ['user'] })
  const first = await gateway.call('/api/x', { token: of('alice') })
  t.match(first.headers, { 'ratelimit-limit': '5', 'ratelimit-remaining': '4' })
  t.equal(await passing(gateway, 20, of('alice')), 4)
  const bob = await gateway.call('/api/x', { token: of('bob') })
  t.match(bob.headers, { 'ratelimit-limit': '8', 'ratelimit-remaining': '2' }, 'alice’s refusals are not in it')
  t.equal(await passing(gateway, 20, of('bob')), 2)
  await gateway.line({ status_code: 429, reason: 'rate limit user 5/minute' })
  await gateway.line({ status_code: 429, reason: 'rate limit global 8/hour' })
})

t.test('RLM-16 RLM-31 RLM-12 seed 003: a default from the environment, and tiers from the file', async t => {
  const env = {
    API_GATEWAY_RATE_LIMIT_PER_MINUTE: '6',
    API_GATEWAY_RATE_LIMIT_PER_HOUR: '9',
    API_GATEWAY_BURST_SIZE: '2'
  }
  const upstream = await startUpstream(t)
  const clock = new FakeClock()
  const gateway = await startGateway(
    t,
    {
      rate_limiter: {
        default: { requests_per_minute: 60, requests_per_hour: 1000 },
        clients: {
          enterprise_tier: { requests_per_minute: 20, requests_per_hour: 10000 },
          bob: { requests_per_minute: 2 }
        }
      },
      services: { s: { url: upstream.url } },
      routes: [{ path: '/api/**', service: 's', authentication: 'optional' }]
    },
    { clock, env }
  )
  t.equal(await passing(gateway, 30, token()), 6, 'more at once than the burst size')
  clock.advance(MINUTE)
  t.equal(await passing(gateway, 30, token()), 3, 'until the hour is used up')
  t.equal(await passing(gateway, 30), 6, 'the same for an address without credentials')
  t.equal(await passing(gateway, 30, token({ sub: 'carol', tier: 'enterprise_tier' })), 20)
  t.equal(
    await passing(gateway, 30, token({ sub: 'bob', tier: 'enterprise_tier' })),
    2,
    'a client’s own limit comes first'
  )
})

t.test('RLM-19 RLM-09 H-83 addresses are counted where trusted proxies say so, IPv6 by /64', async t => {
  const gateway = await startLimited(t, {
    server: { trusted_proxies: ['loopback'] },
    rate_limits: { guest: 3 }
  })
  const from = async (address: string) =>
    (await gateway.call('/api/x', { headers: { 'x-forwarded-for': address } })).status
  const statuses = async (addresses: string[]) => {
    const result: number[] = []
    for (const address of addresses) result.push(await from(address))
    return result
  }
  t.same(await statuses(['192.0.2.1', '192.0.2.1', '198.51.100.9, 192.0.2.1', '192.0.2.1']), [200, 200, 200, 429])
  t.same(await statuses(['192.0.2.2']), [200], 'another address')
  t.same(
    await statuses(['2001:db8::1', '2001:db8::2', '2001:DB8:0:0:ffff::3', '2001:db8:0:0:1:2:3:4', '2001:db8:0:1::1']),
    [200, 200, 200, 429, 200]
  )
})

t.test('RLM-02 who shows no credentials has `guest`, or is in the role of that name, or has `default`', async t => {
  const passed = async (rate_limits: object) => passing(await startLimited(t, { rate_limits }), 9)
  t.equal(await passed({ guest: 3, roles: { guest: 2, user: 5 }, default: 4 }), 3)
  t.equal(await passed({ roles: { guest: 2, user: 5 }, default: 4 }), 2)
  t.equal(await passed({ roles: { user: 5 }, default: 4 }), 4)
  t.equal(await passed({ guest: null, roles: { guest: 2 } }), 9)
})

t.test('H-83 RLM-09 `by`: each address, or all callers together', async t => {
  const gateway = await startLimited(t, {
    routes: [
      { path: '/ip', rate_limit: { requests_per_minute: 3, by: 'ip' } },
      { path: '/all', rate_limit: { requests_per_minute: 4, by: 'route' } }
    ].map(route => ({ ...route, service: 's', authentication: 'optional' })),
    server: { trusted_proxies: ['loopback'] }
  })
  const ask = async (path: string, sub: string, address: string) =>
    (await gateway.call(path, { token: token({ sub }), headers: { 'x-forwarded-for': address } })).status
  for (const sub of ['alice', 'bob', 'carol']) t.equal(await ask('/ip', sub, '192.0.2.1'), 200)
  t.equal(await ask('/ip', 'dave', '192.0.2.1'), 429, 'who asks makes no difference')
  t.equal(await ask('/ip', 'alice', '192.0.2.2'), 200)
  for (let i = 0; i < 4; i++) t.equal(await ask('/all', `user${i}`, `192.0.2.${i}`), 200)
  t.equal(await ask('/all', 'another', '192.0.2.77'), 429)
})

t.test('C-37 a name from X-Client-ID counts only when a trusted proxy says it', async t => {
  for (const [trusted_proxies, expected] of [
    [['loopback'], 2],
    [[], 1]
  ] as const) {
    const gateway = await startLimited(t, { server: { trusted_proxies }, rate_limits: { guest: 1 } })
    let passed = 0
    for (const name of ['a', 'b', 'b', 'a'])
      if ((await gateway.call('/api/x', { headers: { 'x-client-id': name } })).status === 200) passed++
    t.equal(passed, expected)
  }
})

t.test('RLM-09 rate_limits.ip refuses an address before its credentials are looked at', async t => {
  const gateway = await startLimited(t, {
    rate_limits: { ip: { requests_per_minute: 3 } },
    route: { authentication: 'required' }
  })
  const statuses: number[] = []
  for (let i = 0; i < 5; i++) statuses.push((await gateway.call('/api/x', { token: 'nonsense' })).status)
  t.same(statuses, [401, 401, 401, 429, 429])
  t.equal((await gateway.call('/nowhere')).status, 429, 'looking for what is there counts as well')
})

t.test(
  'RLM-07 RLM-09 a limit written under a service counts all its routes as one, but for those with their own',
  async t => {
    const upstream = await startUpstream(t)
    const gateway = await startGateway(
      t,
      {
        services: { s: { url: upstream.url, rate_limit: { requests_per_minute: 4 } }, other: { url: upstream.url } },
        routes: [
          { path: '/a', service: 's' },
          { path: '/b', service: 's' },
          { path: '/own', service: 's', rate_limit: { requests_per_minute: 2 } },
          { path: '/other', service: 'other' }
        ]
      },
      { clock: new FakeClock() }
    )
    t.equal(await passing(gateway, 3, token(), '/a'), 3)
    t.equal(await passing(gateway, 3, token(), '/b'), 1)
    t.equal(await passing(gateway, 3, token({ sub: 'bob' }), '/b'), 3, 'each caller for himself')
    t.equal(await passing(gateway, 3, token(), '/own'), 2)
    t.equal(await passing(gateway, 9, token(), '/other'), 9)
  }
)

t.test('rate_limit: false exempts a route from every limit', async t => {
  const gateway = await startLimited(t, {
    rate_limits: { global: { requests_per_minute: 1 }, guest: 1 },
    routes: [
      { path: '/free', service: 's', authentication: 'none', rate_limit: false },
      { path: '/api/x', service: 's', authentication: 'none' }
    ]
  })
  t.equal(await passing(gateway, 5, undefined, '/free'), 5)
  t.equal(await passing(gateway, 5), 1)
})

t.test('of several roles the most generous counts', async t => {
  const gateway = await startLimited(t, { rate_limits: { roles: { user: 2, manager: 5, admin: null, default: 1 } } })
  t.equal(await passing(gateway, 10, token({ sub: 'a', roles: ['user', 'manager', 'unheard-of'] })), 5)
  t.equal(await passing(gateway, 10, token({ sub: 'b', roles: ['user', 'admin'] })), 10)
  t.equal(await passing(gateway, 10, token({ sub: 'c', roles: [] })), 1)
})

t.test('RLM-25 the words of seed 004, in its own format', async t => {
  const gateway = await startLimited(t, {
    rate_limits: {
      guest: 1,
      message: { code: 'RATE_LIMIT_EXCEEDED', message: 'Too many requests, please try again later' }
    },
    route: { errors: { format: 'code_message' } }
  })
  await gateway.call('/api/x')
  t.same((await gateway.call('/api/x')).json, {
    code: 'RATE_LIMIT_EXCEEDED',
    message: 'Too many requests, please try again later'
  })
})

t.test('RLM-18 who comes near a limit is warned, then has to wait, and nobody else does', async t => {
  const gateway = await startLimited(t, { rate_limits: { roles: { user: 10 }, slow_down: '60s' } })
  const bearer = token({ roles: ['user'] })
  const warnings: unknown[] = []
  for (let i = 0; i < 9; i++)
    warnings.push((await gateway.call('/api/x', { token: bearer })).headers['x-ratelimit-warning'])
  t.same(warnings, [...new Array(7).fill(undefined), '80% used', '90% used'])
  const leaving = new AbortController()
  const last = fetch(`http://127.0.0.1:${gateway.port}/api/x`, {
    headers: { authorization: `Bearer ${bearer}` },
    signal: leaving.signal
  })
  while (gateway.gateway.server.inFlight === 0) await new Promise(resolve => setImmediate(resolve))
  t.equal((await gateway.call('/api/x', { token: bearer })).status, 429, 'it has been counted')
  t.equal((await gateway.call('/api/x', { token: token({ sub: 'bob', roles: ['user'] }) })).status, 200)
  t.equal(gateway.upstream.seen.length, 10, 'and still waits')
  leaving.abort()
  await t.rejects(last)
  await gateway.line({ aborted: true })
  t.equal(gateway.gateway.server.inFlight, 0, 'nobody waits for a client that has gone')
  t.equal(gateway.upstream.seen.length, 10)
})

t.test('RLM-18 the wait ends', async t => {
  const gateway = await startLimited(t, { rate_limits: { guest: 2, slow_down: '1ms' } })
  t.same(tally(await many(gateway.port, 3, '/api/x')), { 200: 2, 429: 1 })
})

t.test('RLM-21 every refusal is in the metrics and the log, with who and why', async t => {
  const gateway = await startLimited(t, { rate_limits: { roles: { user: 1 } } })
  const bearer = token({ roles: ['user'] })
  for (let i = 0; i < 4; i++) await gateway.call('/api/x', { token: bearer })
  const { text } = await gateway.call('/metrics')
  for (const name of ['rate_limit_hits', 'gateway_rate_limit_violations_total'])
    t.match(text, `\n${name}{limit="user",endpoint="/api/**"} 3\n`)
  t.match(await gateway.line({ status_code: 429 }), {
    consumer: 'user:alice',
    error: 'rate_limit_exceeded',
    reason: 'rate limit user 1/minute',
    route: '/api/**'
  })
})
