import http2 from 'node:http2'
import t from 'tap'
import { makeCertificate, writeCertificate } from '../support/certificates.ts'
import { temporaryFolder } from '../support/folder.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

function post({ call }: TestGateway, requests: unknown, options: Parameters<TestGateway['call']>[1] = {}) {
  return call('/batch', {
    method: 'POST',
    body: typeof requests === 'string' ? requests : JSON.stringify(requests),
    ...options,
    headers: { 'content-type': 'application/json', ...options.headers }
  })
}

const ON = { paths: { batch: '/batch' } }

t.test('TRC-03 each request of a batch is answered as if it had come alone, in the order asked', async t => {
  const slow: (() => void)[] = []
  const upstream = await startUpstream(t, (request, response, body) => {
    const answer = (): void => {
      response.writeHead(request.url === '/open/none' ? 204 : 200, {
        'content-type': 'application/json',
        'x-from': 'a'
      })
      response.end(request.url === '/open/none' ? undefined : `{"n": 12345678901234567890, "body": ${body || null}}`)
    }
    if (request.url === '/open/first') slow.push(answer)
    else {
      answer()
      for (const late of slow.splice(0)) late()
    }
  })
  const gateway = await startGateway(t, {
    ...ON,
    services: { s: { url: upstream.url } },
    routes: [
      { path: '/open/**', service: 's', authentication: 'none' },
      { path: '/closed/**', service: 's' },
      { path: '/admins/**', service: 's', required_roles: ['admin'] }
    ]
  })
  const answer = await post(
    gateway,
    [
      { id: 'first', path: '/open/first?x=1' },
      { id: 'made', method: 'POST', path: '/closed/orders', body: { quantity: 2 } },
      { path: '/admins/all' },
      { id: 'lost', path: '/nowhere' },
      { id: 'none', path: '/open/none' },
      { id: 'door', path: '/closed/%2e%2e/%2e%2e/etc' }
    ].map(sub => (sub.path === '/open/first?x=1' ? { ...sub, path: '/open/first' } : sub)),
    { token: token() }
  )
  t.equal(answer.status, 207)
  t.match(answer.headers, { 'cache-control': 'no-store', 'content-type': /json/ })
  t.match(answer.json, [
    { id: 'first', status: 200, headers: { 'x-from': 'a' }, body: { body: null } },
    { id: 'made', status: 200, body: { body: { quantity: 2 } } },
    { id: '2', status: 403, body: { error: { code: 'insufficient_permissions' } } },
    { id: 'lost', status: 404, body: { error: { code: 'not_found' } } },
    { id: 'none', status: 204 },
    { id: 'door', status: 400, body: { error: { code: 'bad_request' } } }
  ])
  t.notOk('body' in answer.json[4])
  t.match(answer.text, '{"n": 12345678901234567890, "body": null}', 'JSON is passed on to the digit')
  const whole = await gateway.line({ path: '/batch' })
  t.match(whole, { status_code: 207, consumer: 'user:alice' })
  const parts = gateway.lines().filter(({ batch }) => batch === whole.request_id)
  t.equal(parts.length, 6)
  t.equal(new Set([whole, ...parts].map(({ request_id }) => request_id)).size, 7)
  const metrics = await gateway.call('/metrics', { token: token({ roles: ['admin'] }) })
  t.match(metrics.text, /http_request_count\{[^}]*"\/closed\/\*\*"[^}]*\} 1\n/)
  t.match(metrics.text, /http_request_count\{[^}]*"\/batch"[^}]*\} 1\n/)
})

