// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these are the placeholders of the configuration.
import { join } from 'node:path'
import t from 'tap'
import { isMapping } from '../../../../src/config/aliases.ts'
import { VARIABLES } from '../../../../src/config/sources/env.ts'
import { load, problemsOf } from '../../../support/config.ts'

/** Each variable, what is set, and where it has to arrive as what (CFG-01 to CFG-04). */
const rows: [name: string, text: string, path: string, value: unknown][] = [
  ['DATABASE_URL', 'postgresql://u:p@db/gateway', 'storage.database_url', 'postgresql://u:p@db/gateway'],
  ['REDIS_URL', 'redis://redis:6379', 'storage.redis_url', 'redis://redis:6379'],
  ['JWT_SECRET_KEY', 'one secret', 'identity.jwt.secret', 'one secret'],
  ['JWT_ALGORITHM', 'HS512', 'identity.jwt.algorithm', 'HS512'],
  ['JWT_ACCESS_TOKEN_EXPIRE_MINUTES', '15', 'identity.jwt.access_minutes', 15],
  ['JWT_REFRESH_TOKEN_EXPIRE_DAYS', '7', 'identity.jwt.refresh_days', 7],
  ['SALLYPORT_ADMIN_PASSWORD', 'a long password', 'identity.admin_password', 'a long password'],
  ['SERVICE_DISCOVERY_URL', 'http://discovery:8080', 'service_discovery_url', 'http://discovery:8080'],
  ['LOG_LEVEL', 'INFO', 'logging.level', 'info'],
  [
    'CORS_ORIGINS',
    'https://a.example, https://b.example',
    'defaults.cors.origins',
    ['https://a.example', 'https://b.example']
  ],
  ['REDIS_HOST', 'redis', 'storage.redis_url', 'redis://redis:6379'],
  ['JWT_SECRET', 'another secret', 'identity.jwt.secret', 'another secret'],
  ['TRACE_REQUESTS', 'true', 'logging.trace_requests', true],
  ['GATEWAY_NAME', 'api-gateway', 'gateway.name', 'api-gateway'],
  ['WORKERS', '1', 'server.workers', 1],
  ['GATEWAY_REGION', 'eu-1', 'gateway.region', 'eu-1'],
  ['GATEWAY_VERSION', '1.0.0', 'gateway.version', '1.0.0'],
  ['ENVIRONMENT', 'staging', 'gateway.environment', 'staging'],
  ['DEFAULT_HEALTH_CHECK_INTERVAL', '30', 'defaults.health_check_interval', 30],
  ['DEFAULT_TIMEOUT', '30.0', 'defaults.timeout', 30],
  ['DEFAULT_LOAD_BALANCER', 'ROUND_ROBIN', 'defaults.load_balancer_type', 'round_robin'],
  ['SERVICE_CONFIG_URL', 'http://config/services', 'service_config_url', 'http://config/services'],
  ['CONSUL_URL', 'http://consul:8500', 'consul_url', 'http://consul:8500'],
  ['API_GATEWAY_RATE_LIMIT_PER_MINUTE', '60', 'rate_limits.default.requests_per_minute', 60],
  ['API_GATEWAY_RATE_LIMIT_PER_HOUR', '1000', 'rate_limits.default.requests_per_hour', 1000],
  ['API_GATEWAY_BURST_SIZE', '10', 'rate_limits.default.burst_size', 10],
  ['API_GATEWAY_CACHE_TTL', '300', 'cache.ttl', 300],
  ['API_GATEWAY_CACHE_MAX_SIZE', '1000', 'cache.max_size', 1000],
  ['API_GATEWAY_CB_FAILURE_THRESHOLD', '5', 'defaults.circuit_breaker.failure_threshold', 5],
  ['API_GATEWAY_CB_RECOVERY_TIMEOUT', '60', 'defaults.circuit_breaker.recovery_timeout', 60],
  ['API_GATEWAY_CB_SUCCESS_THRESHOLD', '3', 'defaults.circuit_breaker.success_threshold', 3],
  ['API_GATEWAY_ENABLED', 'false', 'enabled', false],
  ['PORT', '9000', 'server.port', 9000],
  ['HOST', '127.0.0.1', 'server.host', '127.0.0.1'],
  ['DATA_DIR', '/tmp/x', 'storage.data_dir', '/tmp/x']
]

const at = (document: unknown, path: string): unknown =>
  path.split('.').reduce((value, key) => (isMapping(value) ? value[key] : undefined), document)

t.test('CFG-01 CFG-02 CFG-03 CFG-04 C-24 each variable arrives where it belongs', async t => {
  t.same(rows.map(([name]) => name).sort(), VARIABLES.map(([name]) => name).sort())
  for (const [name, text, path, value] of rows) {
    const { snapshot } = await load(t, {}, { env: { [name]: text } })
    t.same(at(snapshot.document, path), value, name)
  }
  t.equal((await load(t, {})).snapshot.server.port, 8080)
})

