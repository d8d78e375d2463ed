import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import http from 'node:http'
import net, { type AddressInfo, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { closeFrame, FrameFollower } from '../../src/proxy/frames.ts'
import { startBlackhole } from '../support/blackhole.ts'
import { FakeClock } from '../support/clock.ts'
import { freePort } from '../support/free-port.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { raw } from '../support/raw.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'

/** One end of a WebSocket, seen as bytes, with the frames in them. */
interface End {
  readonly socket: Socket
  /** Everything that has come after the handshake. */
  bytes(): Buffer
  /** The whole frames in it: code of operation and payload. */
  frames(): { code: number; payload: Buffer }[]
  /** Resolves when the other side has ended. */
  readonly ended: Promise<unknown>
}

function endOf(socket: Socket, first: Buffer = Buffer.alloc(0)): End {
  const chunks = [first]
  socket.on('data', chunk => chunks.push(chunk))
  socket.on('error', () => {})
  const bytes = (): Buffer => Buffer.concat(chunks)
  const ended = new Promise(resolve => socket.on('end', resolve).on('close', resolve))
  return { socket, bytes, frames: () => framesIn(bytes()), ended }
}

function framesIn(bytes: Buffer): { code: number; payload: Buffer }[] {
  const frames: { code: number; payload: Buffer }[] = []
  let at = 0
  while (at + 2 <= bytes.length) {
    const [first, second] = [bytes[at] as number, bytes[at + 1] as number]
    let length = second & 0x7f
    let head = 2
    if (length === 126) {
      length = bytes.readUInt16BE(at + 2)
      head = 4
    } else if (length === 127) {
      length = Number(bytes.readBigUInt64BE(at + 2))
      head = 10
    }
    const masked = (second & 0x80) !== 0
    const mask = masked ? bytes.subarray(at + head, at + head + 4) : Buffer.alloc(4)
    const start = at + head + (masked ? 4 : 0)
    if (start + length > bytes.length) break
    const payload = Buffer.from(bytes.subarray(start, start + length))
    for (let i = 0; i < payload.length; i++) payload[i] = (payload[i] as number) ^ (mask[i % 4] as number)
    frames.push({ code: first & 0x0f, payload })
    at = start + length
  }
  return frames
}

/** A frame as a client sends it, or, not masked, as a service does. */
function frameOf(payload: Buffer | string, { masked = true, code = 1, final = true } = {}): Buffer {
  const content = Buffer.from(payload)
  const length =
    content.length < 126
      ? [content.length]
      : content.length < 65536
        ? [126, content.length >> 8, content.length & 255]
        : [127, 0, 0, 0, 0, ...Buffer.from(Uint32Array.of(content.length).buffer).reverse()]
  const head = Buffer.from([(final ? 0x80 : 0) | code, ...length])
  if (!masked) return Buffer.concat([head, content])
  head[1] = (head[1] as number) | 0x80
  const mask = randomBytes(4)
  for (let i = 0; i < content.length; i++) content[i] = (content[i] as number) ^ (mask[i % 4] as number)
  return Buffer.concat([head, mask, content])
}

interface WebSocketService {
  readonly url: string
  /** Handshakes that have come. */
  readonly requests: http.IncomingMessage[]
  /** The ends of the WebSockets that have been opened. */
  readonly ends: End[]
}

/** A service that accepts WebSockets, or answers as `respond` does; its ends are the test's to use. */
async function startWebSockets(
  t: Test,
  respond?: (request: http.IncomingMessage, socket: Socket) => void
): Promise<WebSocketService> {
  const requests: http.IncomingMessage[] = []
  const ends: End[] = []
  const sockets = new Set<Socket>()
  const server = http.createServer((_request, response) => response.end('plain'))
  server.on('connection', socket => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
  })
  server.on('upgrade', (request: http.IncomingMessage, socket: Socket, head: Buffer) => {
    requests.push(request)
    if (respond !== undefined) return respond(request, socket)
    const accept = createHash('sha1')
      .update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
      .digest('base64')
    const [protocol] = String(request.headers['sec-websocket-protocol'] ?? '').split(', ')
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n${
        protocol === '' ? '' : `Sec-WebSocket-Protocol: ${protocol}\r\n`
      }X-From: service\r\n\r\n`
    )
    ends.push(endOf(socket, head))
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests, ends }
}

const KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
const handshake = (path = '/ws', fields = ''): string =>
  `GET ${path} HTTP/1.1\r\nHost: door.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${KEY}\r\n${fields}\r\n`

interface Client extends End {
  /** The head of the answer to the handshake. */
  readonly head: string
}

/** Opens a WebSocket. @param early what is sent right behind the handshake */
async function open(t: Test, port: number, request = handshake(), early: Buffer = Buffer.alloc(0)): Promise<Client> {
  const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  t.teardown(() => socket.destroy())
  socket.on('error', () => {})
  socket.write(Buffer.concat([Buffer.from(request, 'latin1'), early]))
  let received: Buffer = Buffer.alloc(0)
  while (!received.includes('\r\n\r\n')) {
    const [chunk] = (await once(socket, 'data')) as [Buffer]
    received = Buffer.concat([received, chunk])
  }
  const end = received.indexOf('\r\n\r\n') + 4
  const head = received.toString('latin1', 0, end)
  return { head, ...endOf(socket, received.subarray(end)) }
}

async function start(t: Test, url: string, more: object = {}, options = {}): Promise<TestGateway> {
  return startGateway(
    t,
    {
      services: { service: { url } },
      routes: [
        { path: '/ws', service: 'service', authentication: 'none', websocket: true },
        { path: '/guarded', service: 'service', websocket: true }
      ],
      ...more
    },
    options
  )
}

/** What a close frame says. */
function closing(end: End): { code: number; reason: string } | undefined {
  const frame = end.frames().find(({ code }) => code === 8)
  return frame && { code: frame.payload.readUInt16BE(0), reason: frame.payload.toString('utf8', 2) }
}

const closed = (gateway: TestGateway): Promise<void> => until(() => gateway.gateway.server.inFlight === 0)

t.test('RTE-19 RTE-20 a WebSocket opens, carries frames both ways, and its client closes it', async t => {
  const service = await startWebSockets(t)
  const gateway = await start(t, service.url)
  const client = await open(
    t,
    gateway.port,
    handshake(
      '/ws?room=1',
      'Origin: https://app.test\r\nSec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Extensions: permessage-deflate\r\nX-User-ID: forged\r\n'
    )
  )
  t.match(client.head, /^HTTP\/1\.1 101 Switching Protocols\r\n/)
  for (const field of [
    /\r\nUpgrade: websocket\r\n/,
    /\r\nConnection: Upgrade\r\n/,
    /\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=\r\n/,
    /\r\nSec-WebSocket-Protocol: chat\r\n/,
    /\r\nX-From: service\r\n/,
    /\r\nx-request-id: req_/
  ])
    t.match(client.head, field)
  t.match(service.requests[0], {
    url: '/ws?room=1',
    headers: {
      origin: 'https://app.test',
      'sec-websocket-key': KEY,
      'sec-websocket-protocol': 'chat, superchat',
      'sec-websocket-extensions': 'permessage-deflate',
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-host': 'door.test',
      'x-user-id': undefined
    }
  })
  const [end] = service.ends as [End]
  client.socket.write(frameOf('up'))
  await until(() => end.frames().length === 1)
  t.equal(end.frames()[0]?.payload.toString(), 'up')
  end.socket.write(frameOf('down', { masked: false }))
  await until(() => client.frames().length === 1)
  t.equal(client.frames()[0]?.payload.toString(), 'down')
  t.match((await gateway.call('/metrics')).text, /^gateway_websocket_connections 1$/m)

  client.socket.write(closeFrame(4000, 'mine', true))
  await until(() => closing(end) !== undefined)
  t.same(closing(end), { code: 4000, reason: 'mine' })
  end.socket.end(closeFrame(4000, 'mine', false))
  await client.ended
  t.same(closing(client), { code: 4000, reason: 'mine' })
  client.socket.end()
  await closed(gateway)
  t.match(await gateway.line({ path: '/ws' }), { status_code: 101 })
})

t.test('RTE-20 a WebSocket that the service closes, or drops, ends at the client likewise', async t => {
  const service = await startWebSockets(t)
  const gateway = await start(t, service.url)
  const client = await open(t, gateway.port)
  service.ends[0]?.socket.end(closeFrame(1011, 'broken', false))
  await client.ended
  t.same(closing(client), { code: 1011, reason: 'broken' })
  client.socket.end(closeFrame(1011, 'broken', true))
  await closed(gateway)

  const dropped = await open(t, gateway.port)
  service.ends[1]?.socket.write(frameOf('half', { masked: false }).subarray(0, 3))
  await until(() => dropped.bytes().length === 3)
  service.ends[1]?.socket.resetAndDestroy()
  await dropped.ended
  t.equal(closing(dropped), undefined, 'nothing is made up')
  await closed(gateway)

  const gone = await open(t, gateway.port)
  gone.socket.resetAndDestroy()
  await service.ends[2]?.ended
  await closed(gateway)
})

t.test('RTE-19 every policy runs before the handshake goes anywhere', async t => {
  const service = await startWebSockets(t)
  const gateway = await start(t, service.url, {
    rate_limits: { roles: { user: 2 } },
    routes: [
      { path: '/guarded', service: 'service', websocket: true, permissions: ['chat'] },
      { path: '/limited', service: 'service', websocket: true },
      {
        path: '/blocked',
        service: 'service',
        websocket: true,
        authentication: 'none',
        ip_filter: { deny: ['127.0.0.1'] }
      }
    ]
  })
  const bearer = (claims: object): string => `Authorization: Bearer ${token(claims)}\r\n`
  const status = async (path: string, fields = ''): Promise<number> =>
    (await raw(gateway.port, handshake(path, fields))).status
  t.equal(await status('/guarded'), 401)
  t.equal(await status('/guarded', bearer({ roles: ['user'] })), 403)
  t.equal(await status('/blocked'), 403)
  t.equal(await status('/guarded/../nowhere'), 404)
  t.equal(service.requests.length, 0)
  t.equal(await status('/guarded', bearer({ sub: 'bob', permissions: ['chat'] })), 101)
  t.match(service.requests[0]?.headers, { 'x-user-id': 'bob', authorization: undefined })
  const limited = bearer({ sub: 'carol', roles: ['user'] })
  t.same(
    [await status('/limited', limited), await status('/limited', limited), await status('/limited', limited)],
    [101, 101, 429]
  )
  t.equal(service.requests.length, 3)
})

t.test('H-113 what a service answers instead of opening is passed on as it is, and no tunnel opens', async t => {
  const service = await startWebSockets(t, ({ url }, socket) => {
    if (url === '/ws?302')
      socket.end(
        'HTTP/1.1 302 Found\r\nLocation: /login\r\nX-Hop: 1\r\nConnection: X-Hop, close\r\nContent-Length: 0\r\n\r\n'
      )
    else if (url === '/ws?404')
      socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nnone')
    else if (url === '/ws?200')
      socket.end('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nplain\r\n0\r\n\r\n')
    else if (url === '/ws?cut') socket.end('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun')
    else if (url === '/ws?h2c')
      socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nPRI')
    else if (url === '/ws?bad') socket.end('SSH-2.0\r\n\r\n')
    else socket.resetAndDestroy()
  })
  const gateway = await start(t, service.url)
  const answer = (query: string) =>
    raw(gateway.port, `${handshake(`/ws?${query}`)}GET /smuggled HTTP/1.1\r\nHost: door.test\r\n\r\n`)
  const found = await answer('302')
  t.match(found, { status: 302, closed: true, text: /^location: \/login\r$/im })
  t.notMatch(found.text, /x-hop/i)
  const none = await answer('404')
  t.match(none, { status: 404, text: /\r\n\r\nnone$/, closed: true })
  t.same(
    none.text.match(/^set-cookie: .*$/gim)?.map(line => line.slice(12)),
    ['a=1', 'b=2']
  )
  const plain = await answer('200')
  t.match(plain, { status: 200, closed: true, text: /plain/ })
  t.match(plain.text, /^connection: close\r$/im)
  const cut = await answer('cut')
  t.match(cut, { status: 200, text: /content-length: 100\r\n.*begun$/is, closed: true })
  t.match(await answer('h2c'), { status: 502, closed: true })
  t.match(await answer('bad'), { status: 502, text: /error=http_protocol_error/ })
  t.match(await answer('reset'), { status: 502, text: /error=connection_terminated/ })
  for (const query of ['302', '404', '200', 'cut', 'h2c', 'bad', 'reset'])
    t.equal((await answer(query)).text.match(/HTTP\/1\.1 \d/g)?.length, 1)
  await closed(gateway)
  t.notOk(service.requests.some(({ url }) => url?.includes('smuggled')))
})

t.test('SEC-04 a service’s own security fields stand in its answer to a handshake, each of them once', async t => {
  const own = 'X-Frame-Options: SAMEORIGIN\r\nAccess-Control-Allow-Origin: *\r\nX-RateLimit-Limit: 1\r\n'
  const service = await startWebSockets(t, ({ url }, socket) => {
    const [line, more] =
      url === '/ws?open'
        ? ['101 Switching Protocols', 'Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n']
        : ['403 Forbidden', 'Connection: close\r\nContent-Length: 2\r\n']
    socket.end(`HTTP/1.1 ${line}\r\n${own}${more}\r\n${url === '/ws?open' ? '' : 'no'}`)
  })
  const gateway = await start(t, service.url, { defaults: { security_headers: {} } })
  for (const [query, status, length] of [
    ['open', 101, undefined],
    ['refused', 403, ['2']]
  ] as const) {
    const answer = await raw(gateway.port, handshake(`/ws?${query}`))
    const values = (name: string) =>
      answer.text.match(new RegExp(`^${name}: .*$`, 'gim'))?.map(line => line.slice(name.length + 2))
    t.equal(answer.status, status)
    t.same(values('x-frame-options'), ['SAMEORIGIN'])
    t.same(values('x-content-type-options'), ['nosniff'])
    t.same(values('access-control-allow-origin'), ['*'])
    t.same(values('x-ratelimit-limit'), ['1'])
    t.same(values('content-length'), length)
  }
})

t.test('H-113 H-98 a client that leaves takes its handshake along, also in the middle of a refusal', async t => {
  const sockets: Socket[] = []
  const service = await startWebSockets(t, ({ url }, socket) => {
    sockets.push(socket)
    socket.resume()
    if (url === '/ws?refused') socket.write('HTTP/1.1 403 Forbidden\r\nContent-Length: 1000\r\n\r\nbegun')
  })
  const gateway = await start(t, service.url)
  for (const query of ['silent', 'refused']) {
    const client = net.connect(gateway.port, '127.0.0.1')
    client.on('error', () => {})
    client.write(handshake(`/ws?${query}`))
    const count = sockets.length
    await until(() => sockets.length > count)
    if (query === 'refused') await once(client, 'data')
    client.destroy()
    await until(
      () => sockets.at(-1)?.readableEnded === true || sockets.at(-1)?.destroyed === true,
      `${query}: the service is left, too`
    )
    await closed(gateway)
  }
})

t.test('RTE-19 H-88 a handshake fails over to the next instance, and says at which stage it failed', async t => {
  const service = await startWebSockets(t)
  const silent = await startWebSockets(t, () => {})
  const dead = `http://127.0.0.1:${await freePort()}`
  const blackhole = await startBlackhole(t)
  const gateway = await start(t, service.url, {
    services: {
      two: {
        instances: [
          { id: 'dead', url: dead },
          { id: 'alive', url: service.url }
        ],
        timeouts: { connect: 0 }
      },
      dead: { url: dead },
      silent: { url: silent.url },
      blackhole: { url: blackhole.url, timeouts: { connect: '100ms' } }
    },
    routes: ['two', 'dead', 'silent', 'blackhole'].map(name => ({
      path: `/${name}`,
      service: name,
      authentication: 'none',
      websocket: true,
      // 0 is no limit for a handshake either.
      timeout: name === 'two' ? 0 : '500ms'
    }))
  })
  for (let i = 0; i < 3; i++) t.equal((await raw(gateway.port, handshake('/two'))).status, 101)
  t.match(await raw(gateway.port, handshake('/dead')), { status: 502, text: /error=connection_refused/ })
  t.match(await raw(gateway.port, handshake('/silent')), { status: 504, text: /error=http_response_timeout/ })
  t.match(await raw(gateway.port, handshake('/blackhole')), { status: 504, text: /error=connection_timeout/ })
})

t.test('RES-01 C-21 handshakes pass the circuit breaker, too', async t => {
  const clock = new FakeClock()
  let well = false
  const service = await startWebSockets(t, (_request, socket) => {
    socket.end(`HTTP/1.1 ${well ? '200 OK' : '503 Unavailable'}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`)
  })
  const { port, gateway } = await start(
    t,
    service.url,
    { defaults: { circuit_breaker: { failure_threshold: 2, success_threshold: 1 } } },
    { clock }
  )
  for (let i = 0; i < 2; i++) t.match((await raw(port, handshake())).text, /^HTTP\/1.1 503 (?!.*retry-after)/s)
  t.match(await raw(port, handshake()), { status: 503, text: /retry-after: 60/i })
  t.equal(service.requests.length, 2)
  well = true
  clock.advance(60_000)
  t.equal((await raw(port, handshake())).status, 200)
  t.equal(gateway.runtime.breakers.all()[0]?.breaker.state, 'closed')
  for (const instance of gateway.runtime.services.get('service')?.instances ?? []) t.equal(instance.active, 0)
})

t.test('H-114 what is sent before the handshake is done arrives behind it, in order, from both sides', async t => {
  let accept = (): void => {}
  const ends: End[] = []
  const service = await startWebSockets(t, (_request, socket) => {
    accept = () => {
      socket.write(
        'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly from the service'
      )
      ends.push(endOf(socket))
    }
  })
  const gateway = await start(t, service.url)
  const socket = net.connect(gateway.port, '127.0.0.1')
  t.teardown(() => socket.destroy())
  const client = endOf(socket)
  socket.write(`${handshake()}one `)
  await until(() => service.requests.length === 1)
  const large = 'x'.repeat(3_000_000)
  socket.write('two ')
  socket.write(large)
  accept()
  await until(() => ends[0] !== undefined && ends[0].bytes().length >= large.length + 8)
  t.equal(ends[0]?.bytes().toString().replace(large, 'LARGE'), 'one two LARGE')
  await until(() => client.bytes().includes('early from the service'))
})

t.test('H-115 frames of every size and number, pings and what looks compressed pass as they are', async t => {
  const service = await startWebSockets(t)
  const gateway = await start(t, service.url)
  const client = await open(t, gateway.port)
  const [end] = service.ends as [End]
  const large = frameOf(randomBytes(5_000_000), { code: 2 })
  const fragments = Buffer.concat([
    frameOf('', { final: false }),
    ...Array.from({ length: 65_534 }, () => frameOf('f', { code: 0, final: false })),
    frameOf('', { code: 0 })
  ])
  const pings = Buffer.concat(Array.from({ length: 10_000 }, () => frameOf('', { code: 9 })))
  const odd = Buffer.concat([
    // RSV1, a reserved code, a control frame that is too long: the ends’ own business.
    Buffer.from([0xc1, 0x83, 0, 0, 0, 0, 1, 2, 3]),
    Buffer.from([0x8b, 0x80, 0, 0, 0, 0]),
    frameOf('x'.repeat(1000), { code: 9 })
  ])
  const sent = Buffer.concat([large, fragments, pings, odd])
  client.socket.write(sent)
  await until(() => end.bytes().length === sent.length)
  t.ok(end.bytes().equals(sent))
  // In single bytes, from the other side.
  const back = frameOf('x'.repeat(300), { masked: false })
  for (const byte of back) end.socket.write(Buffer.from([byte]))
  await until(() => client.bytes().length === back.length)
  t.ok(client.bytes().equals(back))
})

t.test('H-115 a frame that says it has 2^63 bytes ends with the WebSocket, and costs nothing', async t => {
  const service = await startWebSockets(t)
  const gateway = await start(t, service.url)
  const client = await open(t, gateway.port)
  const head = Buffer.from([0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0])
  client.socket.write(Buffer.concat([head, Buffer.alloc(100_000)]))
  await until(() => service.ends[0]?.bytes().length === head.length + 100_000)
  await gateway.gateway.close(5000)
  await service.ends[0]?.ended
  t.equal(closing(service.ends[0] as End), undefined, 'there is no place for a close frame in the middle of another')
  t.equal(closing(client)?.code, 1001, 'but there is in the other direction')
})

t.test('H-115 RTE-19 an end that does not read slows the other down, and nothing piles up', async t => {
  const service = await startWebSockets(t)
  const gateway = await start(t, service.url)
  const piece = frameOf(Buffer.alloc(60_000), { code: 2 })
  const total = 256 << 20
  for (const upwards of [true, false]) {
    const client = await open(t, gateway.port)
    const end = service.ends.at(-1) as End
    const [from, to] = upwards ? [client.socket, end.socket] : [end.socket, client.socket]
    to.removeAllListeners('data')
    to.pause()
    let sent = 0
    let received = 0
    const pour = (): void => {
      while (sent < total && !from.destroyed) {
        sent += piece.length
        if (!from.write(piece)) return void from.once('drain', pour)
      }
    }
    pour()
    let last = -1
    let same = 0
    await until(() => {
      same = sent === last ? same + 1 : 0
      last = sent
      return same > 40
    })
    t.ok(sent < 32 << 20, `${sent >> 20} MiB are on their way, ${upwards ? 'up' : 'down'}`)
    to.on('data', chunk => {
      received += chunk.length
    })
    to.resume()
    const so = sent
    await until(() => received > so, 'it goes on when it is read')
    from.destroy()
    to.destroy()
    await closed(gateway)
  }
})

t.test('H-115 a WebSocket on which nothing moves is closed with 1001 at both ends', async t => {
  const service = await startWebSockets(t)
  const gateway = await start(t, service.url, { server: { timeouts: { websocket_idle: '150ms' } } })
  const client = await open(t, gateway.port)
  const [end] = service.ends as [End]
  await Promise.all([client.ended, end.ended])
  t.same(closing(client), { code: 1001, reason: 'idle' })
  t.same(closing(end), { code: 1001, reason: 'idle' })
  await closed(gateway)
  t.match(await gateway.line({ path: '/ws' }), { status_code: 101, reason: 'idle' })
})

t.test('IDN-15 when the token is taken back its WebSocket is closed with 4401', async t => {
  const service = await startWebSockets(t)
  const clock = new FakeClock(Date.now())
  const gateway = await start(t, service.url, {}, { clock })
  const authorization = `Authorization: Bearer ${token({ jti: 'stolen', exp: Math.floor(clock.now() / 1000) + 600 })}\r\n`
  const client = await open(t, gateway.port, handshake('/guarded', authorization))
  clock.advance(10_000)
  await gateway.gateway.runtime.revocations.revoke([{ key: 'stolen', ttlMs: 600_000 }])
  clock.advance(10_000)
  await client.ended
  t.same(closing(client), { code: 4401, reason: 'token revoked' })
  await closed(gateway)
})

t.test('H-116 when the token expires its WebSocket is closed with 4401, between two frames', async t => {
  const service = await startWebSockets(t)
  const clock = new FakeClock(Date.now())
  const gateway = await start(t, service.url, {}, { clock })
  const exp = Math.floor(clock.now() / 1000) + 60
  clock.advance(exp * 1000 - clock.now() - 200)
  const client = await open(t, gateway.port, handshake('/guarded', `Authorization: Bearer ${token({ exp })}\r\n`))
  const [end] = service.ends as [End]
  const half = frameOf('a frame under way', { masked: false })
  end.socket.write(half.subarray(0, 5))
  await until(() => closing(end) !== undefined)
  t.same(closing(end), { code: 4401, reason: 'token expired' })
  t.equal(client.bytes().length, 5, 'not into the middle of a frame')
  end.socket.write(Buffer.concat([half.subarray(5), frameOf('another one', { masked: false }).subarray(0, 4)]))
  await client.ended
  const [whole, close, ...further] = client.frames()
  t.equal(whole?.payload.toString(), 'a frame under way')
  t.equal(close?.payload.readUInt16BE(0), 4401)
  t.same(further, [])
  await closed(gateway)
  t.match(await gateway.line({ path: '/guarded' }), { reason: 'token expired' })
})

t.test('H-116 RTE-20 a shutdown closes WebSockets with 1001, also those that are busy', async t => {
  const service = await startWebSockets(t)
  const gateway = await start(t, service.url)
  const quiet = await open(t, gateway.port)
  const busy = await open(t, gateway.port)
  const source = (service.ends[1] as End).socket
  const piece = frameOf(Buffer.alloc(1000), { masked: false, code: 2 })
  const pouring = setInterval(() => {
    for (let i = 0; i < 20; i++) if (source.writable) source.write(piece)
  }, 1)
  t.teardown(() => clearInterval(pouring))
  await until(() => busy.bytes().length > 100_000)
  const stopping = gateway.gateway.close(5000)
  await Promise.all([quiet.ended, busy.ended])
  for (const client of [quiet, busy]) t.same(closing(client), { code: 1001, reason: 'the gateway is shutting down' })
  t.equal(busy.frames().at(-1)?.code, 8, 'nothing follows')
  const follower = new FrameFollower()
  follower.push(busy.bytes())
  t.ok(follower.atBoundary)
  t.equal(closing(service.ends[0] as End)?.code, 1001)
  await stopping
})

t.test(
  'H-116 after a change of the configuration a WebSocket stays for the drain time, then is closed with 1001',
  async t => {
    const service = await startWebSockets(t)
    const document = {
      server: { timeouts: { drain: '300ms' } },
      services: { service: { url: service.url } },
      routes: [{ path: '/ws', service: 'service', authentication: 'none', websocket: true }]
    }
    const gateway = await startGateway(t, document)
    const client = await open(t, gateway.port)
    gateway.configure({ ...document, routes: [{ path: '/ws', service: 'service', websocket: true }] })
    t.match(await gateway.gateway.reload(), { changed: true })
    client.socket.write(frameOf('still here'))
    await until(() => service.ends[0]?.frames().length === 1)
    t.equal((await raw(gateway.port, handshake())).status, 401, 'the new rules hold for new ones')
    await client.ended
    t.match(closing(client), { code: 1001, reason: /configuration has changed/ })
  }
)

t.test('H-115 half-open ends, and ends that answer nothing, leave nothing behind', async t => {
  const service = await startWebSockets(t)
  const gateway = await start(t, service.url)
  const client = await open(t, gateway.port)
  const [end] = service.ends as [End]
  client.socket.end()
  await end.ended
  end.socket.write(frameOf('last words', { masked: false }))
  await until(() => client.frames().length === 1)
  t.equal(client.frames()[0]?.payload.toString(), 'last words', 'one direction may end before the other')
  end.socket.end()
  await closed(gateway)

  // Nobody reads, nobody answers: the close frame is not waited for.
  const deaf = await open(t, gateway.port)
  deaf.socket.pause()
  service.ends[1]?.socket.pause()
  const stopping = gateway.gateway.close(100)
  await stopping
  t.equal(gateway.gateway.server.inFlight, 0)
})
