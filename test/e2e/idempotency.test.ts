import http from 'node:http'
import t, { type Test } from 'tap'
import { FakeClock } from '../support/clock.ts'
import { startFaultProxy } from '../support/fault-proxy.ts'
import { type CallOptions, type GatewayOptions, startGateway } from '../support/gateway.ts'
import { connectStore, noRedisServer, ownRedis, ownTerms } from '../support/redis-store.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { startService, startUpstream } from '../support/upstream.ts'

/** A gateway before a service that numbers what it does, and answers with the status in the path. */
async function gateway(t: Test, idempotency: object = {}, options: GatewayOptions & { more?: object } = {}) {
  let done = 0
  const upstream = await startUpstream(t, (request, response, body) => {
    const status = Number(/\d{3}/.exec(request.url as string)?.[0] ?? 201)
    response.writeHead(status, { location: `/payments/${++done}`, 'x-own': 'yes' }).end(`${done} ${body}`)
  })
  const clock = new FakeClock()
  const running = await startGateway(
    t,
    {
      defaults: { authentication: 'optional' },
      services: { s: { url: upstream.url } },
      routes: [{ path: '/**', service: 's', idempotency, ...options.more }]
    },
    { clock, ...options }
  )
  const pay = (key: string, body = 'ten', more: CallOptions & { path?: string } = {}) =>
    running.call(more.path ?? '/pay', {
      method: 'POST',
      body,
      ...more,
      headers: { 'idempotency-key': key, ...more.headers }
    })
  return { ...running, upstream, clock, pay }
}

t.test('RES-15 what is asked for twice under one Idempotency-Key is done once, and answered twice', async t => {
  const { pay, upstream, clock, call } = await gateway(t, { ttl: '1h' })
  const first = await pay('"abc"')
  t.match(first, { status: 201, text: '1 ten', headers: { location: '/payments/1' } })
  t.notOk(first.headers['idempotent-replayed'])
  for (const spelling of ['"abc"', 'abc']) {
    const again = await pay(spelling)
    t.match(again, { status: 201, text: '1 ten', headers: { location: '/payments/1', 'idempotent-replayed': 'true' } })
    t.not(again.headers['x-request-id'], first.headers['x-request-id'])
  }
  t.equal(upstream.seen.length, 1)
  t.equal(upstream.last().headers['idempotency-key'], '"abc"', 'the service may look at it, too')
  t.equal((await pay('"other"')).text, '2 ten')
  await call('/pay', { method: 'POST', body: 'x' })
  await call('/pay', { headers: { 'idempotency-key': 'abc' } })
  t.equal(upstream.seen.length, 4, 'other methods, and requests without a key, are as ever')
  clock.advance(3_600_001)
  t.equal((await pay('"abc"')).text, '5 ten', 'its time is over')
})

t.test('RES-15 a key that comes with another request is a 422, one that is none a 400', async t => {
  const { pay, upstream, call } = await gateway(t, { required: true, max_body: '1kb' })
  await pay('"abc"')
  t.match(await pay('"abc"', 'twenty'), { status: 422, json: { error: { code: 'validation_error' } } })
  t.equal((await pay('"abc"', 'ten', { path: '/pay?x=1' })).status, 422)
  t.equal((await pay('"abc"', 'ten', { headers: { 'content-type': 'text/plain' } })).status, 422)
  t.equal((await pay('"abc"', 'ten', { method: 'PATCH' })).status, 422)
  for (const bad of ['""', '"', 'a b', 'a,b', '"ä"', 'x'.repeat(256)]) {
    const { status } = await pay(Buffer.from(bad).toString('latin1'))
    t.equal(status, 400, bad)
  }
  t.match(await call('/pay', { method: 'POST', body: 'x' }), { status: 400, json: { error: { details: /is needed/ } } })
  t.equal((await pay('"large"', 'x'.repeat(1025))).status, 413)
  t.equal((await pay('"chunks"', 'x'.repeat(2000), { headers: { 'transfer-encoding': 'chunked' } })).status, 413)
  t.equal(upstream.seen.length, 1)
  t.match(await pay('"chunked"', 'in pieces', { headers: { 'transfer-encoding': 'chunked' } }), { text: '2 in pieces' })
})

