import { once } from 'node:events'
import http from 'node:http'
import type { Socket } from 'node:net'
import t, { type Test } from 'tap'
import { FakeClock } from '../support/clock.ts'
import { startFaultProxy } from '../support/fault-proxy.ts'
import { type GatewayOptions, startGateway } from '../support/gateway.ts'
import { boss } from '../support/services.ts'
import { until } from '../support/until.ts'
import { startService, startUpstream } from '../support/upstream.ts'

/** A gateway before one service, whose answers have the status that is asked for: `/503`. */
async function gateway(t: Test, breaker: object, more: object = {}, options: GatewayOptions = {}) {
  const clock = new FakeClock()
  const upstream = await startUpstream(t, (request, response) => {
    const status = Number(/\d{3}/.exec(request.url as string)?.[0] ?? 200)
    response.writeHead(status).end('its own')
  })
  const running = await startGateway(
    t,
    {
      defaults: { authentication: 'none' },
      services: { s: { url: upstream.url, circuit_breaker: breaker } },
      routes: [{ path: '/**', service: 's' }],
      ...more
    },
    { clock, ...options }
  )
  const state = async (name = 'service:s') => {
    const { json } = await running.call('/gateway/circuit-breakers', { token: boss })
    return json.circuit_breakers.find((breaker: { name: string }) => breaker.name === name)
  }
  return { ...running, clock, upstream, state }
}

t.test('RES-01 RES-07 C-21 an open breaker is 503 with Retry-After, and nothing reaches the service', async t => {
  const { call, clock, upstream, line, state } = await gateway(t, {})
  for (let i = 0; i < 5; i++) t.match(await call('/503'), { status: 503, text: 'its own' })
  const refused = await call('/refused')
  t.match(refused, {
    status: 503,
    headers: { 'retry-after': '60', 'proxy-status': 'sallyport; error=destination_unavailable' },
    json: { error: { code: 'service_unavailable' } }
  })
  t.equal(upstream.seen.length, 5)
  t.match(await line({ path: '/refused' }), { reason: 'breaker open: 5 failures in a row' })
  t.match(await state(), { state: 'open', failure_count: 5, success_count: 0, retry_after_seconds: 60 })
  clock.advance(60_000)
  for (let i = 0; i < 3; i++) t.equal((await call('/200')).status, 200)
  t.match(await state(), { state: 'closed', failure_count: 5, success_count: 3 })
})

t.test('RES-05 RES-13 while it recovers gradually, the log and the list say why some are refused yet', async t => {
  const breaker = { failure_threshold: 1, success_threshold: 1, gradual_recovery: true }
  const { call, clock, line, state } = await gateway(t, breaker)
  await call('/503')
  t.match(await state(), { state: 'open', recovering_percent: null })
  clock.advance(60_000)
  t.equal((await call('/200')).status, 200)
  t.match(await state(), { state: 'closed', recovering_percent: 10 })
  t.match(await call('/too-early'), { status: 503, headers: { 'retry-after': '1' } })
  t.match(await line({ path: '/too-early' }), { reason: 'breaker recovering: 10 % pass' })
})

t.test('RES-07 in the flat format it is the body of seed 003', async t => {
  const { call } = await gateway(t, { failure_threshold: 1 }, { errors: { format: 'flat' } })
  await call('/503')
  t.same((await call('/x')).json, { error: 'Service unavailable' })
})

t.test('H-128 H-100 somebody sets the clock: what is open is tried again when it was to be', async t => {
  const { call, clock } = await gateway(t, { failure_threshold: 1 })
  await call('/500')
  for (const hours of [1, -2]) {
    clock.set(clock.now() + hours * 3_600_000)
    t.match(await call('/200'), { status: 503, headers: { 'retry-after': '60' } })
  }
  clock.advance(60_000)
  t.equal((await call('/200')).status, 200)
})

t.test('H-100 a flood of 4xx does not open it', async t => {
  const { call, state } = await gateway(t, { failure_threshold: 2 })
  for (const status of [400, 401, 404, 429, 404, 404]) t.equal((await call(`/${status}`)).status, status)
  t.match(await state(), { state: 'closed', failure_count: 0, success_count: 6 })
})

