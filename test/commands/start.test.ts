import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import net from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { stringify } from 'yaml'
import { start } from '../support/command-process.ts'
import { freePort } from '../support/free-port.ts'
import { call } from '../support/gateway.ts'
import { SECRET, token } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

const ROOT = join(import.meta.dirname, '..', '..')
const MAIN = join(ROOT, 'src', 'main.ts')

async function configuration(t: Test, document: object): Promise<{ file: string; port: number }> {
  const port = await freePort()
  const folder = t.testdir({})
  const file = join(folder, 'gateway.yaml')
  const base = {
    server: { host: '127.0.0.1', port },
    storage: { database: false, data_dir: join(folder, 'data') },
    identity: { jwt: { secret: SECRET } }
  }
  writeFileSync(file, stringify({ ...base, ...document }))
  return { file, port }
}

t.test('C-24 TST-08 the quickstart serves what its page says, line by line', async t => {
  const port = await freePort()
  const data = `storage.data_dir=${t.testdir({})}`
  const { listening } = start(t, process.execPath, [MAIN, '--port', String(port), '--set', data])
  const { address, token: alice } = await listening
  t.equal(address, `http://127.0.0.1:${port}`)
  const authorization = { authorization: `Bearer ${alice}` }

  t.match((await call(port, '/public/hello')).json, { hello: 'world' })
  t.equal((await call(port, '/api/v1/orders')).status, 401)
  t.match((await call(port, '/api/v1/orders', { headers: authorization })).json, { for: 'alice' })
  t.equal((await call(port, '/api/v1/reports/today', { headers: authorization })).status, 403)
  const limited: number[] = []
  for (let i = 0; i < 4; i++) limited.push((await call(port, '/limited')).status)
  t.strictSame(limited, [200, 200, 200, 429])

  const { json: crashed } = await call(port, '/public/crash', { method: 'POST' })
  const answers: string[] = []
  for (let i = 0; i < 4; i++) answers.push((await call(port, '/public/hello')).json.instance)
  t.ok(crashed.crashed)
  t.ok(answers.every(instance => instance !== crashed.instance))

  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws/echo?access_token=${alice}`)
  const greeting = await new Promise((resolve, reject) => {
    socket.onmessage = ({ data }) => resolve(data)
    socket.onerror = reject
  })
  t.equal(greeting, 'hello alice')
  socket.close()
})

t.test('the quickstart moves on from a port that is taken; your own configuration says so in one sentence', async t => {
  const taken = net.createServer().listen(0, '127.0.0.1')
  await new Promise(resolve => taken.once('listening', resolve))
  t.teardown(() => taken.close())
  const { port } = taken.address() as net.AddressInfo
  const data = `storage.data_dir=${t.testdir({})}`
  const demo = start(t, process.execPath, [MAIN, '--set', `server.port=${port}`, '--set', data])
  t.not((await demo.listening).address, `http://127.0.0.1:${port}`)
  demo.child.kill()

  const { file } = await configuration(t, {})
  const own = start(t, process.execPath, [MAIN, '-c', file, '--port', String(port)])
  t.equal(await own.exit, 1)
  t.match(
    own.output(),
    /^the port is in use: 127\.0\.0\.1:\d+; stop what listens there, or choose another with --port\n$/
  )
})

t.test('a start that fails leaves nothing open: the process ends, with or without Redis', async t => {
  const taken = net.createServer().listen(0, '127.0.0.1')
  await new Promise(resolve => taken.once('listening', resolve))
  t.teardown(() => taken.close())
  const admin = { listen: `127.0.0.1:${(taken.address() as net.AddressInfo).port}` }
  const failing: [document: object, message: RegExp][] = [
    [{ admin }, /^the port is in use/],
    // That these options contradict each other is found late, when policies are compiled.
    [{ defaults: { ip_filter: { allow: ['nowhere'] } } }, /"nowhere" is no address/]
  ]
  const redis = process.env.TEST_REDIS_URL
  for (const store of redis === undefined ? [[]] : [[], ['--set', `storage.redis_url=${redis}`]]) {
    for (const [document, message] of failing) {
      const { file } = await configuration(t, document)
      const { exit, output } = start(t, process.execPath, [MAIN, '-c', file, ...store])
      t.equal(await exit, 1)
      t.match(output(), message)
    }
  }
})

t.test('a file that is not there, or not right, is a sentence and exit code 1', async t => {
  const missing = start(t, process.execPath, [MAIN, '-c', 'no-such-file.yaml'])
  t.equal(await missing.exit, 1)
  t.equal(missing.output(), `no-such-file.yaml  no such file in ${process.cwd()}\n1 problem\n`)
  const { file } = await configuration(t, { routes: [{ path: '/x', servcie: 'y' }] })
  const wrong = start(t, process.execPath, [MAIN, '-c', file])
  t.equal(await wrong.exit, 1)
  t.match(wrong.output(), /unknown key, did you mean "service"\?/)
  t.notMatch(wrong.output(), /at .*\.ts:\d+/)
})

