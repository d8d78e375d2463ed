import { execFileSync } from 'node:child_process'
import { requestFields } from '../check.ts'
import { PATH } from '../contenders/contender.ts'
import { fullGateway } from '../contenders/gateway.ts'
import { bareHttpProxy } from '../contenders/node-stacks.ts'
import { dismiss, type Field, field } from '../contest.ts'
import { difference, medianOf, ratio } from '../figures.ts'
import { wrk } from '../load.ts'
import { type Entrant, measure } from '../measure.ts'
import { type Started, scratch, stop } from '../processes.ts'
import { atMost, type Findings, windowTable } from '../report.ts'
import { startService } from '../service.ts'
import { needProgram } from '../tools.ts'
import { inReference, tokenScript } from './http.ts'
import type { Options } from './section.ts'

const CONNECTIONS = 64
const CALLERS = 300

/** What it costs to write down what happens: counting, and the thread that writes, which is part of the process. */
export async function recording(options: Options): Promise<Findings> {
  const title = 'Writing down what happens'
  const missing = needProgram('wrk')
  if (missing !== undefined) return { title, bars: [], tables: [], windows: [], notes: [`Skipped: ${missing}.`] }

  const { service, note } = await startService()
  const contest = await field(
    [
      fullGateway('off', 'Sallyport, all policies, no database'),
      fullGateway('on', 'Sallyport, all policies + recording', { recording: true }),
      bareHttpProxy
    ],
    service
  )
  const measured = await measure(entrantsOf(contest), { ...options, behind: [service] })
  await dismiss(contest)
  await stop(service)

  const alone = [1, CALLERS].map(callers => [callers, costAlone(callers)] as const)
  const windows = (name: string) => measured.get(name) ?? []
  const bare = medianOf(windows('bare'), ({ us }) => us)
  const titles = new Map(contest.titles)
  for (const name of ['off', 'on']) titles.set(`${name}-many`, `${titles.get(name)}, ${CALLERS} callers in turn`)
  return {
    title,
    bars: [
      ...alone.map(([callers, [, all]]) =>
        atMost(`recording by itself, 10000 req/s of ${callers} caller${callers === 1 ? '' : 's'}`, all, 1, {
          unit: ' us'
        })
      ),
      inReference('recording, over none', difference(windows('on'), windows('off')), bare, 1),
      inReference(
        `recording ${CALLERS} callers, over none`,
        difference(windows('on-many'), windows('off-many')),
        bare,
        1
      )
    ],
    tables: [windowTable('Cost of a request', measured, titles, 'off', ratio)],
    notes: [
      ...(note === undefined ? [] : [note]),
      'By itself: without sockets, so that little of what else the machine does gets into the figure. The writing thread is in it.',
      ...alone.map(
        ([callers, [thread]]) =>
          `${callers} caller${callers === 1 ? '' : 's'}: ${thread.toFixed(2)} us of it on the thread that serves.`
      )
    ],
    windows: [...measured.values()].flat()
  }
}

/** Microseconds per request on the thread that serves, and of the whole process. */
function costAlone(callers: number): [thread: number, all: number] {
  const program = ['bench/programs/recorder.ts', scratch(), String(callers)]
  return JSON.parse(execFileSync(process.execPath, program, { encoding: 'utf8' }))
}

function entrantsOf({ running }: Field): Entrant[] {
  const entrant = (name: string, process: Started, script?: string): Entrant => {
    const url = `http://127.0.0.1:${process.port}${script === undefined ? PATH : ''}`
    const headers = script === undefined ? requestFields() : {}
    return { name, process, load: seconds => wrk({ url, connections: CONNECTIONS, seconds, headers, script }) }
  }
  const many = tokenScript(CALLERS)
  const one = [...running].map(([name, process]) => entrant(name, process))
  return [...one, ...['off', 'on'].map(name => entrant(`${name}-many`, running.get(name) as Started, many))]
}
