import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { parseArgs } from 'node:util'
import { freePort } from '../../test/support/free-port.ts'
import { startPostgresServer } from '../../test/support/postgres-server.ts'
import { seeded } from '../../test/support/random.ts'
import { findRedisServer, startRedisServer } from '../../test/support/redis-server.ts'
import { describeMachine } from '../machine.ts'
import { say } from '../measure.ts'
import { Control } from './control.ts'
import { Directory } from './directory.ts'
import { Faults, type Fleet, type Instance, whereabouts } from './faults.ts'
import { ChaosGateway, type Sample } from './gateway.ts'
import { Ledger } from './ledger.ts'
import { Link } from './link.ts'
import { Load } from './load.ts'
import { Registration } from './registration.ts'
import { reportOf } from './report.ts'
import { ChaosService, type Deliveries } from './service.ts'
import { Outages, Weather } from './weather.ts'

const USAGE = `usage: npm run chaos -- [options]
  --minutes n   how long things go wrong, 10 if not given
  --rate n      requests a second, 500 if not given
  --seed n      a run that went before; another one each time if not given
  --events      show what happened when
  --save        write bench/CHAOS.md
`

const SERVICES = ['orders', 'users', 'search'] as const
const INSTANCES = 3
/** One of them is found by discovery, and the instances of one register themselves. */
const DISCOVERED = 'search'
const REGISTERED = 'users'
const WARM_MS = 20_000
const AFTERWARDS_MS = 10_000
/** Until idle connections on both sides are closed. */
const QUIET_MS = 8000

interface Request {
  readonly minutes: number
  readonly rate: number
  readonly seed: number
  readonly events: boolean
  readonly save: boolean
}

/** What the command line asks for. @throws with a sentence */
function readRequest(): Request {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '10' },
      rate: { type: 'string', default: '500' },
      seed: { type: 'string', default: String(Math.floor(Math.random() * 10_000)) },
      events: { type: 'boolean', default: false },
      save: { type: 'boolean', default: false }
    }
  })
  const [minutes, rate, seed] = (['minutes', 'rate', 'seed'] as const).map(name => {
    const value = Number(values[name])
    if (!(value > 0)) throw new Error(`--${name} ${values[name]}: a number above 0`)
    return value
  }) as [number, number, number]
  return { minutes, rate, seed, events: values.events, save: values.save }
}

async function startFleet(
  name: string,
  deliveries: Deliveries,
  control: Control,
  random: () => number
): Promise<Fleet> {
  const instances: Instance[] = []
  for (let i = 0; i < INSTANCES; i++) {
    const service = new ChaosService(deliveries)
    const link = new Link(await freePort(), await service.listen(), random)
    await link.listen()
    const address = { id: `${name}-${i + 1}`, url: `http://127.0.0.1:${link.port}` }
    const registration = name === REGISTERED && { registration: new Registration(control, name, address) }
    instances.push({ ...address, link, service, ...registration })
  }
  const directory = name === DISCOVERED ? new Directory() : undefined
  await directory?.listen()
  return { name, instances, weather: new Weather(INSTANCES), directory }
}

