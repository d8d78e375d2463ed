import net, { type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { HOST, startDoor } from '../support/door.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { raw } from '../support/raw.ts'
import { until } from '../support/until.ts'
import { startRawUpstream, startUpstream, type Upstream } from '../support/upstream.ts'

async function startOpen(t: Test, service: { url: string }, route: object = {}): Promise<TestGateway> {
  return startGateway(t, {
    services: { service: { url: service.url } },
    routes: [{ path: '/**', service: 'service', authentication: 'none', ...route }]
  })
}

const echo = (t: Test): Promise<Upstream> => startUpstream(t)

/** Sends a head, calls `next` when something has come back, and collects everything until the connection is closed or quiet. */
function inSteps(
  port: number,
  head: string,
  next: (text: string, socket: Socket) => void
): Promise<{ text: string; closed: boolean }> {
  return new Promise(resolve => {
    const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true })
    let text = ''
    let quiet: NodeJS.Timeout | undefined
    const end = (closed: boolean): void => {
      clearTimeout(quiet)
      socket.destroy()
      resolve({ text, closed })
    }
    socket.on('error', () => end(true))
    socket.on('end', () => end(true))
    socket.on('data', chunk => {
      text += chunk.toString('latin1')
      next(text, socket)
      clearTimeout(quiet)
      quiet = setTimeout(() => end(false), 150)
    })
    socket.write(head)
  })
}

t.test('H-20 a client that waits for 100 gets it once, then its answer', async t => {
  const service = await echo(t)
  const { port } = await startOpen(t, service)
  let sent = false
  const { text, closed } = await inSteps(
    port,
    `POST / HTTP/1.1\r\n${HOST}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n`,
    (text, socket) => {
      if (!sent && text === 'HTTP/1.1 100 Continue\r\n\r\n') {
        sent = true
        socket.write('hello')
      }
    }
  )
  t.same(text.match(/HTTP\/1\.1 \d+/g), ['HTTP/1.1 100', 'HTTP/1.1 200'])
  t.equal(service.last().body, 'hello')
  t.equal(service.last().headers.expect, undefined)
  t.notOk(closed)
  const upper = await raw(port, `POST / HTTP/1.1\r\n${HOST}Expect: 100-Continue\r\nContent-Length: 5\r\n\r\nhello`)
  t.same(
    upper.text.match(/HTTP\/1\.1 \d+/g),
    ['HTTP/1.1 100', 'HTTP/1.1 200'],
    'in any case, and when it does not wait'
  )
})

t.test('H-20 an expectation without a body gets no 100', async t => {
  const service = await echo(t)
  const { port } = await startOpen(t, service)
  for (const method of ['GET', 'HEAD', 'POST']) {
    const { text } = await raw(port, `${method} / HTTP/1.1\r\n${HOST}Expect: 100-continue\r\n\r\n`)
    t.same(text.match(/HTTP\/1\.1 \d+/g), ['HTTP/1.1 200'], method)
    t.equal(service.last().headers.expect, undefined)
  }
})

t.test('H-20 any other expectation is refused, and what may be its body is not read as a request', async t => {
  const door = await startDoor(t)
  for (const expectation of [
    '200-maybe',
    '100-continue, 200-maybe',
    '100-continue;q=1',
    'x100-continue',
    '',
    '100 continue'
  ]) {
    await door.refuses(
      t,
      JSON.stringify(expectation),
      `POST / HTTP/1.1\r\n${HOST}Expect: ${expectation}\r\nContent-Length: 5\r\n\r\n`,
      { status: 417, reason: 'expectation' }
    )
  }
  await door.refuses(
    t,
    'two of them',
    `POST / HTTP/1.1\r\n${HOST}Expect: 100-continue\r\nExpect: 200-maybe\r\nContent-Length: 5\r\n\r\n`,
    { status: 417 }
  )
  await door.refuses(t, 'with GET', `GET / HTTP/1.1\r\n${HOST}Expect: 200-maybe\r\n\r\n`, { status: 417 })
  const old = await raw(door.port, `GET / HTTP/1.0\r\n${HOST}Expect: 200-maybe\r\n\r\n`)
  t.equal(old.status, 200, 'HTTP/1.0 has no expectations (RFC 9110 section 10.1.1)')
})

