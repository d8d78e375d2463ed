import t, { type Test } from 'tap'
import { MemoryStore } from '../../../../src/store/memory.ts'
import { StoreUnreachable } from '../../../../src/store/store.ts'
import { HealthChecker } from '../../../../src/upstream/health/checker.ts'
import { SharedChecks } from '../../../../src/upstream/health/federation.ts'
import { healthCheckOf } from '../../../../src/upstream/health/settings.ts'
import type { Instance } from '../../../../src/upstream/instance.ts'
import { Service } from '../../../../src/upstream/service.ts'
import { FakeClock } from '../../../support/clock.ts'
import { surroundings } from '../../../support/surroundings.ts'
import { startUpstream } from '../../../support/upstream.ts'

const POOL = { connections: 1, connectTimeoutMs: 0, keepAliveMs: 1000, idleTimeoutMs: 0, maxHeaderBytes: 1024 }
const how = { ...healthCheckOf(undefined, { path: undefined, intervalSeconds: 10 }), unhealthyAfter: 2 }

/** A store that can be out of reach. */
class Fragile extends MemoryStore {
  lost = false

  override async add(...terms: Parameters<MemoryStore['add']>): Promise<boolean> {
    if (this.lost) throw new StoreUnreachable('ECONNREFUSED')
    return super.add(...terms)
  }
}

/** Gateways before one instance, on one store; time and looks are in the test's hands. */
async function gateways(t: Test, ...nodes: string[]) {
  const clock = new FakeClock()
  const store = new Fragile(clock)
  const says = { status: 200 }
  const upstream = await startUpstream(t, (_, response) => response.writeHead(says.status).end())
  const started = nodes.map(node => {
    const around = { ...surroundings(clock), store, node }
    const config = { name: 's', instances: [{ id: 'a', url: upstream.url, weight: 1 }], pool: POOL, healthCheck: how }
    const service = new Service(config, around)
    const checker = new HealthChecker(service, how, around, new SharedChecks(store, node, 'k'))
    t.teardown(() => {
      checker.stop()
      service.close()
    })
    return { node, service, checker, instance: service.instances[0] as Instance }
  })
  /** Seconds go by, one after the other. */
  const pass = async (seconds: number): Promise<void> => {
    for (let i = 0; i < seconds; i++) {
      clock.advance(1000)
      for (const { checker } of started) await checker.turn()
      for (const { checker } of started) await checker.tick()
    }
    for (const { checker } of started) await checker.turn()
  }
  return { started, store, says, upstream, pass, stop: (i: number) => started.splice(i, 1)[0]?.checker.stop() }
}

t.test('HLB-12 CLU-04 of several gateways one asks, and all know', async t => {
  const { started, upstream, says, pass } = await gateways(t, 'x', 'y', 'z')
  await pass(21)
  t.equal(upstream.seen.length, 2)
  t.same(
    started.map(({ instance }) => [instance.lastCheck?.by, instance.lastCheck?.healthy]),
    [1, 2, 3].map(() => ['x', true])
  )
  says.status = 503
  await pass(22)
  t.same(
    started.map(({ instance }) => instance.state),
    ['unhealthy', 'unhealthy', 'unhealthy']
  )
  t.equal(upstream.seen.length, 4)
})

t.test('HLB-12 whoever checks goes away: another one takes over, at once or when it is missed', async t => {
  for (const leaves of [true, false]) {
    const { started, upstream, pass, stop } = await gateways(t, 'x', 'y')
    await pass(3)
    if (leaves) stop(0)
    else started.splice(0, 1)
    await pass(leaves ? 3 : 6)
    t.equal(upstream.seen.length, 2)
    t.equal(started[0]?.instance.lastCheck?.by, 'y')
  }
})

t.test('HLB-12 C-29 without the store each checks for itself, and no longer when it is back', async t => {
  const { started, upstream, store, pass } = await gateways(t, 'x', 'y')
  await pass(3)
  t.equal(upstream.seen.length, 1)
  store.lost = true
  await pass(12)
  t.same(
    started.map(({ instance }) => instance.lastCheck?.by),
    ['x', 'y']
  )
  store.lost = false
  await pass(12)
  const before = upstream.seen.length
  await pass(30)
  t.equal(upstream.seen.length - before, 3)
})

t.test('HLB-12 an instance that the other one does not know is asked here', async t => {
  const { started, upstream, pass } = await gateways(t, 'x', 'y')
  await pass(3)
  started[1]?.service.update([{ id: 'b', url: upstream.url, weight: 1 }])
  await pass(13)
  t.equal(started[1]?.service.instances[0]?.lastCheck?.by, 'y')
})

t.test('HLB-12 H-82 what is no finding ends no gateway: each checks for itself', async t => {
  const { started, store, upstream, pass } = await gateways(t, 'x', 'y')
  for (const poison of ['', 'null', '[1]', '"x"', '{"a":null}', '{"a":{}}', '{"a":{"result":{"at":1}}}']) {
    store.get = async key => (key.endsWith(':found') ? poison : 'somebody else')
    store.add = async () => false
    await pass(1)
    for (const { checker } of started) await t.resolves(checker.turn(), poison)
  }
  await pass(10)
  t.ok(upstream.seen.length >= 2)
  t.ok(started.every(({ instance, node }) => instance.lastCheck?.by === node))
})
