import { requestFields } from '../check.ts'
import { PATH } from '../contenders/contender.ts'
import { fullGateway } from '../contenders/gateway.ts'
import { nginx } from '../contenders/nginx.ts'
import { bareHttpProxy } from '../contenders/node-stacks.ts'
import { dismiss, field } from '../contest.ts'
import { ratio } from '../figures.ts'
import { wrk } from '../load.ts'
import { measure } from '../measure.ts'
import { stop } from '../processes.ts'
import { atMost, type Findings, windowTable } from '../report.ts'
import { startService } from '../service.ts'
import { needProgram } from '../tools.ts'
import type { Options } from './section.ts'

const CONNECTIONS = 1000
/** What the gateway allows itself when nobody says otherwise. */
const OWN_DEFAULT = 1024

const CONTENDERS = [
  fullGateway(),
  fullGateway('own-pool', `Sallyport, all policies, its own pool of ${OWN_DEFAULT}`, { connections: OWN_DEFAULT }),
  bareHttpProxy,
  nginx
]

/** The same with a thousand clients at once: processor and memory. */
export async function connections(options: Options): Promise<Findings> {
  const title = '1000 connections'
  const missing = needProgram('wrk')
  if (missing !== undefined) return { title, bars: [], tables: [], notes: [`Skipped: ${missing}.`], windows: [] }
  const { service, note } = await startService()
  const contest = await field(CONTENDERS, service)
  const headers = requestFields()
  const entrants = [...contest.running].map(([name, process]) => {
    const url = `http://127.0.0.1:${process.port}${PATH}`
    return {
      name,
      process,
      load: (seconds: number) => wrk({ url, connections: CONNECTIONS, seconds, headers })
    }
  })
  const measured = await measure(entrants, { ...options, behind: [service] })
  await dismiss(contest)
  await stop(service)

  const full = measured.get('full') ?? []
  const bare = measured.get('bare') ?? []
  return {
    title,
    bars: [
      atMost('1000 connections: all policies / bare @fastify/http-proxy', ratio(full, bare), 0.85),
      atMost('1000 connections: RSS', Math.max(...full.map(({ rss }) => rss)), 260, { unit: ' MB', digits: 0 })
    ],
    tables: [windowTable('Cost of a request', measured, contest.titles, 'bare', ratio)],
    notes: [...(note === undefined ? [] : [note]), ...contest.skipped],
    windows: [...measured.values()].flat()
  }
}