t.test('RES-01 H-99 what counts: no connection, a reset, no answer in time, a body that drips or is cut', async t => {
  const upstream = await startUpstream(t)
  const stuck = await startService(t, (request, response) => {
    if (request.url === '/drip') {
      response.writeHead(200)
      const timer = setInterval(() => response.write('.'), 20)
      response.on('close', () => clearInterval(timer))
    } else if (request.url === '/cut') {
      response.writeHead(200, { 'content-length': 10 })
      response.write('x', () => request.socket.resetAndDestroy())
    }
  })
  const proxy = await startFaultProxy(t, upstream.port)
  const breaker = { failure_threshold: 100 }
  const { call, gateway } = await startGateway(t, {
    defaults: { authentication: 'none', circuit_breaker: breaker },
    services: { p: { url: proxy.url }, stuck: { url: stuck.url } },
    routes: [
      { path: '/p', service: 'p' },
      { path: '/silent', service: 'stuck', timeout: '50ms' },
      { path: '/drip', service: 'stuck', timeouts: { total: '100ms' } },
      { path: '/cut', service: 'stuck' }
    ]
  })
  const stats = (service: string) =>
    gateway.runtime.breakers
      .all()
      .find(({ name }) => name === `service:${service}`)
      ?.breaker.getStats()
  for (const kind of ['refuse', 'reset-on-accept', 'reset-on-request', 'garbage'] as const) {
    await proxy.set({ kind })
    t.equal((await call('/p', { method: 'POST' })).status, 502)
  }
  t.match(stats('p'), { failure_count: 4, success_count: 0 })
  t.equal((await call('/silent')).status, 504)
  t.match(stats('stuck'), { failure_count: 1 })
  await t.rejects(call('/drip'))
  await until(() => stats('stuck')?.failure_count === 2)
  await t.rejects(call('/cut'))
  await until(() => stats('stuck')?.failure_count === 3)
  t.match(stats('stuck'), { failure_count: 3, success_count: 0 })
})

t.test('H-97 H-100 no client opens it by sending, reading or leaving slowly', async t => {
  const breaker = { failure_threshold: 1, slow_call: '1s', slow_rate: 0.1, minimum_calls: 1 }
  const clock = new FakeClock()
  const service = await startService(t, (request, response) => {
    if (request.url === '/stream') return void response.writeHead(200).write('begun')
    if (request.url === '/large') return void response.end(Buffer.alloc(50_000_000))
    request.resume().on('end', () => response.end('done'))
  })
  const { gateway, port } = await startGateway(
    t,
    {
      defaults: { authentication: 'none', circuit_breaker: breaker },
      services: { s: { url: service.url } },
      routes: [
        { path: '/large', service: 's', timeouts: { total: '5s' } },
        { path: '/**', service: 's' }
      ]
    },
    { clock }
  )
  const ask = (path: string, method = 'GET') => {
    const request = http.request({ port, path, method, headers: { 'transfer-encoding': 'chunked' } })
    return request.on('error', () => {})
  }
  const active = () => gateway.runtime.services.get('s')?.instances[0]?.active
  const state = () => gateway.runtime.breakers.all()[0]?.breaker
  const over = () => until(() => gateway.server.inFlight === 0)

  const upload = ask('/upload', 'POST')
  upload.write('a')
  await until(() => active() === 1)
  clock.advance(2000)
  upload.end('b')
  const [answer] = (await once(upload, 'response')) as [http.IncomingMessage]
  answer.resume()
  await over()
  t.match(state(), { state: 'closed', failureCount: 0, successCount: 1 }, 'a slow upload')

  const leaver = ask('/upload', 'POST')
  leaver.write('a')
  await until(() => active() === 1)
  clock.advance(2000)
  leaver.destroy()
  await over()
  t.match(state(), { state: 'closed', failureCount: 0 }, 'an upload that is given up')

  const listener = ask('/stream')
  listener.end()
  const [stream] = (await once(listener, 'response')) as [http.IncomingMessage]
  await once(stream, 'data')
  clock.advance(2000)
  listener.destroy()
  await over()
  t.match(state(), { state: 'closed', failureCount: 0 }, 'a stream that its client ends')

  const reader = ask('/large')
  reader.end()
  const [large] = (await once(reader, 'response')) as [http.IncomingMessage]
  large.on('error', () => {})
  let [bytes, looks] = [0, 0]
  await until(() => {
    const { bytesRead } = reader.socket as Socket
    looks = bytesRead === bytes ? looks + 1 : 0
    bytes = bytesRead
    return looks === 20
  }, 'nothing moves any more, since nobody reads')
  clock.advance(5001)
  await over()
  t.match(state(), { state: 'closed', failureCount: 0 }, 'an answer that is read slowly until its time is over')
})

