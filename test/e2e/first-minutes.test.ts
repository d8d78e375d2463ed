import t from 'tap'
import { FakeClock } from '../support/clock.ts'
import { startGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'

t.test(
  'RLM-03 IDN-12 of 70 calls of each of two users, and some with a forged token, 60 of each user pass',
  async t => {
    const upstream = await startUpstream(t)
    const { call } = await startGateway(
      t,
      {
        rate_limits: { roles: { user: 60 } },
        services: { s: { url: upstream.url } },
        routes: [{ path: '/**', service: 's' }]
      },
      { clock: new FakeClock(Date.now()) }
    )
    const statuses: Record<string, Record<number, number>> = { alice: {}, bob: {}, forged: {} }
    const tokens = {
      alice: token({ sub: 'alice', roles: ['user'] }),
      bob: token({ sub: 'bob', roles: ['user'] }),
      forged: token({ sub: 'alice', roles: ['user'] }, { secret: 'a secret that the gateway has never heard of' })
    }
    for (let i = 0; i < 70; i++)
      for (const [who, bearer] of Object.entries(tokens)) {
        const { status } = await call('/x', { token: bearer })
        const counts = statuses[who] as Record<number, number>
        counts[status] = (counts[status] ?? 0) + 1
      }
    t.strictSame(statuses, { alice: { 200: 60, 429: 10 }, bob: { 200: 60, 429: 10 }, forged: { 401: 70 } })
    t.equal(upstream.seen.length, 120)
  }
)

t.test(
  'C-39 H-122 without a token nothing comes back but refusals and the documentation, wherever one looks',
  async t => {
    const upstream = await startUpstream(t)
    const { call, file } = await startGateway(t, {
      metrics: { allow: [] },
      services: { orders: { url: upstream.url, endpoints: [{ path: '/projects', name: 'list' }] } },
      routes: [{ path: '/api/**', service: 'orders' }],
      catch_all: true
    })
    const own = [
      '/metrics',
      '/api/v1/metrics',
      '/api/v1/metrics/json',
      '/api/v1/metrics/requests',
      '/api/v1/metrics/system'
    ]
    const administration = [
      '/gateway',
      '/gateway/status',
      '/gateway/reload',
      '/admin',
      '/admin/routes',
      '/admin/revocations'
    ]
    const documents = ['/docs', '/redoc', '/openapi.json', '/api/docs', '/api/openapi.json', '/dashboard', '/']
    const services = ['/api/x', '/api/v1/projects', '/orders/x', '/API/X', '//api//x', '/nowhere']
    for (const path of [...own, ...administration, ...documents, ...services])
      for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'OPTIONS']) {
        const { status, text } = await call(path, { method })
        const open = method === 'GET' && status === 200 && documents.includes(path)
        t.ok(open || [401, 403, 404, 405].includes(status), `${method} ${path}: ${status}`)
        // The documentation has an example of such a name.
        for (const inside of [file, upstream.url, 'a secret of the tests', ...(open ? [] : ['gateway.yaml'])])
          t.notOk(text.includes(inside))
      }
    t.same(upstream.seen, [])
  }
)
