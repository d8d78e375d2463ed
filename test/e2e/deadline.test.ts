import { once } from 'node:events'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import t, { type Test } from 'tap'
import { startBlackhole } from '../support/blackhole.ts'
import { FakeClock } from '../support/clock.ts'
import { problemsOf } from '../support/config.ts'
import { startFaultProxy } from '../support/fault-proxy.ts'
import { startGateway } from '../support/gateway.ts'
import { until } from '../support/until.ts'
import { startRawUpstream, startService, startUpstream } from '../support/upstream.ts'

/** A gateway whose time stands still until `pass` lets some of it go by. */
async function gateway(t: Test, url: string, more: object) {
  const clock = new FakeClock()
  const started = await startGateway(
    t,
    {
      defaults: { authentication: 'none', ...more },
      services: { s: { url, pool: { connections: 2 } } },
      routes: [{ path: '/**', service: 's' }]
    },
    { clock, random: () => 0 }
  )
  const pass = (ms: number): void => {
    clock.advance(ms)
    started.gateway.runtime.deadlines.tick()
  }
  return { ...started, pass }
}

/** A service that takes requests and never answers; tells how many it has. */
async function hanging(t: Test) {
  return startFaultProxy(t, (await startUpstream(t)).port, { kind: 'silence' })
}

t.test('RTE-22 a deadline of 5 s with 3 retries before a service that hangs: one answer, after 5 s', async t => {
  const upstream = await hanging(t)
  const {
    call,
    pass,
    line,
    gateway: running
  } = await gateway(t, upstream.url, {
    timeout: '5s',
    retry: { attempts: 3, retry_on: ['connect', 'reset', 'timeout', 504] }
  })
  const answers: number[] = []
  const answer = call('/x')
  answer.then(({ status }) => answers.push(status))
  await until(() => upstream.connections() === 1)
  pass(4_900)
  t.same(answers, [], 'not before its time')
  t.equal(running.server.inFlight, 1)
  pass(100)
  t.match(await answer, {
    status: 504,
    headers: { 'proxy-status': 'sallyport; error=http_response_timeout' },
    json: { error: { code: 'gateway_timeout' } }
  })
  t.match(await line({ path: '/x' }), { attempts: 1, reason: 'timeout', status_code: 504 })
  await until(() => upstream.open() === 0, 'the try is given up')
})

t.test('RTE-22 H-99 first_byte is for each try, and the deadline for all of them together', async t => {
  const upstream = await hanging(t)
  const { call, pass, line } = await gateway(t, upstream.url, {
    timeout: '5s',
    timeouts: { first_byte: '2s' },
    retry: { attempts: 3, retry_on: ['timeout'] }
  })
  const answer = call('/x')
  for (const tries of [1, 2, 3]) {
    await until(() => upstream.connections() === tries)
    pass(tries === 3 ? 1_000 : 2_000)
  }
  t.equal((await answer).status, 504)
  t.match(await line({ path: '/x' }), { attempts: 3 })

  const post = call('/post', { method: 'POST', body: 'x' })
  await until(() => upstream.connections() === 4)
  pass(2_000)
  t.equal((await post).status, 504)
  t.match(await line({ path: '/post' }), { attempts: 1 })
})

t.test('RTE-22 the most specific of route, service and defaults says how long', async t => {
  const upstream = await hanging(t)
  const clock = new FakeClock()
  const {
    port,
    gateway: running,
    line
  } = await startGateway(
    t,
    {
      defaults: { authentication: 'none', timeout: '30s' },
      services: { s: { url: upstream.url, timeout: '20s' }, d: { url: upstream.url } },
      routes: [
        { path: '/route', service: 's', timeout: '10s' },
        { path: '/service', service: 's' },
        { path: '/default', service: 'd' }
      ]
    },
    { clock }
  )
  for (const path of ['/default', '/service', '/route'])
    http.get({ port, host: '127.0.0.1', path, agent: false }, response => response.resume()).on('error', () => {})
  await until(() => upstream.connections() === 3)
  for (const path of ['/route', '/service', '/default']) {
    clock.advance(10_000)
    running.runtime.deadlines.tick()
    t.match(await line({ path }), {
      status_code: 504,
      duration: path === '/route' ? 10 : path === '/service' ? 20 : 30
    })
  }
})