t.test('TRC-03 a sub-request asks with the batch’s credential, or with its own instead', async t => {
  const upstream = await startUpstream(t)
  const gateway = await startGateway(t, {
    ...ON,
    server: { trusted_proxies: ['loopback'] },
    identity: { api_keys: [{ id: 'robot', key: 'k-robot-0123456789abcdef' }] },
    services: { s: { url: upstream.url } },
    routes: [{ path: '/api/**', service: 's' }]
  })
  const answer = await post(
    gateway,
    [
      { path: '/api/mine' },
      { path: '/api/other', headers: { Authorization: `Bearer ${token({ sub: 'bob' })}` } },
      { path: '/api/robot', headers: { 'X-API-Key': 'k-robot-0123456789abcdef', 'User-Agent': 'robot/1' } },
      { path: '/api/none', headers: { authorization: 'Bearer nonsense' } }
    ],
    {
      token: token(),
      headers: {
        'user-agent': 'page/2',
        traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
        'x-forwarded-for': '198.51.100.7'
      }
    }
  )
  t.strictSame(
    answer.json.map(({ status }: { status: number }) => status),
    [200, 200, 200, 401]
  )
  const seen = new Map(upstream.seen.map(({ url, headers }) => [url, headers]))
  t.match(seen.get('/api/mine'), {
    'x-user-id': 'alice',
    'user-agent': 'page/2',
    traceparent: /0af7651916cd43dd8448eb211c80319c/,
    'x-forwarded-for': '198.51.100.7, 127.0.0.1'
  })
  t.match(seen.get('/api/other'), { 'x-user-id': 'bob' })
  t.match(seen.get('/api/robot'), { 'x-auth-method': 'api_key', 'user-agent': 'robot/1' })
  t.not(seen.get('/api/mine')?.['x-request-id'], seen.get('/api/other')?.['x-request-id'])
  t.equal((await post(gateway, [{ path: '/api/mine' }])).json[0].status, 401)
})

t.test(
  'TRC-03 H-122 a batch is no way around limits, address lists, the size of bodies or the door of the administration',
  async t => {
    const upstream = await startUpstream(t)
    const gateway = await startGateway(t, {
      ...ON,
      admin: { listen: '127.0.0.1:0' },
      services: { s: { url: upstream.url } },
      defaults: { authentication: 'none' },
      routes: [
        { path: '/limited', service: 's', rate_limit: { requests_per_hour: 2 } },
        { path: '/elsewhere', service: 's', ip_filter: { deny: ['127.0.0.0/8'] } },
        { path: '/small', service: 's', methods: ['POST'], body_limit: '10b' }
      ]
    })
    const answer = await post(gateway, [
      { path: '/limited' },
      { path: '/limited' },
      { path: '/limited' },
      { path: '/elsewhere' },
      { method: 'POST', path: '/small', body: 'x'.repeat(11) },
      { path: '/gateway/status', headers: { authorization: `Bearer ${token({ roles: ['admin'] })}` } },
      { method: 'POST', path: '/batch', body: [{ path: '/limited' }] },
      { method: 'POST', path: '//batch/', body: [{ path: '/limited' }] }
    ])
    const statuses: number[] = answer.json.map(({ status }: { status: number }) => status)
    t.strictSame(statuses.slice(0, 3).sort(), [200, 200, 429])
    t.strictSame(statuses.slice(3, 7), [403, 413, 404, 400])
    t.not(statuses[7], 200)
    t.match(answer.json[6].body, { error: { details: 'A batch cannot hold another one.' } })
  }
)

t.test('TRC-03 H-15 the body of a sub-request is a body, whatever its method, and never another request', async t => {
  const upstream = await startUpstream(t)
  const gateway = await startGateway(t, {
    ...ON,
    server: { trusted_proxies: ['loopback'] },
    services: { s: { url: upstream.url } },
    defaults: { authentication: 'none' },
    routes: [{ path: '/**', service: 's' }]
  })
  const hidden = 'GET /hidden HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n'
  const methods = ['GET', 'DELETE', 'OPTIONS', 'PUT', 'POST']
  const answer = await post(
    gateway,
    methods.map(method => ({ method, path: `/${method}`, body: hidden }))
  )
  t.strictSame(
    answer.json.map(({ status }: { status: number }) => status),
    [200, 200, 200, 200, 200]
  )
  t.strictSame(upstream.seen.map(({ url, body }) => `${url} ${body === hidden}`).sort(), [
    ...methods.map(method => `/${method} true`).sort()
  ])
})