t.test(
  'CFG-01 CFG-02 CFG-03 CFG-04 C-02 all variables together: JWT_SECRET_KEY and REDIS_URL win over their like',
  async t => {
    const env = Object.fromEntries(rows.map(([name, text]) => [name, text]))
    for (const order of [env, Object.fromEntries(Object.entries(env).reverse())]) {
      const { snapshot } = await load(t, {}, { env: order })
      for (const [name, , path, value] of rows)
        if (name !== 'JWT_SECRET' && name !== 'REDIS_HOST') t.same(at(snapshot.document, path), value, name)
      t.same(
        snapshot.warnings.filter(({ message }) => !message.includes('no effect')),
        []
      )
    }
    const { JWT_SECRET_KEY: _, REDIS_URL: __, ...rest } = env
    const { snapshot } = await load(t, {}, { env: rest })
    t.equal(snapshot.identity.jwt.secret, 'another secret')
    t.equal(snapshot.storage.redis_url, 'redis://redis:6379')
  }
)

t.test('CFG-02 words for true and false, levels in any case, a host with a port', async t => {
  const { snapshot } = await load(
    t,
    {},
    { env: { TRACE_REQUESTS: 'Off', LOG_LEVEL: 'WARNING', REDIS_HOST: 'redis:7000', CORS_ORIGINS: '' } }
  )
  t.equal(snapshot.logging.trace_requests, false)
  t.equal(snapshot.logging.level, 'warn')
  t.equal(snapshot.storage.redis_url, 'redis://redis:7000')
  t.equal(snapshot.defaults.cors, undefined, 'an empty variable is not set')
})

t.test('CFG-04 API_GATEWAY_ENABLED=false leaves a plain proxy', async t => {
  const config = {
    'gateway.yaml':
      'services: { s: { url: "http://s" } }\nroutes: [{ path: /x, service: s, rate_limit: { requests_per_minute: 1 }, permissions: [a] }]'
  }
  const { snapshot } = await load(t, config, { env: { API_GATEWAY_ENABLED: 'false' } })
  t.same(Object.keys(snapshot.routes[0]?.concerns ?? {}), ['permissions'])
  t.ok(snapshot.routes[0]?.off.includes('rate_limit'))
  t.same(Object.keys((await load(t, config)).snapshot.routes[0]?.concerns ?? {}), ['permissions', 'rate_limit'])
})

t.test('CFG-08 what is wrong in a variable is said of the variable', async t => {
  const [problem, ...others] = await problemsOf(t, {}, { env: { PORT: 'eighty' } })
  t.same(others, [])
  t.match(problem, { file: '$PORT', key: 'server.port', message: '"eighty" should be a whole number' })
})

t.test('CFG-02 CFG-03 a .env file is read; the environment wins over it', async t => {
  const folder = t.testdir({
    '.env': '# comment\nGATEWAY_NAME="from the file"\nexport PORT=9001\nLOG_LEVEL=debug\nSERVICE=http://one\n',
    'gateway.yaml': 'gateway: { name: from the yaml }\nservices: { s: { url: "${SERVICE}" } }\n'
  })
  const sources = { files: [join(folder, 'gateway.yaml')], envFile: join(folder, '.env') }
  const { snapshot, seen } = await load(t, {}, { ...sources, env: { LOG_LEVEL: 'warn' } })
  t.equal(snapshot.gateway.name, 'from the file')
  t.equal(snapshot.server.port, 9001)
  t.equal(snapshot.logging.level, 'warn')
  t.equal(snapshot.services.get('s')?.instances[0]?.url, 'http://one')
  t.ok(seen.has(join(folder, '.env')))
})

t.test('CFG-02 CFG-08 what is wrong in a .env file has a line; a name that nobody reads is asked about', async t => {
  const folder = t.testdir({
    '.env': 'LOG_LEVEL=info\nPORT=x\n',
    '.typo': 'JWT_SECRETS=x\n\nLOG_LEVL=debug\nREDIS_PORT=6379\n'
  })
  t.match(await problemsOf(t, {}, { envFile: join(folder, '.env') }), [
    { file: '.env', line: 2, column: 1, key: 'server.port' }
  ])
  const { snapshot } = await load(
    t,
    {},
    { envFile: join(folder, '.typo'), env: { API_GATEWAY_RATE_LIMT_PER_HOUR: '1' } }
  )
  t.match(
    snapshot.warnings.map(({ line, key, message }) => [line, key, message]),
    [
      [undefined, 'API_GATEWAY_RATE_LIMT_PER_HOUR', /did you mean "API_GATEWAY_RATE_LIMIT_PER_HOUR"\?/],
      [1, 'JWT_SECRETS', /did you mean "JWT_SECRET"\?/],
      [3, 'LOG_LEVL', /did you mean "LOG_LEVEL"\?/]
    ]
  )
})
