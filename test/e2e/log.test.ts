import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { temporaryFolder } from '../support/folder.ts'
import { call } from '../support/gateway.ts'
import { type GatewayProcess, startProcess, writeConfiguration } from '../support/gateway-process.ts'
import { many, tally } from '../support/many.ts'
import { raw } from '../support/raw.ts'
import { startUpstream } from '../support/upstream.ts'

/** A gateway in a process of its own with a route for everything, open to all. */
async function start(t: Test, more: { route?: object; [key: string]: unknown } = {}): Promise<GatewayProcess> {
  const upstream = await startUpstream(t)
  const { route, ...settings } = more
  const { file } = writeConfiguration(t, {
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's', authentication: 'none', ...route }],
    ...settings
  })
  return startProcess(t, file)
}

const accessLines = (gateway: GatewayProcess) => gateway.lines().filter(({ msg }) => msg === 'request')

t.test('OBS-16 every request has its line when the process has ended, however late it came', async t => {
  const gateway = await start(t)
  t.same(tally(await many(gateway.port, 500, '/x')), { 200: 500 })
  gateway.child.kill('SIGTERM')
  t.equal(await gateway.ended, 0)
  t.equal(accessLines(gateway).length, 500)
  t.equal(new Set(accessLines(gateway).map(({ request_id }) => request_id)).size, 500)
})

t.test('H-121 a crash loses no line, has one of its own, and gives nothing away', async t => {
  const plugin = join(temporaryFolder(t), 'crash.ts')
  writeFileSync(
    plugin,
    `import { definePolicy, Type } from '${join(import.meta.dirname, '..', '..', 'src', 'index.ts')}'
    export default definePolicy({
      name: 'crash',
      schema: Type.Object({}),
      compile(): any {
        return {
          onRequest(request: any, _reply: any, done: any) {
            if (request.exchange.path === '/crash')
              setImmediate(() => { throw Object.assign(new Error('a bug'), { token: 'hunter2' }) })
            done()
          }
        }
      }
    })`
  )
  const gateway = await start(t, { route: { plugins: { crash: {} } }, plugins: [{ use: plugin }] })
  t.same(tally(await many(gateway.port, 50, '/x')), { 200: 50 })
  await call(gateway.port, '/crash').catch(() => {})
  t.equal(await gateway.ended, 1)
  t.equal(accessLines(gateway).filter(({ path }) => path === '/x').length, 50)
  const [said, ...more] = gateway.lines().filter(({ level }) => level === 60)
  t.match(said, { msg: 'the gateway has failed', err: { message: 'a bug', stack: /crash\.ts/ } })
  t.same(more, [])
  t.notMatch(gateway.text(), 'hunter2')
})

t.test('H-125 whatever a client sends, a request is one line without a control character in it', async t => {
  const gateway = await start(t, { logging: { trace_requests: true } })
  const hostile = ['\x1b[31mred', '\x9b31mred', '\x85{"level":60}', '\x7f\x7f', `"},{"level":60}`, 'x'.repeat(9000)]
  for (const value of hostile) {
    await raw(gateway.port, `GET /x HTTP/1.1\r\nHost: a\r\nUser-Agent: ${value}\r\nX-Other: ${value}\r\n\r\n`, {
      quietMs: 20
    })
    await raw(gateway.port, `GET /${encodeURI(value)}?${encodeURI(value)} HTTP/1.1\r\nHost: a\r\n\r\n`, { quietMs: 20 })
    await raw(gateway.port, `GET /${value} HTTP/1.1\r\nHost: a\r\n\r\n`, { quietMs: 20 })
    await raw(gateway.port, `GET / HTTP/1.1\r\nHost: ${value}\r\n\r\n`, { quietMs: 20 })
  }
  gateway.child.kill('SIGTERM')
  await gateway.ended
  t.ok(gateway.lines().filter(({ msg }) => msg === 'request started').length >= hostile.length)
  for (const line of gateway.text().split('\n')) {
    t.notMatch(line, /[\x00-\x1f\x7f-\x9f\u2028\u2029]/)
    t.ok(line.length < 6000, `${line.length}`)
    t.notMatch(JSON.parse(line), { level: 60 })
  }
})
