import { once } from 'node:events'
import http2, { type ClientHttp2Session, type IncomingHttpHeaders } from 'node:http2'
import t, { type Test } from 'tap'
import { makeCertificate, writeCertificate } from '../support/certificates.ts'
import { temporaryFolder } from '../support/folder.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import {
  CODE,
  connectFrames,
  FLAG,
  FRAME,
  type FrameConnection,
  fieldsOf,
  frame,
  literals,
  request
} from '../support/http2.ts'
import { until } from '../support/until.ts'
import { startService, startUpstream } from '../support/upstream.ts'

const door = makeCertificate({ name: 'door', hosts: ['localhost'] })

async function startSecure(
  t: Test,
  url: string,
  settings: { server?: object; route?: object; services?: object } = {}
): Promise<TestGateway> {
  return startGateway(t, {
    server: { tls: writeCertificate(temporaryFolder(t), 'door', door), ...settings.server },
    services: { service: { url }, ...settings.services },
    routes: [{ path: '/**', service: 'service', authentication: 'none', ...settings.route }]
  })
}

function open(t: Test, port: number): ClientHttp2Session {
  const session = http2.connect(`https://localhost:${port}`, { ca: door.cert })
  session.on('error', () => {})
  t.teardown(() => session.destroy())
  return session
}

/** A whole request and its answer, trailers included. */
async function exchange(
  session: ClientHttp2Session,
  headers: http2.OutgoingHttpHeaders,
  body?: string
): Promise<{ status: number; headers: IncomingHttpHeaders; text: string; trailers: IncomingHttpHeaders }> {
  const stream = session.request({ ':authority': 'door.test', ...headers }, { endStream: body === undefined })
  if (body !== undefined) stream.end(body)
  let text = ''
  let trailers: IncomingHttpHeaders = {}
  stream.on('data', chunk => {
    text += chunk
  })
  stream.on('trailers', fields => {
    trailers = fields
  })
  const [fields] = (await once(stream, 'response')) as [IncomingHttpHeaders & { ':status': number }]
  await once(stream, 'close')
  return { status: fields[':status'], headers: fields, text, trailers }
}

/** The statuses that fit into one byte of HPACK (RFC 7541 appendix A). */
const STATUSES: Record<number, number> = { 136: 200, 137: 204, 138: 206, 139: 304, 140: 400, 141: 404, 142: 500 }

/** What became of a stream: the status of its answer, `reset`, or `closed` with the whole connection. */
async function outcome(connection: FrameConnection, stream: number): Promise<number | 'reset' | 'closed'> {
  const answer = () =>
    connection.frames.find(
      frame => frame.stream === stream && (frame.type === FRAME.HEADERS || frame.type === FRAME.RST_STREAM)
    )
  await until(() => answer() !== undefined || connection.closed)
  const found = answer()
  if (found === undefined) return 'closed'
  return found.type === FRAME.RST_STREAM ? 'reset' : (STATUSES[found.payload[0] as number] ?? 0)
}