t.test('RES-09 H-100 one probe at a time; a client that goes away does not keep the slot', async t => {
  const clock = new FakeClock()
  const waiting: { end(text: string): void }[] = []
  let broken = true
  const service = await startService(t, (_request, response) => {
    if (broken) response.writeHead(500).end()
    else waiting.push(response)
  })
  const { call, port, gateway } = await startGateway(
    t,
    {
      defaults: { authentication: 'none' },
      services: { s: { url: service.url, circuit_breaker: { failure_threshold: 1, success_threshold: 1 } } },
      routes: [{ path: '/**', service: 's' }]
    },
    { clock }
  )
  await call('/x')
  broken = false
  clock.advance(60_000)
  const abort = new AbortController()
  const probe = fetch(`http://127.0.0.1:${port}/probe`, { signal: abort.signal }).catch(() => 'gone')
  await until(() => waiting.length === 1)
  const others = await Promise.all(Array.from({ length: 5 }, () => call('/other')))
  t.ok(others.every(({ status }) => status === 503))
  t.equal(others[0]?.headers['retry-after'], '1')
  abort.abort()
  t.equal(await probe, 'gone')
  await until(() => gateway.server.inFlight === 0)
  const second = call('/second')
  await until(() => waiting.length === 2)
  waiting[1]?.end('well')
  t.match(await second, { status: 200, text: 'well' })
  const third = call('/third')
  await until(() => waiting.length === 3)
  waiting[2]?.end('well')
  t.equal((await third).status, 200)
  t.equal(gateway.runtime.breakers.all()[0]?.breaker.state, 'closed')
})

t.test('RES-03 RES-08 RES-09 per service, route, endpoint: who fails is alone in that', async t => {
  const upstream = await startUpstream(t, (request, response) => {
    response.writeHead(request.url?.endsWith('/500') ? 500 : 200).end()
  })
  const fine = await startUpstream(t)
  const { call: ask, gateway: running } = await startGateway(t, {
    defaults: { authentication: 'none', circuit_breaker: { failure_threshold: 1 } },
    services: { s: { url: upstream.url }, fine: { url: fine.url } },
    routes: [
      { path: '/fine/**', service: 'fine' },
      { path: '/seed/**', service: 's', circuit_breaker: { threshold: 1, timeout: '60s' } },
      { path: '/endpoint/**', service: 's', circuit_breaker: { failure_threshold: 1, per: 'endpoint' } },
      { path: '/off/**', service: 's', circuit_breaker: false },
      { path: '/**', service: 's' }
    ]
  })
  t.equal((await ask('/seed/500')).status, 500)
  t.equal((await ask('/seed/200')).status, 503)
  t.equal((await ask('/endpoint/500')).status, 500)
  t.equal((await ask('/endpoint/200')).status, 503)
  t.equal((await ask('/endpoint/200', { method: 'POST' })).status, 200)
  t.equal((await ask('/200')).status, 200, 'the service’s own is closed yet')
  await ask('/500')
  t.equal((await ask('/200')).status, 503)
  t.equal((await ask('/off/200')).status, 200, 'a route without one goes on')
  t.equal((await ask('/fine/200')).status, 200, 'and so does another service')
  t.same(
    running.runtime.breakers.all().map(({ name, breaker }) => `${name} ${breaker.state}`),
    [
      'endpoint:GET /endpoint/** open',
      'endpoint:POST /endpoint/** closed',
      'route:/seed/** open',
      'service:fine closed',
      'service:s open'
    ]
  )
})