const endings: [string, NodeJS.Signals[]][] = [
  ['SIGTERM', ['SIGTERM']],
  ['Ctrl-C, which arrives twice under npm', ['SIGINT', 'SIGINT']]
]
for (const [how, signals] of endings) {
  t.test(`H-119 DEP-11 ${how}: the request under way ends, then the process does, with exit code 0`, async t => {
    let answer: (() => void) | undefined
    const upstream = await startUpstream(t, (_request, response) => {
      answer = () => response.end('at last')
    })
    const routes = [{ path: '/slow', service: 's' }]
    const { file, port } = await configuration(t, { services: { s: { url: upstream.url } }, routes })
    const { child, listening, exit, output } = start(t, process.execPath, [MAIN, '-c', file])
    await listening
    const slow = call(port, '/slow', { token: token() })
    while (answer === undefined) await new Promise(resolve => setImmediate(resolve))
    for (const signal of signals) child.kill(signal)
    while (!output().includes('waiting for 1 request')) await new Promise(resolve => setTimeout(resolve, 5))
    answer()
    t.equal((await slow).text, 'at last')
    t.equal(await exit, 0)
  })
}

t.test(
  'MON-03 H-119 readiness fails to be seen: with shutdown_delay requests are taken in until a second signal',
  async t => {
    const upstream = await startUpstream(t)
    const { file, port } = await configuration(t, {
      services: { s: { url: upstream.url } },
      routes: [{ path: '/x', service: 's', authentication: 'none' }]
    })
    const delay = ['--set', 'server.timeouts.shutdown_delay=1h', '--port', String(port)]
    const { child, listening, exit } = start(t, process.execPath, [MAIN, '-c', file, ...delay])
    await listening
    child.kill('SIGTERM')
    // Each over a connection of its own, as a prober's are.
    await until(async () => (await call(port, '/health/readiness')).status === 503)
    t.equal((await call(port, '/health/liveness')).status, 200)
    t.equal((await call(port, '/x')).status, 200)
    const again = setInterval(() => child.kill('SIGTERM'), 50)
    t.teardown(() => clearInterval(again))
    t.equal(await exit, 1)
  }
)

t.test('once shutdown_delay is over, the process ends', async t => {
  const { file } = await configuration(t, {})
  const delay = ['--set', 'server.timeouts.shutdown_delay=50ms']
  const { child, listening, exit } = start(t, process.execPath, [MAIN, '-c', file, ...delay])
  await listening
  child.kill('SIGTERM')
  t.equal(await exit, 0)
})

t.test('a signal to npm leaves no orphan behind', { skip: process.platform === 'win32' }, async t => {
  const { file, port } = await configuration(t, {})
  const { child, listening, output } = start(t, 'npm', ['start', '--', '-c', file])
  await listening
  t.equal((await call(port, '/health')).status, 200)
  child.kill('SIGTERM')
  for (let i = 0; i < 500 && (await listens(port)); i++) await new Promise(resolve => setTimeout(resolve, 10))
  t.equal(await listens(port), false, output())
})

function listens(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = net.connect(port, '127.0.0.1', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
  })
}

t.test('CFG-06 H-118 SIGHUP reads the configuration again', async t => {
  const upstream = await startUpstream(t)
  const { file, port } = await configuration(t, {})
  const { child, listening, output } = start(t, process.execPath, [MAIN, '-c', file])
  await listening
  t.equal((await call(port, '/new', { token: token() })).status, 404)
  const server = { host: '127.0.0.1', port }
  const services = { s: { url: upstream.url } }
  writeFileSync(
    file,
    stringify({ server, identity: { jwt: { secret: SECRET } }, services, routes: [{ path: '/new', service: 's' }] })
  )
  child.kill('SIGHUP')
  while (!output().includes('+ route /new')) await new Promise(resolve => setTimeout(resolve, 5))
  t.equal((await call(port, '/new', { token: token() })).status, 200)
  child.kill('SIGHUP')
  while (!output().includes('nothing has changed')) await new Promise(resolve => setTimeout(resolve, 5))
})

t.test('C-02 demonstration secrets are random per run, and refused in production', async t => {
  const run = (...args: string[]) => spawnSync(process.execPath, [MAIN, ...args], { cwd: ROOT, encoding: 'utf8' })
  const { status, stderr } = run('check', '--prod')
  t.equal(status, 1)
  t.match(stderr, /production needs a "secret" \(JWT_SECRET_KEY\), or "issuers"/)
  t.equal(run('check').status, 0)
})