t.test('RES-15 while the first is under way the others get 409; a key is its caller’s own', async t => {
  const waiting: http.ServerResponse[] = []
  const service = await startService(t, (request, response) => {
    request.resume()
    waiting.push(response)
  })
  const { call } = await startGateway(t, {
    defaults: { authentication: 'optional', idempotency: {} },
    services: { s: { url: service.url } },
    routes: [
      { path: '/a', service: 's' },
      { path: '/b', service: 's' }
    ]
  })
  const pay = (path: string, who?: string) =>
    call(path, { method: 'POST', body: 'x', token: who && token({ sub: who }), headers: { 'idempotency-key': 'k' } })
  const all = [pay('/a', 'alice'), pay('/a', 'bob'), pay('/b', 'alice'), pay('/a')]
  await until(() => waiting.length === 4)
  t.match(await pay('/a', 'alice'), { status: 409, headers: { 'retry-after': '1' } })
  for (const [i, response] of waiting.entries()) response.end(String(i))
  t.equal(new Set((await Promise.all(all)).map(({ text }) => text)).size, 4)
  t.equal((await pay('/a', 'alice')).headers['idempotent-replayed'], 'true')
  t.equal(waiting.length, 4)
})

t.test('RES-15 SEC-01 behind one address, those whom only the service knows have keys of their own', async t => {
  const { pay, upstream } = await gateway(t, {}, { more: { authentication: 'none' } })
  const as = (headers: Record<string, string>) => pay('k', 'ten', { headers })
  t.equal((await as({ authorization: 'Bearer alice' })).text, '1 ten')
  t.equal((await as({ authorization: 'Bearer bob' })).text, '2 ten')
  t.equal((await as({ 'x-api-key': 'carol' })).text, '3 ten')
  t.match(await as({ authorization: 'Bearer alice' }), { text: '1 ten', headers: { 'idempotent-replayed': 'true' } })
  t.equal(upstream.seen.length, 3)
})

t.test('RES-15 H-82 what is kept and cannot be read is no 500, and nothing is done twice for it', async t => {
  const { pay, upstream, gateway: running } = await gateway(t)
  await pay('k')
  for (const poison of ['', 'null', '[]', '{"v":2}', '{"request":', 'x'.repeat(100_000)]) {
    running.runtime.answers.get = async () => poison
    t.match(await pay('k'), { status: 409, json: { error: { details: /cannot be read/ } } }, poison.slice(0, 20))
  }
  t.equal(upstream.seen.length, 1)
})

t.test('RES-15 H-81 of many at once one gets through', async t => {
  const { pay, upstream } = await gateway(t)
  const answers = await Promise.all(Array.from({ length: 500 }, () => pay('"storm"')))
  t.equal(upstream.seen.length, 1)
  for (const { status, text } of answers) t.ok(status === 409 || text === '1 ten')
})

t.test('RES-15 H-91 where a request has no deadline, its key is not free because it takes long', async t => {
  const waiting: http.ServerResponse[] = []
  const service = await startService(t, (request, response) => {
    request.resume()
    waiting.push(response)
  })
  const clock = new FakeClock()
  const route = { path: '/x', service: 's', authentication: 'none', timeout: 0, idempotency: { ttl: '1h' } }
  const { call } = await startGateway(t, { services: { s: { url: service.url } }, routes: [route] }, { clock })
  const pay = () => call('/x', { method: 'POST', body: 'ten', headers: { 'idempotency-key': 'k' } })
  const first = pay()
  await until(() => waiting.length === 1)
  clock.advance(600_000)
  t.equal((await pay()).status, 409)
  waiting[0]?.end('done')
  t.equal((await first).text, 'done')
  t.match(await pay(), { text: 'done', headers: { 'idempotent-replayed': 'true' } })
  t.equal(waiting.length, 1)
})

t.test('RES-15 H-128 an answer is kept for its time, whatever somebody sets the clock to', async t => {
  const { pay, clock } = await gateway(t, { ttl: '1h' })
  await pay('k')
  clock.set(clock.now() + 48 * 3_600_000)
  t.equal((await pay('k')).text, '1 ten')
  clock.set(clock.now() - 96 * 3_600_000)
  clock.advance(3_600_001)
  t.equal((await pay('k')).text, '2 ten')
})

t.test('RES-15 H-91 a failure frees the key, and so does "not now"; other answers stand', async t => {
  const { pay, upstream } = await gateway(t)
  for (const [status, calls] of [
    [500, 2],
    [503, 2],
    [429, 2],
    [404, 1],
    [409, 1]
  ] as const) {
    const before = upstream.seen.length
    for (let i = 0; i < 2; i++) t.equal((await pay(`"${status}"`, 'ten', { path: `/${status}` })).status, status)
    t.equal(upstream.seen.length - before, calls, `${status}`)
  }
  await upstream.crash()
  t.equal((await pay('"down"')).status, 502)
  await upstream.revive()
  t.equal((await pay('"down"')).status, 201)
})

