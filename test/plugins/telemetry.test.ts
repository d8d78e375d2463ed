import net from 'node:net'
import t from 'tap'
import { call, startGateway, type TestGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'

/** The value of a series in the text that Prometheus reads. */
async function series({ port }: TestGateway, wanted: string): Promise<number | undefined> {
  const { text } = await call(port, '/metrics')
  const line = text.split('\n').find(entry => entry.startsWith(`${wanted} `))
  return line === undefined ? undefined : Number(line.split(' ').at(-1))
}

t.test(
  'MON-07 MON-08 C-12 OBS-01 OBS-02 OBS-05 OBS-06 OBS-08 OBS-09 every request is counted under its route’s pattern',
  async t => {
    const upstream = await startUpstream(t, (request, response) =>
      response.writeHead(request.url === '/api/missing' ? 404 : 200).end('x')
    )
    const gateway = await startGateway(t, {
      services: { s: { url: upstream.url } },
      routes: [{ path: '/api/**', service: 's', authentication: 'none' }]
    })
    for (const path of ['/api/1', '/api/2', '/api/missing']) await gateway.call(path)

    t.equal(await series(gateway, 'http_request_count{method="GET",endpoint="/api/**",status="200"}'), 2)
    t.equal(await series(gateway, 'http_request_count{method="GET",endpoint="/api/**",status="404"}'), 1)
    t.equal(await series(gateway, 'api_requests_total{method="GET",endpoint="/api/**",status_code="200"}'), 2)
    t.equal(
      await series(gateway, 'http_request_duration_seconds_count{method="GET",endpoint="/api/**",status="200"}'),
      2
    )
    t.equal(await series(gateway, 'api_request_latency_seconds_count{method="GET",endpoint="/api/**"}'), 3)
    t.equal(await series(gateway, 'service_request_count{service="s",status="200"}'), 2)
    t.equal(await series(gateway, 'service_request_duration_seconds_count{service="s"}'), 3)

    const { text } = await gateway.call('/api/v1/metrics')
    t.match(text, '# HELP api_requests_total Total count of API requests')
    t.match(text, '# HELP api_request_latency_seconds API request latency in seconds')
    t.match(text, '# HELP api_active_requests Number of active API requests')
    t.match(text, 'process_cpu_seconds_total')
  }
)

t.test('the log counts the bytes of answers of the gateway itself, too', async t => {
  const { call, line } = await startGateway(t, {
    services: { s: { url: 'http://127.0.0.1:1' } },
    routes: [{ path: '/gone', service: 's', authentication: 'none' }]
  })
  for (const path of ['/metrics', '/nowhere', '/gone']) {
    const { text } = await call(path)
    t.equal((await line({ path })).bytes_out, Buffer.byteLength(text), path)
  }
  await call('/health', { method: 'HEAD' })
  t.equal((await line({ path: '/health' })).bytes_out, 0)
})

t.test(
  'OBS-10 H-98 the gauge of active requests goes up, and back to zero also after errors and clients that leave',
  async t => {
    const upstream = await startUpstream(t, (request, response) => {
      if (request.url !== '/api/hangs') response.writeHead(500).end()
    })
    const gateway = await startGateway(t, {
      services: { s: { url: upstream.url } },
      routes: [{ path: '/api/**', service: 's', authentication: 'none' }]
    })
    const active = () => series(gateway, 'api_active_requests{method="GET",endpoint="/api/**"}')
    const client = net.connect(gateway.port, '127.0.0.1')
    client.write('GET /api/hangs HTTP/1.1\r\nHost: a\r\n\r\n')
    while ((await active()) !== 1) await new Promise(resolve => setImmediate(resolve))
    client.destroy()
    await gateway.line({ path: '/api/hangs', aborted: true })
    await gateway.call('/api/fails')
    t.equal(await active(), 0)
    t.equal(gateway.gateway.server.inFlight, 0)
  }
)

t.test(
  'OBS-03 OBS-04 OBS-07 OBS-13 RLM-21 RLM-30 refused credentials, refused requests and failed services are counted',
  async t => {
    const upstream = await startUpstream(t)
    const gateway = await startGateway(t, {
      services: { s: { url: upstream.url }, dead: { url: 'http://127.0.0.1:1' } },
      routes: [
        { path: '/api/**', service: 's', rate_limit: { requests_per_minute: 1 } },
        { path: '/dead', service: 'dead', authentication: 'none' }
      ]
    })
    await gateway.call('/api/x', { token: 'nonsense' })
    await gateway.call('/api/x', { token: token() })
    await gateway.call('/api/x', { token: token() })
    await gateway.call('/dead')
    t.equal(await series(gateway, 'authentication_failures{reason="malformed"}'), 1)
    t.equal(await series(gateway, 'rate_limit_hits{limit="route",endpoint="/api/**"}'), 1)
    t.equal(await series(gateway, 'gateway_rate_limit_violations_total{limit="route",endpoint="/api/**"}'), 1)
    t.equal(await series(gateway, 'service_error_count{service="dead",stage="connect"}'), 1)
  }
)

t.test('H-126 paths, hosts and methods that clients make up add no series', async t => {
  const upstream = await startUpstream(t)
  const gateway = await startGateway(t, {
    services: { s: { url: upstream.url } },
    routes: [{ path: '/api/**', service: 's', authentication: 'none' }]
  })
  const count = async () =>
    (await gateway.call('/metrics')).text.split('\n').filter(line => line.startsWith('http_request_count')).length
  await gateway.call('/nowhere')
  await gateway.call('/api/0')
  const before = await count()
  for (let i = 0; i < 50; i++) {
    await gateway.call(`/made-up-${i}`)
    await gateway.call(`/api/${i}`, { headers: { host: `h${i}.example.com` } })
  }
  t.equal(await count(), before + 1) // The scrape itself has a series by now.
  t.equal(await series(gateway, 'http_request_count{method="GET",endpoint="__unknown__",status="404"}'), 51)
})

t.test('OBS-16 OBS-34 IDN-19 AZN-12 one line says what was asked, by whom, what came of it and why', async t => {
  const upstream = await startUpstream(t)
  const { call, line, lines } = await startGateway(t, {
    services: { s: { url: upstream.url } },
    routes: [
      { path: '/api/**', service: 's' },
      { path: '/admin-only', service: 's', required_roles: ['boss'] }
    ]
  })
  const good = await call('/api/x?secret=1', { token: token() })
  t.match(await line({ request_id: good.headers['x-request-id'] }), {
    msg: 'request',
    method: 'GET',
    path: '/api/x',
    status_code: 200,
    duration: Number,
    client: '127.0.0.1',
    route: '/api/**',
    service: 's',
    instance: '0',
    attempts: 1,
    upstream_ms: Number,
    consumer: 'user:alice',
    credential: 'jwt',
    generation: String
  })
  const anonymous = await call('/api/x')
  t.match(await line({ request_id: anonymous.headers['x-request-id'] }), {
    status_code: 401,
    error: 'authentication_required',
    reason: 'no_credentials'
  })
  const denied = await call('/admin-only', { token: token() })
  t.match(await line({ request_id: denied.headers['x-request-id'] }), {
    status_code: 403,
    error: 'insufficient_permissions',
    reason: 'required_roles',
    consumer: 'user:alice'
  })
  t.equal(lines().filter(entry => entry.msg === 'request').length, 3)
  t.notOk(JSON.stringify(lines()).includes('secret=1'))
})

t.test('OBS-17 OBS-16 TRACE_REQUESTS logs the fields of request and answer, secrets left out', async t => {
  const upstream = await startUpstream(t, (_request, response) =>
    response.writeHead(200, { 'x-answer': 'yes', 'set-cookie': 'session=topsecret' }).end()
  )
  const secret = token()
  const gateway = await startGateway(
    t,
    { services: { s: { url: upstream.url } }, routes: [{ path: '/api/**', service: 's' }] },
    { env: { TRACE_REQUESTS: 'true' } }
  )
  await gateway.call('/api/x', {
    token: secret,
    headers: { 'x-visible': 'seen', cookie: 'session=topsecret', 'x-api-token': 'topsecret' }
  })
  const started = await gateway.line({ msg: 'request started' })
  const ended = await gateway.line({ msg: 'request ended' })
  t.match(started, {
    fields: { 'x-visible': 'seen', authorization: '[redacted]', cookie: '[redacted]', 'x-api-token': '[redacted]' }
  })
  t.match(ended, { status_code: 200, fields: { 'x-answer': 'yes', 'set-cookie': '[redacted]' } })
  t.notOk(JSON.stringify(gateway.lines()).includes('topsecret'))
  t.notOk(JSON.stringify(gateway.lines()).includes(secret))
})

t.test('OBS-14 OBS-16 the level decides what is written; answers carry the request’s id at every level', async t => {
  const upstream = await startUpstream(t)
  const gateway = await startGateway(t, {
    logging: { level: 'error' },
    services: { s: { url: upstream.url }, dead: { url: 'http://127.0.0.1:1' } },
    routes: [
      { path: '/api/**', service: 's', authentication: 'none' },
      { path: '/dead', service: 'dead', authentication: 'none' }
    ]
  })
  t.match((await gateway.call('/api/x')).headers['x-request-id'], /^req_/)
  const failed = await gateway.call('/dead')
  await gateway.line({ request_id: failed.headers['x-request-id'], status_code: 502 })
  t.equal(gateway.lines().filter(entry => entry.msg === 'request').length, 1)
})
