import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { parse } from 'yaml'
import { explainRequest } from '../../src/commands/explain.ts'
import { loadConfiguration } from '../../src/gateway.ts'
import type { Done } from '../support/command-runner.ts'
import { runCommand } from '../support/commands.ts'
import { load, ROOT } from '../support/config.ts'
import { temporaryFolder } from '../support/folder.ts'
import { startGateway } from '../support/gateway.ts'
import { raw } from '../support/raw.ts'
import { token } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'

const SECRET = 'a secret of the tests, which nobody may ever see printed'

const CONFIG = `identity:
  jwt: { secret: "\${COMMANDS_SECRET}" }
  api_keys: [{ id: ci, hash: "${'0'.repeat(64)}" }]
defaults: { timeout: 7s, cors: { origins: ["https://app.example.com"] } }
services:
  orders: { base_url: "http://me.example.com:8080" }
routes:
  - { path: /api/v1/orders/**, service: orders, method: GET, strip_prefix: /api/v1, retry_config: { retries: 2 } }
  - { path: /api/v1/orders/**, service: orders, methods: POST, permissions: [orders.write] }
  - { path: /public/**, service: orders, authentication: none, ip_filter: { deny: [192.0.2.7] }, cors: false }
rate_limits: { user_tiers: { free: { requests_per_minute: 5 } } }
`

interface Ran extends Done {
  // biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came.
  readonly json: any
}

/** Runs a command line on {@link CONFIG}, in a folder of its own. */
async function sallyport(t: Test, args: readonly string[], { config = CONFIG, env = {} } = {}): Promise<Ran> {
  const cwd = t.testdir({})
  writeFileSync(join(cwd, 'gateway.yaml'), config)
  const done = await runCommand(t, { args, cwd, env: { PATH: process.env.PATH, COMMANDS_SECRET: SECRET, ...env } })
  t.notOk((done.stdout + done.stderr).includes(SECRET), 'no secret')
  return {
    ...done,
    get json() {
      return JSON.parse(done.stdout)
    }
  }
}

const FILE = ['-c', 'gateway.yaml']
const WRONG = CONFIG.replace('service: orders, methods', 'servce: orders, methods').replace('7s', '7 sec')

const STAMP = `import { definePolicy, Type } from 'sallyport'
export default definePolicy({ name: 'stamp', schema: Type.Object({}), compile: () => undefined })
`

t.test('CFG-08 check: good is a line and 0; wrong is all problems with their places, and 1', async t => {
  const good = await sallyport(t, ['check', ...FILE])
  t.equal(good.status, 0)
  t.match(good.stdout, /^configuration [0-9a-f]{4} is good: 3 routes, 1 service\n$/)
  const wrong = await sallyport(t, ['check', ...FILE], { config: WRONG })
  t.equal(wrong.status, 1)
  t.match(wrong.stderr, /^gateway\.yaml:4:22 {2}defaults\.timeout {2}"7 sec" is no duration: .*\n/)
  t.match(wrong.stderr, /^gateway\.yaml:9:32 {2}routes\[1\]\.servce {2}unknown key, did you mean "service"\?$/m)
  t.match(wrong.stderr, /^2 problems$/m)
  t.equal(wrong.stdout, '')
})

t.test('CFG-08 check --json and --annotations, for programs', async t => {
  t.same((await sallyport(t, ['check', ...FILE, '--json'])).json, { ok: true, problems: [] })
  const wrong = await sallyport(t, ['check', ...FILE, '--json'], { config: WRONG })
  t.equal(wrong.status, 1)
  t.match(wrong.json, {
    ok: false,
    problems: [{ file: 'gateway.yaml', line: 4, column: 22, key: 'defaults.timeout' }, {}]
  })
  const annotated = await sallyport(t, ['check', ...FILE, '--annotations', '--set', 'server.prt=1'], { config: WRONG })
  t.equal(annotated.status, 1)
  t.match(annotated.stdout, /^::error file=gateway\.yaml,line=4,col=22::defaults\.timeout "7 sec"/m)
  t.match(annotated.stdout, /^::error::--set server\.prt server\.prt unknown key, did you mean "port"\?$/m)
})

