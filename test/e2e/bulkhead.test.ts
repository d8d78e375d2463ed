import net from 'node:net'
import t, { type Test } from 'tap'
import { type Answer, startGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

const root = token({ sub: 'root', roles: ['admin'] })

/** A gateway before a service that answers when it is told to. */
async function startHeld(t: Test, concurrency: object | number, service: object = {}) {
  const held: (() => void)[] = []
  const upstream = await startUpstream(t, (request, response) => {
    if (request.url === '/now') response.end('now')
    else held.push(() => response.end('done'))
  })
  const gateway = await startGateway(
    t,
    {
      defaults: { authentication: 'none' },
      services: { s: { url: upstream.url, concurrency, ...service }, free: { url: upstream.url } },
      routes: [
        { path: '/held/**', service: 's', websocket: true, timeout: '10s' },
        { path: '/late', service: 's', timeout: '30ms' },
        { path: '/now', service: 's' },
        { path: '/free/now', service: 'free', strip_prefix: '/free' }
      ]
    },
    { random: () => 0.5 }
  )
  t.teardown(() => {
    for (const answer of held) answer()
  })
  const bulkhead = () => {
    const { bulkhead } = gateway.gateway.runtime.services.get('s') ?? {}
    if (bulkhead === undefined) throw new Error('there is no bulkhead')
    return bulkhead
  }
  return { ...gateway, held, upstream, bulkhead }
}

t.test('TRC-01 a service that is full refuses what does not wait, and others go on', async t => {
  const { call, held, bulkhead } = await startHeld(t, { limit: 2, queue: 1, max_wait: '10s' })
  const answers: Promise<Answer>[] = [call('/held/1'), call('/held/2')]
  await until(() => held.length === 2)
  answers.push(call('/held/3'))
  await until(() => bulkhead().waiting === 1)
  const refused = await call('/held/4')
  t.equal(refused.status, 503)
  t.equal(refused.json.error.code, 'overloaded')
  t.equal(refused.json.error.message, 'The service is overloaded.')
  t.equal(refused.headers['retry-after'], '2')

  t.equal((await call('/free/now')).status, 200)
  for (const answer of held) answer()
  await until(() => held.length === 3)
  held[2]?.()
  t.same(
    (await Promise.all(answers)).map(({ status }) => status),
    [200, 200, 200]
  )
  await until(() => bulkhead().inside === 0)
  const metrics = (await call('/metrics', { token: root })).text
  t.match(metrics, 'gateway_concurrency_limit{service="s"} 2')
  t.match(metrics, 'gateway_concurrency_in_use{service="s"} 0')
  t.match(metrics, 'gateway_queue_length{service="s"} 0')
  t.match(metrics, 'gateway_queue_wait_seconds_count{service="s"} 1')
  t.match(metrics, 'gateway_shed_requests_total{priority="normal",reason="queue_full",service="s"} 1')
})

t.test('RLM-11 who waits for too long is refused, and its body has never been read', async t => {
  const { call, held, upstream, line } = await startHeld(t, { limit: 1, queue: 5, max_wait: '30ms' })
  const first = call('/held/1')
  await until(() => held.length === 1)
  const late = await call('/held/2', {
    method: 'POST',
    body: Buffer.alloc(300_000),
    headers: { 'x-request-id': 'late' }
  })
  t.equal(late.status, 503)
  t.equal((await line({ status_code: 503 })).reason, 'queue_timeout')
  t.equal(upstream.seen.length, 1)
  held[0]?.()
  t.equal((await first).status, 200)
})

t.test('H-98 a client that goes away gives its place back, in the queue and inside', async t => {
  const { port, call, held, bulkhead } = await startHeld(t, { limit: 1, queue: 5, max_wait: '10s' })
  const open = (path: string): net.Socket => {
    const socket = net.connect(port, '127.0.0.1', () => socket.write(`GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`))
    return socket.on('error', () => {})
  }
  const inside = open('/held/1')
  await until(() => held.length === 1)
  const waiting = open('/held/2')
  await until(() => bulkhead().waiting === 1)
  waiting.destroy()
  await until(() => bulkhead().waiting === 0)
  inside.destroy()
  await until(() => bulkhead().inside === 0)
  t.equal((await call('/now')).status, 200)
})

t.test('H-98 a service that does not answer, or is not there, gives its place back', async t => {
  const { call, held, upstream, bulkhead } = await startHeld(t, 1)
  t.equal((await call('/late')).status, 504)
  t.equal(bulkhead().inside, 0)
  const cut = call('/held/1')
  await until(() => held.length === 2)
  await upstream.crash()
  t.equal((await cut).status, 502)
  t.equal((await call('/now')).status, 502)
  t.equal(bulkhead().inside, 0)
})

t.test('TRC-01 a WebSocket takes a place for as long as its handshake lasts', async t => {
  const { port, held, bulkhead, call } = await startHeld(t, { limit: 1, queue: 1, max_wait: '10s' })
  const shake = (): net.Socket => {
    const socket = net.connect(port, '127.0.0.1', () =>
      socket.write(
        'GET /held/ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: c2FsbHlwb3J0IGlzIG9wZQ==\r\n\r\n'
      )
    )
    return socket.on('error', () => {})
  }
  const first = shake()
  await until(() => held.length === 1)
  const second = shake()
  await until(() => bulkhead().waiting === 1)
  t.equal((await call('/now')).status, 503)
  second.destroy()
  await until(() => bulkhead().waiting === 0)
  first.destroy()
  await until(() => bulkhead().inside === 0)
  t.equal((await call('/now')).status, 200)
})

t.test('CFG-08 bounds that contradict each other are an error, with its place and once', async t => {
  const services = { a: { url: 'http://a' }, b: { url: 'http://b' } }
  const defaults = { concurrency: { limit: 'adaptive', min: 20, max: 10 } }
  const error = await startGateway(t, { defaults, services, routes: [] }).catch(error => error)
  t.match(error.problems, [{ key: 'defaults.concurrency.min', message: '20 is more than "max", which is 10', line: 4 }])
  t.equal(error.problems.length, 1)
})

t.test('TRC-01 bulkheads may stand under the defaults, and a service may do without', async t => {
  const upstream = await startUpstream(t)
  const { gateway, call } = await startGateway(t, {
    defaults: { authentication: 'none', bulkhead: 7 },
    services: { a: { url: upstream.url }, b: { url: upstream.url, bulkhead: false } },
    routes: [
      { path: '/a', service: 'a' },
      { path: '/b', service: 'b' }
    ]
  })
  t.equal((await call('/a')).status, 200)
  t.equal(gateway.runtime.services.get('a')?.bulkhead?.limit, 7)
  t.equal(gateway.runtime.services.get('b')?.bulkhead, undefined)
})
