import { once } from 'node:events'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import t from 'tap'
import { FakeClock } from '../support/clock.ts'
import { startGateway } from '../support/gateway.ts'
import { raw } from '../support/raw.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { startService } from '../support/upstream.ts'

const open = { authentication: 'none' }
const route = (url: string, more: object = {}) => ({
  defaults: { ...open, ...more },
  services: { s: { url } },
  routes: [{ path: '/**', service: 's' }]
})

const CHUNK = Buffer.alloc(65536, 'x')
const LARGE = 512 * 1024 * 1024
/** What may be on its way between two ends of which one does not read: the kernel’s buffers on both sides, and ours. */
const ON_THE_WAY = 32 * 1024 * 1024

/** Writes as much as `to` takes; tells how much that is. */
function pour(
  to: NodeJS.WritableStream & { writableNeedDrain?: boolean; destroyed?: boolean },
  total: number
): { sent: number; done: boolean } {
  const state = { sent: 0, done: false }
  const more = (): void => {
    while (state.sent < total) {
      if (to.destroyed) return
      state.sent += CHUNK.length
      if (!to.write(CHUNK)) return void to.once('drain', more)
    }
    state.done = true
    to.end()
  }
  more()
  return state
}

/** Resolves when `figure` has stood still for a while. */
async function still(figure: () => number): Promise<number> {
  let last = -1
  let same = 0
  await until(() => {
    same = figure() === last ? same + 1 : 0
    last = figure()
    return last > 0 && same > 40
  })
  return last
}

function get(port: number, path: string, headers: Record<string, string> = {}): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    http.get({ port, host: '127.0.0.1', path, agent: false, headers }, resolve).on('error', reject)
  })
}

t.test('RTE-18 H-97 a client that does not read slows the service down, and nothing piles up', async t => {
  let poured = { sent: 0, done: false }
  const upstream = await startService(t, (_request, response) => {
    poured = pour(response, LARGE)
  })
  const { port, gateway } = await startGateway(t, route(upstream.url))
  const before = process.memoryUsage.rss()
  const response = await get(port, '/large')
  response.pause()
  const sent = await still(() => poured.sent)
  t.ok(sent < ON_THE_WAY, `${sent} bytes are on their way`)
  t.ok(
    process.memoryUsage.rss() - before < 150 * 1024 * 1024,
    'memory stays what it was, for both ends and the gateway together'
  )
  response.destroy()
  await until(() => gateway.server.inFlight === 0)
})

t.test('RTE-18 a large answer arrives whole, however it is read', async t => {
  const total = 64 * 1024 * 1024
  const upstream = await startService(t, (_request, response) => void pour(response, total))
  const { port, line } = await startGateway(t, route(upstream.url))
  const response = await get(port, '/large')
  let bytes = 0
  for await (const chunk of response) {
    bytes += chunk.length
    if (bytes % 3 === 0) await new Promise(setImmediate)
  }
  t.equal(bytes, total)
  t.match(await line({ path: '/large' }), { bytes_out: total })
})

t.test('RTE-18 a service that does not read slows the client down, and gets all of it when it does', async t => {
  let incoming: IncomingMessage | undefined
  let received = 0
  const upstream = await startService(t, (request, response) => {
    incoming = request
    request.pause()
    request.on('end', () => response.end(String(received)))
  })
  const { port, line } = await startGateway(t, route(upstream.url))
  const total = 100 * 1024 * 1024
  const request = http.request({
    port,
    host: '127.0.0.1',
    path: '/up',
    method: 'PUT',
    agent: false,
    headers: { 'transfer-encoding': 'chunked' }
  })
  const poured = pour(request, total)
  const sent = await still(() => poured.sent)
  t.ok(sent < ON_THE_WAY, `${sent} bytes are on their way`)
  incoming?.on('data', chunk => {
    received += chunk.length
  })
  incoming?.resume()
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  response.setEncoding('utf8')
  t.equal((await response.toArray()).join(''), String(total))
  t.match(await line({ path: '/up' }), { bytes_in: total, status_code: 200 })
})

t.test('RTE-18 a body of known length is sent with its length, and streams just so', async t => {
  const heads: IncomingMessage['headers'][] = []
  const upstream = await startService(t, (request, response) => {
    heads.push(request.headers)
    request.pipe(response)
  })
  const { port } = await startGateway(t, route(upstream.url))
  const request = http.request({
    port,
    host: '127.0.0.1',
    path: '/echo',
    method: 'POST',
    agent: false,
    headers: { 'content-length': '200000' }
  })
  request.write(Buffer.alloc(100_000, 'a'))
  // The echo of the first half is here before the second half has been sent.
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  let text = ''
  response.on('data', chunk => {
    text += chunk
  })
  await until(() => text.length === 100_000)
  request.end(Buffer.alloc(100_000, 'b'))
  await once(response, 'end')
  t.equal(text, 'a'.repeat(100_000) + 'b'.repeat(100_000))
  t.match(heads, [{ 'content-length': '200000', 'transfer-encoding': undefined }])
})

