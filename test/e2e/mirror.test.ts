import t, { type Test } from 'tap'
import { explainRequest } from '../../src/commands/explain.ts'
import { FakeClock } from '../support/clock.ts'
import { load, problemsOf } from '../support/config.ts'
import { type GatewayOptions, startGateway } from '../support/gateway.ts'
import { seeded } from '../support/random.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

interface Counts {
  readonly sent: number
  readonly equal: number
  readonly different_status: number
  readonly different_body: number
  readonly failed: number
  readonly skipped: number
}

/** A gateway whose requests go to one service, with copies to another. */
async function start(
  t: Test,
  mirror: object,
  handler?: Parameters<typeof startUpstream>[1],
  options: GatewayOptions = {}
) {
  const real = await startUpstream(t, undefined, 'real')
  const copy = await startUpstream(t, handler, 'copy')
  const gateway = await startGateway(
    t,
    {
      services: { real: { url: real.url }, copy: { url: copy.url } },
      routes: [
        {
          path: '/x/**',
          service: 'real',
          rewrite: '/y',
          mirror: { service: 'copy', ...mirror },
          authentication: 'none'
        }
      ]
    },
    options
  )
  const counts = (): Counts => ({ ...gateway.gateway.runtime.metrics.mirror('/x/**') })
  return { ...gateway, real, copy, counts }
}

t.test('mirroring: a marked copy goes to another service, and its answer to nobody', async t => {
  const { call, real, copy, counts, line } = await start(t, {}, (_request, response) =>
    response.writeHead(500).end('no')
  )
  const answer = await call('/x/1?a=b', {
    method: 'POST',
    body: 'hello',
    headers: { 'x-mirrored': 'forged', 'x-own': '1' }
  })
  t.match(answer, { status: 200, headers: { 'x-from': 'real' } })
  await until(() => counts().sent === 1)
  t.match(copy.last(), { method: 'POST', url: '/y/1?a=b', body: 'hello', headers: { 'x-mirrored': '1', 'x-own': '1' } })
  t.equal(real.last().headers['x-mirrored'], undefined, 'nobody else may say so')
  t.equal(copy.last().headers['x-request-id'], real.last().headers['x-request-id'])
  t.match(await line({ request_id: answer.headers['x-request-id'] as string }), { service: 'real', attempts: 1 })
  const { text } = await call('/metrics')
  t.match(text, 'gateway_mirrored_requests_total{endpoint="/x/**",result="sent"} 1')
  t.match(text, 'service_request_count{service="copy",status="500"} 1')
})

t.test('mirroring: so many of a hundred', async t => {
  const { call, copy, counts } = await start(t, { percent: 25 }, undefined, { random: seeded(2) })
  for (let i = 0; i < 200; i++) await call('/x')
  await until(() => counts().sent === copy.seen.length)
  t.ok(Math.abs(copy.seen.length - 50) <= 15, `${copy.seen.length} of 200`)
})

t.test('mirroring: a service that is down, or hangs, delays and fails nothing, and is bounded', async t => {
  const clock = new FakeClock()
  const { call, copy, counts, gateway } = await start(t, {}, () => {}, { clock })
  const answers = await Promise.all(Array.from({ length: 120 }, () => call('/x')))
  t.ok(answers.every(({ status, headers }) => status === 200 && headers['x-from'] === 'real'))
  t.same(counts(), { sent: 0, equal: 0, different_status: 0, different_body: 0, failed: 0, skipped: 20 })
  await until(() => copy.seen.length === 100)
  clock.advance(11_000)
  await until(() => counts().failed === 100)
  t.equal(gateway.runtime.services.get('copy')?.instances[0]?.active, 0)
  await copy.crash()
  t.equal((await call('/x')).status === 503 ? (await call('/x')).status : 200, 200)
  await until(() => counts().failed > 100)
})

t.test('mirroring: bodies that are not at hand as a whole are not copied', async t => {
  const { call, copy, counts } = await start(t, {})
  const large = await call('/x', { method: 'POST', body: 'x'.repeat(70_000) })
  const chunked = await call('/x', { method: 'POST', body: 'hello', headers: { 'transfer-encoding': 'chunked' } })
  t.same([large.status, chunked.status], [200, 200])
  t.match(counts(), { skipped: 2, sent: 0 })
  t.equal(copy.seen.length, 0)
})