t.test('RES-15 a client that goes away once it has asked finds its answer when it asks again', async t => {
  const waiting: http.ServerResponse[] = []
  let aborted = 0
  const service = await startService(t, (request, response) => {
    request.resume()
    response.on('close', () => {
      if (!response.writableFinished) aborted++
    })
    waiting.push(response)
  })
  const { port, call, gateway } = await startGateway(t, {
    defaults: { authentication: 'none' },
    services: { s: { url: service.url } },
    routes: [{ path: '/**', service: 's', idempotency: {} }]
  })
  for (const headFirst of [false, true]) {
    const headers = { 'idempotency-key': String(headFirst) }
    const path = `/${headFirst}`
    const { length } = waiting
    const request = http.request({ port, host: '127.0.0.1', path, method: 'POST', headers, agent: false })
    request.on('error', () => {})
    request.end('ten')
    await until(() => waiting.length === length + 1)
    const response = waiting[length] as http.ServerResponse
    if (headFirst) {
      const head = new Promise(resolve => request.on('response', resolve))
      response.writeHead(201).write('paid ')
      await head
    }
    request.destroy()
    await until(() => gateway.server.inFlight === 0)
    t.equal((await call(path, { method: 'POST', body: 'ten', headers })).status, 409)
    response.end(headFirst ? 'in two' : 'paid')
    await until(async () => (await call(path, { method: 'POST', body: 'ten', headers })).status !== 409)
    const answer = await call(path, { method: 'POST', body: 'ten', headers })
    t.match(answer, { text: headFirst ? 'paid in two' : 'paid', headers: { 'idempotent-replayed': 'true' } })
  }
  t.equal(waiting.length, 2)
  t.equal(aborted, 0)
})

t.test('RES-15 an answer too large to keep is not given again, and nothing is done again either', async t => {
  let done = 0
  const upstream = await startUpstream(t, (_request, response) => {
    done++
    response.end('x'.repeat(300_000))
  })
  const { call } = await startGateway(t, {
    defaults: { authentication: 'none' },
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's', idempotency: {} }]
  })
  const pay = () => call('/x', { method: 'POST', body: 'x', headers: { 'idempotency-key': 'k' } })
  t.equal((await pay()).text.length, 300_000)
  t.match(await pay(), { status: 409, json: { error: { details: /answered with 200/ } } })
  t.equal(done, 1)
})

t.test('RES-15 H-91 the gateway itself sends it again only if the service knows the key', async t => {
  const upstream = await startUpstream(t)
  const proxy = await startFaultProxy(t, upstream.port, { kind: 'reset-on-request' })
  for (const [retry, attempts] of [
    [false, 1],
    [true, 3]
  ] as const) {
    const { call, line } = await startGateway(t, {
      defaults: { authentication: 'none', retry: { attempts: 2, backoff: 0 } },
      services: { s: { url: proxy.url } },
      routes: [{ path: '/**', service: 's', idempotency: { retry } }]
    })
    await call(`/${retry}`, { method: 'POST', body: 'x', headers: { 'idempotency-key': 'k' } })
    t.match(await line({ path: `/${retry}` }), { attempts })
  }
})

t.test(
  'RES-15 C-29 over Redis a key holds on all gateways; without it nothing is promised that cannot be kept',
  {
    skip: noRedisServer
  },
  async t => {
    const redis = await ownRedis(t)
    const store = () => connectStore(t, { url: redis.url, terms: ownTerms({ prefix: 'rl:' }), timeoutMs: 250 })
    const { pay, upstream } = await gateway(t, {}, { store: await store() })
    const second = await startGateway(
      t,
      {
        defaults: { authentication: 'optional' },
        services: { s: { url: upstream.url } },
        routes: [{ path: '/**', service: 's', idempotency: {} }]
      },
      { store: await store(), folder: t.testdir() }
    )
    await pay('"abc"')
    const again = await second.call('/pay', { method: 'POST', body: 'ten', headers: { 'idempotency-key': 'abc' } })
    t.match(again, { text: '1 ten', headers: { 'idempotent-replayed': 'true' } })
    await redis.kill()
    t.match(await pay('"new"'), { status: 503, headers: { 'retry-after': '1' } })
    t.equal((await second.call('/pay', { method: 'POST', body: 'ten' })).status, 201, 'without a key all is as ever')
    t.equal(upstream.seen.length, 2)
  }
)
