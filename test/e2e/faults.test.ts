import http, { type IncomingHttpHeaders } from 'node:http'
import t from 'tap'
import { startFaultProxy } from '../support/fault-proxy.ts'
import { freePort } from '../support/free-port.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { until } from '../support/until.ts'
import { startRawUpstream, startService, startUpstream } from '../support/upstream.ts'

const open = { authentication: 'none' }
const route = (url: string, more: object = {}) => ({
  defaults: open,
  services: { s: { url, ...more } },
  routes: [{ path: '/**', service: 's' }]
})

t.test('H-88 a service that refuses or resets is 502, and Proxy-Status says how', async t => {
  const upstream = await startUpstream(t)
  const proxy = await startFaultProxy(t, upstream.port, { kind: 'refuse' })
  const { call, line } = await startGateway(t, route(proxy.url))

  const refused = await call('/refused')
  t.match(refused, {
    status: 502,
    headers: { 'proxy-status': 'sallyport; error=connection_refused', 'cache-control': 'no-store' },
    json: { error: { code: 'bad_gateway' } }
  })
  t.notMatch(refused.text, new RegExp(String(proxy.port)), 'no address in the answer')
  t.notOk('upstream_ms' in (await line({ path: '/refused' })), 'there was no answer')
  t.match(await line({ path: '/refused' }), { status_code: 502, reason: /^connect: ECONNREFUSED/, service: 's' })

  await proxy.set({ kind: 'reset-on-accept' })
  t.match(await call('/accepted'), {
    status: 502,
    headers: { 'proxy-status': 'sallyport; error=connection_terminated' }
  })
  await proxy.set({ kind: 'reset-on-request' })
  t.match(await call('/asked', { method: 'POST', body: 'x' }), {
    status: 502,
    headers: { 'proxy-status': 'sallyport; error=connection_terminated' }
  })

  await proxy.set({ kind: 'none' })
  t.equal((await call('/again')).status, 200, 'it is back as soon as the service is')
})

t.test('H-88 a name that leads nowhere is 502 with dns_error', async t => {
  const { call } = await startGateway(t, route('http://nowhere.invalid'))
  t.match(await call('/x'), { status: 502, headers: { 'proxy-status': 'sallyport; error=dns_error' } })
})

t.test('H-96 what is no HTTP, a head too large or without end is 502, and little of it is kept', async t => {
  let sent = 0
  const upstream = await startRawUpstream(t, (socket, received) => {
    if (received.startsWith('GET /garbage')) socket.end('SSH-2.0-OpenSSH\r\n\r\n')
    else if (received.startsWith('GET /large'))
      socket.end(`HTTP/1.1 200 OK\r\nX-Large: ${'x'.repeat(1024 * 1024)}\r\n\r\n`)
    else if (received.startsWith('GET /endless')) {
      socket.write('HTTP/1.1 200 OK\r\n')
      const more = (): void => {
        while (!socket.destroyed && sent < 1e9) {
          sent += 9
          if (!socket.write('X-A: b\r\n')) return void socket.once('drain', more)
        }
      }
      more()
    } else socket.end('HTTP/1.1 two hundred\r\n\r\n')
  })
  const { call, line } = await startGateway(t, route(upstream.url))
  for (const path of ['/garbage', '/large', '/endless', '/status']) {
    t.match(
      await call(path),
      { status: 502, headers: { 'proxy-status': 'sallyport; error=http_protocol_error' } },
      path
    )
    t.match(await line({ path }), { reason: /^protocol: / })
  }
  t.ok(sent < 10e6, 'an endless head is not read to its end')
})

