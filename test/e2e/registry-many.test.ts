import t from 'tap'
import { noPostgres, ownStorage } from '../support/database.ts'
import type { TestGateway } from '../support/gateway.ts'
import { boss, deregister, open, register, startNode } from '../support/services.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

t.setTimeout(180_000)

t.test(
  'REG-01 REG-02 a thousand registrations and deregistrations on two gateways end as they were answered',
  { skip: noPostgres },
  async t => {
    const upstream = await startUpstream(t)
    const storage = await ownStorage(t, 'postgres')
    // The guard of own endpoints counts by address.
    const proxied = { server: { trusted_proxies: ['loopback'] }, logging: { access: false } }
    const nodes = [await startNode(t, storage, 'a', proxied), await startNode(t, storage, 'b', proxied)] as const
    const expected = new Set<string>()
    const answered = new Map<number, number>()
    const work = async (worker: number): Promise<void> => {
      for (let i = 0; i < 20; i++) {
        const { call } = nodes[(worker + i) % 2] as TestGateway
        const from = { 'x-forwarded-for': `192.0.2.${worker}` }
        // Every other name is wanted by two.
        const name = i % 2 === 0 ? `w${worker}-${i}` : `w${worker >> 1}-both-${i}`
        const { status, json } = await register(call, open(name, upstream.url), boss, from)
        answered.set(status, (answered.get(status) ?? 0) + 1)
        if (status !== 201) continue
        expected.add(name)
        if (i % 4 === 3) continue
        const other = nodes[(worker + i + 1) % 2] as TestGateway
        const gone = await deregister(other.call, json.id, boss, from)
        t.equal(gone.status, 204)
        expected.delete(name)
      }
    }
    await Promise.all(Array.from({ length: 32 }, (_, worker) => work(worker)))
    t.same([...answered.keys()].sort(), [201, 409])
    t.ok((answered.get(201) as number) >= 32 * 15)
    for (const { gateway, call } of nodes) {
      await until(() => gateway.snapshot.services.size === expected.size)
      t.same([...gateway.snapshot.services.keys()].sort(), [...expected].sort())
      const list = await Promise.all(
        [1, 2, 3].map(page =>
          call(`/services?per_page=100&page=${page}`, { token: boss, headers: { 'x-forwarded-for': '192.0.2.99' } })
        )
      )
      t.same(
        list.flatMap(({ json }) => json.data.map(({ name }: { name: string }) => name)).sort(),
        [...expected].sort()
      )
    }
    const routes = nodes.map(({ gateway }) => gateway.snapshot.routes.map(({ id }) => id).sort())
    t.same(routes[0], routes[1])
    const [name] = [...expected]
    t.equal((await nodes[1].call(`/api/v1/${name}`)).status, 200)
  }
)
