// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these are the placeholders of the configuration.
import { generateKeyPairSync } from 'node:crypto'
import t from 'tap'
import { stringify } from 'yaml'
import { load, problemsOf } from '../../support/config.ts'

const SERVICE = 'services: { s: { url: "http://s" } }\n'
const routes = (...lines: string[]): string => `${SERVICE}routes:\n${lines.map(line => `  - { ${line} }`).join('\n')}\n`

t.test('CFG-07 REG-16 the command line goes over the environment, over the file, over the default', async t => {
  const files = { 'gateway.yaml': 'server: { port: 1000, host: file }\nlogging: { level: debug }\n' }
  const env = { PORT: '2000', HOST: 'environment' }
  const { snapshot } = await load(t, files, { env, overrides: [['server.port', 3000, '--port']] })
  t.match(snapshot, {
    server: { port: 3000, host: 'environment', http2: true },
    logging: { level: 'debug', format: 'auto' }
  })
})

t.test('CFG-07 a later file goes over an earlier one: settings one by one, routes behind the others', async t => {
  const { snapshot } = await load(t, {
    'gateway.yaml': `include: base.yaml\nserver: { limits: { headers: 50 } }\nservices: { s: { url: "http://new" } }\nroutes: [{ path: /b, service: s }]\n`,
    'base.yaml': `server: { port: 1000, limits: { headers: 10, header_bytes: 8kb } }\nservices: { s: { url: "http://old", timeout: 5s }, t: { url: "http://t" } }\nroutes: [{ path: /a, service: s }]\n`
  })
  t.match(snapshot.server, { port: 1000, limits: { headers: 50, header_bytes: 8192 } })
  t.equal(snapshot.services.get('s')?.instances[0]?.url, 'http://new')
  t.ok(snapshot.services.has('t'))
  t.same(
    snapshot.routes.map(({ label, timeoutMs }) => [label, timeoutMs]),
    [
      ['/a', 30_000],
      ['/b', 30_000]
    ],
    'a service is replaced as a whole'
  )
})

t.test('C-05 C-17 C-18 C-19 every spelling of the seeds is one in the end', async t => {
  const spellings = [
    'retry_config: { max_retries: 2, on: [connect] }, breaker: { threshold: 5, timeout: 60 }, timeout_config: { connect: 5.0, read: 30.0, write: 5.0 }',
    'retry: { retries: 2, retry_on: [connect] }, circuit_breaker: { failure_threshold: 5, recovery_timeout: 60s }, timeouts: { connect: 5s, first_byte: 30000ms, write: "5 s" }',
    'retry: { attempts: 2, retry_on: [connect] }, circuit_breaker: { failure_threshold: 5, recovery_timeout: 1m }, timeouts: { connect: 5, first_byte: 0.5m, write: 5 }'
  ]
  const versions = await Promise.all(
    spellings.map(async settings => {
      const { snapshot } = await load(t, {
        'gateway.yaml': `services: { s: { url: "http://s", ${settings} } }\nroutes: [{ path: /x, service: s }]`
      })
      t.match(snapshot.routes[0], { retry: { attempts: 2 }, firstByteMs: 30_000, writeMs: 5000 }, settings)
      return snapshot.version
    })
  )
  t.equal(new Set(versions).size, 1)
})

t.test('C-14 an address alone is one instance; both, or none, is a problem', async t => {
  const { snapshot } = await load(t, { 'gateway.yaml': 'services: { a: { base_url: "http://a:80/base" } }\n' })
  t.same(snapshot.services.get('a')?.instances, [{ id: '0', url: 'http://a:80/base', weight: 1 }])
  t.match(
    await problemsOf(t, {
      'gateway.yaml': `services:
  a: { url: "http://a", instances: [{ url: "http://b" }] }
  b: {}
  c: { instances: [{ id: x, url: "http://b" }, { id: x, url: "http://c" }] }
  d: { url: "http://user:secret@d" }
  e: { url: "http://e?x=1" }
`
    }),
    [
      { line: 2, key: 'services.a.url', message: /beside "instances"/ },
      { line: 3, key: 'services.b', message: /needs "url", "instances" or "discovery"/ },
      { line: 4, key: 'services.c.instances[1]', message: /"x" is taken already/ },
      { line: 5, key: 'services.d.url', message: /credentials/ },
      { line: 6, key: 'services.e.url', message: /query/ }
    ]
  )
})