t.test('H-45 H-95 fields that could split an answer are 502', async t => {
  let bad = ''
  const upstream = await startRawUpstream(t, socket => {
    socket.end(Buffer.from(`HTTP/1.1 200 OK\r\nX-Bad: a${bad}b\r\nContent-Length: 2\r\n\r\nok`, 'latin1'))
  })
  const { call } = await startGateway(t, route(upstream.url))
  for (bad of [
    '\u0000',
    '\rSet-Cookie: a=b',
    '\nSet-Cookie : a=b',
    '\r\n Set-Cookie: a=b',
    '\u007f',
    '\u0001',
    '\u000b'
  ]) {
    const answer = await call('/x')
    t.equal(answer.status, 502, JSON.stringify(bad))
    for (const name of ['set-cookie', 'x-bad']) t.notOk(name in answer.headers, name)
  }
})

t.test(
  'H-95 two answers, an answer to HEAD with a body, 204 and 304 with one: the next client gets its own',
  async t => {
    const extra = 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged'
    const upstream = await startRawUpstream(t, (socket, received) => {
      const asked = received.split('\r\n\r\n').at(-2) ?? ''
      if (asked.startsWith('GET /two')) socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo${extra}`)
      else if (asked.startsWith('HEAD /'))
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${extra.length}\r\n\r\n${extra}`)
      else if (asked.startsWith('GET /204'))
        socket.write(`HTTP/1.1 204 No Content\r\nContent-Length: ${extra.length}\r\n\r\n${extra}`)
      else if (asked.startsWith('GET /304')) socket.write(`HTTP/1.1 304 Not Modified\r\n\r\n${extra}`)
      else socket.write('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ngood!')
    })
    // One connection, so that the next request has nowhere else to go; and it waits for it already.
    const { call } = await startGateway(t, route(upstream.url, { pool: { connections: 1 } }))
    for (const [method, path, status] of [
      ['GET', '/two', 200],
      ['HEAD', '/head', 200],
      ['GET', '/204', 204],
      ['GET', '/304', 304]
    ] as const) {
      const [first, second] = await Promise.all([call(path, { method }), call('/next')])
      t.equal(first.status, status, path)
      t.equal(second.text, 'good!', `after ${path}`)
      t.equal((await call('/later')).text, 'good!')
    }
  }
)

