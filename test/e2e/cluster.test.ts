import { setTimeout } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { noPostgres, ownStorageBehind } from '../support/database.ts'
import { call } from '../support/gateway.ts'
import { type GatewayProcess, startProcess, writeConfiguration } from '../support/gateway-process.ts'
import { noRedisServer, ownRedis } from '../support/redis-store.ts'
import { boss, open, register } from '../support/services.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

interface Listed {
  readonly node: string
  readonly self: boolean
  readonly address: string
  readonly region: string
  readonly version: string
  readonly error: string | null
}

const get = ({ port }: { port: number }, path: string, as?: string) => call(port, path, { token: as })
const nodesOf = async (at: { port: number }): Promise<Listed[]> => (await get(at, '/gateway/nodes', boss)).json.nodes

/** Waits until the list of nodes is as it should be; without asking more often than an address may. */
function untilNodes(at: { port: number }, wanted: (nodes: readonly Listed[]) => boolean): Promise<void> {
  return until(async () => {
    await setTimeout(100)
    const { status, json } = await get(at, '/gateway/nodes', boss)
    return status === 200 && wanted(json.nodes)
  }, String(wanted))
}

/** Two gateways in processes of their own, over one PostgreSQL and one Redis that can both be taken away. */
async function startTwo(t: Test) {
  const [upstream, redis, { storage, proxy }] = await Promise.all([startUpstream(t), ownRedis(t), ownStorageBehind(t)])
  const { file, configure } = writeConfiguration(t, {})
  const document = {
    storage: { ...storage, redis_url: redis.url, redis_timeout: '250ms' },
    registry: { allow: ['loopback'] },
    rate_limits: { lease: false },
    services: {
      s: { url: upstream.url },
      down: {
        url: 'http://127.0.0.1:1',
        retry: false,
        circuit_breaker: { failure_threshold: 2, recovery_timeout: '5m', shared: true }
      }
    },
    routes: [
      { path: '/down', service: 'down', authentication: 'none' },
      { path: '/open', service: 's', authentication: 'none' },
      { path: '/closed', service: 's' },
      { path: '/limited', service: 's', authentication: 'none', rate_limit: { requests_per_hour: 10, by: 'route' } }
    ]
  }
  configure(document)
  const [a, b] = await Promise.all(
    ['eu', 'us'].map(region => startProcess(t, file, { env: { GATEWAY_REGION: region } }))
  )
  return { a: a as GatewayProcess, b: b as GatewayProcess, upstream, redis, postgres: proxy, configure, document }
}

t.test('several gateways', { skip: noPostgres || noRedisServer }, async t => {
  const { a, b, upstream, redis, postgres, configure, document } = await startTwo(t)

  await t.test('CLU-02 CLU-06 each node reports where it is and which version it serves', async t => {
    await untilNodes(a, nodes => nodes.length === 2)
    const seen = await nodesOf(b)
    t.strictSame(seen.map(({ region }) => region).sort(), ['eu', 'us'])
    t.strictSame(
      seen.filter(({ self }) => self).map(({ region }) => region),
      ['us']
    )
    t.equal(
      new Set(seen.map(({ version }) => version)).size,
      1,
      'one configuration, one version, wherever it is served'
    )
    t.match(seen.find(({ self }) => self)?.address, new RegExp(`:${b.port}$`))
    t.match((await get(a, '/metrics', boss)).text, /http_request_count\{[^}]*region="eu"/)
    t.equal((await get(a, '/gateway/nodes', token())).status, 403)
  })

  await t.test('CLU-02 REG-23 what is registered at one is served by all, as one version', async t => {
    const { status } = await register((path, options) => call(a.port, path, options), open('orders', upstream.url))
    t.equal(status, 201)
    await until(async () => (await get(b, '/api/v1/orders')).status === 200)
    await untilNodes(a, nodes => new Set(nodes.map(({ version }) => version)).size === 1)
  })

  await t.test('CLU-02 a version that one node refuses is seen at all others', async t => {
    configure({ ...document, routes: [{ path: 'nowhere' }] })
    for (const node of [a, b])
      await untilNodes(node, nodes => nodes.every(({ error }) => error?.includes('problem') === true))
    configure(document)
    await untilNodes(b, nodes => nodes.every(({ error }) => error === null))
    t.equal((await get(b, '/open')).status, 200)
  })

  await t.test('CLU-01 H-85 a limit is one limit, and a token that is taken back is so everywhere', async t => {
    const statuses: number[] = []
    for (let i = 0; i < 12; i++) statuses.push((await get(i % 2 === 0 ? a : b, '/limited')).status)
    t.strictSame(statuses, [...Array(10).fill(200), 429, 429])

    const alice = token()
    t.equal((await get(b, '/closed', alice)).status, 200)
    const { status } = await call(a.port, '/admin/revocations', {
      method: 'POST',
      token: boss,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ token: alice })
    })
    t.equal(status, 204)
    await until(async () => (await get(b, '/closed', alice)).status === 401)
  })

  await t.test('CLU-01 RES-14 a breaker that opens at one node is open at all', async t => {
    t.strictSame([(await get(a, '/down')).status, (await get(a, '/down')).status], [502, 502])
    t.equal((await get(a, '/down')).status, 503)
    const open = /gateway_circuit_breaker_state\{[^}]*down[^}]*\} 2\n/
    await until(async () => {
      await setTimeout(100)
      return open.test((await get(b, '/metrics', boss)).text)
    })
    t.equal((await get(b, '/down')).status, 503, 'which has never asked there')
  })

  await t.test('CLU-01 C-29 H-86 a node without Redis goes on by its share, and comes back alone', async t => {
    await redis.kill()
    const statuses = await Promise.all([a, b, a, b].map(async node => (await get(node, '/open')).status))
    t.strictSame(statuses, [200, 200, 200, 200])
    const state = async (at: GatewayProcess) =>
      (await get(at, '/health/dependencies')).json.dependencies.redis.status as string
    for (const node of [a, b]) await until(async () => (await state(node)) !== 'ok')
    await redis.start()
    for (const node of [a, b]) await until(async () => (await state(node)) === 'ok')
  })

  await t.test('CLU-01 STO-01 a node without PostgreSQL serves what it knows, and comes back alone', async t => {
    await postgres.set({ kind: 'refuse' })
    for (const node of [a, b]) {
      t.equal((await get(node, '/api/v1/orders')).status, 200)
      t.equal((await get(node, '/gateway/nodes', boss)).status, 503)
    }
    await postgres.set({ kind: 'none' })
    await untilNodes(a, nodes => nodes.length === 2)
    const answer = await register((path, options) => call(b.port, path, options), open('chat', upstream.url))
    t.equal(answer.status, 201)
    await until(async () => (await get(a, '/api/v1/chat')).status === 200)
  })

  await t.test('CLU-01 HLB-15 PRF-06 a node that is killed takes nothing with it but its own requests', async t => {
    let stopped = false
    const load = async (node: GatewayProcess): Promise<(number | 'cut')[]> => {
      const statuses: (number | 'cut')[] = []
      while (!stopped)
        statuses.push(
          await get(node, '/open').then(
            ({ status }) => status,
            () => 'cut'
          )
        )
      return statuses
    }
    const ofA = load(a)
    const ofB = load(b)
    await until(() => upstream.seen.length > 100)
    a.child.kill('SIGKILL')
    await a.ended
    await untilNodes(b, nodes => nodes.length === 1)
    stopped = true
    t.ok((await ofA).includes('cut'))
    t.strictSame([...new Set(await ofB)], [200])
    b.child.kill('SIGTERM')
    t.equal(await b.ended, 0)
  })
})