t.test('H-20 TRC-04 a refusal comes without a 100, without reading, and ends the connection', async t => {
  const service = await echo(t)
  const gateway = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [
      { path: '/open', service: 'service', authentication: 'none', body_limit: '10b' },
      { path: '/closed', service: 'service' }
    ]
  })
  const expecting = (path: string, length: number): string =>
    `POST ${path} HTTP/1.1\r\n${HOST}Expect: 100-continue\r\nContent-Length: ${length}\r\n\r\n`
  // What comes next might be the body, or another request: nobody could tell.
  const next = `GET /open HTTP/1.1\r\n${HOST}\r\n`
  for (const [name, head, status] of [
    ['no credentials', expecting('/closed', 20), 401],
    ['a body too large', expecting('/open', 20), 413],
    ['no route', expecting('/nowhere', 20), 404],
    ['a bad path', expecting('/..;/', 20), 400]
  ] as const) {
    const { text, closed } = await inSteps(gateway.port, head, (_text, socket) => void socket.write(next))
    t.same(text.match(/HTTP\/1\.1 \d+/g), [`HTTP/1.1 ${status}`], name)
    t.match(text, /^connection: close\r$/im)
    t.ok(closed)
  }
  t.equal(service.seen.length, 0)
})

t.test(
  'H-17 TRC-04 a refused upload gets its answer even while it is being sent, and a small one keeps its connection',
  async t => {
    const service = await echo(t)
    const { port } = await startGateway(t, {
      services: { service: { url: service.url } },
      routes: [
        { path: '/closed', service: 'service', methods: ['POST'] },
        { path: '/open', service: 'service', authentication: 'none', body_limit: '1mb' }
      ]
    })
    const small = await raw(
      port,
      `POST /closed HTTP/1.1\r\n${HOST}Content-Length: 5\r\n\r\nhelloGET /open HTTP/1.1\r\n${HOST}\r\n`
    )
    t.same(small.text.match(/HTTP\/1\.1 \d+/g), ['HTTP/1.1 401', 'HTTP/1.1 200'])
    t.notOk(small.closed)
    const large = `Content-Length: ${20 << 20}\r\n\r\n${'x'.repeat(20 << 20)}`
    for (const [path, status] of [
      ['/closed', 401],
      ['/open', 413]
    ] as const) {
      const answer = await raw(port, `POST ${path} HTTP/1.1\r\n${HOST}${large}`)
      t.equal(answer.status, status)
      t.match(answer.text, /^connection: close\r$/im)
      t.ok(answer.closed)
    }
    const chunks = `Transfer-Encoding: chunked\r\n\r\n${`100000\r\n${'x'.repeat(1 << 20)}\r\n`.repeat(3)}0\r\n\r\n`
    const answer = await raw(port, `POST /open HTTP/1.1\r\n${HOST}${chunks}GET /smuggled HTTP/1.1\r\n${HOST}\r\n`)
    t.equal(answer.status, 413)
    t.ok(answer.closed)
    t.same(
      service.seen.map(({ url }) => url),
      ['/open'],
      'the service saw none of it to its end'
    )
  }
)

const webSocket = (fields = '', method = 'GET', version = '1.1'): string =>
  `${method} /ws HTTP/${version}\r\n${HOST}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n${fields}\r\n`

t.test('H-21 a WebSocket handshake that is none is refused, and the bytes behind it reach nobody', async t => {
  const door = await startDoor(t, { route: { websocket: true } })
  await door.refuses(t, 'with a body', webSocket('Content-Length: 5\r\n'), { reason: 'upgrade_with_body' })
  await door.refuses(t, 'with chunks', webSocket('Transfer-Encoding: chunked\r\n'), { reason: 'upgrade_with_body' })
  const old = await door.refuses(t, 'of another version', webSocket().replace('Version: 13', 'Version: 8'), {
    reason: 'websocket_version'
  })
  t.match(old.text, /^sec-websocket-version: 13\r$/m)
  await door.refuses(t, 'of no version', webSocket().replace('Sec-WebSocket-Version: 13\r\n', ''), {
    reason: 'websocket_version'
  })
  await door.refuses(t, 'of two versions', webSocket('Sec-WebSocket-Version: 13\r\n'), { reason: 'websocket_version' })
  await door.refuses(t, 'at a bad path', webSocket().replace('/ws', '/ws/..;/admin'), {
    reason: 'dot_segment_with_parameter'
  })
  await door.refuses(t, 'with a fragment', webSocket().replace('/ws', '/ws#a'), { reason: 'bad_character' })
  await door.refuses(t, 'with two hosts', webSocket('Host: other.test\r\n'), { reason: 'two_hosts' })
})

