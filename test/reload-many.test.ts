import t from 'tap'
import { startGateway } from './support/gateway.ts'
import { startUpstream } from './support/upstream.ts'

t.test('H-118 H-120 five thousand prefixes start, and change while requests are served', async t => {
  const upstream = await startUpstream(t)
  const routes = (version: number): object => ({
    services: { s: { url: upstream.url } },
    routes: Array.from({ length: 5000 }, (_, i) => ({
      path: `/p${i}/v${version}/**`,
      service: 's',
      authentication: 'none'
    }))
  })
  const { gateway, configure, call } = await startGateway(t, routes(1))
  t.equal((await call('/p4999/v1/x')).status, 200)
  configure(routes(2))
  let reloading = true
  const statuses = new Set<number>()
  const serve = async (): Promise<void> => {
    // Each of these may meet either configuration, and either has an answer.
    while (reloading) statuses.add((await call('/p2500/v1/x')).status)
  }
  const reload = gateway.reload().finally(() => {
    reloading = false
  })
  await Promise.all([reload, serve()])
  t.ok(statuses.has(200), 'requests were answered meanwhile')
  t.notOk([...statuses].some(status => status !== 200 && status !== 404))
  t.equal((await call('/p4999/v2/x')).status, 200)
  t.equal((await call('/p4999/v1/x')).status, 404)
})
