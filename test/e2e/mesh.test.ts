import t from 'tap'
import { startGateway } from '../support/gateway.ts'
import { startUpstream } from '../support/upstream.ts'

t.test('CLU-03 OBS-18 what tracers and meshes put on a request goes on to the service as it came', async t => {
  const upstream = await startUpstream(t)
  const { call } = await startGateway(t, {
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's', authentication: 'none' }]
  })
  const fields = {
    traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    tracestate: 'congo=t61rcWkgMzE,rojo=00f067aa0ba902b7',
    baggage: 'userId=alice;ttl=1,isProduction=false',
    b3: '80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90',
    'x-b3-traceid': '80f198ee56343ba864fe8b2a57d3eff7',
    'x-b3-spanid': 'e457b5a2e4d86bd1',
    'x-b3-parentspanid': '05e3ac9a4f6e3b90',
    'x-b3-sampled': '1',
    'x-b3-flags': '1',
    'l5d-ctx-trace': 'Y29udGV4dA==',
    'l5d-dst-override': 'orders.shop.svc.cluster.local:8080',
    'x-envoy-attempt-count': '1',
    'x-ot-span-context': 'a;b;c',
    'x-cloud-trace-context': '105445aa7843bc8bf206b12000100000/1;o=1'
  }
  t.equal((await call('/x', { headers: fields })).status, 200)
  const { headers, rawHeaders } = upstream.last()
  for (const [name, value] of Object.entries(fields)) {
    t.equal(headers[name], value, name)
    t.equal(rawHeaders.filter(field => field.toLowerCase() === name).length, 1, `${name} once`)
  }
})