t.test(
  'H-21 H-112 a handshake that a policy refuses never reaches the service, nor do the bytes behind it',
  async t => {
    const service = await echo(t)
    const gateway = await startGateway(t, {
      services: { service: { url: service.url } },
      routes: [
        { path: '/ws', service: 'service', websocket: true },
        { path: '/plain', service: 'service', authentication: 'none' }
      ]
    })
    const behind = `GET /plain HTTP/1.1\r\n${HOST}\r\n`
    for (const [name, head, status] of [
      ['no token', webSocket(), 401],
      ['a bad token', webSocket('Authorization: Bearer x.y.z\r\n'), 401],
      ['no WebSockets there', webSocket().replace('/ws', '/plain'), 400],
      ['no such route', webSocket().replace('/ws', '/nowhere'), 404]
    ] as const) {
      const answer = await raw(gateway.port, head + behind)
      t.same(answer.text.match(/HTTP\/1\.1 \d+/g), [`HTTP/1.1 ${status}`], name)
      t.ok(answer.closed)
      t.match(answer.text, /^x-request-id: req_/m)
    }
    t.equal(service.seen.length, 0)
    await until(() => gateway.gateway.server.inFlight === 0)
  }
)

t.test('H-21 what only looks like a WebSocket is a plain request', async t => {
  const service = await echo(t)
  const { port } = await startOpen(t, service, { websocket: true })
  for (const [name, bytes] of [
    ['POST', `${webSocket('Content-Length: 2\r\n', 'POST')}hi`],
    ['HTTP/1.0', webSocket('', 'GET', '1.0').replace('Connection: Upgrade\r\n', '')],
    ['no Connection', webSocket().replace('Connection: Upgrade\r\n', '')],
    ['another protocol', webSocket().replace('Upgrade: websocket', 'Upgrade: tcp')],
    ['two protocols', webSocket().replace('Upgrade: websocket', 'Upgrade: websocket, h2c')]
  ] as const) {
    const answer = await raw(port, bytes, { quietMs: 30 })
    t.equal(answer.status, 200, name)
    t.equal(service.last().headers.upgrade, undefined)
    t.notMatch(String(service.last().headers.connection), /upgrade/i)
  }
})

t.test('H-22 HTTP/2 is not upgraded to: the request goes on as it is, and nothing behind it does', async t => {
  const service = await echo(t)
  const { port } = await startOpen(t, service)
  for (const head of ['GET /h2c', 'POST /h2c']) {
    for (const next of ['GET /next', 'PRI *']) {
      const answer = await raw(
        port,
        `${head} HTTP/1.1\r\n${HOST}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nContent-Length: 2\r\n\r\nhi${next} HTTP/1.1\r\n${HOST}\r\n`
      )
      t.same(answer.text.match(/HTTP\/1\.1 \d+/g), ['HTTP/1.1 200'])
      t.match(answer.text, /^connection: close\r$/im)
      t.ok(answer.closed)
      t.match(service.last(), { url: '/h2c', body: 'hi', headers: { connection: 'keep-alive' } })
      for (const name of ['upgrade', 'http2-settings']) t.equal(service.last().headers[name], undefined)
    }
  }
  t.equal(service.seen.length, 4)
})

t.test('H-114 H-21 a handshake behind a request that is under way waits, and the process survives', async t => {
  const waiting: (() => void)[] = []
  const service = await startRawUpstream(t, (socket, received) => {
    if (!received.endsWith('\r\n\r\n')) return
    waiting.push(() =>
      socket.write(
        received.includes('/ws')
          ? 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nframes'
          : 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst'
      )
    )
  })
  const gateway = await startOpen(t, service, { websocket: true })
  const answer = raw(gateway.port, `GET / HTTP/1.1\r\n${HOST}\r\n${webSocket()}`, { quietMs: 300 })
  await until(() => waiting.length === 1)
  waiting[0]?.()
  await until(() => waiting.length === 2)
  waiting[1]?.()
  const { text } = await answer
  t.same(text.match(/HTTP\/1\.1 \d+|first|frames/g), ['HTTP/1.1 200', 'first', 'HTTP/1.1 101', 'frames'])
  await until(() => gateway.gateway.server.inFlight === 0)
})

t.test('H-114 clients that break off at any point of a handshake leave nothing behind', async t => {
  const service = await startRawUpstream(t, () => {})
  const gateway = await startOpen(t, service, { websocket: true })
  const bytes = `GET / HTTP/1.1\r\n${HOST}\r\n${webSocket()}garbage`
  for (const reset of [true, false]) {
    for (let i = 1; i <= bytes.length; i += 23) {
      const socket = net.connect(gateway.port, '127.0.0.1')
      socket.on('error', () => {})
      await new Promise<void>(resolve => socket.on('connect', () => socket.write(bytes.slice(0, i), () => resolve())))
      if (reset) socket.resetAndDestroy()
      else socket.destroy()
    }
  }
  await until(() => gateway.gateway.server.inFlight === 0)
  t.equal((await gateway.call('/health')).status, 200)
})
