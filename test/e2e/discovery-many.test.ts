import { EventEmitter, once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { consulEntry } from '../support/consul.ts'
import { startGateway } from '../support/gateway.ts'
import { startLoopback } from '../support/loopback-server.ts'
import { seeded } from '../support/random.ts'
import { until } from '../support/until.ts'

const SERVICES = 500
const INSTANCES = 20
const EVENTS = 400

/** A catalogue of many services, each with an index and those who wait for it. */
async function startCatalogue(t: Test, port: number) {
  const changed = new EventEmitter().setMaxListeners(0)
  const services = new Map<string, { index: number; hosts: string[] }>()
  const { url } = await startLoopback(t, async (request, response) => {
    const { pathname, searchParams } = new URL(request.url as string, 'http://consul')
    const name = pathname.split('/').at(-1) as string
    const service = services.get(name) as { index: number; hosts: string[] }
    if (Number(searchParams.get('index')) === service.index) await once(changed, name)
    response.setHeader('x-consul-index', service.index)
    response.end(JSON.stringify(service.hosts.map(host => consulEntry(host, port))))
  })
  return {
    url,
    services,
    change(name: string, hosts: string[]): void {
      services.set(name, { index: (services.get(name)?.index ?? 0) + 1, hosts })
      changed.emit(name)
    }
  }
}

/** A service at every address of this machine. */
async function startEverywhere(t: Test): Promise<number> {
  const server = http.createServer((_request, response) => response.end('ok'))
  await new Promise<void>(resolve => server.listen(0, '0.0.0.0', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

t.test(
  'REG-14 ten thousand instances in five hundred services come and go; nothing is built and nothing fails',
  async t => {
    const random = seeded(11)
    const hosts = (): string =>
      `127.${1 + Math.floor(random() * 200)}.${Math.floor(random() * 250)}.${1 + Math.floor(random() * 250)}`
    const catalogue = await startCatalogue(t, await startEverywhere(t))
    const names = Array.from({ length: SERVICES }, (_, i) => `s${i}`)
    for (const name of names) catalogue.change(name, Array.from({ length: INSTANCES }, hosts))
    const { gateway, call, lines } = await startGateway(t, {
      consul_url: catalogue.url,
      services: Object.fromEntries(names.map(name => [name, {}])),
      routes: names.map(name => ({ path: `/${name}`, service: name, authentication: 'none' }))
    })
    const listOf = (name: string) =>
      gateway.runtime.services.get(name)?.list.map(({ url }) => new URL(url).hostname) ?? []
    const isServed = (name: string) =>
      listOf(name).sort().join() === catalogue.services.get(name)?.hosts.toSorted().join()
    await until(() => names.every(isServed))
    t.equal(
      names.reduce((sum, name) => sum + listOf(name).length, 0),
      SERVICES * INSTANCES
    )
    const { appliedAt } = gateway.status()

    const statuses = new Set<number>()
    const agent = new http.Agent({ keepAlive: true })
    t.teardown(() => agent.destroy())
    for (let i = 0; i < EVENTS; i++) {
      const name = names[Math.floor(random() * SERVICES)] as string
      const [, ...others] = catalogue.services.get(name)?.hosts ?? []
      catalogue.change(name, [...others, hosts()])
      const asked = names[Math.floor(random() * SERVICES)] as string
      for (const path of [name, asked]) statuses.add((await call(`/${path}`, { agent })).status)
    }
    t.strictSame([...statuses], [200])
    await until(() => names.every(isServed))
    t.strictSame(
      [gateway.status().appliedAt, lines().filter(({ msg }) => String(msg).startsWith('configuration')).length],
      [appliedAt, 0],
      'one generation, from the first to the last'
    )
  }
)
