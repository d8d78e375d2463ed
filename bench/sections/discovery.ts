import { EventEmitter, once } from 'node:events'
import { writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { CORE } from '../cores.ts'
import { median } from '../figures.ts'
import { say } from '../measure.ts'
import { type Latencies, openLoop } from '../open-loop.ts'
import { accepting, freePort, scratch, start, stop } from '../processes.ts'
import { atMost, type Findings } from '../report.ts'
import { startService } from '../service.ts'
import type { Options } from './section.ts'

const SERVICES = 500
const INSTANCES = 20
const EVENTS_PER_SECOND = 100
const REQUESTS_PER_SECOND = 1000

/** What instances that come and go cost the requests that are served meanwhile. */
export async function discovery({ rounds, seconds }: Options): Promise<Findings> {
  const { service } = await startService()
  const catalogue = await startCatalogue(service.port)
  const port = await freePort()
  const file = join(scratch(), 'discovery.json')
  writeFileSync(file, configuration(port, catalogue.url))
  const gateway = await accepting(start(CORE.measured, [process.execPath, 'src/main.ts', '-c', file], port))
  const load = { port, path: '/s0/x', headers: {}, connections: 50, perSecond: REQUESTS_PER_SECOND }
  await openLoop({ ...load, seconds })
  const found = { quiet: [] as Latencies[], changing: [] as Latencies[] }
  for (let round = 0; round < rounds; round++) {
    for (const kind of ['quiet', 'changing'] as const) {
      const churn = kind === 'changing' ? catalogue.churn() : undefined
      const latencies = await openLoop({ ...load, seconds })
      const events = churn?.() ?? 0
      found[kind].push(latencies)
      say(`discovery, ${kind}: p99 ${latencies.p99.toFixed(2)} ms, ${events} changes, ${latencies.errors} errors`)
    }
  }
  await stop(gateway)
  await stop(service)
  catalogue.close()
  const p99 = (list: readonly Latencies[]) => median(list.map(({ p99 }) => p99))
  const errors = [...found.quiet, ...found.changing].reduce((sum, { errors }) => sum + errors, 0)
  const row = (what: string, list: readonly Latencies[]) => [
    what,
    median(list.map(({ p50 }) => p50)).toFixed(2),
    p99(list).toFixed(2),
    Math.max(...list.map(({ max }) => max)).toFixed(1)
  ]
  return {
    title: 'Discovery',
    bars: [
      atMost(
        'p99 while 100 instances a second change, as a multiple of that without',
        p99(found.changing) / p99(found.quiet),
        1.1
      ),
      atMost('requests that failed', errors, 0, { digits: 0 })
    ],
    tables: [
      {
        title: `${SERVICES} services of ${INSTANCES} instances from Consul, ${REQUESTS_PER_SECOND} requests a second`,
        head: ['instances', 'p50 ms', 'p99 ms', 'max ms'],
        rows: [row('stay', found.quiet), row(`change, ${EVENTS_PER_SECOND} a second`, found.changing)]
      }
    ],
    notes: [
      'Consul is a stand-in in the process that sends the load; each change is one instance that goes and one that comes.'
    ],
    windows: []
  }
}

function configuration(port: number, consul_url: string): string {
  const names = Array.from({ length: SERVICES }, (_, i) => `s${i}`)
  return JSON.stringify({
    server: { host: '127.0.0.1', port },
    storage: { database: false, data_dir: join(scratch(), 'data') },
    logging: { format: 'json' },
    consul_url,
    services: Object.fromEntries(names.map(name => [name, {}])),
    routes: names.map(name => ({ path: `/${name}/**`, service: name, authentication: 'none' }))
  })
}

/** Instances are told apart by their ids alone: all of them are the one service that there is. */
async function startCatalogue(port: number) {
  const changed = new EventEmitter().setMaxListeners(0)
  let last = 0
  const instance = () => ({ Service: { ID: `i${last++}`, Address: '127.0.0.1', Port: port } })
  const services = new Map(
    Array.from({ length: SERVICES }, (_, i) => [
      `s${i}`,
      { index: 1, list: Array.from({ length: INSTANCES }, instance) }
    ])
  )
  const server = http.createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url as string, 'http://consul')
    const name = pathname.split('/').at(-1) as string
    const service = services.get(name)
    if (service === undefined) return response.writeHead(404).end()
    if (Number(searchParams.get('index')) === service.index) await once(changed, name)
    response.setHeader('x-consul-index', service.index)
    response.end(JSON.stringify(service.list))
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const change = (name: string): void => {
    const service = services.get(name)
    if (service === undefined) return
    service.index++
    service.list = [...service.list.slice(1), instance()]
    changed.emit(name)
  }
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    /** Changes one instance after the other, until what is returned is called; that says how many there were. */
    churn(): () => number {
      const stopped = new AbortController()
      let events = 0
      const run = async (): Promise<void> => {
        while (!stopped.signal.aborted) {
          // Every tenth change is at the service that is asked.
          change(`s${Math.floor(Math.random() * SERVICES * (events % 10 === 0 ? 0 : 1))}`)
          events++
          await pause(1000 / EVENTS_PER_SECOND)
        }
      }
      void run()
      return () => {
        stopped.abort()
        return events
      }
    },
    close(): void {
      server.closeAllConnections()
      server.close()
    }
  }
}
