import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { builtEntry } from './contenders/gateway.ts'
import { CORE, stepAside, WHY_NOT_PINNED } from './cores.ts'
import { wrk } from './load.ts'
import { describeMachine } from './machine.ts'
import { type Latencies, type OpenLoop, openLoop } from './open-loop.ts'
import { accepting, cleanUpAtTheEnd, freePort, type Started, scratch, start, stop, stopRest } from './processes.ts'
import { startService } from './service.ts'

/**
 * Three times as much as can be served, for a minute: does what is critical notice? Where the service is the limit (told, or found
 * out), and where the gateway itself is. `npm run bench:overload`; `-- --seconds 10` is a first look.
 */

const USAGE = `usage: npm run bench:overload -- [options]
  --seconds n     length of the overload, 60 if not given
  --only name     service, adaptive or gateway: what it is too much for; all three if not given
  --save          write bench/OVERLOAD.md
`

/** What is asked for at which share of the load, the most important first. */
const MIX = { critical: 0.1, high: 0.2, normal: 0.4, low: 0.3 } as const
type Priority = keyof typeof MIX
const PRIORITIES = Object.keys(MIX) as Priority[]

/** The load before and after, as a part of what can be served; and the overload. */
const QUIET = 0.3
const TOO_MUCH = 3
/** How long the quiet load is asked for, before and after; and how long the gateway has to come to itself. */
const QUIET_SECONDS = 10
const RECOVERY_MS = 1000

/** Of each priority. */
const CONNECTIONS = 200

/** The bar of issue 4. */
const LEAST_SUCCESS = 0.99
const MOST_SLOWER = 2
const MOST_MB = 512

interface Scenario {
  readonly title: string
  /** Starts what is behind the gateway. */
  service(): Promise<Started>
  readonly settings: object
  /** Requests in a second that can be served. */
  capacity(port: number): Promise<number>
  /** The load before and after. @param most requests in a second that can be served */
  quiet(port: number, most: number, seconds: number): Promise<Answers>
  overload(port: number, most: number, seconds: number): Promise<Answers>
}

const WORKERS = 20
const WORK_MS = 50

function slowService(title: string, limit: number | 'adaptive'): Scenario {
  return {
    title: `A service ${title}: ${WORKERS} requests side by side, ${WORK_MS} ms each`,
    service: async () => {
      const port = await freePort()
      const program = ['bench/programs/limited.ts', String(port), String(WORKERS), String(WORK_MS)]
      return accepting(start(CORE.load, [process.execPath, ...program], port))
    },
    settings: { defaults: { concurrency: { limit, queue: 100, max_wait: '200ms' } } },
    capacity: async () => (WORKERS * 1000) / WORK_MS,
    quiet: (port, most, seconds) => askAll(port, most * QUIET, seconds),
    overload: (port, most, seconds) => askAll(port, most * TOO_MUCH, seconds)
  }
}

const SCENARIOS: Record<string, Scenario> = {
  service: slowService('whose limit is known', WORKERS),
  adaptive: slowService('whose limit is found out', 'adaptive'),
  gateway: {
    title: 'The gateway is the limit: the service answers at once',
    service: async () => (await startService()).service,
    settings: { overload: { event_loop_delay: '10ms' } },
    capacity: async port => {
      await flood(port, 'normal', 2)
      const seconds = 4
      return (await flood(port, 'normal', seconds)).answers / seconds
    },
    quiet: (port, most, seconds) => askAll(port, most * QUIET, seconds),
    // A gateway refuses faster than a generator in JavaScript can ask, so all but the critical requests are wrk's.
    overload: async (port, most, seconds) => {
      const rest = PRIORITIES.filter(priority => priority !== 'critical')
      const [critical, ...others] = await Promise.all([
        inThread({ ...loadOf(port, 'critical', most * QUIET), seconds }),
        ...rest.map(priority => flood(port, priority, seconds))
      ])
      return Object.fromEntries([['critical', critical], ...rest.map((priority, i) => [priority, others[i]])])
    }
  }
}

/** As many requests as the gateway takes, over 200 connections, with the processor time that is left. */
async function flood(port: number, priority: Priority, seconds: number): Promise<Latencies> {
  const url = `http://127.0.0.1:${port}/${priority}`
  const { requests, errors, p50, p99 } = await wrk({
    url,
    connections: CONNECTIONS,
    seconds,
    headers: {},
    background: true
  })
  return { answers: requests - errors, errors, connections: CONNECTIONS, p50, p99, max: p99 }
}

type Answers = Record<Priority, Latencies>

interface Result {
  readonly capacity: number
  readonly quiet: Answers
  readonly overload: Answers
  readonly after: Answers
  /** The most memory that the gateway has had, in MB. */
  readonly mb: number
}

async function measure(name: string, scenario: Scenario, seconds: number): Promise<Result> {
  const behind = await scenario.service()
  const gateway = await startGateway(name, behind.port, scenario.settings)
  const { port, pid } = gateway
  const capacity = await scenario.capacity(port)
  await scenario.quiet(port, capacity, 3)
  const quiet = await scenario.quiet(port, capacity, QUIET_SECONDS)
  const overload = await scenario.overload(port, capacity, seconds)
  await pause(RECOVERY_MS)
  const after = await scenario.quiet(port, capacity, QUIET_SECONDS)
  const mb = mostMemory(pid)
  await stop(gateway)
  await stop(behind)
  return { capacity, quiet, overload, after, mb }
}