t.test('C-02 check --prod asks for what production asks for', async t => {
  const config = 'services: {}\n'
  t.equal((await sallyport(t, ['check', ...FILE], { config })).status, 0)
  const { status, stderr } = await sallyport(t, ['check', ...FILE, '--prod'], { config })
  t.equal(status, 1)
  t.match(stderr, /production needs a "secret"/)
  t.equal((await sallyport(t, ['check', ...FILE], { config, env: { ENVIRONMENT: 'production' } })).status, 1)
  const weak = `identity: { jwt: { secret: ${'0123456789abcdef'.repeat(2)} }, api_keys: [{ id: x, key: abc }] }\n`
  t.equal((await sallyport(t, ['check', ...FILE], { config: weak })).status, 0)
  const refused = await sallyport(t, ['check', ...FILE, '--prod'], { config: weak })
  t.equal(refused.status, 1)
  t.match(refused.stderr, /identity\.api_keys\[0\]\.key {2}is too short or too well known for production/)
})

t.test('routes: every concern of a route is named, plugins too', async t => {
  const file = join(temporaryFolder(t), 'stamp.ts')
  writeFileSync(file, STAMP)
  const config = `services: { s: { url: "http://s" } }
routes: [{ path: /x, service: s, security_headers: {}, body_limit: 1kb, plugins: { stamp: {} } }]
plugins: [{ use: ${JSON.stringify(file)} }]
`
  const { stdout, stderr } = await sallyport(t, ['routes', ...FILE], { config })
  t.match(stdout, /JWT or key · (?=.*security headers)(?=.*body limit)(?=.*stamp)/, stderr)
})

t.test('routes: in the order in which they are asked, with file and line', async t => {
  const { status, stdout } = await sallyport(t, ['routes', ...FILE])
  t.equal(status, 0)
  const rows = stdout.trimEnd().split('\n')
  t.match(rows[0], /any +\/health\/\*\* +\(gateway\) +always first/)
  t.match(
    rows.slice(-3).map(row => row.trim().split(/ {2,}/)),
    [
      [
        'GET|HEAD',
        '/api/v1/orders/**',
        'orders',
        'JWT or key · limits by role or tier · retry · cors',
        'gateway.yaml:8'
      ],
      [
        'POST',
        '/api/v1/orders/**',
        'orders',
        'JWT or key · permissions · limits by role or tier · cors',
        'gateway.yaml:9'
      ],
      ['any', '/public/**', 'orders', 'open · limits by role or tier · ip filter', 'gateway.yaml:10']
    ]
  )
  const { routes, reserved } = (await sallyport(t, ['routes', ...FILE, '--json'])).json
  t.ok(reserved.includes('/metrics'))
  t.match(routes[2], { path: '/public/**', methods: null, service: 'orders', enabled: true, at: { line: 10 } })
})

t.test('CFG-07 CFG-10 config: one canonical spelling that loads again, secrets masked', async t => {
  const { stdout } = await sallyport(t, ['config', ...FILE])
  const shown = parse(stdout)
  t.match(shown, {
    identity: { jwt: { secret: '••••••' } },
    services: { orders: { url: 'http://me.example.com:8080' } },
    routes: [{ methods: 'GET', retry: { attempts: 2 } }, {}, {}]
  })
  t.same((await sallyport(t, ['config', 'show', ...FILE, '--json'])).json, shown)
  const again = stdout.replace('••••••', `"\${COMMANDS_SECRET}"`)
  t.same(parse((await sallyport(t, ['config', ...FILE], { config: again })).stdout), shown)
})

