import { createHash } from 'node:crypto'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { discoveryContract } from '../../contracts/discovery.ts'
import { discoveryTerms, watchOf } from '../../support/discovery.ts'
import { until } from '../../support/until.ts'

/** A server of lists. It answers 304 to who knows the list already. */
async function startLists(t: Test) {
  let port = 0
  let server: http.Server
  const state = { document: '[]', status: 200, asked: [] as http.IncomingMessage[], unchanged: 0, connections: 0 }
  const start = async (): Promise<void> => {
    server = http.createServer((request, response) => {
      state.asked.push(request)
      const etag = `"${createHash('sha256').update(state.document).digest('hex')}"`
      const known = request.headers['if-none-match'] === etag
      if (known) state.unchanged++
      response.writeHead(known ? 304 : state.status, { etag })
      response.end(known ? undefined : state.document)
    })
    server.on('connection', () => state.connections++)
    await new Promise<void>(resolve => server.listen(port, '127.0.0.1', resolve))
    port = (server.address() as AddressInfo).port
  }
  const stop = async (): Promise<void> => {
    server.closeAllConnections()
    await new Promise(resolve => server.close(resolve))
  }
  await start()
  t.teardown(stop)
  return { state, start, stop, source: sourceOf(`http://127.0.0.1:${port}/orders`) }
}

const sourceOf = (url: string) => ({ kind: 'http', url, intervalMs: 10_000, token: undefined, tls: undefined }) as const

t.test('REG-17 an HTTP server as a source', async t =>
  discoveryContract(t, async t => {
    const { state, start, stop, source } = await startLists(t)
    const set = (...places: string[]): void => {
      state.document = JSON.stringify({ instances: places })
    }
    return { source, set, start, stop }
  })
)

async function follow(t: Test, document: unknown, more: object = {}) {
  const { state, source } = await startLists(t)
  state.document = typeof document === 'string' ? document : JSON.stringify(document)
  const watched = watchOf({ ...source, ...more }, discoveryTerms())
  t.teardown(() => watched.watch.stop())
  watched.watch.start()
  return { state, ...watched }
}

t.test('REG-17 every spelling of an instance; what is none is left out', async t => {
  const { watch } = await follow(t, [
    'http://10.0.0.1:8080/base',
    '10.0.0.2:8080',
    { id: 'c', host: '10.0.0.3', port: 8080, weight: 3, zone: 'eu-1' },
    { Address: 'fd00::4', port: 443, scheme: 'https' },
    { url: 'https://e.example', weight: 0 },
    { url: 'ftp://f.example' },
    { url: 'http://user:secret@g.example' },
    { host: 'h.example' },
    { url: 'http://i.example', weight: -1 },
    { url: 'http://not a host' },
    null,
    7
  ])
  await watch.ready
  t.strictSame(watch.instances, [
    { id: '10.0.0.1:8080', url: 'http://10.0.0.1:8080/base', weight: 1 },
    { id: '10.0.0.2:8080', url: 'http://10.0.0.2:8080/', weight: 1 },
    { id: '[fd00::4]', url: 'https://[fd00::4]/', weight: 1 },
    { id: 'c', url: 'http://10.0.0.3:8080/', weight: 3, zone: 'eu-1' },
    { id: 'e.example', url: 'https://e.example/', weight: 0 }
  ])
})

t.test('REG-17 REG-22 a list that has not changed is not sent again, and comes by the same connection', async t => {
  const { state, watch } = await follow(t, ['10.0.0.1:80'], { token: 'secret' })
  await until(() => state.unchanged > 2)
  t.equal(watch.updates, 1)
  t.equal(state.connections, 1)
  t.match(state.asked[0]?.headers, { authorization: 'Bearer secret', accept: 'application/json' })
  state.document = JSON.stringify(['10.0.0.2:80'])
  await until(() => watch.updates === 2)
})

t.test('H-124 an answer that is no list changes nothing', async t => {
  const { state, watch, told, error } = await follow(t, ['10.0.0.1:80'])
  await watch.ready
  for (const [document, status, code] of [
    ['<html>', 200, 'INVALID'],
    ['{"instances":"none"}', 200, 'INVALID'],
    ['null', 200, 'INVALID'],
    [`["${'x'.repeat(9_000_000)}"]`, 200, 'INVALID'],
    ['{}', 503, 'HTTP_503'],
    ['[]', 404, 'HTTP_404'],
    ['[]', 301, 'HTTP_301']
  ] as const) {
    Object.assign(state, { document, status })
    await until(() => error() === code)
    t.equal(watch.state().stale, true, code)
    Object.assign(state, { document: '["10.0.0.1:80"]', status: 200 })
    await until(() => error() === undefined)
  }
  t.equal(told.length, 1)
})