t.test('H-95 both framings at once, 101 unasked, 100 unasked: 502 or a whole answer, never a hanging one', async t => {
  const upstream = await startRawUpstream(t, (socket, received) => {
    if (received.startsWith('GET /both'))
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n')
    else if (received.startsWith('GET /lengths'))
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde')
    else if (received.startsWith('GET /101'))
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
    else socket.write('HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
  })
  const { call } = await startGateway(t, route(upstream.url))
  t.equal((await call('/both')).status, 502)
  t.equal((await call('/lengths')).status, 502)
  t.equal((await call('/101')).status, 502)
  t.equal((await call('/100')).status, 502)
})

t.test('H-89 H-90 an answer that is cut off never looks complete', async t => {
  const body = 'x'.repeat(200_000)
  const upstream = await startService(t, (request, response) => {
    request.resume()
    if (request.url === '/length') response.setHeader('content-length', body.length)
    response.end(body)
  })
  for (const kind of ['reset-after', 'end-after'] as const) {
    const proxy = await startFaultProxy(t, upstream.port, { kind, bytes: 100_000 })
    const { port, line, gateway } = await startGateway(t, { ...route(proxy.url), defaults: { ...open, retry: 3 } })
    for (const path of ['/length', '/chunked']) {
      const answer = await read(port, path)
      t.match(answer, { status: 200, complete: false, error: 'ECONNRESET' }, `${kind} ${path}`)
      t.match(await line({ path }), { aborted: true, attempts: 1, status_code: 200, reason: /^reset: / })
    }
    t.equal(gateway.server.inFlight, 0)
  }
})

t.test('H-89 an answer that ends with its connection is not taken for whole when the connection is reset', async t => {
  const upstream = await startRawUpstream(t, socket => {
    socket.write(`HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n${'x'.repeat(50_000)}`, () =>
      setImmediate(() => socket.resetAndDestroy())
    )
  })
  const { port, line } = await startGateway(t, route(upstream.url))
  t.match(await read(port, '/x'), { complete: false, error: 'ECONNRESET' })
  t.match(await line({ path: '/x' }), { aborted: true })
})

t.test('H-98 a client that goes away takes its request to the service along, and leaves nothing behind', async t => {
  let asked = 0
  let gone = 0
  const upstream = await startService(t, (request, response) => {
    asked++
    response.on('close', () => gone++)
    if (request.url === '/answering') response.write('some')
    request.resume()
  })
  const { port, gateway, line } = await startGateway(t, route(upstream.url))
  const clients: [path: string, method: string][] = [
    ['/waiting', 'GET'],
    ['/answering', 'GET'],
    ['/sending', 'POST']
  ]
  for (const [path, method] of clients) {
    const before = asked
    const request = http.request({
      port,
      host: '127.0.0.1',
      path,
      method,
      agent: false,
      headers: method === 'POST' ? { 'transfer-encoding': 'chunked' } : {}
    })
    request.on('error', () => {})
    request.on('response', response => response.on('error', () => {}).once('data', () => request.destroy()))
    if (method === 'POST') request.write('half of it')
    else request.end()
    await until(() => asked > before)
    if (path !== '/answering') request.destroy()
    await until(() => gone === asked, `${path}: the service’s side is closed`)
    t.match(await line({ path }), { aborted: true, status_code: path === '/answering' ? 200 : 499 })
  }
  t.equal(gateway.server.inFlight, 0)
  t.same(await failures(gateway), [], 'a client’s leaving is no failure of the service')
})

t.test('H-98 a client that leaves while its request waits for a connection is forgotten', async t => {
  const waiting: http.ServerResponse[] = []
  const upstream = await startService(t, (_request, response) => void waiting.push(response))
  const { port, call, gateway, line } = await startGateway(t, route(upstream.url, { pool: { connections: 1 } }))
  const first = call('/first')
  await until(() => waiting.length === 1)
  const second = http.get({ port, host: '127.0.0.1', path: '/second', agent: false }).on('error', () => {})
  await until(() => gateway.server.inFlight === 2)
  second.destroy()
  await line({ path: '/second', status_code: 499 })
  waiting[0]?.end('done')
  t.equal((await first).text, 'done')
  const third = call('/third')
  await until(() => waiting.length === 2)
  waiting[1]?.end('done too')
  t.equal((await third).text, 'done too')
})

t.test('H-88 a request that finds no instance of its service at all is told so, and each was asked once', async t => {
  const ports = [await freePort(), await freePort(), await freePort()]
  const { call, line } = await startGateway(t, {
    defaults: open,
    services: { s: { instances: ports.map(port => ({ url: `http://127.0.0.1:${port}` })) } },
    routes: [{ path: '/**', service: 's' }]
  })
  t.equal((await call('/x', { method: 'POST', body: 'x' })).status, 502)
  t.match(await line({ path: '/x' }), { attempts: 3 })
})

async function failures({ runtime }: TestGateway['gateway']): Promise<unknown[]> {
  const family = runtime.metrics.families().find(({ name }) => name === 'service_error_count')
  return (await family?.get())?.values.filter(({ value }) => value > 0) ?? [undefined]
}

interface Read {
  status: number
  headers: IncomingHttpHeaders
  bytes: number
  /** Whether the answer ended where it said it would. */
  complete: boolean
  error: string | undefined
}

/** Reads an answer to whatever end it has. */
function read(port: number, path: string): Promise<Read> {
  return new Promise((resolve, reject) => {
    http
      .get({ port, host: '127.0.0.1', path, agent: false }, response => {
        let bytes = 0
        let error: string | undefined
        response.on('data', chunk => {
          bytes += chunk.length
        })
        response.on('error', (cause: NodeJS.ErrnoException) => {
          error = cause.code
        })
        response.on('close', () =>
          resolve({
            status: response.statusCode as number,
            headers: response.headers,
            bytes,
            complete: response.complete,
            error
          })
        )
      })
      .on('error', reject)
  })
}