t.test('TRC-03 what a batch may not hold is refused before anything is asked', async t => {
  const upstream = await startUpstream(t)
  const gateway = await startGateway(t, {
    ...ON,
    batch: { max_requests: 2, max_body: '1kb' },
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's', authentication: 'none' }]
  })
  const cases: [requests: unknown, status: number, details: RegExp][] = [
    [[], 422, /at least 1|1 item/],
    [{ path: '/' }, 422, /list/],
    [[{ path: '/' }, { path: '/' }, { path: '/' }], 422, /2/],
    [[{ path: 'http://elsewhere/' }], 422, /path/],
    [[{ path: '/a b' }], 422, /path/],
    [[{ path: '/', method: 'get' }], 422, /method/],
    [[{ path: '/', method: 'CONNECT' }], 422, /method/],
    [[{ path: '/', mehtod: 'GET' }], 422, /method/],
    [
      [
        { id: 'a', path: '/' },
        { id: 'a', path: '/' }
      ],
      422,
      /\[1\]\.id/
    ],
    [[{ path: '/', headers: { Upgrade: 'websocket', Connection: 'Upgrade' } }], 422, /headers\.Upgrade/],
    [[{ path: '/', headers: { 'x-forwarded-for': '192.0.2.1' } }], 422, /x-forwarded-for/],
    [[{ path: '/', headers: { 'X-User-Id': 'root' } }], 422, /X-User-Id/],
    [[{ path: '/', headers: { 'content-length': '7' } }], 422, /content-length/],
    [[{ path: '/', headers: { 'x-a': 'b\r\nx-c: d' } }], 422, /x-a/],
    [[{ path: '/', headers: { 'x-a': '1', 'X-A': '2' } }], 422, /twice/],
    ['[{', 400, /./],
    [[{ path: `/${'x'.repeat(1024)}` }], 413, /./]
  ]
  for (const [requests, status, details] of cases) {
    const answer = await post(gateway, requests)
    t.equal(answer.status, status, JSON.stringify(requests))
    if (status === 422) t.match(answer.json.error.details, details)
  }
  t.equal(upstream.seen.length, 0)
})

t.test('TRC-03 a sub-request cannot open a WebSocket, a tunnel or a trace', async t => {
  const gateway = await startGateway(t, ON)
  const answer = await post(gateway, [
    { method: 'TRACE', path: '/x' },
    { method: 'NONSENSE', path: '/x' }
  ])
  t.match(answer.json, [{ status: 405 }, { status: 400 }])
})

t.test('TRC-03 answers are collected up to a size; text, bytes and cut answers are told apart', async t => {
  const upstream = await startUpstream(t, (request, response) => {
    if (request.url === '/text') return response.writeHead(200, { 'content-type': 'text/plain' }).end('{"a":1}')
    if (request.url === '/bytes') return response.writeHead(200).end(Buffer.from([0xff, 0xfe, 0]))
    if (request.url === '/two') return response.writeHead(200, ['set-cookie', 'a=1', 'set-cookie', 'b=2']).end()
    if (request.url === '/cut') {
      response.writeHead(200, { 'content-length': 100 })
      response.write('x')
      return setImmediate(() => response.destroy())
    }
    response.writeHead(200)
    const more = setInterval(() => response.write('x'.repeat(1000)), 1)
    response.on('close', () => clearInterval(more))
  })
  const gateway = await startGateway(t, {
    ...ON,
    batch: { max_answer: '4kb' },
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's', authentication: 'none' }]
  })
  const answer = await post(
    gateway,
    ['/text', '/bytes', '/two', '/cut', '/endless'].map(path => ({ path }))
  )
  t.equal(answer.status, 207)
  t.match(answer.json, [
    { status: 200, body: '{"a":1}' },
    { status: 200, body: '//4A', body_encoding: 'base64' },
    { status: 200, headers: { 'set-cookie': ['a=1', 'b=2'] } },
    { status: 502, body: { error: { code: 'bad_gateway', details: 'The answer was cut off.' } } },
    { status: 502, body: { error: { details: 'The answer is larger than `batch.max_answer`.' } } }
  ])
  t.match(await gateway.line({ path: '/endless' }), { aborted: true })
})

