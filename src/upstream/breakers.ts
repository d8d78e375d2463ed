import { createHash } from 'node:crypto'
import type { Logger } from 'pino'
import type { Clock } from '../runtime/clock.ts'
import type { Leases } from '../runtime/leases.ts'
import type { Store } from '../store/store.ts'
import { LabelledCounter } from '../telemetry/metrics.ts'
import { Breaker, type BreakerState } from './breaker.ts'
import type { BreakerUse } from './breaker-settings.ts'
import type { Instance } from './instance.ts'
import type { Service } from './service.ts'

/** The breakers of one `circuit_breaker:`: as many as it says. */
export interface BreakerSet {
  /** Each instance has its own, so that another one may be asked where one is open. */
  readonly perInstance: boolean
  /** The one that a try has to pass. */
  of(exchange: { readonly method: string }, instance: Instance, service: Service): Breaker
}

/** A breaker under its name. */
export interface NamedBreaker {
  /** `service:orders`, `route:/orders/**`, `endpoint:GET /orders/**`, `instance:orders/a`. */
  readonly name: string
  readonly service: string
  readonly use: BreakerUse
  readonly breaker: Breaker
}

interface Entry extends NamedBreaker {
  /** It was opened because another gateway's is open. */
  remote: boolean
}

/** How often the breakers of other gateways are looked at, in milliseconds; each time a little sooner or later. */
const LOOK_MS = 1000
const KEY = 'breaker:'

interface Context {
  readonly clock: Clock
  readonly random: () => number
  readonly leases: Leases
  readonly log: Logger
  readonly store: Store
  readonly node: string
}

/**
 * All breakers of the process. Configurations that say the same of the same share them, so that a reload does not close what is
 * open. What one does is its own decision; that others depend on it or share its view is settled here, where it is told of.
 */
export class Breakers {
  readonly #context: Context
  readonly #entries = new Set<Entry>()
  readonly transitions = new LabelledCounter()
  #timer: NodeJS.Timeout | undefined
  /** A configuration is served: what is shared is looked at. */
  #follows = false

  constructor(context: Context) {
    this.#context = context
  }