t.test('C-21 per instance: where one is open another is asked, and none is 503', async t => {
  const clock = new FakeClock()
  let broken = true
  const [a, b, c] = [
    await startUpstream(t, (_request, response) => response.writeHead(broken ? 500 : 200).end('a')),
    await startUpstream(t, undefined, 'b'),
    await startUpstream(t, undefined, 'c')
  ]
  const instances = [a, b, c].map(({ url }, i) => ({ id: 'abc'[i], url }))
  const { call, gateway: running } = await startGateway(
    t,
    {
      defaults: { authentication: 'none' },
      services: {
        s: { instances, circuit_breaker: { failure_threshold: 1, per: 'instance', success_threshold: 1 } }
      },
      routes: [{ path: '/**', service: 's' }]
    },
    { clock }
  )
  const statuses: number[] = []
  for (let i = 0; i < 13; i++) statuses.push((await call('/x')).status)
  t.same(
    statuses.filter(status => status !== 200),
    [500],
    'it failed once'
  )
  t.equal(a.seen.length, 1)
  t.same([b.seen.length, c.seen.length].sort(), [6, 6], 'the others share what was its part')
  broken = false
  clock.advance(60_000)
  for (let i = 0; i < 6; i++) t.equal((await call('/x')).status, 200)
  t.ok(a.seen.length > 1, 'it is back')
  for (const { breaker } of running.runtime.breakers.all()) breaker.force('test')
  t.match(await call('/x'), { status: 503, headers: { 'retry-after': /\d+/ } })
})

t.test('RES-12 what depends on a service is open while that is, and tried again as soon as it is not', async t => {
  const clock = new FakeClock()
  const stock = await startUpstream(t, (request, response) =>
    response.writeHead(request.url === '/stock/500' ? 500 : 200).end()
  )
  const {
    call: ask,
    lines,
    gateway: second
  } = await startGateway(
    t,
    {
      defaults: { authentication: 'none', circuit_breaker: { failure_threshold: 1, success_threshold: 1 } },
      services: {
        stock: { url: stock.url },
        shop: { url: stock.url, circuit_breaker: { depends_on: ['stock'], success_threshold: 1 } },
        site: { url: stock.url, circuit_breaker: { depends_on: ['shop'], success_threshold: 1 } }
      },
      routes: ['stock', 'shop', 'site'].map(service => ({ path: `/${service}/**`, service }))
    },
    { clock }
  )
  for (const name of ['stock', 'shop', 'site']) t.equal((await ask(`/${name}/200`)).status, 200)
  await ask('/stock/500')
  for (const name of ['stock', 'shop', 'site']) t.equal((await ask(`/${name}/200`)).status, 503, name)
  t.match(
    lines()
      .filter(({ msg }) => msg === 'circuit breaker')
      .map(({ breaker, reason }) => [breaker, reason]),
    [
      ['service:stock', '1 failures in a row'],
      ['service:shop', 'depends on stock'],
      ['service:site', 'depends on shop']
    ]
  )
  clock.advance(60_000)
  for (const name of ['stock', 'shop', 'site']) t.equal((await ask(`/${name}/200`)).status, 200, name)
  for (const { breaker } of second.runtime.breakers.all()) t.equal(breaker.state, 'closed')
})

t.test('RTE-06 RES-09 of services that share a route’s requests, the one that fails has its own breaker', async t => {
  const [good, bad] = [
    await startUpstream(t, undefined, 'good'),
    await startUpstream(t, (_request, response) => response.writeHead(500).end())
  ]
  const { call, gateway: running } = await startGateway(
    t,
    {
      defaults: { authentication: 'none', circuit_breaker: { failure_threshold: 1 } },
      services: { good: { url: good.url }, bad: { url: bad.url } },
      routes: [{ path: '/**', split: [{ service: 'good' }, { service: 'bad' }] }]
    },
    { clock: new FakeClock() }
  )
  const seen = new Map<number, number>()
  for (let i = 0; i < 40; i++) {
    const { status } = await call('/x')
    seen.set(status, (seen.get(status) ?? 0) + 1)
  }
  t.equal(seen.get(500), 1)
  t.equal(seen.get(200), good.seen.length)
  t.equal((seen.get(503) ?? 0) + (seen.get(200) ?? 0), 39)
  t.same(
    running.runtime.breakers.all().map(({ name, breaker }) => `${name} ${breaker.state}`),
    ['service:bad open', 'service:good closed']
  )
})

