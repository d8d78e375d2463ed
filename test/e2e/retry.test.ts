import t, { type Test } from 'tap'
import { FakeClock } from '../support/clock.ts'
import { startFaultProxy } from '../support/fault-proxy.ts'
import { freePort } from '../support/free-port.ts'
import { type GatewayOptions, startGateway } from '../support/gateway.ts'
import { until } from '../support/until.ts'
import { startRawUpstream, startService, startUpstream } from '../support/upstream.ts'

/** A gateway before `urls`, whose pauses between two tries last no time at all. */
function gateway(t: Test, urls: string[], more: object = {}, options: GatewayOptions = {}) {
  return startGateway(
    t,
    {
      defaults: { authentication: 'none' },
      services: { s: { instances: urls.map((url, i) => ({ id: String.fromCharCode(97 + i), url })), ...more } },
      routes: [{ path: '/**', service: 's' }]
    },
    { random: () => 0, ...options }
  )
}

t.test('RTE-03 instances take turns', async t => {
  const [a, b, c] = [
    await startUpstream(t, undefined, 'a'),
    await startUpstream(t, undefined, 'b'),
    await startUpstream(t, undefined, 'c')
  ]
  const { call } = await gateway(t, [a.url, b.url, c.url])
  for (let i = 0; i < 9; i++) await call('/x')
  t.same([a.seen.length, b.seen.length, c.seen.length], [3, 3, 3])
})

t.test('H-88 whatever the method, the next instance is asked when nothing was sent to the first', async t => {
  const alive = await startUpstream(t, undefined, 'alive')
  const dead = `http://127.0.0.1:${await freePort()}`
  const { call, line } = await gateway(t, [dead, alive.url, dead.replace('127.0.0.1', '127.0.0.2')])
  for (const [method, body] of [
    ['GET', undefined],
    ['POST', 'small'],
    ['POST', 'x'.repeat(300_000)],
    ['PATCH', 'chunked']
  ] as const) {
    const headers: Record<string, string> = body === 'chunked' ? { 'transfer-encoding': 'chunked' } : {}
    const answer = await call(`/${method}/${body?.length ?? 0}`, {
      method,
      headers,
      ...(body === undefined ? {} : { body })
    })
    t.match(answer, { status: 200, json: { from: 'alive', method, body: body ?? '' } })
  }
  t.match(await line({ path: '/GET/0' }), { instance: 'b', status_code: 200 })
  t.equal(alive.seen.length, 4)
})

t.test('H-88 an instance that nobody answers at is left out for a moment, then asked again', async t => {
  const clock = new FakeClock()
  const [a, b] = [await startUpstream(t, undefined, 'a'), await startUpstream(t, undefined, 'b')]
  const { call } = await gateway(t, [a.url, b.url], {}, { clock })
  await a.crash()
  const attempts: string[] = []
  for (let i = 0; i < 6; i++) attempts.push((await call('/x')).json.from)
  t.same(new Set(attempts), new Set(['b']))
  await a.revive()
  for (let i = 0; i < 4; i++) t.equal((await call('/x')).json.from, 'b', 'its time is not up')
  clock.advance(1001)
  const after = new Set<string>()
  for (let i = 0; i < 4; i++) after.add((await call('/x')).json.from)
  t.same(after, new Set(['a', 'b']))
})

t.test('RTE-02 C-17 retry: a failed try is made again, as often as it says, on the next instance', async t => {
  const statuses = [503, 503, 200]
  const upstream = await startUpstream(t, (_request, response) => {
    response.writeHead(statuses.shift() ?? 200).end('x')
  })
  const { call, line } = await gateway(t, [upstream.url], { retry: { attempts: 2, retry_on: ['connect', 503] } })
  t.equal((await call('/third')).status, 200)
  t.match(await line({ path: '/third' }), { attempts: 3 })

  statuses.push(503, 503, 503, 200)
  t.equal((await call('/all')).status, 503, 'the last answer is the service’s own')
  t.match(await line({ path: '/all' }), { attempts: 3, error: undefined })
  statuses.length = 0
  statuses.push(500, 200)
  t.equal((await call('/other')).status, 500, '500 is not in the list')
})

t.test('RTE-02 retry as a number is that many tries after failures of the connection', async t => {
  let cut = 2
  const upstream = await startRawUpstream(t, socket => {
    if (cut-- > 0) socket.resetAndDestroy()
    else socket.end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
  })
  const { call, line } = await gateway(t, [upstream.url], { retry: 3 })
  t.equal((await call('/x')).status, 200)
  t.match(await line({ path: '/x' }), { attempts: 3 })
})

t.test('H-91 what may have reached the service is not sent twice, unless repeating it changes nothing', async t => {
  const upstream = await startUpstream(t)
  const proxy = await startFaultProxy(t, upstream.port, { kind: 'reset-on-request' })
  const { call, line } = await gateway(t, [proxy.url, proxy.url], {
    retry: { attempts: 2, retry_on: ['connect', 'reset', 'timeout', 502, 503] }
  })
  for (const [method, tries] of [
    ['POST', 1],
    ['PATCH', 1],
    ['GET', 3],
    ['HEAD', 3],
    ['PUT', 3],
    ['DELETE', 3],
    ['OPTIONS', 3]
  ] as const) {
    const before = proxy.connections()
    t.equal(
      (await call(`/${method}`, { method, ...(method === 'GET' || method === 'HEAD' ? {} : { body: 'x' }) })).status,
      502
    )
    t.match(await line({ path: `/${method}` }), { attempts: tries })
    t.equal(proxy.connections() - before, tries, method)
  }
  // A body that has been let through cannot be had back.
  t.equal((await call('/large', { method: 'PUT', body: 'x'.repeat(100_000) })).status, 502)
  t.match(await line({ path: '/large' }), { attempts: 1 })
})

