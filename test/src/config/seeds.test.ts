import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseEnv } from 'node:util'
import t from 'tap'
import { stringify } from 'yaml'
import type { Snapshot } from '../../../src/config/snapshot.ts'
import { checkConfiguration, Gateway, loadConfiguration } from '../../../src/gateway.ts'
import { limitsOf } from '../../../src/limits/settings.ts'
import { Runtime } from '../../../src/runtime/runtime.ts'
import { SEEDS } from '../../support/config.ts'
import { call, captureLog } from '../../support/gateway.ts'

const files = readdirSync(SEEDS).filter(name => /\.(json|yaml|txt)$/.test(name))
const environments = readdirSync(SEEDS).filter(name => name.endsWith('.env'))

async function seed(name: string): Promise<Snapshot> {
  const { snapshot } = await loadConfiguration({ files: [join(SEEDS, name)], env: {}, overrides: [] })
  return snapshot
}

const routesOf = (snapshot: Snapshot) =>
  snapshot.routes.map(({ label, methods, service }) => [
    label,
    methods === undefined ? 'any' : [...methods].join(),
    service
  ])

for (const name of files) {
  t.test(
    `section 21, CFG-08: ${name} passes check as it stands, and is itself when it is shown and read again`,
    async t => {
      const data = ['storage.data_dir', join(t.testdir(), 'data'), 'test'] as const
      const { snapshot } = await checkConfiguration({ files: [join(SEEDS, name)], env: {}, overrides: [data] })
      const exported = join(t.testdir(), 'exported.yaml')
      writeFileSync(exported, stringify(snapshot.document, { aliasDuplicateObjects: false }))
      const { snapshot: again } = await checkConfiguration({ files: [exported], env: {}, overrides: [data] })
      t.equal(again.version, snapshot.version)
      t.same(again.document, snapshot.document)
    }
  )
}

t.test('CFG-06 seed 000: rate limits in JSON, whose services are none', async t => {
  const { rateLimits, services, routes } = await seed('000-rate-limits.json')
  t.equal(services.size + routes.length, 0)
  t.match(rateLimits, {
    global: { requests_per_second: 1000, burst: 2000 },
    services: { 'model-orchestration': { requests_per_second: 200, burst: 400 } },
    endpoints: { 'model-orchestration.execute': { requests_per_second: 50, burst: 100 } },
    user_tiers: {
      free: { requests_per_second: 5, burst: 10, daily_limit: 1000 },
      pro: { requests_per_second: 20, burst: 40, daily_limit: 10000 },
      enterprise: { requests_per_second: 100, burst: 200, daily_limit: null }
    }
  })
})

t.test('C-14 seed 000: a service by its registration', async t => {
  const snapshot = await seed('000-service.json')
  t.same(snapshot.services.get('project-coordinator')?.instances, [
    { id: '0', url: 'http://project-coordinator:8080', weight: 1 }
  ])
  t.same(routesOf(snapshot), [
    ['/api/v1/projects', 'GET,HEAD', 'project-coordinator'],
    ['/api/v1/projects/{project_id}', 'GET,HEAD', 'project-coordinator']
  ])
  for (const { concerns } of snapshot.routes) {
    t.equal(concerns.authentication?.options, 'required')
    t.same(concerns.required_roles?.options, ['user', 'admin'])
  }
})

t.test('C-17 C-18 C-19 seed 001: routes, with services that nobody has defined', async t => {
  const snapshot = await seed('001-routes.yaml')
  t.same(routesOf(snapshot), [
    ['/api/v1/rd/**', 'any', 'rd-service'],
    ['/api/v1/pm/**', 'any', 'pm-service'],
    ['/api/v1/integrations/slack/**', 'any', 'slack-connector']
  ])
  const [rd, pm, slack] = snapshot.routes
  t.match(rd, { timeoutMs: 30_000, retry: { attempts: 3 } })
  t.same((snapshot.document.routes as { circuit_breaker: unknown }[])[0]?.circuit_breaker, {
    failure_threshold: 5,
    recovery_timeout: '60s'
  })
  t.equal(pm?.timeoutMs, 20_000)
  t.match(limitsOf('', pm?.concerns.rate_limit?.options as object), [
    { algorithm: 'token_bucket', limit: 100, windowMs: 60_000, burst: 20 }
  ])
  t.equal(slack?.concerns.authentication?.options, 'required')
  t.same(slack?.concerns.permissions?.options, ['manage:integrations'])
  t.equal(snapshot.services.get('rd-service')?.instances[0]?.url, 'http://rd-service')
  t.match(
    snapshot.warnings.filter(({ key }) => key.endsWith('service')).map(({ message }) => message),
    ['rd-service', 'pm-service', 'slack-connector'].map(name => new RegExp(`"${name}" is not defined`))
  )
})