async function run(request: Request): Promise<boolean> {
  const { minutes, rate, seed } = request
  // Not the programs that only the measurements need.
  const machine = describeMachine().slice(0, 3)
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-chaos-'))
  const program = findRedisServer()
  if (program === undefined) throw new Error('there is no redis-server: apt install redis-server')
  const redis = { program, server: await startRedisServer(program), outages: new Outages() }
  const postgres = { server: await startPostgresServer(), outages: new Outages() }
  const port = await freePort()
  const control = new Control(port)
  const deliveries: Deliveries = new Map()
  const fleets = await Promise.all(
    SERVICES.map((name, i) => startFleet(name, deliveries, control, seeded(seed * 1000 + 200 + i)))
  )
  const haven = new ChaosService(new Map())
  const storage = { redis_url: redis.server.url, database_url: postgres.server.url }
  const gateway = new ChaosGateway(folder, port, storage)
  process.once('exit', () => {
    if (gateway.isAlive) process.kill(gateway.pid, 'SIGKILL')
    redis.server.process.kill('SIGKILL')
  })
  say(`seed ${seed}: ${minutes} min at ${rate}/s; the gateway's log is ${folder}/gateway.log`)
  await gateway.start({ services: whereabouts(fleets, new Set()), others: 0 })
  const registrations = fleets.flatMap(({ instances }) => instances.flatMap(({ registration = [] }) => registration))
  for (const registration of registrations) await registration.start()

  const weather = new Map(fleets.map(({ name, weather }) => [name, weather]))
  const ledger = new Ledger(weather, deliveries, redis.outages, nonce => gateway.reasonOf(nonce))
  const load = new Load(gateway.port, SERVICES, seeded(seed * 1000 + 300), done => ledger.add(done))
  const samples: Record<'before' | 'after', Sample | undefined> = { before: undefined, after: undefined }
  const peak = { descriptors: 0, residentMb: 0, gatewayStallMs: 0, ownStallMs: 0 }
  const stalls = monitorEventLoopDelay({ resolution: 20 })
  stalls.enable()
  const watch = setInterval(async () => {
    if (!gateway.isAlive) return
    const { descriptors, residentMb } = gateway.look()
    peak.descriptors = Math.max(peak.descriptors, descriptors)
    peak.residentMb = Math.max(peak.residentMb, residentMb)
    const gatewayStallMs = (await gateway.metric('nodejs_eventloop_lag_max_seconds')) * 1000
    peak.gatewayStallMs = Math.max(peak.gatewayStallMs, gatewayStallMs || 0)
    peak.ownStallMs = stalls.max / 1e6
    for (const { weather } of fleets) weather.forget()
    say(
      `${ledger.total} requests, ${ledger.failed} of ${ledger.counted} failed, ${ledger.wrong.length} wrong, ${load.underWay} under way, ${descriptors} descriptors, ${residentMb.toFixed(0)} MB; stalls ${gatewayStallMs.toFixed(0)} ms, own ${peak.ownStallMs.toFixed(0)} ms`
    )
  }, 10_000)

  const settled = async (): Promise<Sample> => {
    await load.settle()
    await new Promise(resolve => setTimeout(resolve, QUIET_MS))
    return gateway.sample()
  }
  say('warming up')
  await load.run(rate, WARM_MS)
  samples.before = await settled()
  ledger.isWarm = true
  say('and now everything goes wrong')
  const faults = new Faults({
    seed,
    gateway,
    fleets,
    redis,
    postgres,
    haven: `http://127.0.0.1:${await haven.listen()}`,
    control
  })
  const ms = minutes * 60_000
  await Promise.all([load.run(rate, ms), faults.run(ms)])
  say('all is well again')
  await load.run(rate, AFTERWARDS_MS)
  samples.after = await settled()
  clearInterval(watch)

  const survived = gateway.isAlive
  for (const registration of registrations) registration.stop()
  await gateway.stop()
  const report = reportOf({
    ...request,
    machine,
    ledger,
    faults,
    samples,
    peak,
    survived,
    complaints: gateway.complaints
  })
  if (request.events) process.stdout.write(`${faults.events.join('\n')}\n\n`)
  process.stdout.write(report.text)
  if (request.save) writeFileSync(join(import.meta.dirname, '..', 'CHAOS.md'), report.text)
  redis.server.process.kill('SIGKILL')
  await postgres.server.remove()
  if (report.isGood) rmSync(folder, { recursive: true, force: true })
  return report.isGood
}

let isGood = false
try {
  isGood = await run(readRequest())
} catch (error) {
  process.stderr.write(`${(error as Error).stack}\n\n${USAGE}`)
}
process.exit(isGood ? 0 : 1)