t.test('RTE-18 H-117 events arrive one by one, and the head before the first, through every policy', async t => {
  let stream: ServerResponse | undefined
  const upstream = await startService(t, (request, response) => {
    request.resume()
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' }).flushHeaders()
    stream = response
  })
  const { port, call } = await startGateway(t, {
    defaults: {
      cors: { origins: ['https://app.example'] },
      security_headers: {},
      rate_limit: { requests_per_minute: 100 },
      body_limit: '1mb',
      ip_filter: { allow: ['127.0.0.0/8'] },
      retry: 2,
      timeout: '5s',
      timeouts: { first_byte: '5s', write: '5s', idle: '60s' }
    },
    services: { s: { url: upstream.url } },
    routes: [
      { path: '/events', service: 's' },
      { path: '/admins', service: 's', required_roles: ['boss'] }
    ]
  })
  t.equal((await call('/admins', { token: token() })).status, 403)
  const response = await get(port, '/events', {
    authorization: `Bearer ${token()}`,
    origin: 'https://app.example',
    accept: 'text/event-stream'
  })
  t.match(response.headers, {
    'content-type': 'text/event-stream',
    'access-control-allow-origin': 'https://app.example',
    'x-content-type-options': 'nosniff',
    'ratelimit-remaining': /^\d+/,
    'x-request-id': /^req_/
  })
  t.notOk('content-encoding' in response.headers)
  const chunks: string[] = []
  response.on('data', chunk => chunks.push(String(chunk)))
  for (let i = 1; i <= 5; i++) {
    const event = `id: ${i}\ndata: ${'x'.repeat(i)}\n\n`
    stream?.write(event)
    await until(() => chunks.length === i)
    t.equal(chunks[i - 1], event, 'each as it was written, before the next one is')
  }
  stream?.end()
  await once(response, 'end')
  t.ok(response.complete)
})

t.test('H-97 a client that takes nothing for as long as a service may be silent is cut off', async t => {
  const clock = new FakeClock()
  let poured = { sent: 0, done: false }
  const upstream = await startService(t, (_request, response) => {
    poured = pour(response, LARGE)
  })
  const { port, gateway, line } = await startGateway(t, route(upstream.url, { timeouts: { idle: '20s' } }), { clock })
  const response = await get(port, '/large')
  response.on('error', () => {})
  response.pause()
  await still(() => poured.sent)
  clock.advance(19_000)
  gateway.runtime.deadlines.tick()
  t.equal(gateway.server.inFlight, 1)
  clock.advance(2_000)
  gateway.runtime.deadlines.tick()
  t.match(await line({ path: '/large' }), { aborted: true, reason: 'the client does not read' })
  t.equal(gateway.server.inFlight, 0)
})

t.test('H-97 a client that reads now and then is served for as long as it takes', async t => {
  const clock = new FakeClock()
  let poured = { sent: 0, done: false }
  const upstream = await startService(t, (_request, response) => {
    poured = pour(response, 64 * 1024 * 1024)
  })
  const { port, gateway } = await startGateway(t, route(upstream.url, { timeouts: { idle: '20s' } }), { clock })
  const response = await get(port, '/large')
  let bytes = 0
  response.on('data', chunk => {
    bytes += chunk.length
  })
  while (!response.complete && poured.sent < 64 * 1024 * 1024) {
    response.pause()
    await still(() => poured.sent)
    clock.advance(15_000)
    gateway.runtime.deadlines.tick()
    const before = poured.sent
    response.resume()
    await until(() => poured.sent > before || poured.done)
  }
  response.resume()
  await once(response, 'end')
  t.equal(bytes, 64 * 1024 * 1024)
})

t.test('RTE-18 a client of HTTP/1.0 gets a stream, too, ended by the connection', async t => {
  const upstream = await startService(t, (_request, response) => {
    response.write('a')
    setImmediate(() => response.end('b'))
  })
  const { port } = await startGateway(t, route(upstream.url))
  const { text, closed } = await raw(port, 'GET / HTTP/1.0\r\n\r\n')
  t.match(text, /^HTTP\/1\.1 200 OK\r\n/)
  t.notMatch(text, /transfer-encoding/i)
  t.match(text, /\r\n\r\nab$/)
  t.ok(closed)
})
