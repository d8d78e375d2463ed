import { once } from 'node:events'
import net, { type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { startGateway } from '../support/gateway.ts'
import { many, tally } from '../support/many.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

const GET = 'GET /x HTTP/1.1\r\nHost: a\r\n\r\n'

/** A gateway with one route, open to all. */
async function startOpen(t: Test, server: object = {}) {
  const upstream = await startUpstream(t)
  const gateway = await startGateway(t, {
    server,
    services: { s: { url: upstream.url } },
    routes: [{ path: '/x', service: 's', authentication: 'none' }]
  })
  return { ...gateway, upstream }
}

/** A connection, what has come on it so far, and whether the gateway has ended it. */
class Client {
  text = ''
  closed = false
  readonly socket: Socket

  constructor(t: Test, port: number) {
    this.socket = net.connect(port, '127.0.0.1')
    this.socket.on('error', () => {})
    this.socket.on('data', chunk => {
      this.text += chunk.toString('latin1')
    })
    this.socket.on('close', () => {
      this.closed = true
    })
    t.teardown(() => this.socket.destroy())
  }

  get answers(): number {
    return this.text.match(/HTTP\/1\.1 200/g)?.length ?? 0
  }

  /** Asks once, and waits for the answer. */
  async ask(): Promise<void> {
    const before = this.answers
    this.socket.write(GET)
    await until(() => this.answers > before || this.closed, 'an answer')
  }

  async ended(): Promise<string> {
    if (!this.closed) await once(this.socket, 'close')
    return this.text
  }
}

async function connect(t: Test, port: number, count: number): Promise<Client[]> {
  const clients = Array.from({ length: count }, () => new Client(t, port))
  await Promise.all(clients.map(({ socket }) => (socket.connecting ? once(socket, 'connect') : undefined)))
  return clients
}

t.test('TRC-05 PRF-03 a thousand connections at once are served, and kept for the next request', async t => {
  const { port, gateway, upstream } = await startOpen(t)
  const clients = await connect(t, port, 1000)
  for (const round of [1, 2]) {
    for (const { socket } of clients) socket.write(GET)
    await until(() => clients.every(({ answers }) => answers === round), `answers of round ${round}`)
  }
  t.notOk(clients.some(({ closed }) => closed))
  t.equal(upstream.seen.length, 2000)
  t.equal(gateway.server.inFlight, 0)
})

t.test(
  'TRC-05 limits.connections: what is beyond it is closed at once, counted, and let in when there is room',
  async t => {
    const { port, gateway } = await startOpen(t, { limits: { connections: 5 } })
    const clients = await connect(t, port, 5)
    for (const client of clients) await client.ask()
    const [extra] = await connect(t, port, 1)
    t.equal(await extra!.ended(), '')
    t.same(gateway.runtime.metrics.connectionsRefused.samples(), [{ labels: { reason: 'limit' }, value: 1 }])
    clients[0]!.socket.destroy()
    await until(async () => {
      const [next] = await connect(t, port, 1)
      await next!.ask()
      return next!.answers === 1
    }, 'there is room again')
    for (const client of clients.slice(1)) await client.ask()
    t.ok(clients.slice(1).every(({ answers }) => answers === 2))
  }
)

t.test('TRC-05 limits.connections: 0 is no limit', async t => {
  const { call } = await startOpen(t, { limits: { connections: 0 } })
  t.equal((await call('/x')).status, 200)
})

t.test('TRC-06 limits.connections_per_ip: one address cannot take all connections', async t => {
  const { port, gateway } = await startOpen(t, { limits: { connections_per_ip: 3 } })
  const clients = await connect(t, port, 3)
  for (const client of clients) await client.ask()
  const [extra] = await connect(t, port, 1)
  t.equal(await extra!.ended(), '')
  t.same(gateway.runtime.metrics.connectionsRefused.samples(), [{ labels: { reason: 'limit_per_ip' }, value: 1 }])
  for (const { socket } of clients) socket.destroy()
  await until(async () => {
    const [next] = await connect(t, port, 1)
    await next!.ask()
    return next!.answers === 1
  }, 'connections that have ended count no more')
})

t.test('TRC-06 heads that come a byte at a time are given up, while others are served', async t => {
  const { port, call, lines, upstream } = await startOpen(t, { timeouts: { headers: '500ms' } })
  const clients = await connect(t, port, 50)
  const drip = setInterval(() => {
    for (const { socket, closed } of clients) if (!closed) socket.write('x')
  }, 20)
  t.teardown(() => clearInterval(drip))
  for (const { socket } of clients) socket.write('GET /x HTTP/1.1\r\nHost: a\r\nX-Slow: ')
  t.same(tally(await many(port, 20, '/x')), { 200: 20 })
  for (const text of await Promise.all(clients.map(client => client.ended()))) {
    t.match(text, /^HTTP\/1\.1 408 /)
    t.match(text, /"code":"request_timeout"/)
  }
  t.equal((await call('/x')).status, 200)
  t.equal(upstream.seen.length, 21, 'nothing of them reached the service')
  t.equal(lines().filter(({ reason }) => reason === 'slow_request').length, 50)
})

t.test('TRC-06 a body that comes a byte at a time has its time, too', async t => {
  const { port, gateway } = await startOpen(t, { timeouts: { headers: '500ms', request: '800ms' } })
  const [client] = await connect(t, port, 1)
  client!.socket.write('POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n')
  const drip = setInterval(() => client!.socket.write('x'), 20)
  t.teardown(() => clearInterval(drip))
  t.match(await client!.ended(), /^HTTP\/1\.1 408 /)
  await until(() => gateway.server.inFlight === 0)
})

t.test('TRC-06 connections on which nothing is asked are closed without a word', async t => {
  const { port, lines } = await startOpen(t, { timeouts: { headers: '400ms', idle: '300ms' } })
  const [silent, idle] = await connect(t, port, 2)
  await idle!.ask()
  t.match(idle!.text, /^keep-alive: timeout=/im)
  const before = lines().length
  t.equal(await silent!.ended(), '')
  await idle!.ended()
  t.equal(idle!.answers, 1)
  t.equal(lines().length, before, 'and without a line')
})

t.test('TRC-04 body_limit: too large a body is refused, whether it says so or not', async t => {
  const upstream = await startUpstream(t)
  const { call, line } = await startGateway(t, {
    services: { s: { url: upstream.url } },
    routes: [
      { path: '/small', service: 's', authentication: 'none', body_limit: '1kb' },
      { path: '/any', service: 's', authentication: 'none' }
    ]
  })
  const post = (path: string, bytes: number, headers: Record<string, string> = {}) =>
    call(path, { method: 'POST', body: 'x'.repeat(bytes), headers })
  const chunked = { 'transfer-encoding': 'chunked' }
  t.same([(await post('/small', 1024)).status, (await post('/small', 1024, chunked)).status], [200, 200])
  for (const headers of [{}, chunked]) {
    const refused = await post('/small', 1025, headers)
    t.match(refused.json, { error: { code: 'payload_too_large', status: 413, details: /1024 bytes/ } })
  }
  await line({ status_code: 413, reason: 'body_limit' })
  t.equal(upstream.seen.length, 2, 'no service gets a whole request of it')
  t.equal((await post('/any', 3_000_000)).status, 200, 'without a limit, none')
})

t.test(
  'TRC-04 H-94 a client that is still sending too large a body gets its 413, and may go on afterwards',
  async t => {
    const upstream = await startUpstream(t)
    const { port } = await startGateway(t, {
      services: { s: { url: upstream.url } },
      routes: [{ path: '/**', service: 's', authentication: 'none', body_limit: '1kb' }]
    })
    const [client] = await connect(t, port, 1)
    client!.socket.write(`POST /large HTTP/1.1\r\nHost: x\r\nContent-Length: 40000\r\n\r\n${'x'.repeat(10_000)}`)
    await until(() => client!.text.startsWith('HTTP/1.1 413'))
    client!.socket.write('x'.repeat(30_000))
    await client!.ask()
    t.equal(client!.answers, 1)
    t.match(
      upstream.seen.map(({ url }) => url),
      ['/x']
    )
  }
)
