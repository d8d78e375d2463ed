import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { startGateway as startWithPlugin } from '../../src/testing.ts'
import { ROOT } from '../support/config.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'

const exampleFile = (name: string): string => join(ROOT, 'examples', 'plugins', `${name}.ts`)

/** A gateway whose configuration names a copy of an example's plugin in a folder beside it. */
async function withExample(t: Test, name: string, use: object, plugins: object): Promise<TestGateway> {
  const upstream = await startUpstream(t)
  return startGateway(
    t,
    {
      services: { orders: { url: upstream.url } },
      routes: [
        { path: '/orders', service: 'orders', plugins },
        { path: '/other', service: 'orders' }
      ],
      plugins: [{ use: `./plugins/${name}.ts`, ...use }]
    },
    { files: { plugins: { [`${name}.ts`]: readFileSync(exampleFile(name), 'utf8') } } }
  )
}

t.test(
  'PLG-04 TRF-12 maintenance: one file, one line, and a route answers 503 before anybody is asked who he is',
  async t => {
    const { call, line } = await withExample(
      t,
      'maintenance',
      { before: 'authentication' },
      { maintenance: { message: 'Back at noon.', retry_after: '90s' } }
    )
    const answer = await call('/orders')
    t.match(answer, { status: 503, headers: { 'retry-after': '90' } })
    t.match(answer.json, { error: { code: 'service_unavailable', details: 'Back at noon.' } })
    t.match(await line({ path: '/orders' }), { reason: 'maintenance', route: '/orders' })
    t.equal((await call('/other')).status, 401, 'routes that do not ask for it do without')
    t.equal((await call('/other', { token: token() })).status, 200)
  }
)

t.test('PLG-04 the place in the order is the configuration’s to choose', async t => {
  const after = await withExample(t, 'maintenance', { after: 'authentication' }, { maintenance: {} })
  t.equal((await after.call('/orders')).status, 401)
  t.match((await after.call('/orders', { token: token() })).json, {
    error: { code: 'service_unavailable', details: 'Back soon.' }
  })
  const hyphens = await withExample(t, 'maintenance', { before: 'rate-limit' }, { maintenance: {} })
  t.equal((await hyphens.call('/orders', { token: token() })).status, 503, 'rate-limit is rate_limit')
})

t.test('PLG-04 header-guard: its author tests it over a real gateway', async t => {
  await using gateway = await startWithPlugin({
    use: import.meta.resolve('../../examples/plugins/header-guard.ts'),
    plugins: { header_guard: { header: 'X-Team', values: ['red', 'blue'] } }
  })
  const refused = await gateway.fetch('/orders')
  t.equal(refused.status, 400)
  t.match(await refused.json(), { error: { code: 'bad_request', details: 'The header field X-Team is needed.' } })
  t.equal((await gateway.fetch('/orders', { headers: { 'x-team': 'green' } })).status, 400)
  t.equal((await gateway.fetch('/orders', { headers: { 'x-team': 'red' } })).status, 200)
  t.match(gateway.forwarded, [{ method: 'GET', url: '/orders', headers: { 'x-team': 'red' } }])

  await gateway.reload({ plugins: { header_guard: { header: 'X-Team' } } })
  t.equal((await gateway.fetch('/orders', { headers: { 'x-team': 'green' } })).status, 200)
})

t.test('PLG-06 what is wrong with a plugin’s options is said like everything else, with its place', async t => {
  const wrong = (options: object) =>
    startWithPlugin({ use: exampleFile('header-guard'), plugins: { header_guard: options } })
  await t.rejects(wrong({ heder: 'X-Team' }), {
    message: /gateway\.yaml:\d+:\d+ .*header_guard\.heder {2}unknown key, did you mean "header"\?/
  })
  await t.rejects(wrong({ header: 'no name' }), {
    message: /gateway\.yaml:\d+:\d+ {2}header_guard {2}"no name" is no name of a header field/
  })
})

t.test('PLG-02 a plugin’s file may be anywhere: it and the gateway share one copy of what it imports', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'a plugin’s folder '))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'teapot.ts')
  writeFileSync(
    file,
    `import { definePolicy, GatewayError, refuse, Type } from 'sallyport'
    const refusal: GatewayError = refuse('conflict', { details: 'I am a teapot.' })
    export default definePolicy({
      name: 'teapot',
      schema: Type.Object({}),
      compile: () => ({ onRequest: async () => { throw refusal } })
    })`
  )
  await using gateway = await startWithPlugin({ use: file, plugins: { teapot: {} } })
  const answer = await gateway.fetch('/')
  t.equal(answer.status, 409)
  t.match(await answer.json(), { error: { code: 'conflict', details: 'I am a teapot.' } })
})

t.test('PLG-04 the plugin and the test of the page work as they are printed, outside of the clone', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'plugin-page-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const page = readFileSync(join(ROOT, 'docs', 'plugins.md'), 'utf8')
  for (const name of ['maintenance.ts', 'maintenance.test.ts']) {
    const [, source = ''] = page.split(`\`\`\`ts\n// plugins/${name}\n`)
    writeFileSync(join(folder, name), source.slice(0, source.indexOf('```')))
  }
  const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  // Without what tap adds to every Node that a test starts.
  const env = { ...process.env, NODE_OPTIONS: '', PATH: `${join(ROOT, 'node_modules', '.bin')}:${process.env.PATH}` }
  const command = `${scripts['test:plugin']} ${join(folder, 'maintenance.test.ts')}`
  const { status, stdout } = spawnSync('sh', ['-c', command], { cwd: ROOT, encoding: 'utf8', env })
  t.equal(status, 0, stdout)
  t.match(stdout, /^. pass 1$/m)
})
