import { randomUUID } from 'node:crypto'
import type { PostgresServer } from '../../test/support/postgres-server.ts'
import { seeded } from '../../test/support/random.ts'
import type { RedisServer } from '../../test/support/redis-server.ts'
import { startRedisServer } from '../../test/support/redis-server.ts'
import type { Control } from './control.ts'
import type { Directory } from './directory.ts'
import type { ChaosGateway, InstanceAddress, Whereabouts } from './gateway.ts'
import type { Link, LinkFault } from './link.ts'
import type { Registration } from './registration.ts'
import { bodyOf, type ChaosService } from './service.ts'
import type { Outages, Weather } from './weather.ts'

/** What may go wrong with instances, and how often of all. */
const FAULTS = { kill: 4, blackhole: 3, reset: 3, drip: 2, flap: 3, absent: 3 } as const
type Fault = keyof typeof FAULTS
/** How many instances of a service it happens to at once: of a hundred times, one, two or all. */
const VICTIMS = [78, 17, 5] as const

/** Shortest and longest, in milliseconds: the pause before a fault, and how long it lasts. */
const CALM_MS = [2000, 7000] as const
const FAULT_MS = [3000, 12_000] as const
const CHURN_MS = [2000, 6000] as const
const REDIS_MS = { calm: [12_000, 35_000], down: [500, 4000] } as const
const POSTGRES_MS = { calm: [15_000, 45_000], down: [500, 5000] } as const
const DIRECTORY_MS = { calm: [10_000, 30_000], away: [1000, 8000] } as const
const REGISTRATION_MS = [800, 3000] as const
const MOST_OTHERS = 30
const MOST_REGISTERED = 15

export interface Instance extends InstanceAddress {
  readonly link: Link
  readonly service: ChaosService
  /** How it is known, if it says so itself. */
  readonly registration?: Registration
}

export interface Fleet {
  readonly name: string
  readonly instances: readonly Instance[]
  readonly weather: Weather
  /** Who says where its instances are, if the configuration does not. */
  readonly directory: Directory | undefined
}

export interface Scene {
  readonly seed: number
  readonly gateway: ChaosGateway
  readonly fleets: readonly Fleet[]
  readonly redis: { readonly program: string; readonly outages: Outages; server: RedisServer }
  readonly postgres: { readonly outages: Outages; readonly server: PostgresServer }
  /** Where registered services are: a service that nothing happens to. */
  readonly haven: string
  readonly control: Control
}

/** Where the services are, but for those instances that have left; directories are told. */
export function whereabouts(fleets: readonly Fleet[], absent: ReadonlySet<Instance>): Map<string, Whereabouts> {
  return new Map(
    fleets.map(({ name, instances, directory }) => {
      const present = instances
        .filter(one => !absent.has(one) && one.registration === undefined)
        .map(({ id, url }) => ({ id, url }))
      directory?.publish(present)
      return [name, directory ?? present]
    })
  )
}

/** Lets everything go wrong that can, each kind by a timetable of its own that only the seed decides. */
export class Faults {
  readonly #scene: Scene
  readonly #since = performance.now()
  readonly #absent = new Set<Instance>()
  readonly #stop = new AbortController()
  #others = 0
  /** How often each thing has happened. */
  readonly counts = new Map<string, number>()
  /** What happened, with the second in which it did. */
  readonly events: string[] = []
  /** Promises of the control plane that were not kept. */
  readonly broken: string[] = []

  constructor(scene: Scene) {
    this.#scene = scene
  }