async function startGateway(name: string, upstream: number, settings: object): Promise<Started> {
  const port = await freePort()
  const file = join(scratch(), `overload-${name}.json`)
  const document = {
    server: { host: '127.0.0.1', port },
    storage: { database: false, data_dir: join(scratch(), 'data') },
    logging: { format: 'json' },
    services: { s: { url: `http://127.0.0.1:${upstream}`, pool: { connections: 1024 } } },
    routes: PRIORITIES.map(priority => ({
      path: `/${priority}`,
      service: 's',
      authentication: 'none',
      request_priority: priority
    })),
    ...settings
  }
  writeFileSync(file, JSON.stringify(document))
  const entry = builtEntry() ?? 'src/main.ts'
  return accepting(start(CORE.measured, [process.execPath, entry, 'start', '-c', file], port))
}

/** Requests of all priorities, each from a thread of its own, so that the many do not keep the few waiting. */
async function askAll(port: number, perSecond: number, seconds: number): Promise<Answers> {
  const answers = await Promise.all(
    PRIORITIES.map(priority => inThread({ ...loadOf(port, priority, perSecond), seconds }))
  )
  return Object.fromEntries(PRIORITIES.map((priority, i) => [priority, answers[i]])) as Answers
}

function loadOf(port: number, priority: Priority, perSecond: number): Omit<OpenLoop, 'seconds'> {
  const share = Math.ceil(perSecond * MIX[priority])
  return { port, path: `/${priority}`, headers: {}, connections: CONNECTIONS, perSecond: share }
}

function inThread(load: OpenLoop): Promise<Latencies> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: load })
    worker.once('message', resolve)
    worker.once('error', reject)
  })
}

/** `VmHWM` of proc(5). */
function mostMemory(pid: number): number {
  const [, kb] = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1')) ?? []
  return Number(kb) / 1024
}

const success = ({ answers, errors }: Latencies): number => answers / (answers + errors)
const percent = (share: number): string => `${(share * 100).toFixed(share > 0.99 && share < 1 ? 2 : 1)} %`
const ms = (value: number): string => `${value.toFixed(1)} ms`

function describe({ title }: Scenario, { capacity, quiet, overload, after, mb }: Result, seconds: number): string[] {
  const { critical } = overload
  const all = PRIORITIES.reduce((sum, priority) => sum + overload[priority].answers + overload[priority].errors, 0)
  const asked = all / seconds / capacity
  const slower = critical.p99 / quiet.critical.p99
  const afterwards = Math.min(...PRIORITIES.map(priority => success(after[priority])))
  const slowerAfter = after.critical.p99 / quiet.critical.p99
  const bars: [string, string, boolean][] = [
    ['critical requests that succeed', percent(success(critical)), success(critical) > LEAST_SUCCESS],
    ['p99 of critical requests, against quiet', `${slower.toFixed(2)} x`, slower <= MOST_SLOWER],
    ['memory at most', `${mb.toFixed(0)} MB`, mb < MOST_MB],
    ['a second after: requests that succeed', percent(afterwards), afterwards === 1],
    [
      'a second after: p99 of critical requests, against quiet',
      `${slowerAfter.toFixed(2)} x`,
      slowerAfter <= MOST_SLOWER
    ]
  ]
  return [
    `## ${title}`,
    '',
    `${Math.round(capacity)} requests a second can be served; ${asked.toFixed(1)} times as many were asked for, for ${seconds} s.`,
    '',
    '| | | |',
    '|---|---|---|',
    ...bars.map(([what, value, met]) => `| ${what} | ${value} | ${met ? 'met' : '**missed**'} |`),
    '',
    '| priority | quiet: succeed | p50 | p99 | overload: succeed | p50 | p99 | after: succeed | p99 |',
    '|---|---|---|---|---|---|---|---|---|',
    ...PRIORITIES.map(priority => {
      const [before, during, later] = [quiet[priority], overload[priority], after[priority]]
      const figures = [
        ...[percent(success(before)), ms(before.p50), ms(before.p99)],
        ...[percent(success(during)), ms(during.p50), ms(during.p99)],
        ...[percent(success(later)), ms(later.p99)]
      ]
      return `| ${priority} | ${figures.join(' | ')} |`
    }),
    ''
  ]
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { seconds: { type: 'string' }, only: { type: 'string' }, save: { type: 'boolean', default: false } }
  })
  const seconds = Number(values.seconds ?? 60)
  const names = values.only === undefined ? Object.keys(SCENARIOS) : [values.only]
  if (!(seconds > 0 && seconds <= 600) || names.some(name => SCENARIOS[name] === undefined)) {
    process.stderr.write(USAGE)
    process.exitCode = 2
    return
  }
  cleanUpAtTheEnd()
  stepAside()
  const lines = [
    '# Overload',
    '',
    `Made by \`npm run bench:overload -- --save\`. Of ten requests one is critical, two are high, four normal and three low.`,
    '',
    ...describeMachine(),
    ...(WHY_NOT_PINNED === undefined ? [] : [`- ${WHY_NOT_PINNED}`]),
    ''
  ]
  for (const name of names) {
    const scenario = SCENARIOS[name] as Scenario
    const told = describe(scenario, await measure(name, scenario, seconds), seconds)
    process.stdout.write(`${told.join('\n')}\n`)
    lines.push(...told)
  }
  if (values.save) writeFileSync(join(import.meta.dirname, 'OVERLOAD.md'), `${lines.join('\n').trimEnd()}\n`)
  await stopRest()
  if (lines.some(line => line.includes('missed'))) process.exitCode = 1
}

if (isMainThread) await main()
else parentPort?.postMessage(await openLoop(workerData as OpenLoop))