t.test(
  'H-88 RTE-22 connect: an address at which packets vanish is 504 after the connect timeout, or the next instance answers',
  async t => {
    const hole = await startBlackhole(t)
    const alive = await startUpstream(t, undefined, 'alive')
    const { call, line } = await startGateway(t, {
      defaults: { authentication: 'none', timeouts: { connect: '150ms' } },
      services: { hole: { url: hole.url }, both: { instances: [{ url: hole.url }, { url: alive.url }] } },
      routes: [
        { path: '/hole', service: 'hole' },
        { path: '/both', service: 'both' }
      ]
    })
    t.match(await call('/hole'), { status: 504, headers: { 'proxy-status': 'sallyport; error=connection_timeout' } })
    t.match(await line({ path: '/hole' }), { reason: /^connect_timeout: / })
    for (let i = 0; i < 3; i++)
      t.match(await call('/both', { method: 'POST', body: 'x' }), { status: 200, json: { from: 'alive' } })
  }
)

t.test('RTE-22 what belongs to the connections of a service cannot stand on a route', async t => {
  const problems = await problemsOf(t, {
    'gateway.yaml':
      'services: { s: { url: "http://s", timeouts: { connect: 1s } } }\nroutes: [{ path: /x, service: s, timeouts: { connect: 2s, total: 1m } }]'
  })
  t.match(problems, [{ line: 2, message: /put it under "services\.s\.timeouts"/, severity: 'error' }])
  t.equal(problems.length, 1)
})

t.test('RTE-22 a deadline of 0 is no deadline, for every stage', async t => {
  const held: ServerResponse[] = []
  const upstream = await startService(t, (request, response) => {
    request.resume().on('end', () => held.push(response))
  })
  const { call, pass } = await gateway(t, upstream.url, {
    timeout: 0,
    timeouts: { connect: '0s', first_byte: 0, write: '0ms', idle: 0, total: 0 }
  })
  const answers = [{}, { method: 'POST', body: 'small' }].map(request => call('/x', request))
  await until(() => held.length === 2)
  pass(86_400_000)
  for (const response of held) response.end('at last')
  for (const answer of answers) t.match(await answer, { status: 200, text: 'at last' })
})

t.test('RTE-22 while a connection is being made the deadline counts, too', async t => {
  const hole = await startBlackhole(t)
  const { call, pass, gateway: running } = await gateway(t, hole.url, { timeout: '3s', timeouts: { connect: '60s' } })
  const answer = call('/x')
  await until(() => running.server.inFlight === 1)
  await new Promise(setImmediate)
  pass(3_000)
  t.match(await answer, { status: 504, headers: { 'proxy-status': 'sallyport; error=connection_timeout' } })
})

t.test('RTE-22 a request that waits for a connection for as long as it may is told so', async t => {
  const upstream = await hanging(t)
  const clock = new FakeClock()
  const {
    call,
    gateway: running,
    line
  } = await startGateway(
    t,
    {
      defaults: { authentication: 'none' },
      services: { s: { url: upstream.url, pool: { connections: 2 } } },
      routes: [
        { path: '/held', service: 's', timeout: '60s' },
        { path: '/waiting', service: 's', timeout: '3s' }
      ]
    },
    { clock }
  )
  const held = [call('/held'), call('/held')]
  await until(() => upstream.connections() === 2)
  const waiting = call('/waiting')
  await until(() => running.server.inFlight === 3)
  clock.advance(3_000)
  running.runtime.deadlines.tick()
  t.match(await waiting, { status: 504, headers: { 'proxy-status': 'sallyport; error=connection_limit_reached' } })
  t.match(await line({ path: '/waiting' }), { reason: 'pool', attempts: 1 })
  clock.advance(60_000)
  running.runtime.deadlines.tick()
  for (const answer of held) t.equal((await answer).status, 504)
})

t.test('RTE-22 write: a service that does not take an upload is given up', async t => {
  const upstream = await startFaultProxy(t, (await startUpstream(t)).port, { kind: 'stall-request', bytes: 1 })
  const { port, pass, line } = await gateway(t, upstream.url, { timeouts: { write: '5s' } })
  const { answer, full } = upload(port)
  await full
  pass(5_000)
  t.equal((await answer).statusCode, 504)
  t.match((await answer).headers, { 'proxy-status': 'sallyport; error=connection_write_timeout' })
  t.match(await line({ path: '/up' }), { reason: 'send' })
})

t.test(
  'RTE-22 an upload may take longer than the deadline as long as it moves; then the answer has that time',
  async t => {
    let bytes = 0
    let ended = false
    const upstream = await startService(t, request => {
      request.on('data', chunk => {
        bytes += chunk.length
      })
      request.on('end', () => {
        ended = true
      })
    })
    const { port, pass, gateway: running } = await gateway(t, upstream.url, { timeout: '5s' })
    const request = http.request({
      port,
      host: '127.0.0.1',
      path: '/up',
      method: 'POST',
      agent: false,
      headers: { 'transfer-encoding': 'chunked' }
    })
    const answer = once(request, 'response') as Promise<[IncomingMessage]>
    for (let i = 1; i <= 5; i++) {
      request.write('x'.repeat(1000))
      await until(() => bytes === i * 1000)
      pass(4_000)
    }
    t.equal(running.server.inFlight, 1, 'twenty seconds have passed')
    request.end()
    await until(() => ended)
    pass(4_900)
    t.equal(running.server.inFlight, 1)
    pass(100)
    const [response] = await answer
    t.equal(response.statusCode, 504)
  }
)

