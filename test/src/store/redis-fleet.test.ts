import { setTimeout } from 'node:timers/promises'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import type { Limit } from '../../../src/limits/limit.ts'
import { limitRequest, type Store } from '../../../src/store/store.ts'
import { freePort } from '../../support/free-port.ts'
import { type RedisServer, startRedisServer, startSentinel } from '../../support/redis-server.ts'
import { connectStore, noRedisServer, ownTerms } from '../../support/redis-store.ts'
import { until } from '../../support/until.ts'

const program = process.env.REDIS_SERVER as string
const skip = noRedisServer
const terms = ownTerms({ prefix: 'rl:' })

const hour = (name: string, limit: number): Limit => ({
  name,
  algorithm: 'fixed_window',
  limit,
  windowMs: 3_600_000,
  burst: limit
})

async function start(t: Test, settings: readonly string[], port?: number): Promise<RedisServer> {
  const server = await startRedisServer(program, port, settings)
  t.teardown(() => server.process.kill('SIGKILL'))
  return server
}

/** How many of `requests` pass, by turns at each of `stores`, under limits of two subjects at once. */
async function passed(stores: readonly Store[], requests: number, limit: number): Promise<number> {
  const asked = [
    limitRequest(hour('global', limit), 'global', 'g'),
    limitRequest(hour('user', 1000), 'user:alice', 'u')
  ]
  let count = 0
  for (let i = 0; i < requests; i++) {
    const { allowed } = await (stores[i % stores.length] as Store).decide(asked, terms)
    if (allowed) count++
  }
  return count
}

const isThere = (store: Store) => (): Promise<boolean> =>
  store.check().then(
    () => true,
    () => false
  )

/** Whether values can be written and read again; a failover may be seen here before it is over there. */
const works = (store: Store) => async (): Promise<boolean> => {
  await setTimeout(20)
  try {
    for (const key of ['a', 'b', 'c', 'd']) await store.set(key, 'x', 60_000)
    return (await store.get('d')) === 'x'
  } catch {
    return false
  }
}

t.test('CLU-05 H-86 sentinels say which Redis is the primary, and which is after a failover', { skip }, async t => {
  const folder = t.testdir({})
  const primary = await start(t, ['--dir', folder])
  const replica = await start(t, ['--dir', folder, '--replicaof', '127.0.0.1', String(primary.port)])
  const sentinel = await startSentinel(program, folder, [
    `sentinel monitor mine 127.0.0.1 ${primary.port} 1`,
    'sentinel down-after-milliseconds mine 300',
    'sentinel failover-timeout mine 2000'
  ])
  t.teardown(() => sentinel.process.kill('SIGKILL'))
  const asSentinel = new Redis(sentinel.url)
  t.teardown(() => asSentinel.disconnect())
  await until(async () => ((await asSentinel.call('SENTINEL', 'REPLICAS', 'mine')) as unknown[]).length === 1)
  const url = `redis+sentinel://127.0.0.1:1,127.0.0.1:${sentinel.port}/mine`
  const stores = [await connectStore(t, { url, terms }), await connectStore(t, { url, terms })]
  for (const store of stores) await until(isThere(store))
  t.equal(await passed(stores, 12, 10), 10)
  await (stores[0] as Store).set('kept', 'yes', 60_000)
  const onReplica = new Redis(replica.url)
  t.teardown(() => onReplica.disconnect())
  await until(async () => (await onReplica.get('kept')) === 'yes')

  primary.process.kill('SIGKILL')
  await until(async () => !(await isThere(stores[0] as Store)()))
  t.equal(await passed(stores, 4, 1000), 4, 'requests are decided here meanwhile')
  for (const store of stores) await until(works(store))
  t.equal(await (stores[1] as Store).get('kept'), 'yes')
  t.equal(await passed(stores, 4, 10), 0, 'the new primary knows what was counted')
})

t.test(
  'CLU-05 H-86 a cluster decides each request in one step, holds one limit, and survives a node',
  { skip },
  async t => {
    const folder = t.testdir({})
    const clustered = async (name: string): Promise<RedisServer & { bus: number }> => {
      const bus = await freePort()
      const settings = [
        '--dir',
        folder,
        '--cluster-enabled',
        'yes',
        '--cluster-config-file',
        name,
        '--dbfilename',
        `${name}.rdb`
      ]
      const server = await start(t, [...settings, '--cluster-node-timeout', '500', '--cluster-port', String(bus)])
      return { ...server, bus }
    }
    const nodes = await Promise.all(['a', 'b', 'c', 'spare'].map(clustered))
    const clients = nodes.map(({ url }) => new Redis(url).on('error', () => {}))
    t.teardown(() => {
      for (const client of clients) client.disconnect()
    })
    const url = `redis+cluster://127.0.0.1:1,${nodes.map(({ port }) => `127.0.0.1:${port}`).join(',')}`
    // There is no cluster yet.
    const early = await connectStore(t, { url, terms })
    t.equal(await passed([early], 2, 1000), 2, 'requests are decided here until there is one')
    const [a, b, c, spare] = clients as [Redis, Redis, Redis, Redis]
    await Promise.all([
      a.call('CLUSTER', 'ADDSLOTSRANGE', 0, 5460),
      b.call('CLUSTER', 'ADDSLOTSRANGE', 5461, 10922),
      c.call('CLUSTER', 'ADDSLOTSRANGE', 10923, 16383)
    ])
    t.equal(await a.call('CLUSTER', 'KEYSLOT', '{rl:}global'), await a.call('CLUSTER', 'KEYSLOT', '{rl:}user:alice'))
    const slot = Number(await a.call('CLUSTER', 'KEYSLOT', '{rl:}global'))
    const holder = Math.floor(slot / 5461)
    const [first] = nodes
    for (const client of [b, c, spare])
      await client.call('CLUSTER', 'MEET', '127.0.0.1', first?.port as number, first?.bus as number)
    await until(async () => {
      await setTimeout(50)
      const infos = await Promise.all(clients.map(client => client.call('CLUSTER', 'INFO') as Promise<string>))
      return infos.every(info => info.includes('cluster_state:ok') && info.includes('cluster_known_nodes:4'))
    })
    await spare.call('CLUSTER', 'REPLICATE', (await (clients[holder] as Redis).call('CLUSTER', 'MYID')) as string)
    await until(async () => {
      await setTimeout(50)
      return (await spare.info('replication')).includes('master_link_status:up')
    })

    const stores = [await connectStore(t, { url, terms }), early]
    for (const store of stores) await until(works(store))
    t.equal(await passed(stores, 12, 10), 10)
    t.match(await (stores[0] as Store).usage('global', terms), [{ used: 10 }])
    await (stores[0] as Store).reset('user:alice', terms)
    t.strictSame(await (stores[1] as Store).usage('user:alice', terms), [])
    await until(async () => {
      await setTimeout(50)
      return (await (stores[0] as Store).check())?.gateways === 2
    })

    nodes[holder]?.process.kill('SIGKILL')
    t.equal(await passed(stores, 4, 1000), 4, 'requests are decided here meanwhile, if they have to be')
    for (const store of stores) await until(works(store))
    await until(async () => {
      await setTimeout(50)
      return (await passed(stores, 2, 10)) === 0
    }, 'what was counted is there again')
  }
)