  /** Runs for so long; everything is well again when it resolves. */
  async run(ms: number): Promise<void> {
    const timer = setTimeout(() => this.#stop.abort(), ms)
    const { fleets } = this.#scene
    const loops = [
      ...fleets.map((fleet, i) => this.#trouble(fleet, this.#chance(i))),
      this.#restartRedis(this.#chance(101)),
      this.#restartPostgres(this.#chance(102)),
      this.#churn(this.#chance(103)),
      ...fleets.map(({ directory }, i) => directory && this.#silence(directory, this.#chance(110 + i))),
      this.#register(this.#chance(104))
    ]
    await Promise.all(loops)
    clearTimeout(timer)
  }

  #chance(loop: number): () => number {
    return seeded(this.#scene.seed * 1000 + loop)
  }

  /** @returns whether it goes on */
  #pause([least, most]: readonly [number, number], random: () => number): Promise<boolean> {
    const { signal } = this.#stop
    return new Promise(resolve => {
      const wake = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', wake)
        resolve(!signal.aborted)
      }
      const timer = setTimeout(wake, least + random() * (most - least))
      signal.addEventListener('abort', wake)
    })
  }

  #note(kind: string, details: string): void {
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1)
    this.events.push(`${((performance.now() - this.#since) / 1000).toFixed(1)} s  ${kind} ${details}`)
  }

  /** Faults of one service's instances, one after the other. */
  async #trouble(fleet: Fleet, random: () => number): Promise<void> {
    while (await this.#pause(CALM_MS, random)) {
      const fault = draw(FAULTS, random)
      const wanted = 1 + Number(draw(VICTIMS, random))
      // One has to be left in the list.
      const count = fault === 'absent' ? Math.min(wanted, fleet.instances.length - 1) : wanted
      const victims = shuffled(fleet.instances, random).slice(0, count)
      this.#note(fault, victims.map(({ id }) => id).join(' '))
      for (const victim of victims) await this.#begin(fleet, victim, fault)
      await this.#pause(FAULT_MS, random)
      for (const victim of victims) await this.#end(fleet, victim, fault)
      this.#note('end', `of ${fault} ${victims.map(({ id }) => id).join(' ')}`)
    }
  }

  async #begin(fleet: Fleet, instance: Instance, fault: Fault): Promise<void> {
    const at = fleet.instances.indexOf(instance)
    // What only its check says, or the configuration, no request can run into.
    fleet.weather.worsens(at, fault !== 'flap' && fault !== 'absent')
    if (fault === 'flap') instance.service.flapping = true
    else if (fault === 'absent') this.#leave(instance, true)
    else await instance.link.set(fault satisfies LinkFault)
    if (fault === 'kill' && instance.registration) instance.registration.isDead = true
  }

  async #end(fleet: Fleet, instance: Instance, fault: Fault): Promise<void> {
    if (fault === 'flap') instance.service.flapping = false
    else if (fault === 'absent') this.#leave(instance, false)
    else await instance.link.set(undefined)
    if (instance.registration) instance.registration.isDead = false
    fleet.weather.clears(fleet.instances.indexOf(instance))
  }

  /** Takes it from where it is listed, or puts it back. */
  #leave(instance: Instance, isAbsent: boolean): void {
    if (instance.registration) instance.registration.isLeaving = isAbsent
    if (isAbsent) this.#absent.add(instance)
    else this.#absent.delete(instance)
    this.#configure()
  }

  async #restartRedis(random: () => number): Promise<void> {
    const { redis } = this.#scene
    while (await this.#pause(REDIS_MS.calm, random)) {
      this.#note('redis', 'killed')
      redis.outages.begin()
      redis.server.process.kill('SIGKILL')
      await this.#pause(REDIS_MS.down, random)
      redis.server = await startRedisServer(redis.program, redis.server.port)
      redis.outages.end()
    }
  }

  async #restartPostgres(random: () => number): Promise<void> {
    const { postgres } = this.#scene
    while (await this.#pause(POSTGRES_MS.calm, random)) {
      this.#note('postgres', 'stopped')
      postgres.outages.begin()
      await postgres.server.stop()
      await this.#pause(POSTGRES_MS.down, random)
      await postgres.server.start()
      postgres.outages.end()
    }
  }

  async #churn(random: () => number): Promise<void> {
    while (await this.#pause(CHURN_MS, random)) {
      this.#others = Math.floor(random() * MOST_OTHERS)
      this.#note('file', `${this.#others} other routes`)
      this.#configure()
    }
  }

  /** The directory answers nobody for a while; the list known last stays good. */
  async #silence(directory: Directory, random: () => number): Promise<void> {
    while (await this.#pause(DIRECTORY_MS.calm, random)) {
      this.#note('directory', 'away')
      directory.isAway = true
      await this.#pause(DIRECTORY_MS.away, random)
      directory.isAway = false
    }
  }

  #configure(): void {
    const { gateway, fleets } = this.#scene
    gateway.configure({ services: whereabouts(fleets, this.#absent), others: this.#others })
  }

  /** Services that register, are called at once, and go again. */
  async #register(random: () => number): Promise<void> {
    const registered = new Map<string, string>()
    for (let made = 0; await this.#pause(REGISTRATION_MS, random); ) {
      const [oldest] = registered
      if (oldest !== undefined && (registered.size >= MOST_REGISTERED || random() < 0.4)) {
        const [name, id] = oldest
        const { status } = await this.#scene.control.call('DELETE', `/services/${id}`)
        if (this.#must('DELETE', status, 204)) {
          registered.delete(name)
          this.#note('deregistration', name)
          await this.#expect(name, 404)
        }
        continue
      }
      const name = `registered-${made++}`
      const endpoints = [{ path: `/${name}`, public: true, name: 'it' }]
      const { status, json } = await this.#scene.control.call('POST', '/services', {
        name,
        base_url: this.#scene.haven,
        endpoints
      })
      if (!this.#must('POST', status, 201)) continue
      registered.set(name, json.id)
      this.#note('registration', name)
      await this.#expect(name, 200)
    }
  }

  /** Whether it was answered as it should; while the database is away, changes may be refused. */
  #must(what: string, status: number, wanted: number): boolean {
    if (status === wanted) return true
    if (status !== 503 || !this.#scene.postgres.outages.touches(performance.now()))
      this.broken.push(`${what} /services: ${status} instead of ${wanted}`)
    return false
  }

  /** What has been answered is so from then on. */
  async #expect(name: string, wanted: number): Promise<void> {
    const nonce = randomUUID()
    const { status, text } = await this.#scene.control.call('GET', `/api/v1/${name}?nonce=${nonce}&bytes=100`)
    if (status !== wanted) this.broken.push(`${name}: ${status} instead of ${wanted}`)
    else if (wanted === 200 && text !== bodyOf(nonce, 100).toString()) this.broken.push(`${name}: a wrong answer`)
  }
}

/** A key, as often as its share says. */
function draw<const T extends object>(shares: T, random: () => number): keyof T {
  const entries = Object.entries(shares) as [keyof T, number][]
  let at = random() * entries.reduce((sum, [, share]) => sum + share, 0)
  for (const [key, share] of entries) {
    at -= share
    if (at < 0) return key
  }
  return entries[0]?.[0] as keyof T
}

function shuffled<T>(list: readonly T[], random: () => number): T[] {
  return list
    .map(value => [random(), value] as const)
    .sort(([a], [b]) => a - b)
    .map(([, value]) => value)
}
