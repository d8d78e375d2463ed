import t, { type Test } from 'tap'
import { FakeClock } from '../support/clock.ts'
import { type CallOptions, type GatewayOptions, startGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { startRawUpstream, startUpstream } from '../support/upstream.ts'

/** A gateway before a service that answers as it is asked to: `/503`, or a header field `x-answer` in JSON for its fields. */
async function gateway(t: Test, fallback: object, more: object = {}, options: GatewayOptions = {}) {
  const clock = new FakeClock()
  const upstream = await startUpstream(t, (request, response, body) => {
    const status = Number(/\d{3}/.exec(request.url as string)?.[0] ?? 200)
    const fields = JSON.parse((request.headers['x-answer'] as string | undefined) ?? '{}')
    response.writeHead(status, fields).end(`its own ${body}`)
  })
  const running = await startGateway(
    t,
    {
      defaults: { authentication: 'none' },
      services: { s: { url: upstream.url, fallback } },
      routes: [{ path: '/**', service: 's' }],
      ...more
    },
    { clock, ...options }
  )
  return { ...running, clock, upstream }
}

t.test('RES-06 C-21 a static answer stands in for a service that is gone, and says that it does', async t => {
  const { call, upstream, line } = await gateway(t, {
    status: 203,
    headers: { 'X-Own': 'yes' },
    body: { items: [], note: 'back soon' }
  })
  t.match(await call('/x'), { status: 200, text: 'its own ' })
  await upstream.crash()
  const answer = await call('/gone')
  t.match(answer, {
    status: 203,
    headers: {
      'content-type': 'application/json',
      'cache-control': 'no-store',
      'proxy-status': 'sallyport; error=connection_refused',
      'x-own': 'yes',
      'x-request-id': /^req_/
    },
    json: { items: [], note: 'back soon' }
  })
  t.match(await line({ path: '/gone' }), { fallback: 'static', reason: /^connect: ECONNREFUSED/, error: undefined })
  const head = await call('/gone', { method: 'HEAD' })
  t.match(head, { status: 203, text: '', headers: { 'content-length': answer.headers['content-length'] } })
})

t.test(
  'RES-06 RES-17 it stands in for the statuses that it names: of the gateway, of the service, of the breaker',
  async t => {
    const { call, upstream } = await gateway(
      t,
      { on: [500, 503], body: 'instead' },
      { defaults: { authentication: 'none', circuit_breaker: { failure_threshold: 2 } } }
    )
    t.match(await call('/500'), { status: 200, text: 'instead', headers: { 'proxy-status': /received-status=500$/ } })
    t.match(await call('/502'), { status: 502, text: 'its own ' })
    t.match(await call('/200'), {
      status: 200,
      text: 'instead',
      headers: { 'proxy-status': /destination_unavailable$/ }
    })
    t.equal(upstream.seen.length, 2, 'the breaker is open')
  }
)

t.test('RES-06 a file, whose type follows from its name; one that is missing or large is an error', async t => {
  const files = { 'sorry.html': '<h1>Sorry</h1>', 'large.txt': 'x'.repeat(1_000_001) }
  const { call, upstream, configure, gateway: running } = await gateway(t, { file: './sorry.html' }, {}, { files })
  await upstream.crash()
  t.match(await call('/x'), {
    status: 200,
    text: '<h1>Sorry</h1>',
    headers: { 'content-type': 'text/html; charset=utf-8' }
  })
  for (const [fallback, problem] of [
    [{ file: './nowhere.html' }, /fallback.file .*cannot be read: ENOENT/],
    [{ file: './large.txt' }, /larger than 1 MB/],
    [{ file: './sorry.html', body: 'x' }, /stands beside "body"/],
    [{ on: [502] }, /has nothing to answer with/],
    [{ body: 'x', headers: { 'Content-Length': '7' } }, /is for the gateway to say/],
    [{ body: 'x', headers: { 'a b': '7' } }, /no name of a header field/],
    [{ service: 'ss' }, /there is no service "ss", did you mean "s"/]
  ] as const) {
    configure({ services: { s: { url: upstream.url, fallback } }, routes: [{ path: '/**', service: 's' }] })
    await t.rejects(running.reload(), problem)
  }
})

t.test('RES-06 another service: for what nobody has got, and what may be sent twice', async t => {
  const backup = await startUpstream(t, undefined, 'backup')
  const upstream = await startUpstream(t, (_request, response) => response.writeHead(503).end())
  const { call: ask, line: lineOf } = await startGateway(t, {
    defaults: { authentication: 'none', fallback: { service: 'backup', body: 'nobody' } },
    services: { s: { url: upstream.url }, backup: { url: backup.url } },
    routes: [
      { path: '/b/**', service: 'backup' },
      { path: '/**', service: 's' }
    ]
  })
  t.match(await ask('/503'), { status: 200, json: { from: 'backup', url: '/503' } })
  t.match(await lineOf({ path: '/503' }), { fallback: 'service', service: 'backup' })
  t.match(await ask('/503', { method: 'POST', body: 'once' }), { status: 200, text: 'nobody' })
  t.equal(backup.seen.length, 1, 'the service may have done it')
  await upstream.crash()
  t.match(await ask('/gone', { method: 'POST', body: 'once' }), {
    status: 200,
    headers: { 'proxy-status': 'sallyport; error=connection_refused' },
    json: { from: 'backup', body: 'once' }
  })
  await backup.crash()
  t.match(await ask('/gone'), { status: 200, text: 'nobody' })
  t.match(await ask('/b/x'), { status: 200, text: 'nobody' })
})

t.test('RES-06 the last good answer, while it is not too old', async t => {
  const { call, upstream, clock, line } = await gateway(t, { cached: { max_age: '1m' }, body: 'nothing kept' })
  await call('/x?a=1', { headers: { 'x-answer': '{"etag":"\\"1\\"","age":"7"}' } })
  await call('/x?a=2')
  await upstream.crash()
  clock.advance(30_000)
  t.match(await call('/x?a=1'), { status: 200, text: 'its own ', headers: { etag: '"1"', age: '30' } })
  t.match(await line({ fallback: 'cached' }), { status_code: 200 })
  t.match(await call('/x?a=2', { method: 'HEAD' }), { status: 200, text: '' })
  t.equal((await call('/x?a=3')).text, 'nothing kept')
  t.equal((await call('/x?a=1', { method: 'POST' })).text, 'nothing kept')
  clock.advance(30_001)
  t.equal((await call('/x?a=1')).text, 'nothing kept')
})

t.test('RES-06 what may not be kept is not: by the service’s word, the client’s, or whose it is', async t => {
  const { call, upstream } = await gateway(t, { cached: true, body: 'nothing kept' })
  const answer = (fields: object, headers: Record<string, string> = {}): CallOptions => ({
    headers: { 'x-answer': JSON.stringify(fields), ...headers }
  })
  const cases: [path: string, options: CallOptions, kept: boolean][] = [
    ['/plain', answer({}), true],
    ['/no-store', answer({ 'cache-control': 'max-age=9, no-store' }), false],
    ['/private', answer({ 'cache-control': 'private="x"' }), false],
    ['/cookie', answer({ 'set-cookie': 'a=b' }), false],
    ['/vary-all', answer({ vary: '*' }), false],
    ['/asked', answer({}, { 'cache-control': 'no-store' }), false],
    ['/range', answer({}, { range: 'bytes=0-1' }), false],
    ['/204', answer({}), false],
    ['/404', answer({}), false],
    ['/credential', answer({}, { authorization: 'Basic eDp5' }), false],
    ['/session', answer({}, { cookie: 'session=1' }), false],
    ['/public', answer({ 'cache-control': 'public' }, { cookie: 'session=1' }), true]
  ]
  for (const [path, options] of cases) await call(path, options)
  await call('/language', answer({ vary: 'Accept-Language' }, { 'accept-language': 'de' }))
  await upstream.crash()
  for (const [path, , kept] of cases) t.equal((await call(path)).text, kept ? 'its own ' : 'nothing kept', path)
  t.equal((await call('/language', { headers: { 'accept-language': 'fr' } })).text, 'nothing kept')
  t.equal((await call('/language', { headers: { 'accept-language': 'de' } })).text, 'its own ')
})

t.test('RES-06 an answer for one caller is never given to another', async t => {
  const { call, upstream } = await gateway(t, { cached: true, body: 'nothing kept' }, { defaults: {} })
  await call('/x', { token: token({ sub: 'alice' }) })
  await upstream.crash()
  t.equal((await call('/x', { token: token({ sub: 'alice' }) })).text, 'its own ')
  t.equal((await call('/x', { token: token({ sub: 'bob' }) })).text, 'nothing kept')
  t.equal((await call('/x')).status, 401)
})

t.test('RES-06 H-97 what clients send for "Vary" counts as well, so that memory is bounded', async t => {
  const { call, gateway: running } = await gateway(t, { cached: { size: '100kb' } })
  const large = (i: number) => ({ headers: { 'x-answer': '{"vary":"x-own"}', 'x-own': String(i).repeat(8000) } })
  for (let i = 0; i < 30; i++) t.equal((await call(`/${i % 10}?${i}`, large(i % 10))).status, 200)
  const { bytes } = running.runtime.lastAnswers
  t.ok(bytes > 80_000 && bytes <= 100_000, String(bytes))
})

t.test('H-90 an answer that ends within its chunks is not kept', async t => {
  const upstream = await startRawUpstream(t, socket => {
    socket.end('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n')
  })
  const { call } = await startGateway(t, {
    defaults: { authentication: 'none' },
    services: { s: { url: upstream.url, fallback: { on: [502], cached: true } } },
    routes: [{ path: '/**', service: 's' }]
  })
  await t.rejects(call('/a'))
  t.match(await call('/b').catch(() => 'cut'), 'cut')
  await t.rejects(call('/a'), 'and is not answered from what was kept')
})

t.test('H-89 an answer that was cut is not kept, nor what stood in for one; and memory is bounded', async t => {
  let cut = true
  const upstream = await startUpstream(t, (request, response) => {
    response.writeHead(200, { 'content-length': 400_000 })
    if (!cut) return response.end('x'.repeat(400_000))
    response.write('x')
    setImmediate(() => request.socket.resetAndDestroy())
  })
  const {
    call,
    configure,
    gateway: running
  } = await startGateway(t, {
    defaults: { authentication: 'none' },
    services: { s: { url: upstream.url, fallback: { cached: { size: '1mb' }, body: 'nothing kept' } } },
    routes: [{ path: '/**', service: 's' }]
  })
  await t.rejects(call('/a'))
  cut = false
  for (const path of ['/b', '/c', '/d']) t.equal((await call(path)).text.length, 400_000)
  await upstream.crash()
  t.equal((await call('/a')).text, 'nothing kept')
  t.equal((await call('/b')).text, 'nothing kept', 'the least recently used')
  t.equal((await call('/c')).text.length, 400_000)
  t.equal((await call('/d')).text.length, 400_000)
  const { lastAnswers } = running.runtime
  t.ok(lastAnswers.bytes > 800_000 && lastAnswers.bytes <= 1_000_000)

  configure({
    defaults: { authentication: 'none' },
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's' }]
  })
  await running.reload()
  await until(() => lastAnswers.bytes === 0)
})
