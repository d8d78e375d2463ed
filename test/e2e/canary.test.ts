import t, { type Test } from 'tap'
import { explainRequest } from '../../src/commands/explain.ts'
import { MemoryStore } from '../../src/store/memory.ts'
import type { Store } from '../../src/store/store.ts'
import { FakeClock } from '../support/clock.ts'
import { load, problemsOf } from '../support/config.ts'
import { noPostgres, ownStorage } from '../support/database.ts'
import { temporaryFolder } from '../support/folder.ts'
import { type GatewayOptions, startGateway } from '../support/gateway.ts'
import { seeded } from '../support/random.ts'
import { connectStore, noRedisServer, ownRedis, ownTerms } from '../support/redis-store.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { startUpstream, type Upstream } from '../support/upstream.ts'

const MINUTE = 60_000
const root = token({ sub: 'root', roles: ['admin'], exp: 4e9 })
const STEPS = [
  { weight: 20, for: '10m' },
  { weight: 50, for: '10m' }
]

interface Services {
  readonly now: Upstream
  readonly next: Upstream
}

/** Services of which `next` does as it is told. */
async function startServices(t: Test, answer: { status: number } = { status: 200 }): Promise<Services> {
  const now = await startUpstream(t, undefined, 'now')
  const next = await startUpstream(t, (_request, response) =>
    response.writeHead(answer.status, { 'x-from': 'next' }).end()
  )
  return { now, next }
}

async function start(
  t: Test,
  { now, next }: Services,
  options: GatewayOptions,
  more: object = {},
  canary: object = {}
) {
  const gateway = await startGateway(
    t,
    {
      services: { now: { url: now.url }, next: { url: next.url } },
      routes: [
        {
          id: 'x',
          path: '/x',
          service: 'now',
          canary: { service: 'next', steps: STEPS, ...canary },
          authentication: 'none'
        }
      ],
      ...more
    },
    { random: seeded(5), ...options }
  )
  /** Of a hundred answers, those of the new one. */
  const share = async () => {
    let count = 0
    for (let answers = 0; answers < 100; ) {
      const { status, headers } = await gateway.call('/x')
      // A clock that leaps looks like a gateway that was not to be had for as long.
      if (status === 503 && headers['x-from'] === undefined) continue
      answers++
      if (headers['x-from'] === 'next') count++
    }
    return count
  }
  const shown = async () =>
    (await gateway.call('/gateway/canaries', { token: root })).json.canaries.find(
      ({ route }: { route: string }) => route === 'x'
    )
  /** What is read from the database, or said by others, is there sooner or later. */
  const settled = () => until(() => gateway.gateway.runtime.canaries.all()[0]?.record !== undefined)
  const act = (action: string, reason = '') =>
    gateway.call('/gateway/canaries', {
      method: 'PATCH',
      token: root,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ route: 'x', action, reason })
    })
  return { ...gateway, share, shown, settled, act }
}

t.test('RTE-09 a canary gets more and more of the requests, across a reload', async t => {
  const clock = new FakeClock()
  const services = await startServices(t)
  const { share, shown, call, configure, gateway, line } = await start(t, services, { clock })
  t.match(await shown(), { status: 'running', weight: 20, step: 1, steps: 2, until: '2026-01-01T00:10:00.000Z' })
  t.ok(Math.abs((await share()) - 20) <= 12)
  clock.advance(10 * MINUTE)
  t.ok(Math.abs((await share()) - 50) <= 15)
  const { headers } = await call('/x')
  t.match(await line({ request_id: headers['x-request-id'] as string }), {
    service: headers['x-from'],
    variant: headers['x-from'] === 'next' ? 'canary' : 'control'
  })
  t.match((await call('/metrics')).text, 'gateway_canary_weight{route="x"} 50')
  const { now, next } = services
  configure({
    services: { now: { url: now.url }, next: { url: next.url } },
    routes: [
      {
        id: 'x',
        path: '/x',
        service: 'now',
        canary: {
          service: 'next',
          steps: [
            { weight: 1, for: '10m' },
            { weight: 99, for: '1h' }
          ]
        },
        authentication: 'none'
      }
    ]
  })
  await gateway.reload()
  t.match(await shown(), { weight: 99, step: 2 }, 'other steps go on where the old ones were')
  clock.advance(60 * MINUTE)
  t.match(await shown(), { status: 'complete', weight: 100, step: null })
  t.equal(await share(), 100)
})