t.test('CFG-07 CFG-10 config --origin: command line over environment over file over default', async t => {
  const args = ['config', 'show', '--origin', ...FILE, '--set', 'server.http2=false', '--json']
  const env = { PORT: '9000', LOG_LEVEL: 'DEBUG' }
  const { json } = await sallyport(t, args, { env })
  const origins = new Map(json.map(({ key, value, origin }: Record<string, string>) => [key, [value, origin]]))
  t.same(origins.get('server.http2'), [false, '--set server.http2'])
  t.same(origins.get('server.port'), [9000, '$PORT'])
  t.same(origins.get('logging.level'), ['debug', '$LOG_LEVEL'])
  t.same(origins.get('defaults.timeout'), ['7s', 'gateway.yaml:4'])
  t.same(origins.get('identity.jwt.secret'), ['••••••', 'gateway.yaml:2 from $COMMANDS_SECRET'])
  t.same(origins.get('storage.redis_timeout'), ['200ms', 'default'])
  t.same(origins.get('routes[0].retry.attempts'), [2, 'gateway.yaml:8'])
  const { stdout } = await sallyport(t, args.slice(0, -1), { env })
  t.match(stdout, /^server\.port = 9000 {2}\(\$PORT\)$/m)
  t.match(stdout, /^identity\.jwt\.secret = "••••••" {2}\(gateway\.yaml:2 from \$COMMANDS_SECRET\)$/m)
})

t.test('REG-16 services come from files, from variables in them, and from the command line', async t => {
  const config = `services: { orders: { url: "\${ORDERS_URL}" }, users: { url: "http://users" } }\n`
  const args = [
    'config',
    ...FILE,
    '--set',
    'services.users.url=http://u-2',
    '--set',
    'services.new.url=http://new',
    '--json'
  ]
  const { json } = await sallyport(t, args, { config, env: { ORDERS_URL: 'http://orders-1' } })
  t.match(json.services, {
    orders: { url: 'http://orders-1' },
    users: { url: 'http://u-2' },
    new: { url: 'http://new' }
  })
})

t.test('C-24 token: signed with the configuration’s key, saying what it was told to', async t => {
  const args = [
    '--sub',
    'bob',
    '--role',
    'a',
    '--role',
    'b',
    '--permission',
    'orders.*',
    '--tier',
    'free',
    '--expires',
    '10m'
  ]
  const { json } = await sallyport(t, ['token', ...FILE, ...args, '--json'])
  t.equal(json.expires_in, 600)
  const claims = JSON.parse(Buffer.from(json.token.split('.')[1], 'base64url').toString())
  t.match(claims, { sub: 'bob', roles: ['a', 'b'], permissions: ['orders.*'], tier: 'free' })
  t.equal(claims.exp - claims.iat, 600)
  const plain = (await sallyport(t, ['token', ...FILE])).stdout
  const explained = await sallyport(t, [
    'explain',
    ...FILE,
    '-H',
    `Authorization: Bearer ${plain.trim()}`,
    '/api/v1/orders'
  ])
  t.match(explained.stdout, /authentication +passes +as user:alice/)
  const refused = await sallyport(t, ['token', ...FILE, '--expires', 'soon'])
  t.equal(refused.status, 1)
  t.equal(refused.stderr, '--expires soon: write 30s, 10m, 1h or 7d\n')
})

t.test('token --api-key: a key, and the hash that makes it good', async t => {
  const { key, hash } = (await sallyport(t, ['token', '--api-key', '--json'])).json
  const config = CONFIG.replace('0'.repeat(64), hash)
  const args = ['explain', ...FILE, '-H', `X-API-Key: ${key}`, '/api/v1/orders/7', '--json']
  t.match((await sallyport(t, args, { config })).json, {
    verdict: 'forwarded to orders',
    forward: { path: '/orders/7', retries: 2 }
  })
  t.match((await sallyport(t, args)).json, { verdict: /unknown_api_key/, forward: null })
})

