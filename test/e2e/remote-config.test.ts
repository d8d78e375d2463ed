import { createHash } from 'node:crypto'
import t, { type Test } from 'tap'
import { hasty } from '../support/discovery.ts'
import { startGateway } from '../support/gateway.ts'
import { startLoopback } from '../support/loopback-server.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

async function startConfigServer(t: Test, document: unknown) {
  const state = { document, status: 200, unchanged: 0, asked: 0 }
  const server = await startLoopback(t, (request, response) => {
    state.asked++
    const text = typeof state.document === 'string' ? state.document : JSON.stringify(state.document)
    const etag = `"${createHash('sha256').update(text).digest('hex')}"`
    const known = request.headers['if-none-match'] === etag && state.status === 200
    if (known) state.unchanged++
    response.writeHead(known ? 304 : state.status, { etag }).end(known ? undefined : text)
  })
  return { ...server, state }
}

const route = (service: string) => ({ path: `/${service}/**`, service, authentication: 'none' })
const health = async ({ call }: Awaited<ReturnType<typeof startGateway>>) =>
  (await call('/health/dependencies')).json.dependencies.service_config

t.test('REG-20 services and routes of a server stand beside those of the files, and follow it', async t => {
  const [a, b] = [await startUpstream(t, undefined, 'a'), await startUpstream(t, undefined, 'b')]
  const remote = await startConfigServer(t, { services: { orders: { base_url: a.url } }, routes: [route('orders')] })
  const document = { service_config_url: remote.url, services: { own: { url: b.url } }, routes: [route('own')] }
  const gateway = await startGateway(t, document, { pause: hasty })
  const { call, configure } = gateway
  t.equal((await call('/orders/1')).headers['x-from'], 'a', 'when the port opens')
  t.equal((await call('/own/1')).headers['x-from'], 'b')

  remote.state.document = { services: { orders: { base_url: b.url } }, routes: [route('orders')] }
  await until(async () => (await call('/orders/1')).headers['x-from'] === 'b')
  const { version } = gateway.gateway.status()
  await until(() => remote.state.unchanged > 3)
  t.equal(gateway.gateway.status().version, version, 'nothing is built of what has not changed')

  configure({ ...document, routes: [route('own'), { ...route('own'), path: '/more' }] })
  await gateway.gateway.reload()
  t.equal((await call('/more')).status, 200)
  t.equal((await call('/orders/1')).headers['x-from'], 'b', 'a reload of the files keeps them')

  remote.state.document = {}
  await until(async () => (await call('/orders/1')).status === 404)
  t.equal((await call('/own/1')).status, 200)
})

t.test('REG-22 H-124 what was said last stays while nobody answers, and while it cannot be served', async t => {
  const a = await startUpstream(t)
  const good = { services: { orders: { base_url: a.url } }, routes: [route('orders')] }
  const remote = await startConfigServer(t, good)
  const document = { service_config_url: remote.url, services: { own: { url: a.url } }, routes: [route('own')] }
  const gateway = await startGateway(t, document, { pause: hasty })
  const { call, lines } = gateway
  for (const [document, status, code, message] of [
    ['<html>', 200, 'INVALID', undefined],
    [good, 500, 'HTTP_500', undefined],
    [[], 200, 'REFUSED', /is no mapping/],
    [{ identity: { jwt: { secret: 'x' } } }, 200, 'REFUSED', /is not for a service configuration/],
    [{ services: { own: { url: a.url } } }, 200, 'REFUSED', /is the name of another service/],
    [{ services: { orders: { url: 'nonsense' } } }, 200, 'REFUSED', /service_config_url.*write http/],
    [{ services: { orders: { base_url: a.url } }, routes: [route('own')] }, 200, 'REFUSED', /in the way|same/]
  ] as const) {
    Object.assign(remote.state, { document, status })
    await until(async () => (await health(gateway)).error === code, `${code} for ${JSON.stringify(document)}`)
    t.equal((await call('/orders/1')).status, 200, code)
    if (message !== undefined) t.match(String(lines().findLast(line => line.problems)?.problems), message)
    Object.assign(remote.state, { document: good, status: 200 })
    await until(async () => (await health(gateway)).status === 'ok')
  }
  await remote.stop()
  await until(async () => (await health(gateway)).error === 'ECONNREFUSED')
  t.equal((await call('/orders/1')).status, 200)
})

t.test('REG-20 a gateway starts without the server, and serves what it says when it is there', async t => {
  const a = await startUpstream(t)
  const remote = await startConfigServer(t, { services: { orders: { base_url: a.url } }, routes: [route('orders')] })
  await remote.stop()
  const gateway = await startGateway(t, { service_config_url: remote.url }, { pause: hasty })
  t.equal((await gateway.call('/orders/1')).status, 404)
  await remote.start()
  await until(async () => (await gateway.call('/orders/1')).status === 200)
})