t.test('RTE-09 a canary that fails more than its control is aborted, with the reason', async t => {
  const clock = new FakeClock()
  const answer = { status: 200 }
  const { share, shown, call, lines, act } = await start(
    t,
    await startServices(t, answer),
    { clock },
    {},
    {
      steps: [{ weight: 50, for: '1h' }],
      abort: { minimum: 20 }
    }
  )
  await share()
  clock.advance(2000)
  t.match(await shown(), { status: 'running' })
  answer.status = 503
  await share()
  clock.advance(2000)
  await share()
  t.match(await shown(), { status: 'aborted', weight: 0, by: 'gateway', reason: /^errors: [\d.]+ % beside 0 %$/ })
  t.equal(await share(), 0)
  t.match((await call('/metrics')).text, 'gateway_canary_aborts_total{route="x",reason="errors"} 1')
  t.match(
    lines().find(({ msg }) => msg === 'canary aborted'),
    { route: 'x', canary: 'next', reason: /errors/, level: 50 }
  )
  answer.status = 200
  t.equal((await act('restart')).status, 200)
  t.match(await shown(), { status: 'running', weight: 50, by: 'user:root' })
  t.ok((await share()) > 30)
})

t.test('RTE-09 administrators pause, promote and abort, and nobody else does', async t => {
  const clock = new FakeClock()
  const storage = await ownStorage(t, 'sqlite')
  const { act, shown, call } = await start(t, await startServices(t), { clock }, { storage })
  const body = JSON.stringify({ route: 'x', action: 'promote' })
  const asked = { method: 'PATCH', body, headers: { 'content-type': 'application/json' } }
  t.equal((await call('/gateway/canaries', asked)).status, 401)
  t.equal((await call('/gateway/canaries', { ...asked, token: token({ exp: 4e9 }) })).status, 403)
  t.equal((await act('resume')).status, 409)
  t.equal((await act('explode')).status, 422)
  t.match((await act('pause', 'lunch')).json, { status: 'paused', reason: 'lunch' })
  clock.advance(60 * MINUTE)
  t.match(await shown(), { status: 'paused', weight: 20, until: null })
  t.match((await act('resume')).json, { status: 'running', weight: 20 })
  t.match((await act('promote')).json, { status: 'promoted', weight: 100 })
  t.match((await act('abort')).json, { status: 'aborted', weight: 0 })
  const missing = await call('/gateway/canaries', { ...asked, body: '{"route":"y","action":"abort"}', token: root })
  t.equal(missing.status, 404)
  const { json } = await call('/admin/audit?target=route:x', { token: root })
  t.same(
    json.data.map(({ action, actor }: Record<string, string>) => `${actor} ${action}`),
    ['abort', 'promote', 'resume', 'pause'].map(action => `user:root canary.${action}`)
  )
})

t.test('RTE-09 a canary goes on after a restart, aborted ones do not', async t => {
  const clock = new FakeClock()
  const services = await startServices(t)
  const storage = await ownStorage(t, 'sqlite', temporaryFolder(t))
  const first = await start(t, services, { clock, dataDir: storage.data_dir }, { storage })
  await first.settled()
  await first.gateway.close(0)
  clock.advance(10 * MINUTE)
  const second = await start(t, services, { clock, dataDir: storage.data_dir }, { storage })
  await second.settled()
  t.match(await second.shown(), { status: 'running', weight: 50, step: 2 })
  await second.act('abort', 'no good')
  await second.gateway.close(0)
  const third = await start(t, services, { clock, dataDir: storage.data_dir }, { storage })
  await third.settled()
  t.match(await third.shown(), { status: 'aborted', weight: 0, reason: 'no good' })
})

t.test('RTE-09 gateways on one database agree on a canary', { skip: noPostgres }, async t => {
  const clock = new FakeClock()
  const services = await startServices(t)
  const storage = await ownStorage(t, 'postgres')
  const one = await start(t, services, { clock }, { storage })
  await one.settled()
  t.match(await one.shown(), { weight: 20 })
  clock.advance(10 * MINUTE)
  const two = await start(t, services, { clock, folder: t.testdir({}) }, { storage })
  await two.settled()
  t.match(await two.shown(), { weight: 50 })
  t.equal((await two.shown()).started_at, (await one.shown()).started_at)
  await two.act('abort', 'seen at two')
  await until(() => one.gateway.runtime.canaries.all()[0]?.record?.outcome === 'aborted')
  t.match(await one.shown(), { reason: 'seen at two', weight: 0 })
})