t.test('C-11 C-15 what the gateway keeps for itself cannot be taken; it can be moved, or switched off', async t => {
  const taken = ['/health', '/health/x/**', '/metrics', '/api/v1/metrics/json', '/gateway/**', '/admin/{x}']
  for (const path of taken) {
    const [problem] = await problemsOf(t, { 'gateway.yaml': routes(`path: "${path}", service: s`) })
    t.match(
      problem,
      { line: 3, key: 'routes[0].path', message: /is the gateway's own; move that with paths\.\w+, or this/ },
      path
    )
  }
  for (const path of ['/metrics/other', '/**', '/healthy', '/api/v1/metricsx'])
    t.same(await problemsOf(t, { 'gateway.yaml': routes(`path: "${path}", service: s`) }), [], path)
  const moved =
    'paths: { health: /-/health, metrics: false, api_metrics: false, gateway: /-/gateway, admin: /-/admin }\n'
  for (const path of taken)
    t.same(await problemsOf(t, { 'gateway.yaml': moved + routes(`path: "${path}", service: s`) }), [], path)
  t.match(await problemsOf(t, { 'gateway.yaml': 'catch_all: true\nservices: { health: { url: "http://h" } }\n' }), [
    { line: 2, key: 'services.health', message: /\/health\/\*\* is the gateway's own/ }
  ])
})

t.test('CFG-08 0 is refused where it would let nothing through, and is never made of what is more', async t => {
  const server = (options: string): string => `server: { ${options} }\n`
  const pool = (options: string): string => `services: { s: { url: "http://s", pool: { ${options} } } }\n`
  const slips: [string, string, string][] = [
    [server('limits: { header_bytes: 0 }'), 'server.limits.header_bytes', '0 must be more than 0'],
    [server('limits: { url_bytes: 0kb }'), 'server.limits.url_bytes', '"0kb" must be more than 0'],
    [server('limits: { headers: 0 }'), 'server.limits.headers', '0 must be at least 1'],
    ['storage: { redis_timeout: 0.0s }\n', 'storage.redis_timeout', '"0.0s" must be more than 0'],
    [pool('keep_alive: 0'), 'services.s.pool.keep_alive', '0 must be more than 0'],
    [pool('header_bytes: 0'), 'services.s.pool.header_bytes', '0 must be more than 0'],
    [
      pool('keep_alive: soon'),
      'services.s.pool.keep_alive',
      '"soon" is no duration: write 30s, 500ms, 2m or a number of seconds'
    ]
  ]
  for (const [text, key, message] of slips)
    t.match(await problemsOf(t, { 'gateway.yaml': text }), [{ key, message }], text)
  const { snapshot } = await load(t, {
    'gateway.yaml': `${pool('keep_alive: 0.1ms')}routes: [{ path: /x, service: s, timeout: 0.0001 }]\n`
  })
  t.match(snapshot.services.get('s')?.pool, { keepAliveMs: 1 })
  t.match(snapshot.routes[0], { timeoutMs: 1 })
})

t.test('C-11 paths of the gateway’s own are plain, and no two are one', async t => {
  const wrong: [string, RegExp][] = [
    ['{ health: / }', /plain path/],
    ['{ health: /health/** }', /plain path/],
    ['{ health: "/{x}" }', /plain path/],
    ['{ gateway: /admin }', /paths\.admin/],
    ['{ metrics: /health/x }', /paths\.health/],
    ['{ admin: /a//b }', /empty segment/]
  ]
  for (const [paths, message] of wrong)
    t.match(
      await problemsOf(t, { 'gateway.yaml': `paths: ${paths}\n` }),
      [{ line: 1, key: /^paths\./, message }],
      paths
    )
})

t.test('C-16 H-120 routes that are in each other’s way name both places', async t => {
  t.match(
    await problemsOf(t, {
      'gateway.yaml': routes(
        'path: "/a/{x}", service: s',
        'path: "/a/:y", service: s',
        'path: /b/**, service: s, priority: 5',
        'path: /b/c, service: s, methods: [GET]',
        'regex: "^/d", service: s, hosts: [h]',
        'regex: "^/d", service: s, hosts: [g, h]',
        'path: /e, service: s, enabled: false',
        'path: /e, service: s'
      )
    }),
    [
      {
        line: 4,
        column: 13,
        key: 'routes[1].path',
        message: /matches the same requests as the route at .*gateway\.yaml:3/
      },
      {
        line: 6,
        column: 13,
        key: 'routes[3].path',
        message: /never reached: the route \/b\/\*\* at .*gateway\.yaml:5 goes first/
      },
      { line: 8, column: 14, key: 'routes[5].regex', message: /for the host h: the route \^\/d at .*gateway\.yaml:7/ },
      { line: 10, column: 5, key: 'routes[7]', message: /told from the route at .*gateway\.yaml:9 by nothing/ }
    ]
  )
})

t.test('CFG-08 services that nobody has defined are hosts, unless they look like a slip', async t => {
  const text = (name: string): string =>
    `services: { user-service: { url: "http://u" }, orders-v1: { url: "http://o" }, chat: { url: "http://c" } }\nroutes: [{ path: /x, service: ${name} }]\n`
  for (const name of [
    'core-service',
    'rd-service',
    'orders-v2',
    'cart',
    'c',
    'users',
    'service',
    'order_service',
    '10.0.0.1'
  ]) {
    const { snapshot } = await load(t, { 'gateway.yaml': text(name) })
    t.equal(snapshot.services.get(name)?.instances[0]?.url, `http://${name}`)
    t.match(
      snapshot.warnings.find(({ key }) => key.startsWith('routes')),
      { line: 2, column: 31, key: 'routes[0].service', message: /taken for the host/ },
      name
    )
  }
  const slips: [string, string][] = [
    ['usr-service', 'user-service'],
    ['user-servce', 'user-service'],
    ['order-v1', 'orders-v1'],
    ['chatt', 'chat'],
    ['User-Service', 'user-service']
  ]
  for (const [slip, meant] of slips)
    t.match(
      await problemsOf(t, { 'gateway.yaml': text(slip) }),
      [
        {
          line: 2,
          column: 31,
          key: 'routes[0].service',
          message: new RegExp(`did you mean "${meant}"\\? There are: user-service, orders-v1, chat`)
        }
      ],
      slip
    )
  t.match(await problemsOf(t, { 'gateway.yaml': text('"no host"') }), [
    { message: /"no host" is not a service; there are: / }
  ])
})

t.test(
  'CFG-08 all that is wrong is said at once, in the order of the file, and nothing that only follows from it',
  async t => {
    const problems = await problemsOf(
      t,
      {
        'gateway.yaml': `server: { prot: 1 }
identity: { jwt: { secret: "\${NOBODY}" } }
services:
  a: { url: nowhere }
  b: { url: "http://b", retry: { attempts: -1 } }
routes:
  - { path: no-slash, service: a }
  - { path: /x, service: c, rewrite: "/{y}" }
  - { service: b }
plugins: [{ use: ./nobody.ts }]
`
      },
      {}
    )
    t.same(
      problems.map(({ line, key }) => `${line} ${key}`),
      [
        '1 server.prot',
        '2 identity.jwt.secret',
        '4 services.a.url',
        '5 services.b.retry.attempts',
        '7 routes[0].path',
        '8 routes[1].rewrite',
        '9 routes[2]',
        '10 plugins[0].use'
      ]
    )
  }
)

t.test('CFG-08 equal configurations have equal versions, however they are written', async t => {
  const version = async (text: string) => (await load(t, { 'gateway.yaml': text })).snapshot.version
  const first = await version('server: { port: 80 }\nservices: { s: { url: "http://s", timeout: 1m } }\n')
  t.equal(
    await version('# other\nservices:\n  s:\n    timeout: 60\n    base_url: http://s\nserver:\n  port: 80\n'),
    first
  )
  t.not(await version('server: { port: 81 }\nservices: { s: { url: "http://s", timeout: 1m } }\n'), first)
})

t.test('OBS-33 OBS-22 what would be let go of too soon is refused, with what is the least', async t => {
  const said = async (keep: string): Promise<string[]> => {
    const problems = await problemsOf(t, { 'gateway.yaml': `${SERVICE}recording: { keep: { ${keep} } }\n` })
    return problems.map(({ key, message }) => `${key} ${message}`)
  }
  t.same(await said('hours: 0'), ['recording.keep.hours 0 must be more than 0'])
  t.same(await said('audit: 29d, minutes: 5h'), [
    'recording.keep.audit must be at least 30d',
    'recording.keep.minutes must be at least 6h'
  ])
})

t.test(
  'C-01 IDN-01 accounts are there unless they cannot be; to ask for them where they cannot is an error',
  async t => {
    const pem = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ type: 'spki', format: 'pem' })
    const without: [document: object, needs: RegExp][] = [
      [{ storage: { database: false } }, /needs "storage.database"/],
      [{ identity: { jwt: { algorithm: 'RS256', public_key: pem } } }, /needs a private key as "identity.jwt.secret"/],
      [
        {
          gateway: { environment: 'production' },
          identity: { issuers: [{ issuer: 'a', secret: 'x'.repeat(40) }] }
        },
        /needs "identity.jwt.secret" in production/
      ]
    ]
    t.equal((await load(t, { 'gateway.yaml': '{}' })).snapshot.identity.local, true)
    for (const [document, needs] of without) {
      t.equal((await load(t, { 'gateway.yaml': stringify(document) })).snapshot.identity.local, false)
      const { identity = {} } = document as { identity?: object }
      const asked = stringify({ ...document, identity: { ...identity, local: true } })
      t.match(await problemsOf(t, { 'gateway.yaml': asked }), [{ key: 'identity.local', message: needs }])
    }
  }
)

t.test(
  'C-01 C-11 a route in the way of the accounts is an error that says what to do; without them it is none',
  async t => {
    const routes = [
      { path: '/auth/**', target: 'http://auth' },
      { path: '/token', target: 'http://auth' }
    ]
    t.match(await problemsOf(t, { 'gateway.yaml': stringify({ routes }) }), [
      { key: 'routes[0].path', message: /move that with paths.auth, or this/ },
      { key: 'routes[1].path', message: /move that with paths.token, or this/ }
    ])
    for (const more of [{ identity: { local: false } }, { paths: { auth: '/login', token: false } }])
      t.same(await problemsOf(t, { 'gateway.yaml': stringify({ routes, ...more }) }), [])
  }
)