  /**
   * The breakers that a route passes on its way to a service.
   * @param onLease gets the key of the lease that gives them back
   */
  acquire(
    use: BreakerUse,
    { service, route }: { service: string; route: string },
    onLease: (key: string) => void
  ): BreakerSet {
    const scope = use.per === 'route' || use.per === 'endpoint' ? `${service} ${route}` : service
    const key = `breakers:${scope}:${createHash('sha256').update(JSON.stringify(use)).digest('hex')}`
    onLease(key)
    const made = new Set<Entry>()
    const make = (name: string): Entry => {
      const entry = this.#make(name, service, use)
      made.add(entry)
      return entry
    }
    const forget = (entry: Entry): void => {
      made.delete(entry)
      this.#entries.delete(entry)
      if (!this.all().some(({ name }) => name === entry.name)) this.transitions.forget('name', entry.name)
    }
    return this.#context.leases.acquire(
      key,
      () => setOf(use, { service, route }, make, forget),
      () => {
        for (const entry of made) forget(entry)
      }
    )
  }

  /** All of them, by name. */
  all(): NamedBreaker[] {
    return [...this.#entries].sort((a, b) => a.name.localeCompare(b.name))
  }

  #make(name: string, service: string, use: BreakerUse): Entry {
    const { clock } = this.#context
    const breaker: Breaker = new Breaker(use, clock, from => this.#changed(entry, from))
    const entry: Entry = { name, service, use, breaker, remote: false }
    this.#entries.add(entry)
    const down = [...this.#entries].find(
      other => isOfService(other) && other.breaker.state === 'open' && use.dependsOn.includes(other.service)
    )
    if (down !== undefined) breaker.open(dependingOn(down), down.breaker.retryAfterMs)
    if (this.#follows) this.follow()
    return entry
  }

  #changed(entry: Entry, from: BreakerState): void {
    const { name, service, breaker } = entry
    const { state, reason } = breaker
    this.transitions.inc({ name, service, from, to: state })
    const level = state === 'open' ? 'warn' : 'info'
    this.#context.log[level]({ breaker: name, service, from, to: state, reason }, 'circuit breaker')
    this.#cascade(entry)
    this.#share(entry)
  }

  /** What depends on a service goes with its breaker, and is tried again as soon as that is closed (RES-12). */
  #cascade(entry: Entry): void {
    if (!isOfService(entry)) return
    const { service, breaker } = entry
    const reason = dependingOn(entry)
    for (const other of this.#entries) {
      if (other === entry || !other.use.dependsOn.includes(service)) continue
      if (breaker.state === 'open') other.breaker.open(reason, breaker.retryAfterMs)
      else if (breaker.state === 'closed' && other.breaker.reason === reason) other.breaker.reconsider()
    }
  }

  /** Tells the other gateways (RES-14). Those who cannot be told find out themselves. */
  #share(entry: Entry): void {
    const { breaker, name, use, remote } = entry
    if (!this.#isShared(entry) || remote) return
    const { store, node } = this.#context
    const told =
      breaker.state === 'open'
        ? store.set(KEY + name, node, use.recoveryMs)
        : breaker.state === 'closed'
          ? store.delete(KEY + name)
          : undefined
    told?.catch(() => {})
  }

  #isShared({ use }: Entry): boolean {
    return use.shared && this.#context.store.kind !== 'memory'
  }

  /** Looks regularly at what other gateways say, if any breaker is shared with them. */
  follow(): void {
    this.#follows = true
    if (this.#timer !== undefined || ![...this.#entries].some(entry => this.#isShared(entry))) return
    const next = (): void => {
      if (!this.#follows) return
      this.#timer = setTimeout(() => void this.look().then(next), LOOK_MS * (0.75 + this.#context.random() / 2)).unref()
    }
    next()
  }

  /** Opens what is open elsewhere, and lets what was opened so try again once it is not. */
  async look(): Promise<void> {
    const shared = [...this.#entries].filter(entry => this.#isShared(entry))
    await Promise.all(shared.map(entry => this.#compare(entry)))
  }

  async #compare(entry: Entry): Promise<void> {
    const { breaker, name, use } = entry
    let by: string | undefined
    try {
      by = await this.#context.store.get(KEY + name)
    } catch {
      // Nothing is known of the others: what is known here counts.
      return
    }
    if (by !== undefined && by !== this.#context.node && breaker.state === 'closed') {
      entry.remote = true
      breaker.open('open on another gateway', use.recoveryMs)
    } else if (by === undefined && entry.remote) {
      entry.remote = false
      breaker.reconsider()
    }
  }

  close(): void {
    this.#follows = false
    clearTimeout(this.#timer)
  }
}

/** Whether it speaks for a service as a whole. */
function isOfService({ use }: Entry): boolean {
  return use.per === 'service'
}

function dependingOn({ service }: Entry): string {
  return `depends on ${service}`
}

/** What a set of breakers needs to make and to drop one. */
type Make = (name: string) => Entry
type Forget = (entry: Entry) => void

function setOf(
  { per }: BreakerUse,
  { service, route }: { service: string; route: string },
  make: Make,
  forget: Forget
): BreakerSet {
  switch (per) {
    case 'service':
      return new One(make(`service:${service}`))
    case 'route':
      return new One(make(`route:${route}`))
    case 'endpoint':
      return new PerMethod(method => make(`endpoint:${method} ${route}`))
    case 'instance':
      return new PerInstance(({ id }) => make(`instance:${service}/${id}`), forget)
  }
}

class One implements BreakerSet {
  readonly perInstance = false
  readonly #breaker: Breaker

  constructor({ breaker }: Entry) {
    this.#breaker = breaker
  }

  of(): Breaker {
    return this.#breaker
  }
}

/** No more than the methods that the route lets through. */
class PerMethod implements BreakerSet {
  readonly perInstance = false
  readonly #make: (method: string) => Entry
  readonly #byMethod = new Map<string, Breaker>()

  constructor(make: (method: string) => Entry) {
    this.#make = make
  }

  of({ method }: { readonly method: string }): Breaker {
    let breaker = this.#byMethod.get(method)
    if (breaker === undefined) {
      breaker = this.#make(method).breaker
      this.#byMethod.set(method, breaker)
    }
    return breaker
  }
}

class PerInstance implements BreakerSet {
  readonly perInstance = true
  readonly #make: (instance: Instance) => Entry
  readonly #forget: Forget
  readonly #known = new WeakMap<Instance, Breaker>()
  /** By id and address: an instance that is made anew is still the same. */
  readonly #entries = new Map<string, Entry>()

  constructor(make: (instance: Instance) => Entry, forget: Forget) {
    this.#make = make
    this.#forget = forget
  }

  of(_exchange: unknown, instance: Instance, service: Service): Breaker {
    const known = this.#known.get(instance)
    if (known !== undefined) return known
    this.#dropGone(service)
    const key = keyOf(instance)
    const entry = this.#entries.get(key) ?? this.#make(instance)
    this.#entries.set(key, entry)
    this.#known.set(instance, entry.breaker)
    return entry.breaker
  }

  /** A new instance is when others may have gone. */
  #dropGone({ instances }: Service): void {
    const there = new Set(instances.map(keyOf))
    for (const [key, entry] of this.#entries) {
      if (there.has(key)) continue
      this.#entries.delete(key)
      this.#forget(entry)
    }
  }
}

function keyOf({ id, url }: Instance): string {
  return `${id} ${url.href}`
}
