import type { Exchange } from '../../src/proxy/exchange.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { MemoryStore } from '../../src/store/memory.ts'
import { BALANCERS, balancerOf } from '../../src/upstream/balancing-settings.ts'
import { Deadlines } from '../../src/upstream/deadline.ts'
import { Service } from '../../src/upstream/service.ts'
import { median } from '../figures.ts'
import { say } from '../measure.ts'
import { atMost, type Findings } from '../report.ts'
import type { Options } from './section.ts'

const QUIET = { info: () => {}, warn: () => {} }
const PICKS = 500_000
const POOL = { connections: 1, connectTimeoutMs: 0, keepAliveMs: 1000, idleTimeoutMs: 0, maxHeaderBytes: 1024 }

/** What a pick costs: among instances of which each weighs something else, so that nobody has it easy. */
export async function balancing({ rounds }: Options): Promise<Findings> {
  const rows: string[][] = []
  const bars = BALANCERS.map(type => {
    const figures = [1, 2, 10, 100, 1000].map(count => {
      const service = serviceOf(type, count)
      const costs = Array.from({ length: rounds }, () => pickMicroseconds(service))
      service.close()
      return { count, us: median(costs) }
    })
    rows.push([type, ...figures.map(({ us }) => us.toFixed(3))])
    say(`balancing ${type}: ${figures.map(({ count, us }) => `${count}: ${us.toFixed(3)} us`).join(', ')}`)
    const us = figures.find(({ count }) => count === 100)?.us ?? Number.NaN
    return atMost(`A pick by ${type} of 100 instances`, us, 0.3, { unit: ' us', digits: 3 })
  })
  return {
    title: 'Balancing',
    bars,
    tables: [{ title: 'Microseconds of a pick', head: ['balancer', '1', '2', '10', '100', '1000 instances'], rows }],
    notes: ['The whole of `Service.pick`, in one process without a socket; weights are 1 to 7.'],
    windows: []
  }
}

function serviceOf(type: (typeof BALANCERS)[number], count: number): Service {
  const instances = Array.from({ length: count }, (_, i) => ({
    id: String(i),
    url: `http://10.0.${i >> 8}.${i & 255}:80`,
    weight: 1 + (i % 7)
  }))
  const balancer = balancerOf({ load_balancer_type: type })
  const clock = systemClock
  return new Service(
    { name: 's', instances, pool: POOL, balancer },
    {
      clock,
      deadlines: new Deadlines(clock),
      random: Math.random,
      log: QUIET,
      pseudonym: '',
      node: '',
      store: new MemoryStore(clock)
    }
  )
}

function pickMicroseconds(service: Service): number {
  // A client that has its cookie already.
  const first = { header: () => undefined, fields: [] as string[], isSecure: false, client: '192.0.2.1' }
  service.pick(service.balancer, first as unknown as Exchange)
  const cookie = first.fields[1]?.split(';')[0]
  const exchanges = Array.from(
    { length: 64 },
    (_, i) => ({ client: `192.0.2.${i}`, header: () => cookie, fields: [] }) as unknown as Exchange
  )
  const since = performance.now()
  for (let i = 0; i < PICKS; i++) service.pick(service.balancer, exchanges[i & 63] as Exchange)
  return ((performance.now() - since) * 1000) / PICKS
}