t.test('mirroring: status and body are compared, and differences told without what they hold', async t => {
  let answer = { status: 200, body: 'the same' }
  const reply: Parameters<typeof startUpstream>[1] = (_request, response) =>
    response.writeHead(answer.status).end(answer.body)
  const clock = new FakeClock()
  const real = await startUpstream(t, (_request, response) => response.writeHead(200).end('the same'))
  const copy = await startUpstream(t, reply)
  const { call, gateway, lines } = await startGateway(
    t,
    {
      services: { real: { url: real.url }, copy: { url: copy.url } },
      routes: [
        { path: '/x', service: 'real', mirror: { service: 'copy', compare: true }, authentication: 'none' },
        { path: '/down', service: 'http-nowhere', authentication: 'none' }
      ]
    },
    { clock }
  )
  const counts = () => gateway.runtime.metrics.mirror('/x')
  const after = async (next: typeof answer, result: keyof Counts) => {
    answer = next
    const before = counts()[result]
    t.equal((await call('/x?secret=1')).text, 'the same')
    await until(() => counts()[result] === before + 1)
  }
  await after({ status: 200, body: 'the same' }, 'equal')
  await after({ status: 200, body: 'THE SAME' }, 'different_body')
  await after({ status: 200, body: 'secret' }, 'different_body')
  clock.advance(1000)
  await after({ status: 404, body: 'the same' }, 'different_status')
  const told = lines().filter(({ msg }) => msg === 'mirrored answer differs')
  t.match(told, [
    { route: '/x', service: 'copy', status: 200, mirrored_status: 200, bytes: 8, mirrored_bytes: 8 },
    { mirrored_status: 404 }
  ])
  t.equal(told.length, 2, 'at most one in a second')
  t.notMatch(JSON.stringify(told), /secret|THE SAME/)
})

t.test('mirroring: what has not been answered is not compared', async t => {
  const real = await startUpstream(t, (request, response) =>
    request.url === '/x/cut'
      ? response.writeHead(200, { 'content-length': 10 }).write('cut', () => response.destroy())
      : undefined
  )
  const copy = await startUpstream(t)
  const { call, gateway } = await startGateway(t, {
    services: { real: { url: real.url }, copy: { url: copy.url } },
    routes: [{ path: '/x/**', service: 'real', mirror: { service: 'copy', compare: true }, authentication: 'none' }]
  })
  await t.rejects(call('/x/cut'))
  const counts = gateway.runtime.metrics.mirror('/x/**')
  await until(() => counts.sent === 1)
  t.match(counts, { different_body: 0, equal: 0 })
})

t.test('mirroring: check and explain know it', async t => {
  const yaml = (mirror: string) => ({
    'gateway.yaml': `services: { a: { url: http://a }, b: { url: http://b } }\nroutes: [{ path: /x, authentication: none, service: a, mirror: { ${mirror} } }]\n`
  })
  const cases: [mirror: string, key: string, message: RegExp][] = [
    ['service: a', 'routes[0].mirror', /has the requests already/],
    ['percent: 3', 'routes[0].mirror', /needs "service" or "target"/],
    ['service: b, percent: 0', 'routes[0].mirror.percent', /./],
    ['service: b, percent: 101', 'routes[0].mirror.percent', /./]
  ]
  for (const [mirror, key, message] of cases) {
    const problems = await problemsOf(t, yaml(mirror))
    t.match(
      problems.filter(({ severity }) => severity === 'error'),
      [{ key, message, line: 2 }],
      mirror
    )
  }
  const loaded = await load(t, yaml('service: b, percent: 10, compare: true'))
  t.same(loaded.snapshot.warnings, [], 'the service is in use')
  const { forward } = await explainRequest(loaded, { method: 'GET', target: '/x', headers: [], from: '127.0.0.1' })
  t.match(forward, { mirror: { service: 'b', percent: 10, compare: true } })
})