t.test('explain: the route, each concern with the place of its rule, and why not the neighbours', async t => {
  const alice = ['-H', `Authorization: Bearer ${token({}, { secret: SECRET })}`]
  const { json } = await sallyport(t, ['explain', ...FILE, '-X', 'POST', ...alice, '/api/v1/orders', '--json'])
  t.match(json, {
    route: { service: 'orders', at: 'gateway.yaml:9' },
    verdict: /^permissions refuses: 403 insufficient_permissions/,
    forward: null
  })
  const steps = new Map(json.steps.map((step: { concern: string }) => [step.concern, step]))
  t.match(steps.get('cors'), { outcome: 'passes', at: 'gateway.yaml:4' })
  t.match(steps.get('permissions'), { outcome: 'refuses', at: 'gateway.yaml:9' })
  t.match(steps.get('rate_limit'), { outcome: 'not reached' })
  t.match(json.near[0], { at: 'gateway.yaml:8', because: /method/ })

  const denied = await sallyport(t, ['explain', ...FILE, '--from', '192.0.2.7', '/public/x'])
  t.equal(denied.status, 0)
  t.match(
    denied.stdout,
    /^GET \/public\/x {2}→ {2}route \/public\/\*\* \(gateway\.yaml:10\): ip_filter refuses: 403 ip_blocked/
  )
})

t.test('explain: what never comes to a route says so, and names routes only where one was looked for', async t => {
  const loaded = await load(t, { 'gateway.yaml': CONFIG }, { env: { COMMANDS_SECRET: SECRET } })
  const verdicts: [method: string, target: string, verdict: RegExp, near: number][] = [
    ['GET', '/nowhere', /^404 not_found: no route matches$/, 3],
    ['PUT', '/api/v1/orders', /^405 method_not_allowed: only GET, HEAD, POST$/, 3],
    ['GET', '/health', /^belongs to the gateway itself: \/health\/\*\* \(paths\.health\)$/, 0],
    ['GET', '/a%00b', /^refused at the door: 400 bad_request \(control_character\)/, 0]
  ]
  for (const [method, target, verdict, near] of verdicts) {
    const explained = await explainRequest(loaded, { method, target, headers: [], from: '127.0.0.1' })
    t.match(explained, { request: { method, path: target }, route: null, verdict })
    t.equal(explained.near.length, near)
  }
})

t.test('explain: nothing found says where registered services are, which no file has', async t => {
  const rules = /GET \/gateway\/routing-rules/
  t.match((await sallyport(t, ['explain', ...FILE, '/nowhere'])).stdout, rules)
  t.notMatch((await sallyport(t, ['explain', ...FILE, '/nowhere', '--set', 'storage.database=false'])).stdout, rules)
})

