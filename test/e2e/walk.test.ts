import t from 'tap'
import { freePort } from '../support/free-port.ts'
import { startGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'

t.test('RTE-16 RTE-17 a request goes to its service and the answer comes back as it is', async t => {
  const upstream = await startUpstream(t)
  const { call, line } = await startGateway(t, {
    services: { orders: { url: upstream.url } },
    routes: [{ path: '/api/**', service: 'orders' }]
  })
  const answer = await call('/api/orders?page=2', { token: token() })
  t.equal(answer.status, 200)
  t.equal(answer.json.url, '/api/orders?page=2')
  t.equal(answer.headers['x-from'], 'a')
  t.match(await line({ path: '/api/orders' }), {
    status_code: 200,
    route: '/api/**',
    service: 'orders',
    consumer: 'user:alice'
  })
})

t.test(
  'C-21 what is not there is a 404; a service that is down, broken or silent is a 502 or 504, with the stage in the log',
  async t => {
    const silent = await startUpstream(t, () => {})
    const broken = await startUpstream(t, request => request.socket.destroy())
    const { call, line } = await startGateway(t, {
      services: {
        down: { url: `http://127.0.0.1:${await freePort()}` },
        broken: { url: broken.url },
        silent: { url: silent.url, timeout: '100ms' }
      },
      defaults: { authentication: 'none' },
      routes: ['down', 'broken', 'silent'].map(service => ({ path: `/${service}`, service }))
    })
    const expected: [path: string, status: number, code: string, reason: RegExp][] = [
      ['/nothing', 404, 'not_found', /no_route/],
      ['/down', 502, 'bad_gateway', /connect/],
      ['/broken', 502, 'bad_gateway', /reset/],
      ['/silent', 504, 'gateway_timeout', /timeout/]
    ]
    for (const [path, status, code, reason] of expected) {
      t.match((await call(path, { method: 'POST' })).json, { error: { status, code } }, path)
      t.match(await line({ path }), { status_code: status, reason }, path)
    }
  }
)

t.test('C-22 what nobody has configured is not there: answers are neither kept nor changed', async t => {
  const upstream = await startUpstream(t, (_request, response) => {
    response.writeHead(200, {
      'cache-control': 'public, max-age=3600',
      'content-type': 'application/json',
      etag: '"1"'
    })
    response.end('{"version": 1,  "as": "it is"}')
  })
  const { call } = await startGateway(t, {
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's', authentication: 'none' }]
  })
  for (let i = 1; i <= 2; i++) {
    const answer = await call('/x', {
      headers: { 'accept-encoding': 'gzip', accept: 'application/vnd.berrys.v2+json' }
    })
    t.equal(answer.text, '{"version": 1,  "as": "it is"}')
    t.strictSame(
      Object.keys(answer.headers).sort(),
      ['cache-control', 'connection', 'content-type', 'date', 'etag', 'transfer-encoding', 'x-request-id'].sort()
    )
    t.equal(upstream.seen.length, i)
  }
})
