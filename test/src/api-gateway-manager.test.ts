import { join } from 'node:path'
import t, { type Test } from 'tap'
import { ApiGatewayManager, ConfigError } from '../../src/index.ts'
import { problemsIn } from '../support/config.ts'
import { call } from '../support/gateway.ts'
import { SECRET, token } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'

async function start(t: Test, more: object = {}): Promise<{ manager: ApiGatewayManager; url: string }> {
  const { url } = await startUpstream(t)
  const manager = await ApiGatewayManager.start({
    server: { host: '127.0.0.1', port: 0 },
    storage: { data_dir: join(t.testdir({}), 'data') },
    logging: { level: 'silent' },
    identity: { jwt: { secret: SECRET } },
    ...more
  })
  t.teardown(() => manager.close(100))
  return { manager, url }
}

t.test('CFG-09 RTE-05 a program reads and changes the configuration of its gateway while it runs', async t => {
  const { manager, url } = await start(t)
  t.match(manager.getConfig(), {
    identity: { jwt: { secret: '••••••', access_minutes: 60 } },
    routes: [],
    catch_all: false
  })
  t.equal((await call(manager.port, '/a', { token: token() })).status, 404)
  const routes = [{ path: '/a', method: 'GET', target: url }]
  t.match(await manager.updateConfig({ routes }), { changed: true })
  t.equal((await call(manager.port, '/a', { token: token() })).status, 200)
  t.match(manager.getConfig().routes, [{ path: '/a', methods: 'GET', target: url, priority: 0 }])
  t.match(await manager.updateConfig({ routes }), { changed: false })
})

t.test('CFG-09 CFG-08 a change that is not good changes nothing', async t => {
  const { manager, url } = await start(t)
  await manager.updateConfig({ routes: [{ path: '/a', target: url }] })
  const before = manager.getConfig()
  const problems = await problemsIn(manager.updateConfig({ routes: [{ path: '/b', targt: url }], catch_all: 'yes' }))
  t.same(
    problems.map(({ key, message }) => `${key} ${message}`),
    ['routes[0].targt unknown key, did you mean "target"?', 'catch_all "yes" should be true or false']
  )
  t.same(manager.getConfig(), before)
  t.equal((await call(manager.port, '/a', { token: token() })).status, 200)
  await manager.updateConfig({ catch_all: true })
  t.match(manager.getConfig(), { catch_all: true, routes: [{ path: '/a' }] })
})

t.test('CFG-09 changes at once come one after the other, whatever becomes of each', async t => {
  const { manager, url } = await start(t)
  const changes = [{ catch_all: true }, { gateway: 7 }, { routes: [{ path: '/a', target: url }] }]
  const results = await Promise.allSettled(changes.map(change => manager.updateConfig(change)))
  t.same(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled']
  )
  t.match(manager.getConfig(), { catch_all: true, gateway: { name: 'sallyport' }, routes: [{ path: '/a' }] })
})

t.test('CFG-09 a configuration that is not good starts nothing', async t => {
  await t.rejects(ApiGatewayManager.start({ routes: 7 }), ConfigError)
})
