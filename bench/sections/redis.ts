import net from 'node:net'
import { requestFields } from '../check.ts'
import { PATH } from '../contenders/contender.ts'
import { fullGateway } from '../contenders/gateway.ts'
import { bareHttpProxy } from '../contenders/node-stacks.ts'
import { dismiss, type Field, field } from '../contest.ts'
import { CORE } from '../cores.ts'
import { difference, medianOf, ratio } from '../figures.ts'
import { wrk } from '../load.ts'
import { type Entrant, measure } from '../measure.ts'
import { accepting, freePort, type Started, start, stop } from '../processes.ts'
import { type Findings, windowTable } from '../report.ts'
import { startService } from '../service.ts'
import { needProgram } from '../tools.ts'
import { inReference, tokenScript } from './http.ts'
import type { Options } from './section.ts'

const CONNECTIONS = 64

/** What counting in Redis adds to counting in memory; Redis' own work is on the other core. */
export async function redis(options: Options): Promise<Findings> {
  const title = 'Limits in Redis'
  const nothing = { title, bars: [], tables: [], windows: [] }
  const missing = needProgram('redis-server') ?? needProgram('wrk')
  if (missing !== undefined) return { ...nothing, notes: [`Skipped: ${missing}.`] }

  const port = await freePort()
  const server = await accepting(
    start(CORE.load, ['redis-server', '--port', String(port), '--bind', '127.0.0.1', '--save', ''], port)
  )
  const redisUrl = `redis://127.0.0.1:${port}`
  const { service, note } = await startService()
  let contest: Field
  try {
    contest = await field(
      [
        fullGateway('memory', 'Sallyport, all policies, memory'),
        fullGateway('exact', 'Sallyport, all policies, Redis asked at every request', { redisUrl, lease: false }),
        fullGateway('leased', 'Sallyport, all policies, Redis with leases', { redisUrl, lease: true }),
        bareHttpProxy
      ],
      service
    )
  } catch (error) {
    await stop(service)
    await stop(server)
    return { ...nothing, notes: [`Skipped: ${(error as Error).message.split('\n', 1)[0]}`] }
  }
  const scripts = new Map<string, number>()
  const entrants = entrantsOf(contest, server, scripts)
  const measured = await measure(entrants, { ...options, behind: [service, server] })
  await dismiss(contest)
  await stop(service)
  await stop(server)

  const windows = (name: string) => measured.get(name) ?? []
  const bare = medianOf(windows('bare'), ({ us }) => us)
  const added = (name: string, base: string) => difference(windows(name), windows(base))
  const titles = new Map(contest.titles)
  for (const name of ['memory', 'leased']) titles.set(`${name}-1000`, `${titles.get(name)}, 1000 callers in turn`)
  return {
    title,
    bars: [
      inReference('Redis, exact, over memory', added('exact', 'memory'), bare, 5),
      inReference('Redis, leased, over memory', added('leased', 'memory'), bare, 1)
    ],
    tables: [windowTable('Cost of a request', measured, titles, 'memory', ratio)],
    notes: [
      ...(note === undefined ? [] : [note]),
      ...[...scripts].map(
        ([name, calls]) => `${titles.get(name)}: ${calls.toFixed(3)} scripts run by Redis per request.`
      )
    ],
    windows: [...measured.values()].flat()
  }
}

/** @param scripts filled with how many scripts Redis ran per request, by entrant, the last time each was measured */
function entrantsOf({ running }: Field, server: Started, scripts: Map<string, number>): Entrant[] {
  const entrant = (name: string, process: Started, tokens: number): Entrant => {
    const script = tokens === 1 ? undefined : tokenScript(tokens)
    const url = `http://127.0.0.1:${process.port}${PATH}`
    return {
      name,
      process,
      async load(seconds) {
        const before = await scriptsRun(server.port)
        const outcome = await wrk({ url, connections: CONNECTIONS, seconds, headers: requestFields(), script })
        if (name !== 'bare') scripts.set(name, ((await scriptsRun(server.port)) - before) / outcome.requests)
        return outcome
      }
    }
  }
  const one = [...running].map(([name, process]) => entrant(name, process, 1))
  const many = ['memory', 'leased'].map(name => entrant(`${name}-1000`, running.get(name) as Started, 1000))
  return [...one, ...many]
}

/** How many scripts and functions a Redis server has run so far: proof that it is asked as often as it should be. */
function scriptsRun(port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, '127.0.0.1', () => socket.end('INFO commandstats\r\nQUIT\r\n'))
    let text = ''
    socket.setEncoding('latin1')
    socket.on('data', chunk => {
      text += chunk
    })
    socket.on('error', reject)
    socket.on('end', () => {
      const calls = text.matchAll(/^cmdstat_(?:eval|evalsha|fcall):calls=(\d+)/gm)
      resolve([...calls].reduce((sum, [, count]) => sum + Number(count), 0))
    })
  })
}