t.test('RTE-22 H-97 a client that stops sending is told that it is late, and the service is not to blame', async t => {
  const upstream = await startService(t, request => void request.resume())
  const { port, pass, line, gateway: running } = await gateway(t, upstream.url, { timeout: '5s' })
  for (const [path, headers] of [
    ['/chunked', { 'transfer-encoding': 'chunked' }],
    ['/large', { 'content-length': '100000' }],
    ['/small', { 'content-length': '100' }]
  ] as const) {
    const request = http.request({ port, host: '127.0.0.1', path, method: 'POST', agent: false, headers })
    request.on('error', () => {})
    const answer = once(request, 'response') as Promise<[IncomingMessage]>
    request.write('x')
    await until(() => running.server.inFlight === 1)
    await new Promise(resolve => setTimeout(resolve, 20))
    pass(5_000)
    pass(5_000)
    const [response] = await answer
    t.match(
      response,
      { statusCode: 408, headers: { connection: 'close', 'proxy-status': 'sallyport; error=http_request_error' } },
      path
    )
    t.match(await line({ path }), { error: 'request_timeout', reason: 'slow_request' })
    response.resume()
    request.destroy()
    await until(() => running.server.inFlight === 0)
  }
})

t.test('RTE-22 total: an answer that takes too long is cut off, and one that has not begun is 504', async t => {
  const upstream = await startService(t, (request, response) => {
    if (request.url === '/begun') response.write('some')
  })
  const { port, call, pass, line } = await gateway(t, upstream.url, { timeout: '30s', timeouts: { total: '8s' } })
  const response = (
    await once(http.get({ port, host: '127.0.0.1', path: '/begun', agent: false }), 'response')
  )[0] as IncomingMessage
  await once(response, 'data')
  const cut = once(response, 'error')
  pass(8_000)
  t.match(await cut, [{ code: 'ECONNRESET' }])
  t.match(await line({ path: '/begun' }), { aborted: true, reason: 'total timeout' })

  const late = call('/late')
  await until(() => upstream.connections() === 2)
  pass(8_000)
  t.equal((await late).status, 504)
})

t.test('RTE-22 idle: an answer in which nothing moves is cut off, whatever came before', async t => {
  const upstream = await startService(t, (_request, response) => void response.write('some'))
  const { port, line } = await startGateway(t, {
    defaults: { authentication: 'none', timeouts: { idle: '500ms' } },
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's' }]
  })
  const response = (
    await once(http.get({ port, host: '127.0.0.1', path: '/x', agent: false }), 'response')
  )[0] as IncomingMessage
  response.resume()
  t.match(await once(response, 'error'), [{ code: 'ECONNRESET' }])
  t.match(await line({ path: '/x' }), { aborted: true, reason: /UND_ERR_BODY_TIMEOUT/ })
})

t.test('H-99 a head that drips is late like one that does not come', async t => {
  const upstream = await startRawUpstream(t, socket => void socket.write('HTTP/1.1 200 OK\r\nX-Slow: '))
  const { call, pass } = await gateway(t, upstream.url, { timeout: '5s' })
  const answer = call('/x')
  await until(() => upstream.connections() === 1)
  for (let i = 0; i < 5; i++) pass(1_000)
  t.equal((await answer).status, 504)
})

/** Sends without end; `full` resolves when nothing more is taken. */
function upload(port: number): { answer: Promise<IncomingMessage>; full: Promise<void> } {
  const request = http.request({
    port,
    host: '127.0.0.1',
    path: '/up',
    method: 'PUT',
    agent: false,
    headers: { 'transfer-encoding': 'chunked' }
  })
  request.on('error', () => {})
  let sent = 0
  const chunk = Buffer.alloc(65536)
  const more = (): void => {
    while (!request.destroyed) {
      sent += chunk.length
      if (!request.write(chunk)) return void request.once('drain', more)
    }
  }
  more()
  let last = 0
  let same = 0
  const full = until(() => {
    same = sent === last ? same + 1 : 0
    last = sent
    return same > 40
  })
  const answer = once(request, 'response').then(([response]) => response.resume() as IncomingMessage)
  return { answer, full }
}