t.test('SEC-01 HTTP/2 is agreed on by ALPN; others get HTTP/1.1, and where it is off everybody does', async t => {
  const service = await startUpstream(t)
  const { port } = await startSecure(t, service.url)
  t.equal((await exchange(open(t, port), { ':path': '/x' })).status, 200)
  t.match(service.last().headers, { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'door.test' })
  const without = await startSecure(t, service.url, { server: { http2: false } })
  const [refused] = (await once(open(t, without.port), 'error')) as [NodeJS.ErrnoException]
  t.equal(refused.code, 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL')
})

t.test('RTE-18 a body of each kind, trailers and answers without a body pass through HTTP/2', async t => {
  const service = await startService(t, (incoming, response) => {
    if (incoming.url === '/none') return void response.writeHead(204).end()
    if (incoming.method === 'HEAD') return void response.writeHead(200, { 'content-length': 7 }).end()
    response.writeHead(200, {
      trailer: 'x-sum',
      'set-cookie': ['a=1', 'b=2'],
      connection: 'keep-alive, x-hop',
      'x-hop': '1'
    })
    incoming.on('data', chunk => response.write(chunk))
    incoming.on('end', () => {
      response.addTrailers({
        'x-sum': `${incoming.headers['content-length'] ?? incoming.headers['transfer-encoding']}`
      })
      response.end()
    })
  })
  const { port } = await startSecure(t, service.url)
  const session = open(t, port)
  const large = 'x'.repeat(300_000)
  const known = await exchange(
    session,
    { ':method': 'POST', ':path': '/', te: 'trailers', 'content-length': large.length },
    large
  )
  t.match(known, {
    status: 200,
    text: large,
    trailers: { 'x-sum': '300000' },
    headers: { 'set-cookie': ['a=1', 'b=2'] }
  })
  for (const name of ['connection', 'keep-alive', 'transfer-encoding', 'x-hop']) t.notOk(name in known.headers, name)
  const unknown = await exchange(session, { ':method': 'POST', ':path': '/', te: 'trailers' }, large)
  t.match(unknown, { status: 200, text: large, trailers: { 'x-sum': 'chunked' } })
  t.match(await exchange(session, { ':method': 'HEAD', ':path': '/' }), {
    status: 200,
    text: '',
    headers: { 'content-length': '7' }
  })
  t.match(await exchange(session, { ':path': '/none' }), { status: 204, text: '' })
})

t.test('H-89 H-98 a service that breaks off resets the stream, and a client that does aborts the request', async t => {
  let gone = 0
  const service = await startService(t, (incoming, response) => {
    response.on('close', () => gone++)
    response.writeHead(200, { 'content-length': 100 })
    response.write('begun')
    if (incoming.url === '/cut') setImmediate(() => response.destroy())
  })
  const gateway = await startSecure(t, service.url)
  const session = open(t, gateway.port)
  const cut = session.request({ ':path': '/cut' })
  cut.resume()
  const [error] = (await once(cut, 'error')) as [NodeJS.ErrnoException]
  t.equal(error.code, 'ERR_HTTP2_STREAM_ERROR')
  t.equal(cut.rstCode, CODE.INTERNAL_ERROR)
  const left = session.request({ ':path': '/left' })
  await once(left, 'data')
  left.close(http2.constants.NGHTTP2_CANCEL)
  await until(() => gone === 2)
  await until(() => gateway.gateway.server.inFlight === 0)
})

t.test('H-97 TRC-06 uploads that drip and answers that nobody takes have their end on HTTP/2 as well', async t => {
  let gone = 0
  const service = await startService(t, (incoming, response) => {
    incoming.resume()
    response.on('close', () => gone++)
    if (incoming.method === 'GET') response.end(Buffer.alloc(16 << 20))
  })
  const gateway = await startSecure(t, service.url, {
    server: { timeouts: { request: '400ms', drain: '2s' } },
    route: { service: 'impatient' },
    services: { impatient: { url: service.url, timeouts: { idle: '200ms' } } }
  })
  const connection = await connectFrames(t, gateway.port)
  await connection.send(request(1, fieldsOf({ ':method': 'POST' }), false))
  const dripping = setInterval(() => connection.send(frame(FRAME.DATA, FLAG.NONE, 1, [1])), 20)
  t.teardown(() => clearInterval(dripping))
  await until(() => connection.frames.some(({ type, stream }) => type === FRAME.HEADERS && stream === 1))
  clearInterval(dripping)
  t.match(await gateway.line({ method: 'POST' }), { status_code: 408, reason: 'slow_request' })
  await until(() => gone === 1)

  // The window of a connection is never opened again: 64 KiB come, and no more.
  await connection.send(GET(3))
  await until(() => connection.frames.some(({ type, stream }) => type === FRAME.RST_STREAM && stream === 3))
  t.match(await gateway.line({ method: 'GET' }), { reason: 'the client does not read' })
  await until(() => gone === 2)
  await until(() => gateway.gateway.server.inFlight === 0)
})

t.test('H-94 an answer before the end of an upload is whole, and ends the stream alone', async t => {
  const service = await startService(t, (_incoming, response) => response.writeHead(403).end('x'.repeat(50_000)))
  const gateway = await startSecure(t, service.url, { route: { body_limit: '1mb' } })
  const session = open(t, gateway.port)
  const upload = async (headers: object): Promise<[number, number]> => {
    const stream = session.request({ ':method': 'POST', ':path': '/', ':authority': 'door.test', ...headers })
    stream.write(Buffer.alloc(100_000))
    let length = 0
    stream.on('data', chunk => {
      length += chunk.length
    })
    stream.on('error', () => {})
    const [{ ':status': status }] = (await once(stream, 'response')) as [{ ':status': number }]
    await once(stream, 'close')
    t.equal(stream.rstCode, CODE.NO_ERROR)
    return [status, length]
  }
  t.same(await upload({}), [403, 50_000], 'the service’s')
  t.equal((await upload({ 'content-length': 2 << 20 }))[0], 413, 'the gateway’s')
  t.equal((await upload({ ':path': '/..;/' }))[0], 400)
  t.equal((await exchange(session, { ':path': '/' })).status, 403, 'the connection goes on')
  await until(() => gateway.gateway.server.inFlight === 0)
})

t.test('H-46 an answer may have fields with names that every object has', async t => {
  const service = await startService(t, (_request, response) => {
    response.writeHead(200, ['constructor', 'a', '__proto__', 'b', 'constructor', 'c'])
    response.end()
  })
  const { port } = await startSecure(t, service.url)
  const { status, headers } = await exchange(open(t, port), { ':path': '/' })
  t.equal(status, 200)
  t.equal(String(headers.constructor), 'a, c')
})

t.test('H-109 H-110 requests that HTTP/2 forbids reach nobody, and others on the connection go on', async t => {
  const service = await startUpstream(t)
  const { port } = await startSecure(t, service.url)
  const connection = await connectFrames(t, port)
  let stream = -1
  for (const [name, fields, expected] of [
    ['Connection', fieldsOf({}, [['connection', 'close']]), 'reset'],
    ['Transfer-Encoding', fieldsOf({ ':method': 'POST' }, [['transfer-encoding', 'chunked']]), 'reset'],
    ['Upgrade', fieldsOf({}, [['upgrade', 'websocket']]), 'reset'],
    ['Proxy-Connection', fieldsOf({}, [['proxy-connection', 'close']]), 'reset'],
    ['TE: gzip', fieldsOf({}, [['te', 'gzip']]), 'reset'],
    ['a name in upper case', fieldsOf({}, [['X-Upper', '1']]), 'reset'],
    ['a line break in the path', fieldsOf({ ':path': '/a HTTP/1.1\r\nx-injected: 1' }), 'reset'],
    ['a space in the path', fieldsOf({ ':path': '/a b' }), 'reset'],
    ['a line break in the method', fieldsOf({ ':method': 'GET / HTTP/1.1\r\nx-injected: 1' }), 'reset'],
    ['a space in the method', fieldsOf({ ':method': 'GET /injected' }), 'reset'],
    ['a line break in the authority', fieldsOf({ ':authority': 'door.test\r\nx-injected: 1' }), 'reset'],
    ['user information in the authority', fieldsOf({ ':authority': 'user@door.test' }), 'reset'],
    ['two paths', fieldsOf({}, [[':path', '/b']]), 'reset'],
    ['a pseudo field behind another', [...fieldsOf({ ':path': undefined }), ['x-a', '1'], [':path', '/']], 'reset'],
    ['an unknown pseudo field', fieldsOf({ ':injected': '1' }), 'reset'],
    ['another host', fieldsOf({}, [['host', 'other.test']]), 400],
    [
      'two hosts',
      fieldsOf({}, [
        ['host', 'door.test'],
        ['host', 'door.test']
      ]),
      'reset'
    ],
    ['no host', fieldsOf({ ':authority': undefined }), 'reset'],
    ['a length without a body', fieldsOf({ ':method': 'POST' }, [['content-length', '5']]), 'reset'],
    [
      'two lengths',
      fieldsOf({ ':method': 'POST' }, [
        ['content-length', '0'],
        ['content-length', '0']
      ]),
      'reset'
    ],
    ['a length that is none', fieldsOf({ ':method': 'POST' }, [['content-length', '+0']]), 'reset'],
    ['no path', fieldsOf({ ':path': undefined }), 'reset'],
    ['an empty path', fieldsOf({ ':path': '' }), 'reset'],
    ['* as the path', fieldsOf({ ':path': '*' }), 'reset'],
    ['* as the path of OPTIONS', fieldsOf({ ':method': 'OPTIONS', ':path': '*' }), 400],
    ['a path without a slash', fieldsOf({ ':path': 'a/b' }), 'reset'],
    ['a whole URL', fieldsOf({ ':path': 'https://door.test/' }), 'reset'],
    ['CONNECT with a path', fieldsOf({ ':method': 'CONNECT' }), 'reset'],
    ['an extended CONNECT', fieldsOf({ ':method': 'CONNECT' }, [[':protocol', 'websocket']]), 'reset'],
    // nghttp2 leaves these fields out, and the request goes on without them.
    ['a line break in a value', fieldsOf({}, [['x-a', '1\r\nx-injected: 2']]), 200],
    ['NUL in a value', fieldsOf({}, [['x-injected', 'a\0b']]), 200],
    ['a line break in a name', fieldsOf({}, [['x-a: 1\r\nx-injected', '1']]), 200],
    ['a colon in a name', fieldsOf({}, [['x-injected:', '1']]), 200],
    ['no name', fieldsOf({}, [['', 'x-injected']]), 200]
  ] as [string, [string, string][], number | 'reset'][]) {
    const before = service.seen.length
    stream += 2
    await connection.send(request(stream, fields))
    t.equal(await outcome(connection, stream), expected, name)
    t.equal(service.seen.length - before, expected === 200 ? 1 : 0, name)
  }
  t.notMatch(JSON.stringify(service.seen), /injected/)
  await connection.send(request(stream + 2, fieldsOf()))
  t.equal(await outcome(connection, stream + 2), 200)
})

t.test('H-109 a body that is longer or shorter than it said aborts the request to the service', async t => {
  const bodies: Promise<string>[] = []
  const service = await startService(t, (incoming, response) => {
    bodies.push(
      new Promise(resolve => {
        incoming.resume()
        incoming.on('end', () => resolve('whole')).on('close', () => resolve('aborted'))
      })
    )
    incoming.on('end', () => response.end())
  })
  const { port } = await startSecure(t, service.url)
  for (const [said, sent, end] of [
    [30_000, 30_002, 'closed'],
    [30_004, 30_002, 'reset'],
    [70_000, 60_000, 'reset']
  ] as const) {
    const connection = await connectFrames(t, port)
    await connection.send(
      request(1, fieldsOf({ ':method': 'POST' }, [['content-length', String(said)]]), false),
      ...Array.from({ length: 3 }, () => frame(FRAME.DATA, FLAG.NONE, 1, Buffer.alloc(10_000)))
    )
    // Small bodies are collected, so that they can be sent again; large ones are on their way by now.
    if (said === 70_000) await until(() => bodies.length > 0)
    const rest = Buffer.alloc((sent - 30_000) / 2)
    await connection.send(frame(FRAME.DATA, FLAG.NONE, 1, rest), frame(FRAME.DATA, FLAG.END_STREAM, 1, rest))
    t.equal(await outcome(connection, 1), end, `${sent} bytes instead of ${said}`)
  }
  t.same(await Promise.all(bodies), ['aborted'])
})

t.test('H-111 crumbs of a cookie are put together for the service', async t => {
  const service = await startUpstream(t)
  const { port } = await startSecure(t, service.url)
  const connection = await connectFrames(t, port)
  await connection.send(
    request(
      1,
      fieldsOf({}, [
        ['cookie', 'a=1'],
        ['x-a', '1'],
        ['cookie', 'b=2; c=3'],
        ['cookie', 'd=4']
      ])
    )
  )
  t.equal(await outcome(connection, 1), 200)
  const { rawHeaders } = service.last()
  t.same(
    rawHeaders.filter((_, i) => i % 2 === 1 && /^cookie$/i.test(rawHeaders[i - 1] as string)),
    ['a=1; b=2; c=3; d=4']
  )
})

/** Sends what `next` makes until the connection is over, or often enough that it should have been. */
async function flood(connection: FrameConnection, next: (i: number) => Buffer, times = 20_000): Promise<void> {
  for (let i = 0; i < times; i++) if (!(await connection.send(next(i)))) return
  await until(() => connection.closed).catch(() => {})
}

const GET = (stream: number): Buffer => request(stream, fieldsOf())

/** Ways to keep a server busy for little. */
const FLOODS: [string, first: Buffer[], next: (i: number) => Buffer][] = [
  [
    'H-105 rapid reset',
    [],
    i => Buffer.concat([GET(2 * i + 1), frame(FRAME.RST_STREAM, FLAG.NONE, 2 * i + 1, [0, 0, 0, 8])])
  ],
  [
    'H-106 resets that a window update of nothing makes the server send',
    [],
    i => Buffer.concat([GET(2 * i + 1), frame(FRAME.WINDOW_UPDATE, FLAG.NONE, 2 * i + 1, [0, 0, 0, 0])])
  ],
  [
    'H-106 the same by a window that is too large',
    [],
    i => Buffer.concat([GET(2 * i + 1), frame(FRAME.WINDOW_UPDATE, FLAG.NONE, 2 * i + 1, [127, 255, 255, 255])])
  ],
  [
    'H-106 the same by data behind the end',
    [],
    i => Buffer.concat([GET(2 * i + 1), frame(FRAME.DATA, FLAG.NONE, 2 * i + 1, [1])])
  ],
  [
    'H-106 the same by requests that are not allowed',
    [],
    i => request(2 * i + 1, fieldsOf({}, [['connection', 'close']]))
  ],
  [
    'H-107 a head that never ends',
    [frame(FRAME.HEADERS, FLAG.NONE, 1, literals(fieldsOf()))],
    i => frame(FRAME.CONTINUATION, FLAG.NONE, 1, literals([[`x-${i}`, 'y'.repeat(1000)]]))
  ],
  [
    'H-107 a head that goes on with nothing',
    [frame(FRAME.HEADERS, FLAG.NONE, 1, literals(fieldsOf()))],
    () => frame(FRAME.CONTINUATION, FLAG.NONE, 1)
  ],
  [
    'H-107 an index that is not there',
    [],
    i => frame(FRAME.HEADERS, FLAG.END_HEADERS | FLAG.END_STREAM, 2 * i + 1, [255, 255, 255, 127])
  ],
  [
    'H-107 a length beyond its frame',
    [],
    i =>
      frame(
        FRAME.HEADERS,
        FLAG.END_HEADERS | FLAG.END_STREAM,
        2 * i + 1,
        Buffer.concat([literals(fieldsOf()), Buffer.from([0, 127, 255, 255, 255, 127])])
      )
  ],
  ['H-108 settings', [], () => frame(FRAME.SETTINGS, FLAG.NONE, 0)],
  ['H-108 pings', [], () => frame(FRAME.PING, FLAG.NONE, 0, Buffer.alloc(8))],
  [
    'H-108 data without bytes',
    [request(1, fieldsOf({ ':method': 'POST' }), false)],
    () => frame(FRAME.DATA, FLAG.NONE, 1)
  ],
  ['H-108 a window that overflows', [], () => frame(FRAME.WINDOW_UPDATE, FLAG.NONE, 0, [127, 255, 255, 255])],
  ['H-108 priorities', [], i => frame(FRAME.PRIORITY, FLAG.NONE, 2 * i + 1, [0, 0, 0, 0, 1])]
]

t.test('H-105 H-106 H-107 H-108 who floods a connection loses it, and others are served', async t => {
  const service = await startUpstream(t)
  const gateway = await startSecure(t, service.url)
  const bystander = open(t, gateway.port)
  for (const [name, first, next] of FLOODS) {
    const before = service.seen.length
    const connection = await connectFrames(t, gateway.port)
    await connection.send(...first)
    const served = exchange(bystander, { ':path': '/bystander' })
    await flood(connection, next)
    t.ok(connection.closed, name)
    t.equal((await served).status, 200, `${name}: others are served`)
    t.ok(
      service.seen.length - before < 1500,
      `${name}: it did not reach the service ${service.seen.length - before} times`
    )
  }
  await until(() => gateway.gateway.server.inFlight === 0)
})

t.test('H-107 a field that is named a thousand times is refused before it takes memory', async t => {
  const service = await startUpstream(t)
  const { port } = await startSecure(t, service.url)
  const connection = await connectFrames(t, port)
  const stored = Buffer.concat([Buffer.from([0x40]), literals([['x-bomb', 'z'.repeat(3900)]]).subarray(1)])
  const bomb = Buffer.concat([literals(fieldsOf()), stored, Buffer.alloc(10_000, 0xbe)])
  for (let stream = 1; stream < 200; stream += 2) {
    await connection.send(frame(FRAME.HEADERS, FLAG.END_HEADERS | FLAG.END_STREAM, stream, bomb))
    t.equal(await outcome(connection, stream), 'reset')
  }
  const codes = connection.frames
    .filter(({ type }) => type === FRAME.RST_STREAM)
    .map(({ payload }) => payload.readUInt32BE(0))
  t.same(new Set(codes), new Set([CODE.ENHANCE_YOUR_CALM]))
  t.equal(service.seen.length, 0)
})

t.test('H-108 a client that floods without reading the answers loses its connection', async t => {
  const service = await startUpstream(t)
  const gateway = await startSecure(t, service.url)
  for (const bytes of [frame(FRAME.PING, FLAG.NONE, 0, Buffer.alloc(8)), frame(FRAME.SETTINGS, FLAG.NONE, 0)]) {
    const connection = await connectFrames(t, gateway.port)
    connection.socket.pause()
    const many = Buffer.concat(Array(1000).fill(bytes))
    for (let i = 0; i < 200; i++) connection.socket.write(many)
    connection.socket.resume()
    await until(() => connection.closed)
    t.equal(gateway.gateway.server.inFlight, 0)
  }
})

t.test('H-108 nothing is left of connections that were closed for what they sent', async t => {
  const service = await startUpstream(t)
  const gateway = await startSecure(t, service.url)
  const sockets = (): number =>
    process.getActiveResourcesInfo().filter(name => name === 'TLSWrap' || name === 'TCPSocketWrap').length
  const before = sockets()
  for (let i = 0; i < 100; i++) {
    const connection = await connectFrames(t, gateway.port)
    const overflow = frame(FRAME.WINDOW_UPDATE, FLAG.NONE, 0, [127, 255, 255, 255])
    await connection.send(GET(1), overflow, overflow)
    await until(() => connection.closed)
  }
  await until(() => gateway.gateway.server.inFlight === 0)
  await until(() => sockets() <= before + 1, 'their sockets are closed')
  t.equal((await exchange(open(t, gateway.port), { ':path': '/' })).status, 200)
})

t.test('H-105 a client may have so many requests under way on one connection, and no more', async t => {
  const waiting: (() => void)[] = []
  const service = await startService(t, (_request, response) => waiting.push(() => response.end()))
  const gateway = await startSecure(t, service.url)
  const session = open(t, gateway.port)
  const answers = Array.from({ length: 200 }, () => exchange(session, { ':path': '/' }))
  await until(() => waiting.length === 128)
  t.equal(gateway.gateway.server.inFlight, 128)
  let answered = 0
  await until(() => {
    for (const answer of waiting.splice(0)) {
      answer()
      answered++
    }
    return answered === 200
  })
  t.same(new Set((await Promise.all(answers)).map(({ status }) => status)), new Set([200]))
})