t.test('C-14 seed 002: a service definition, in either spelling of its words', async t => {
  const [upper, lower] = [await seed('002-service.yaml'), await seed('002-service-lower-case.yaml')]
  t.equal(upper.version, lower.version)
  t.same(upper.services.get('user-service')?.instances, [
    { id: 'user-1', url: 'http://user-service-1:8080', weight: 1 },
    { id: 'user-2', url: 'http://user-service-2:8080', weight: 2 }
  ])
  t.equal(upper.services.get('user-service')?.pool.connectTimeoutMs, 5000)
  t.match(upper.document.services, {
    'user-service': {
      load_balancer_type: 'weighted_round_robin',
      health_check: { type: 'http', path: '/health', interval_seconds: 30 },
      timeouts: { connect: 5, first_byte: 30, write: 5 }
    }
  })
})

t.test('CFG-05 C-05 seed 003: api_gateway_config.yaml', async t => {
  const snapshot = await seed('003-api_gateway_config.yaml')
  t.same(routesOf(snapshot), [
    ['/api/v1/agents', 'GET,HEAD', 'http://agent-service:8001'],
    ['/api/v1/threads', 'POST', 'http://thread-service:8002']
  ])
  t.match(snapshot.rateLimits, {
    default: { requests_per_minute: 60, requests_per_hour: 1000 },
    clients: { enterprise_tier: { requests_per_minute: 200, requests_per_hour: 10000 } }
  })
  t.match(snapshot.document, {
    cache: { strategy: 'default', ttl: 300, max_size: 1000 },
    defaults: { circuit_breaker: { failure_threshold: 5, recovery_timeout: 60, success_threshold: 3 } }
  })
})

t.test('RTE-03 seed 004: a table of arrows', async t => {
  const snapshot = await seed('004-routes.txt')
  t.same(routesOf(snapshot), [
    ['/api/auth/*', 'any', 'auth-service'],
    ['/api/users/*', 'any', 'core-service'],
    ['/api/credits/*', 'any', 'core-service'],
    ['/api/mcp/*', 'any', 'mcp-server'],
    ['/api/ws/*', 'any', 'mcp-server']
  ])
  t.same(
    [...snapshot.services.values()].map(({ instances }) => instances[0]?.url),
    ['http://auth-service:3001', 'http://core-service:3002', 'http://mcp-server:3003']
  )
  t.same(
    snapshot.routes.map(({ websocket }) => websocket),
    [false, false, false, false, true]
  )
  t.ok(snapshot.routes.every(({ pattern, rewrite }) => pattern?.kind === 'prefix' && rewrite === undefined))
})

t.test('C-05 RLM-24 RLM-25 seed 004: the limiter', async t => {
  const { rateLimits } = await seed('004-rate-limits.yaml')
  t.match(rateLimits, {
    roles: { admin: null, manager: 120, user: 60, default: 10 },
    guest: 10,
    windowMs: 60_000,
    algorithm: 'sliding_window',
    prefix: 'rl:',
    standardHeaders: true,
    legacyHeaders: false,
    message: { code: 'RATE_LIMIT_EXCEEDED', message: 'Too many requests, please try again later' }
  })
})

t.test('section 21: all of the seeds’ files and environments together start one gateway', async t => {
  const env = Object.assign({}, ...environments.map(name => parseEnv(readFileSync(join(SEEDS, name), 'utf8'))))
  t.equal(Object.keys(env).length, 29, 'every name of CFG-01 to CFG-04')
  const { log, lines } = captureLog()
  const gateway = await Gateway.start(
    {
      files: files.map(name => join(SEEDS, name)),
      env,
      overrides: [
        ['server.port', 0, 'test'],
        ['server.host', '127.0.0.1', 'test'],
        ['storage.data_dir', join(t.testdir(), 'data'), 'test']
      ]
    },
    { runtime: new Runtime({ log }) }
  )
  t.teardown(() => gateway.close(100))
  t.equal((await call(gateway.port, '/health')).status, 200)
  for (const path of [
    '/api/v1/agents',
    '/api/v1/rd/tasks',
    '/api/v1/projects/7',
    '/api/users/7',
    '/api/v1/integrations/slack/events'
  ])
    t.equal((await call(gateway.port, path)).status, 401, path)
  t.equal((await call(gateway.port, '/api/v1/agents', { method: 'POST' })).status, 405)
  t.equal((await call(gateway.port, '/nowhere')).status, 404)
  t.same(
    lines().filter(({ level }) => Number(level) >= 50),
    []
  )
})
