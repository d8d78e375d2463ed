import { requestFields } from '../check.ts'
import { PATH } from '../contenders/contender.ts'
import { fullGateway } from '../contenders/gateway.ts'
import { dismiss, field } from '../contest.ts'
import { residentMb, treeOf } from '../cpu.ts'
import { difference, median, medianOf, QUIET, type Window } from '../figures.ts'
import { wrk } from '../load.ts'
import { type Entrant, measure } from '../measure.ts'
import { type Latencies, openLoop } from '../open-loop.ts'
import { type Started, stop } from '../processes.ts'
import { atLeast, atMost, type Findings } from '../report.ts'
import { startService } from '../service.ts'
import { needProgram } from '../tools.ts'
import type { Options } from './section.ts'

const PER_SECOND = 1000
const CONNECTIONS = 1000
/** Longer than other windows: a p99 wants some ten thousand answers. */
const WINDOWS_IN_ONE = 3

const DIRECT = 'the service itself'
const THROUGH = 'through Sallyport, all policies'

/** What seed 004 asks for in numbers, section 5.5. */
export async function seed004({ rounds, seconds, warmSeconds }: Options): Promise<Findings> {
  const { service, note } = await startService()
  const contest = await field([fullGateway()], service)
  const gateway = contest.running.get('full') as Started
  const latencies = new Map<string, Latencies[]>()
  const entrants = [entrant(DIRECT, service, latencies), entrant(THROUGH, gateway, latencies)]
  const spell = seconds * WINDOWS_IN_ONE
  const measured = await measure(entrants, { rounds, seconds: spell, warmSeconds, behind: [service] })
  const most = await mostPerSecond(gateway, seconds)
  const rss = residentMb(treeOf(gateway.pid))
  await dismiss(contest)
  await stop(service)

  const direct = measured.get(DIRECT) ?? []
  const through = measured.get(THROUGH) ?? []
  const spells = latencies.get(THROUGH) ?? []
  const lost = spells.some(({ errors }) => errors > 0)
  return {
    title: 'The numbers of seed 004',
    bars: [
      atMost(
        `overhead, p99, at ${PER_SECOND} req/s`,
        difference(through, direct, ({ p99 }) => p99),
        10,
        { unit: ' ms' }
      ),
      atMost(`processor at ${PER_SECOND} req/s`, medianOf(through, percentOfACore), 70, {
        unit: ' % of a core',
        digits: 0
      }),
      atMost('RSS, after all of it', Math.max(rss, ...through.map(window => window.rss)), 512, {
        unit: ' MB',
        digits: 0
      }),
      atLeast(
        'connections at once',
        lost ? 0 : Math.min(...spells.map(({ connections }) => connections)),
        CONNECTIONS,
        ''
      ),
      ...(most === undefined ? [] : [atLeast('throughput, 64 connections', most, 5000, ' req/s')])
    ],
    tables: [
      {
        title: `${PER_SECOND} req/s in an open loop over ${CONNECTIONS} kept connections, spells of ${spell} s`,
        head: ['what', 'p50 ms', 'p99 ms', 'worst ms', '% of a core', 'RSS MB', 'spells (quiet)', 'errors'],
        rows: [row(DIRECT, direct, latencies), row(THROUGH, through, latencies)]
      }
    ],
    notes: [
      ...(note === undefined ? [] : [note]),
      'Times are from when a request was due, in a loop with a tick of a millisecond: both rows hold that tick, and the overhead is the median of their difference within a round.'
    ],
    windows: [...direct, ...through]
  }
}

function entrant(name: string, process: Started, latencies: Map<string, Latencies[]>): Entrant {
  const load = { port: process.port, path: PATH, headers: requestFields(), connections: CONNECTIONS }
  return {
    name,
    process,
    async load(seconds) {
      const found = await openLoop({ ...load, perSecond: PER_SECOND, seconds })
      latencies.set(name, [...(latencies.get(name) ?? []), found])
      return { requests: found.answers, errors: found.errors, p50: found.p50, p99: found.p99 }
    }
  }
}

function row(what: string, windows: readonly Window[], latencies: ReadonlyMap<string, readonly Latencies[]>): string[] {
  return [
    what,
    medianOf(windows, ({ p50 }) => p50).toFixed(2),
    medianOf(windows, ({ p99 }) => p99).toFixed(2),
    Math.max(...(latencies.get(what) ?? []).map(({ max }) => max)).toFixed(1),
    medianOf(windows, percentOfACore).toFixed(1),
    medianOf(windows, ({ rss }) => rss).toFixed(0),
    `${windows.length} (${windows.filter(({ foreign }) => foreign < QUIET).length})`,
    String(windows.reduce((sum, { errors }) => sum + errors, 0))
  ]
}

function percentOfACore({ us, perSecond }: Window): number {
  return (us * perSecond) / 1e4
}

/** Requests a second in a closed loop; undefined where there is no wrk. */
async function mostPerSecond({ port }: Started, seconds: number): Promise<number | undefined> {
  if (needProgram('wrk') !== undefined) return undefined
  const load = { url: `http://127.0.0.1:${port}${PATH}`, connections: 64, headers: requestFields() }
  await wrk({ ...load, seconds: seconds * 2 })
  const windows = [await wrk({ ...load, seconds }), await wrk({ ...load, seconds }), await wrk({ ...load, seconds })]
  return median(windows.map(({ requests }) => requests / seconds))
}