t.test('H-91 a route may say that its POST can be repeated', async t => {
  let cut = 1
  const upstream = await startService(t, (request, response) => {
    if (cut-- > 0) request.socket.resetAndDestroy()
    else request.pipe(response)
  })
  const { call } = await gateway(t, [upstream.url], { retry: { attempts: 1, methods: ['POST'] } })
  t.match(await call('/x', { method: 'POST', body: 'once more' }), { status: 200, text: 'once more' })
})

t.test('H-92 a connection closed while idle: what can be repeated is, on a new one, and nothing else', async t => {
  let stale = false
  const upstream = await startService(t, (request, response) => {
    request.resume()
    if (stale && request.socket.bytesRead > 0 && used.has(request.socket)) request.socket.resetAndDestroy()
    else response.end('ok')
    used.add(request.socket)
  })
  const used = new Set<object>()
  const { call, line } = await gateway(t, [upstream.url])
  const warm = async (): Promise<void> => {
    stale = false
    await Promise.all(Array.from({ length: 4 }, () => call('/warm')))
    stale = true
  }
  await warm()
  t.equal((await call('/get')).status, 200, 'without any retry configured')
  t.match(await line({ path: '/get' }), { attempts: 2 })
  await warm()
  t.equal((await call('/post', { method: 'POST', body: 'x' })).status, 502)
  t.match(await line({ path: '/post' }), { attempts: 1, reason: /^reset: / })
  await warm()
  t.equal((await call('/put', { method: 'PUT', body: 'x' })).status, 200)
  t.match(await line({ path: '/put' }), { attempts: 2 })
})

t.test('H-93 with everything down, tries are at most 1.2 times the requests', async t => {
  for (const kind of ['refuse', 'reset-on-request'] as const) {
    const upstream = await startUpstream(t)
    const proxies = [await startFaultProxy(t, upstream.port), await startFaultProxy(t, upstream.port)]
    const {
      call,
      gateway: running,
      lines
    } = await gateway(
      t,
      proxies.map(({ url }) => url),
      { retry: { attempts: 3, retry_on: ['connect', 'reset', 'timeout', 502, 503] } }
    )
    // The outage finds connections open.
    await Promise.all(Array.from({ length: 10 }, () => call('/warm')))
    for (const proxy of proxies) await proxy.set({ kind })
    const requests = 1000
    for (let sent = 0; sent < requests; sent += 20) {
      const statuses = await Promise.all(Array.from({ length: 20 }, () => call('/down').then(({ status }) => status)))
      t.notOk(statuses.some(status => status !== 502))
    }
    await until(() => lines().filter(({ path }) => path === '/down').length === requests)
    const tries = lines().reduce((sum, entry) => sum + (entry.path === '/down' ? (entry.attempts as number) : 0), 0)
    t.ok(tries <= requests * 1.2, `${kind}: ${tries} tries for ${requests} requests`)
    t.ok(tries > requests, 'and some were made again')
    t.equal(running.server.inFlight, 0)
  }
})

t.test('C-17 the pause before a retry doubles, and chance decides how much of it is waited', async t => {
  const upstream = await startUpstream(t, (_request, response) => response.writeHead(503).end())
  let asked = 0
  const { call, line } = await gateway(
    t,
    [upstream.url],
    { retry: { attempts: 3, retry_on: [503], backoff: '1h', max_backoff: '2h' } },
    {
      random: () => {
        asked++
        return 1e-9
      }
    }
  )
  t.equal((await call('/x')).status, 503)
  t.match(await line({ path: '/x' }), { attempts: 4 })
  t.equal(asked, 3, 'a draw for each pause')
})

t.test('RES-15 RES-16 Retry-After of a 503 or 429 is waited for, if there is time', async t => {
  const times: number[] = []
  const answers: [status: number, retryAfter: string | undefined][] = []
  const upstream = await startUpstream(t, (_request, response) => {
    times.push(performance.now())
    const [status, retryAfter] = answers.shift() ?? [200, undefined]
    response.writeHead(status, retryAfter === undefined ? {} : { 'retry-after': retryAfter }).end('x')
  })
  const { call, line } = await gateway(t, [upstream.url], {
    retry: { attempts: 1, retry_on: [503, 429, 500] },
    timeout: '9s'
  })
  const ask = async (path: string, status: number, retryAfter: string): Promise<unknown> => {
    answers.splice(0, answers.length, [status, retryAfter])
    await call(path)
    return (await line({ path })).attempts
  }
  t.equal(await ask('/second', 503, '1'), 2)
  t.ok((times[1] as number) - (times[0] as number) >= 990)
  t.equal(await ask('/past', 429, 'Wed, 21 Oct 2015 07:28:00 GMT'), 2)
  t.equal(await ask('/minute', 503, '60'), 1, 'the answer is due before')
  t.equal(await ask('/future', 429, new Date(Date.now() + 3_600_000).toUTCString()), 1)
  t.equal(await ask('/other', 500, '60'), 2, 'on other statuses it means something else')
})

t.test('H-93 RES-15 C-17 a budget of 0 leaves no more than one retry a second', async t => {
  const upstream = await startUpstream(t, (_request, response) => response.writeHead(503).end())
  const clock = new FakeClock()
  const { call, lines } = await gateway(
    t,
    [upstream.url],
    { retry: { attempts: 3, retry_on: [503], budget: 0 } },
    { clock }
  )
  for (let i = 0; i < 20; i++) await call('/x')
  await until(() => lines().filter(({ path }) => path === '/x').length === 20)
  t.equal(upstream.seen.length, 30, 'ten that it had saved')
})