t.test('TRC-03 no more than max_parallel are under way, and none goes on when the caller has gone', async t => {
  let underWay = 0
  let most = 0
  const waiting: (() => void)[] = []
  const upstream = await startUpstream(t, (_request, response) => {
    most = Math.max(most, ++underWay)
    response.on('close', () => underWay--)
    waiting.push(() => void response.end())
  })
  const gateway = await startGateway(t, {
    ...ON,
    batch: { max_parallel: 3 },
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's', authentication: 'none' }]
  })
  const requests = Array.from({ length: 9 }, () => ({ path: '/' }))
  const whole = post(gateway, requests)
  for (let i = 0; i < 9; i++) {
    await until(() => waiting.length > 0)
    waiting.shift()?.()
  }
  t.equal((await whole).status, 200)
  t.equal(most, 3)

  const request = (await import('node:http')).request({
    port: gateway.port,
    method: 'POST',
    path: '/batch',
    headers: { 'content-type': 'application/json' }
  })
  request.on('error', () => {})
  request.end(JSON.stringify(requests))
  await until(() => waiting.length === 3)
  request.destroy()
  await until(() => underWay === 0)
  await until(() => gateway.gateway.server.inFlight === 0)
  t.equal(upstream.seen.length, 12)
})

t.test('TRC-03 a gateway that shuts down lets a batch end', async t => {
  const waiting: (() => void)[] = []
  const upstream = await startUpstream(t, (_request, response) => void waiting.push(() => void response.end('late')))
  const gateway = await startGateway(t, {
    ...ON,
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's', authentication: 'none' }]
  })
  const whole = post(gateway, [{ path: '/a' }])
  await until(() => waiting.length === 1)
  const closed = gateway.gateway.close()
  waiting[0]?.()
  t.match((await whole).json, [{ status: 200, body: 'late' }])
  await closed
})

t.test('TRC-03 nobody who has not asked for batches has them', async t => {
  const { call } = await startGateway(t, {})
  t.equal((await call('/batch', { method: 'POST' })).status, 404)
})

t.test(
  'TRC-03 SEC-01 a batch over HTTP/2 and TLS: its sub-requests have come by TLS, too, and to the same host',
  async t => {
    const door = makeCertificate({ name: 'door', hosts: ['localhost'] })
    const upstream = await startUpstream(t)
    const gateway = await startGateway(t, {
      ...ON,
      server: { tls: writeCertificate(temporaryFolder(t), 'door', door), limits: { connections_per_ip: 1 } },
      services: { s: { url: upstream.url } },
      routes: [{ path: '/api/**', hosts: ['door.test'], service: 's', authentication: 'none' }]
    })
    const session = http2.connect(`https://localhost:${gateway.port}`, { ca: door.cert })
    t.teardown(() => session.destroy())
    const stream = session.request({
      ':method': 'POST',
      ':path': '/batch',
      ':authority': 'door.test',
      'content-type': 'application/json'
    })
    stream.end(JSON.stringify([{ path: '/api/a' }, { method: 'POST', path: '/api/b', body: 'text' }]))
    let text = ''
    for await (const chunk of stream) text += chunk
    t.match(JSON.parse(text), [{ status: 200 }, { status: 200 }])
    t.strictSame(upstream.seen.map(({ body }) => body).sort(), ['', 'text'])
    for (const { headers } of upstream.seen)
      t.match(headers, {
        'x-forwarded-proto': 'https',
        'x-forwarded-host': 'door.test',
        'x-forwarded-for': '127.0.0.1'
      })
  }
)
