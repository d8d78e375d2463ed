import t from 'tap'
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
