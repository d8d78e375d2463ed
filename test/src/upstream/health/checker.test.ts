import t, { type Test } from 'tap'
import type { Exchange } from '../../../../src/proxy/exchange.ts'
import { HealthChecker } from '../../../../src/upstream/health/checker.ts'
import { healthCheckOf } from '../../../../src/upstream/health/settings.ts'
import type { Instance } from '../../../../src/upstream/instance.ts'
import { Service, type ServiceConfig } from '../../../../src/upstream/service.ts'
import { FakeClock } from '../../../support/clock.ts'
import { captureLog } from '../../../support/gateway.ts'
import { surroundings } from '../../../support/surroundings.ts'
import { startUpstream, type Upstream } from '../../../support/upstream.ts'

const POOL = { connections: 1, connectTimeoutMs: 0, keepAliveMs: 1000, idleTimeoutMs: 0, maxHeaderBytes: 1024 }
const exchange = {} as Exchange
const REGULAR = healthCheckOf(
  { interval_seconds: 10, timeout_seconds: 5 } as Parameters<typeof healthCheckOf>[0] & object,
  { path: undefined, intervalSeconds: undefined }
)
const how = { ...REGULAR, intervalMs: 10_000 }

/** A service whose instances answer what they are told to, and its checker, which looks when it is told to. */
async function watched(t: Test, count: number, config: Partial<ServiceConfig> = {}) {
  const clock = new FakeClock()
  const statuses: number[] = Array(count).fill(200)
  const upstreams: Upstream[] = []
  for (let i = 0; i < count; i++)
    upstreams.push(await startUpstream(t, (_, response) => response.writeHead(statuses[i] as number).end()))
  const list = upstreams.map(({ url }, i) => ({ id: 'abc'[i] as string, url, weight: 1 }))
  const { log, lines } = captureLog()
  const around = { ...surroundings(clock), log: log.logger }
  const service = new Service({ name: 's', instances: list, pool: POOL, healthCheck: how, ...config }, around)
  const checker = new HealthChecker(service, { ...how, ...config.healthCheck }, around)
  t.teardown(() => {
    checker.stop()
    service.close()
  })
  const pass = async (ms = 11_000): Promise<void> => {
    clock.advance(ms)
    await checker.tick()
  }
  const asked = (): string => {
    const picks = Array.from({ length: 12 }, () => service.pick(service.balancer, exchange)?.id ?? '')
    return [...new Set(picks)].sort().join('')
  }
  await checker.tick()
  return { clock, service, checker, statuses, upstreams, list, lines, pass, asked }
}

t.test('HLB-01 HLB-02 RES-18 an instance is out after bad checks in a row, and back after good ones', async t => {
  const { statuses, service, lines, pass, asked } = await watched(t, 2)
  await pass(1000)
  t.match(service.instances[0]?.lastCheck, { healthy: true, status: 200, error: null, tookMs: 0 })
  t.equal(asked(), 'ab')
  statuses[0] = 503
  await pass()
  t.equal(asked(), 'ab', 'one bad check is bad luck')
  await pass()
  t.equal(asked(), 'b')
  statuses[0] = 200
  await pass()
  t.equal(asked(), 'b', 'one good one is luck')
  await pass()
  t.equal(asked(), 'ab')
  t.match(lines(), [
    { level: 40, service: 's', instance: 'a', state: 'unhealthy', reason: 'status 503' },
    { level: 30, service: 's', instance: 'a', state: 'healthy', reason: 'health checks are good' }
  ])
})

t.test('HLB-02 flapping health changes nothing', async t => {
  const { statuses, lines, pass } = await watched(t, 2)
  await pass(1000)
  for (let i = 0; i < 6; i++) {
    statuses[0] = i % 2 === 0 ? 500 : 200
    await pass()
  }
  t.same(lines(), [])
})

t.test('HLB-01 the very first check decides alone; all are unhealthy: nobody is asked', async t => {
  const { statuses, service, pass, asked } = await watched(t, 2)
  statuses.fill(404)
  t.equal(asked(), 'ab', 'nothing is known yet')
  await pass(1000)
  t.equal(asked(), '')
  t.equal(service.retryAfter, 10, 'the next check may know better')
})

t.test('HLB-01 REG-14 whoever comes later waits for its first check; whoever goes is not checked any more', async t => {
  const { service, list, upstreams, pass, asked, checker } = await watched(t, 3)
  service.update(list.slice(0, 2))
  await pass(1000)
  const [, , c] = upstreams as [Upstream, Upstream, Upstream]
  t.equal(c.seen.length, 0)
  service.update(list)
  t.equal(asked(), 'ab')
  await checker.tick()
  await pass(1000)
  t.equal(c.seen.length, 1)
  t.equal(asked(), 'abc')
  service.update(list.slice(0, 2))
  await pass()
  t.equal(c.seen.length, 1)
})

t.test('HLB-01 checks keep their distance, with a little chance in it', async t => {
  const { upstreams, pass } = await watched(t, 1)
  const [a] = upstreams as [Upstream]
  await pass(1000)
  t.equal(a.seen.length, 1)
  await pass(8900)
  t.equal(a.seen.length, 1, 'not before nine tenths of the interval')
  await pass(2200)
  t.equal(a.seen.length, 2)
  t.match(a.last(), { method: 'GET', url: '/health', headers: { via: '1.1 test', 'user-agent': 'sallyport' } })
})

t.test(
  'HLB-14 who asks gets an answer at once, the same for all who ask; without regular checks it decides nothing',
  async t => {
    const { service, statuses, upstreams, asked } = await watched(t, 2, { healthCheck: { ...how, intervalMs: 0 } })
    statuses[0] = 500
    await Promise.all([service.checkNow(), service.checkNow()])
    await service.checkNow()
    t.match(
      service.instances.map(({ lastCheck }) => lastCheck),
      [{ healthy: false, error: 'status 500' }, { healthy: true }]
    )
    t.equal(upstreams[0]?.seen.length, 2)
    t.equal(asked(), 'ab')
  }
)

t.test(
  'H-101 H-128 a check that hangs ends in time; one that is under way ends with its service, and says nothing',
  async t => {
    const { service, checker, pass } = await watched(t, 1, { healthCheck: { ...how, timeoutMs: 50 } })
    const [a] = service.instances as [Instance]
    const silent = await startUpstream(t, () => {})
    service.update([{ id: 'z', url: silent.url, weight: 1 }])
    t.equal(a.lastCheck, undefined)
    await checker.tick()
    await pass(1000)
    const [z] = service.instances as [Instance]
    t.match(z.lastCheck, { healthy: false, error: 'timeout', status: null })
    t.equal(z.unhealthy, true)
    const other = await watched(t, 1, { healthCheck: { ...how, timeoutMs: 60_000 } })
    other.service.update([{ id: 'z', url: silent.url, weight: 1 }])
    await other.checker.tick()
    const check = other.pass(1000)
    other.checker.stop()
    await check
    t.equal(other.service.instances[0]?.lastCheck, undefined)
  }
)