t.test('check: a database that is none is said where it is named, without its value', async t => {
  const { status, stderr } = await sallyport(t, [
    'check',
    ...FILE,
    '--set',
    'storage.database_url=mysql://me:hush@db/x'
  ])
  t.equal(status, 1)
  t.match(stderr, /storage\.database_url {2}does not look right: write postgres:\/\//)
  t.notMatch(stderr, /hush/)
})

t.test('explain: an address as a browser shows it stands for its host and path', async t => {
  const config = CONFIG.replace('/public/**,', '/public/**, hosts: api.example.com,')
  const args = ['explain', ...FILE, 'https://api.example.com/public/x?y=1#z', '--json']
  t.match((await sallyport(t, args, { config })).json, {
    request: { path: '/public/x', host: 'api.example.com' },
    verdict: 'forwarded to orders',
    forward: { path: '/public/x?y=1' }
  })
})

t.test('explain: who has no limit is told so', async t => {
  const { json } = await sallyport(t, ['explain', ...FILE, '/public/x', '--json'])
  const limit = json.steps.find((step: { concern: string }) => step.concern === 'rate_limit')
  t.match(limit, { outcome: 'passes', because: 'no limit for this caller' })
})

t.test('explain says what the gateway does', async t => {
  const upstream = await startUpstream(t)
  const plugin = "export default async app => { app.get('/greeting', async () => 'hello') }"
  const { port, file } = await startGateway(
    t,
    {
      services: { s: { url: upstream.url } },
      routes: [{ path: '/open/**', service: 's', authentication: 'none' }],
      plugins: [{ use: './greeting.mjs' }]
    },
    { files: { 'greeting.mjs': plugin } }
  )
  const loaded = await loadConfiguration({
    files: [file],
    env: {},
    overrides: [['identity.jwt.secret', SECRET, 'test']]
  })
  const webSocket = ['Upgrade: websocket', 'Connection: Upgrade', 'Sec-WebSocket-Version: 13']
  const requests: [start: string, fields: string[], status: number, verdict: RegExp][] = [
    ['GET /open/x', [], 200, /^forwarded to s$/],
    ['GET /open/a%2Fb', [], 400, /^refused: 400 bad_request \(encoded_slash\)/],
    ['GET /open/x', webSocket, 400, /^refused: 400 bad_request \(websocket_not_allowed\)/],
    ['FETCH /open/x', [], 400, /^refused at the door: 400 bad_request \(HPE_INVALID_METHOD\)/],
    ['TRACE /open/x', [], 405, /^refused at the door: 405 method_not_allowed \(method_not_offered\)/],
    ['PROPFIND /open/x', [], 405, /^refused: 405 method_not_allowed/],
    ['GET /open/x', ['Expect: foo'], 417, /^refused at the door: 417 expectation_failed/],
    ['GET /greeting', [], 200, /^belongs to a plugin: \/greeting$/],
    ['POST /greeting', [], 405, /^405 method_not_allowed: only GET, HEAD$/],
    ['GET /health/nothing', [], 404, /^404 not_found: no route matches$/]
  ]
  const listed = await runCommand(t, {
    args: ['routes', '-c', file, '--set', `identity.jwt.secret=${SECRET}`],
    cwd: ROOT,
    env: {}
  })
  t.match(listed.stdout, /^ *any +\/greeting +\(gateway\) +always first$/m)
  for (const [start, fields, status, verdict] of requests) {
    const head = [`${start} HTTP/1.1`, `Host: localhost:${port}`, 'Connection: close', ...fields]
    const answer = await raw(port, `${head.join('\r\n')}\r\n\r\n`)
    t.match(answer.text, new RegExp(`^HTTP/1\\.1 ${status} `), `${start} ${fields}`)
    const [method = '', target = ''] = start.split(' ')
    const explained = await explainRequest(loaded, { method, target, headers: fields, from: '127.0.0.1' })
    t.match(explained, { verdict }, `${start} ${fields}`)
  }
})

t.test('a command line that makes no sense is one sentence with the remedy, and 1', async t => {
  const wrong: [string[], string][] = [
    [['chek'], '"chek" is no command, did you mean "check"?; "sallyport help" lists them\n'],
    [
      ['check', 'gateway.yaml'],
      '"gateway.yaml" is not understood; if it is a configuration file, write -c gateway.yaml\n'
    ],
    [['routes', '--jsno'], "unknown option '--jsno'\n"],
    [['check', ...FILE, '--set', 'x'], '--set x: write --set key.in.the.file=value\n'],
    [['explain', ...FILE], 'explain needs a path: sallyport explain -X GET /api/v1/orders\n'],
    [['explain', '--from', 'here', '/x'], '--from here: write an address, such as 192.0.2.1\n']
  ]
  for (const [args, sentence] of wrong) {
    const { status, stderr, stdout } = await sallyport(t, args)
    t.strictSame([status, stderr, stdout], [1, sentence, ''], args.join(' '))
  }
  t.match((await sallyport(t, ['routes', ...FILE, '--json'], { config: WRONG })).json, {
    ok: false,
    problems: [{}, {}]
  })
})

t.test('help: of all commands, and of one with every option', async t => {
  const overview = await sallyport(t, ['--help'])
  t.equal(overview.status, 0)
  for (const name of ['start', 'check', 'routes', 'explain', 'config', 'token'])
    t.match(overview.stdout, new RegExp(`^  ${name} `, 'm'))
  const { status, stdout } = await sallyport(t, ['explain', '--help'])
  t.equal(status, 0)
  t.match(stdout, /^usage: sallyport explain \/path \[option\]…\n/)
  const options = stdout
    .split('\n')
    .flatMap(line => /^ {2}(?:-\w,)? +--([a-z]+)(?: <[^>]+>)? {2,}\S/.exec(line)?.[1] ?? [])
  t.same(options, ['request', 'header', 'from', 'config', 'port', 'host', 'set', 'json', 'help'])
})