t.test(
  'RTE-09 C-29 without a database they agree by Redis, and without that each goes on as it was',
  { skip: noRedisServer },
  async t => {
    const clock = new FakeClock()
    const services = await startServices(t)
    const redis = await ownRedis(t)
    const connect = () => connectStore(t, { url: redis.url, terms: ownTerms({ prefix: 'canaries:' }), timeoutMs: 250 })
    const one = await start(t, services, { clock, store: await connect() })
    await one.settled()
    clock.advance(10 * MINUTE)
    const two = await start(t, services, { clock, store: await connect(), folder: temporaryFolder(t) })
    await two.settled()
    t.match(await two.shown(), { weight: 50, started_at: (await one.shown()).started_at })
    t.equal((await two.act('pause', 'wait')).status, 200)
    await one.gateway.runtime.canaries.look()
    t.match(await one.shown(), { status: 'paused', reason: 'wait' })
    await redis.kill()
    t.equal((await one.act('abort')).status, 503, 'what cannot be kept is not done')
    await one.gateway.runtime.canaries.look()
    clock.advance(60 * MINUTE)
    t.match(await one.shown(), { status: 'paused', weight: 50 })
    await redis.start()
  }
)

t.test('RTE-09 H-82 what cannot be read in Redis promotes nobody, and each goes on as it was', async t => {
  const clock = new FakeClock()
  const services = await startServices(t)
  let poison = ''
  const store = Object.assign(new MemoryStore(clock), { kind: 'redis', get: async () => poison || undefined })
  const one = await start(t, services, { clock, store: store as unknown as Store })
  await one.settled()
  const { weight } = await one.shown()
  for (poison of ['null', '{', '[]', '{}', '{"outcome":"running"}', '{"outcome":"promoted"}', '{"startedAt":1}']) {
    await one.gateway.runtime.canaries.look()
    t.match(await one.shown(), { status: 'running', weight }, poison)
  }
  t.equal((await one.act('pause')).status, 200)
})

t.test('RTE-09 check and explain know canaries', async t => {
  const yaml = (route: string) => ({
    'gateway.yaml': `storage: { database: false }\nservices: { a: { url: http://a }, b: { url: http://b } }\nroutes: [{ path: /x, authentication: none, ${route} }]\n`
  })
  const steps = 'steps: [{ weight: 5, for: 10m }, { weight: 50, for: 90m }]'
  const cases: [route: string, key: string, message: RegExp][] = [
    [`canary: { service: b, ${steps} }`, 'routes[0]', /needs "service"/],
    [`split: [{ service: a }], canary: { service: b, ${steps} }`, 'routes[0].canary', /beside it: its control/],
    [`service: a, canary: { service: a, ${steps} }`, 'routes[0].canary', /its own control/],
    [`service: a, canary: { ${steps} }`, 'routes[0].canary', /needs "service" or "target"/],
    ['service: a, canary: { service: b, steps: [] }', 'routes[0].canary.steps', /./],
    [
      'service: a, canary: { service: b, steps: [{ weight: 0, for: 1m }] }',
      'routes[0].canary.steps',
      /no weight above 0/
    ],
    ['service: a, canary: { service: b, steps: [{ weight: 101, for: 1m }] }', 'routes[0].canary.steps[0].weight', /./],
    ['service: a, canary: { service: b, steps: [{ weight: 1, for: 0 }] }', 'routes[0].canary.steps[0].for', /./]
  ]
  for (const [route, key, message] of cases)
    t.match(
      (await problemsOf(t, yaml(route))).filter(({ severity }) => severity === 'error'),
      [{ key, message, line: 3 }],
      route
    )
  const loaded = await load(t, yaml(`service: a, canary: { service: b, ${steps} }`))
  t.match(
    loaded.snapshot.warnings.map(({ message }) => message),
    ['begins anew at each start, since there is neither "storage.database" nor "storage.redis_url"']
  )
  const { verdict } = await explainRequest(loaded, { method: 'GET', target: '/x', headers: [], from: '127.0.0.1' })
  t.equal(verdict, 'forwarded to a, of which b gets 5 % for 10m, 50 % for 90m, then all')
})
