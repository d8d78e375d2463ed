import { readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { explainRequest } from '../../src/commands/explain.ts'
import { checkConfiguration, loadConfiguration } from '../../src/gateway.ts'
import { problemsIn } from '../support/config.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

interface PluginGateway extends TestGateway {
  /** Writes the plugin's file anew. */
  write(source: string): void
}

/** A gateway with one route and the plugin `own.ts`, which the route asks for. */
async function withPlugin(t: Test, source: string, use: object = {}, route: object = {}): Promise<PluginGateway> {
  const upstream = await startUpstream(t)
  const gateway = await startGateway(
    t,
    {
      services: { s: { url: upstream.url } },
      routes: [{ path: '/x', service: 's', authentication: 'none', ...route }],
      plugins: [{ use: './own.ts', ...use }]
    },
    { files: { 'own.ts': source } }
  )
  return { ...gateway, write: text => writeFileSync(join(dirname(gateway.file), 'own.ts'), text) }
}

/** A policy that answers with what `compile` returns. */
const policy = (compile: string, more = ''): string =>
  `import { definePolicy, refuse, Type } from 'sallyport'
  export default definePolicy({ name: 'own', schema: Type.Object({}), ${more} compile(): any { ${compile} } })`

const refusing = (details: string): string =>
  policy(
    `return { onRequest: (_request: any, _reply: any, done: any) => done(refuse('conflict', { details: '${details}' })) }`
  )

const USED = { plugins: { own: {} } }

const broken: [name: string, source: string | undefined, message: RegExp][] = [
  ['is not there', undefined, /^cannot be loaded: no such file$/],
  ['is no TypeScript', 'export default {{', /^cannot be loaded: SyntaxError: .+/],
  [
    'fails when it is loaded',
    "\nthrow new TypeError('dear me')",
    /^cannot be loaded: TypeError: dear me \(own\.ts:2\)$/
  ],
  ['needs what is not there', "import 'no-such-package'", /^cannot be loaded: .*'no-such-package'$/],
  [
    'exports nothing',
    'export const x = 1',
    /^cannot be loaded: has no policy and no Fastify plugin as its default export$/
  ],
  [
    'has options that nobody could check',
    "export default { name: 'own', schema: { type: 'object', not: {} }, compile() {} }",
    /^cannot be loaded: its schema uses "not", which is not understood here$/
  ],
  [
    'has options that say nothing of themselves',
    "import { Type } from 'sallyport'\nexport default { name: 'own', schema: Type.Object({ a: Type.String() }), compile() {} }",
    /^cannot be loaded: its schema\.a has no description/
  ],
  [
    'is called like another concern',
    "export default { name: 'cors', schema: { type: 'object' }, compile() {} }",
    /^is called "cors", like another concern$/
  ],
  [
    'fails when it is compiled',
    policy("\nthrow new RangeError('oh')"),
    /^has failed: RangeError: oh \(own\.ts:3\) \(route \/x\)$/
  ],
  [
    'fails when it is set up',
    policy('return {}', "setup() { throw new Error('no way') },"),
    /^has failed: no way \(own\.ts:2\)$/
  ],
  [
    'would be done twice',
    policy('return { onRequest: async (_request: any, _reply: any, done: any) => done() }'),
    /^its onRequest is async and takes "done", too/
  ]
]

for (const [name, source, message] of broken) {
  t.test(`PLG-02 H-118 a plugin that ${name} is refused with its place, and what was there before stays`, async t => {
    const { gateway, call, configure, write } = await withPlugin(t, refusing('as before'), {}, USED)
    const { version } = gateway.snapshot
    if (source !== undefined) write(source)
    // What a file exports that has no policy `own` cannot be asked for.
    else configure({ plugins: [{ use: './nowhere.ts' }] })
    const [problem, ...more] = await problemsIn(gateway.reload())
    t.match(problem, { file: 'gateway.yaml', line: Number, column: Number, message })
    t.strictSame(more, [])
    t.equal(gateway.status().version, version)
    t.match((await call('/x')).json, { error: { details: 'as before' } })
    t.match((await call('/health/dependencies')).json, { status: 'degraded', configuration: { status: 'refused' } })
  })
}

t.test('a plugin next to nobody is refused with the nearest name', async t => {
  const gateway = await withPlugin(t, refusing('here'), {}, USED)
  gateway.configure({ plugins: [{ use: './own.ts', before: 'authentification' }] })
  t.match(await problemsIn(gateway.gateway.reload()), [
    { line: 3, message: '"authentification" is no concern, did you mean "authentication"?' }
  ])
})

t.test('PLG-02 a changed plugin takes effect without a restart; one that has not changed is no change', async t => {
  const { gateway, call, write, lines } = await withPlugin(t, refusing('one'), {}, USED)
  gateway.watch()
  t.match(await gateway.reload(), { changed: false })
  write(refusing('two'))
  await until(async () => (await call('/x')).json.error.details === 'two', 'the plugin is the new one')
  t.ok(lines().some(({ msg }) => String(msg).includes(': ~ plugin own  (swap')))
})

t.test('PLG-01 what has to outlive configurations is set up once per process', async t => {
  const counting = policy(
    "const fields = ['x-setups', String((globalThis as any).setups)]; return { onRequest(request: any, _reply: any, done: any) { request.exchange.fields.push(...fields); done() } }",
    'setup() { (globalThis as any).setups = ((globalThis as any).setups ?? 0) + 1 },'
  )
  const { gateway, call, configure, file } = await withPlugin(t, counting, {}, USED)
  t.equal((await call('/x')).headers['x-setups'], '1')
  configure(`${readFileSync(file, 'utf8')}\nlogging: { level: warn }\n`)
  t.match(await gateway.reload(), { changed: true })
  t.equal((await call('/x')).headers['x-setups'], '1')
})

t.test('PLG-01 CFG-06 who only looks at a configuration finds set up what plugins rely on', async t => {
  for (const phase of ['onRequest()', 'async onRequest()']) await t.test(phase, t => relied(t, phase))
})

async function relied(t: Test, phase: string): Promise<void> {
  const relying = policy(
    `const { message } = made!; return { ${phase} { throw refuse('conflict', { details: message }) } }`,
    "setup() { made = { message: 'made' } },"
  )
  const { call, file } = await withPlugin(t, `let made: { message: string } | undefined\n${relying}`, {}, USED)
  t.match((await call('/x')).json, { error: { details: 'made' } })
  const own = join(dirname(file), 'own.ts')
  // Another module, of which no gateway has set anything up.
  const { mtimeMs } = statSync(own)
  utimesSync(own, 0, mtimeMs / 1000 - 60)
  const sources = { files: [join(dirname(file), 'base.yaml'), file], env: {}, overrides: [] }
  const { warnings } = (await checkConfiguration(sources)).snapshot
  t.strictSame(warnings, [])
  utimesSync(own, 0, mtimeMs / 1000 - 120)
  const asked = { method: 'GET', target: '/x', headers: ['host: a'], from: '127.0.0.1' }
  t.match((await explainRequest(await loadConfiguration(sources), asked)).verdict, /^own refuses: 409 conflict/)
}

t.test('PLG-05 OBS-28 each plugin’s time is measured, however it says that it is done', async t => {
  const ways = [
    'onRequest(_request: any, _reply: any, done: any) { done() }',
    'async onRequest() {}',
    "onRequest(_request: any, reply: any) { reply.send('hello') }",
    "onRequest() { throw refuse('conflict') }",
    "async onRequest() { throw refuse('conflict') }"
  ]
  for (const way of ways) {
    const { call } = await withPlugin(t, policy(`return { ${way} }`), {}, USED)
    for (let i = 0; i < 3; i++) await call('/x')
    t.match((await call('/metrics')).text, /^gateway_plugin_duration_seconds_count\{plugin="own"\} 3$/m, way)
  }
})

t.test(
  'PLG-01 a plugin that fails at a request is a 500 that says nothing, and a log line that says who it was',
  async t => {
    for (const way of ['onRequest() {', 'async onRequest() {', 'onRequest: (_r: any, _s: any, done: any) => {']) {
      const failing = `return { ${way} throw new TypeError('secret things') } }`
      const { call, line } = await withPlugin(t, policy(failing), {}, USED)
      const answer = await call('/x')
      t.match(answer.json, { error: { code: 'internal_error', status: 500 } })
      t.notMatch(answer.text, 'secret')
      t.match(await line({ path: '/x' }), { status_code: 500, reason: 'plugin own' })
      t.match(await line({ msg: 'request failed' }), { err: { type: 'TypeError', message: 'secret things' } })
    }
  }
)

t.test('PLG-08 a refusal by a plugin is final: nobody after it is asked', async t => {
  const { call, line } = await withPlugin(
    t,
    refusing('enough'),
    { before: 'authentication' },
    { ...USED, authentication: 'required' }
  )
  t.equal((await call('/x', { token: 'no token at all' })).status, 409)
  t.notOk((await line({ path: '/x' })).credential)
})

t.test('PLG-04 what a plugin sets with reply.header is on answers of services and of the gateway alike', async t => {
  const set = "reply.header('x-own', 'a').header('set-cookie', ['b=1', 'c=2'])"
  const own = await withPlugin(
    t,
    policy(`return { onRequest: async (_request: any, reply: any) => void ${set} }`),
    {},
    USED
  )
  const plain = await withPlugin(
    t,
    `import fp from '${import.meta.resolve('fastify-plugin')}'
    export default fp(async (app: any) => app.addHook('onRequest', async (_request: any, reply: any) => void ${set}))`
  )
  for (const { call } of [own, plain]) {
    const { status, headers } = await call('/x')
    t.match({ status, ...headers }, { status: 200, 'x-own': 'a', 'set-cookie': ['b=1', 'c=2'] })
  }
  const refused = await plain.call('/nowhere')
  t.match({ status: refused.status, ...refused.headers }, { status: 404, 'x-own': 'a', 'set-cookie': ['b=1', 'c=2'] })
})

t.test('PLG-04 a plain Fastify plugin is taken as it is, with its options, hooks and endpoints', async t => {
  const plain = `export default Object.assign(
    async (app: any, { greeting }: any) => {
      app.addHook('onRequest', async (request: any) => { request.exchange.fields.push('x-greeting', greeting) })
      app.get('/greeting', async () => ({ greeting }))
    },
    { [Symbol.for('skip-override')]: true }
  )`
  const { call } = await withPlugin(t, plain, { options: { greeting: 'hello' } })
  t.equal((await call('/x')).headers['x-greeting'], 'hello')
  t.match((await call('/greeting')).json, { greeting: 'hello' })
})

t.test('PLG-02 H-118 a plugin that closes badly, or never, keeps nothing open, and is no reason to end', async t => {
  const ways: [onClose: string, message: string][] = [
    ["throw new Error('not now')", 'a plugin’s onClose has failed'],
    ['await new Promise(() => {})', 'a plugin’s onClose does not come to its end']
  ]
  for (const [onClose, message] of ways) {
    const plain = `export default async (app: any) => { app.addHook('onClose', async () => { ${onClose} }) }`
    const { gateway, call, configure, lines, file } = await withPlugin(t, plain)
    const { leases } = gateway.runtime
    const held = leases.keys
    const document = readFileSync(file, 'utf8')
    const said = (): number => lines().filter(({ msg }) => msg === message).length
    configure(document.replace('path: /x', 'path: /y').replace(/url: .*/, 'url: http://127.0.0.1:9'))
    t.match(await gateway.reload(), { changed: true })
    await until(() => said() === 1)
    await until(() => leases.keys.length === held.length, 'the generation before has let go')
    t.equal((await call('/y')).status, 502)

    configure(`${document}defaults: { ip_filter: { allow: [nowhere] } }`)
    await t.rejects(gateway.reload(), /"nowhere" is no address/, 'what is wrong is said, not what went wrong after it')
    t.equal(said(), 2)
    await gateway.close()
    t.equal(said(), 3)
  }
})

t.test('PLG-02 a plain Fastify plugin that does not start is refused with its place', async t => {
  const { gateway, write } = await withPlugin(t, 'export default async () => {}')
  write("export default async () => { throw new Error('not today') }")
  t.match(await problemsIn(gateway.reload()), [
    { file: 'gateway.yaml', line: 9, column: 10, message: /^has failed: not today \(own\.ts:1\)$/ }
  ])
})