t.test('RES-01 a reload leaves an open breaker open, and another configuration begins anew', async t => {
  const { call, configure, gateway: running, upstream } = await gateway(t, { failure_threshold: 1 })
  const document = (breaker: object, more: object = {}) => ({
    defaults: { authentication: 'none' },
    services: { s: { url: upstream.url, circuit_breaker: breaker } },
    routes: [{ path: '/**', service: 's', ...more }]
  })
  await call('/500')
  configure(document({ failure_threshold: 1 }, { timeout: '7s' }))
  t.match(await running.reload(), { changed: true })
  t.equal((await call('/200')).status, 503)
  configure(document({ failure_threshold: 2 }))
  await running.reload()
  t.equal((await call('/200')).status, 200)
  t.equal(running.runtime.breakers.all().length, 1)
})

t.test(
  'RES-05 RES-09 RES-19 OBS-13 states are in the metrics, the log and the services; who may, changes them',
  async t => {
    const {
      call,
      state,
      lines,
      gateway: running
    } = await gateway(
      t,
      { failure_threshold: 1 },
      {
        storage: { database: true, database_url: '' }
      }
    )
    await call('/500')
    const { text } = await call('/metrics', { token: boss })
    t.match(text, 'gateway_circuit_breaker_state{name="service:s",service="s"} 2')
    t.match(text, 'gateway_circuit_breaker_transitions_total{name="service:s",service="s",from="closed",to="open"} 1')
    t.match(
      lines().find(({ msg }) => msg === 'circuit breaker'),
      {
        level: 40,
        breaker: 'service:s',
        from: 'closed',
        to: 'open',
        reason: '1 failures in a row'
      }
    )
    const { json } = await call('/gateway/services/s', { token: boss })
    t.match(json.circuit_breakers, [{ name: 'service:s', state: 'open', failure_count: 1 }])

    const change = (name: string, to: string, token: string | undefined = boss) =>
      call('/gateway/circuit-breakers', {
        method: 'PATCH',
        token,
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ name, state: to })
      })
    t.equal((await change('service:s', 'closed', undefined)).status, 200)
    t.equal((await call('/200')).status, 200)
    t.match((await change('service:s', 'open')).json, { state: 'open', forced: true })
    t.equal((await call('/200')).status, 503)
    t.match(await state(), { forced: true, reason: 'opened by an administrator' })
    t.equal((await change('service:nobody', 'open')).status, 404)
    t.equal((await change('service:s', 'ajar')).status, 422)
    t.equal((await call('/gateway/circuit-breakers')).status, 401)
    await running.runtime.recorder?.flush?.()
    const audit = await call('/admin/audit', { token: boss })
    t.match(audit.text, 'circuit_breaker.open')
    t.match(audit.text, 'circuit_breaker.reset')
  }
)

t.test('RES-02 the environment sets the defaults, and API_GATEWAY_ENABLED=false switches it off', async t => {
  const env = {
    API_GATEWAY_CB_FAILURE_THRESHOLD: '2',
    API_GATEWAY_CB_RECOVERY_TIMEOUT: '7',
    API_GATEWAY_CB_SUCCESS_THRESHOLD: '1'
  }
  const upstream = await startUpstream(t, (_request, response) => response.writeHead(500).end())
  const document = {
    defaults: { authentication: 'none' },
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's' }]
  }
  const on = await startGateway(t, document, { env })
  t.same([(await on.call('/1')).status, (await on.call('/2')).status, (await on.call('/3')).status], [500, 500, 503])
  t.equal((await on.call('/4')).headers['retry-after'], '7')
  t.test('plain proxy', async t => {
    const off = await startGateway(t, document, { env: { ...env, API_GATEWAY_ENABLED: 'false' } })
    for (let i = 0; i < 4; i++) t.equal((await off.call('/x')).status, 500)
  })
})
