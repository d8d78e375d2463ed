import type { ConnectionOptions } from 'node:tls'
import type { DiscoveryConfig } from '../discovery/settings.ts'
import { Bulkhead } from '../overload/bulkhead.ts'
import type { ConcurrencyConfig } from '../overload/settings.ts'
import type { Exchange } from '../proxy/exchange.ts'
import type { Stage } from '../proxy/forward.ts'
import type { Clock } from '../runtime/clock.ts'
import { type Balancer, createBalancer } from './balancers/balancer.ts'
import { type BalancerConfig, DEFAULT_BALANCER } from './balancing-settings.ts'
import type { Deadlines } from './deadline.ts'
import { Instance, type InstanceConfig } from './instance.ts'
import type { PoolOptions } from './pool.ts'
import { RetryBudget } from './retry.ts'

export interface ServiceConfig {
  readonly name: string
  /** Those that the configuration names. */
  readonly instances: readonly InstanceConfig[]
  /** Who else says where they are. */
  readonly discovery?: DiscoveryConfig | undefined
  readonly pool: Omit<PoolOptions, 'tls' | 'lookup'>
  readonly tls?: ConnectionOptions | undefined
  /** Where its addresses have to be, for one that somebody has registered. */
  readonly networks?: readonly string[] | undefined
  /** How many requests it has at once; any number if not given. */
  readonly concurrency?: ConcurrencyConfig | undefined
  /** Which instance is asked, for routes that say nothing else; each in turn by its weight if not given. */
  readonly balancer?: BalancerConfig | undefined
}

/** What a service needs of the process. */
export interface Surroundings {
  readonly clock: Clock
  readonly deadlines: Deadlines
  readonly random: () => number
}

/** After so long without a connection failure an instance is asked again, in milliseconds. */
const COOLDOWN_MS = 1000

/**
 * A named backend API and how it is reached. Lives in the runtime, beyond any one configuration: its instances come and go
 * while it is there, and what is known of those that stay is kept.
 */
export class Service {
  readonly name: string
  readonly config: ServiceConfig
  readonly budget: RetryBudget
  /** Undefined where nothing limits how many requests it has at once. */
  readonly bulkhead: Bulkhead | undefined
  /** Whose turn it is, for routes that say nothing else. */
  readonly balancer: Balancer
  readonly #clock: Clock
  #list: readonly InstanceConfig[]
  #instances: readonly Instance[]
  /** Those that may be asked, until one of the others may be again. The same list until something changes. */
  #candidates: readonly Instance[]
  #candidatesUntil = Number.POSITIVE_INFINITY

  constructor(config: ServiceConfig, { clock, deadlines, random }: Surroundings) {
    this.name = config.name
    this.config = config
    this.balancer = createBalancer(config.balancer ?? DEFAULT_BALANCER, random)
    this.#clock = clock
    this.#list = config.instances
    this.#instances = config.instances.map(instance => new Instance(instance, config, clock))
    this.#candidates = weighty(this.#instances)
    this.budget = new RetryBudget(clock)
    this.bulkhead = config.concurrency && new Bulkhead(config.concurrency, clock, deadlines)
  }

  get instances(): readonly Instance[] {
    return this.#instances
  }

  /** Its instances, as they were given last. */
  get list(): readonly InstanceConfig[] {
    return this.#list
  }

  /**
   * Takes a whole new list of instances. Those of the same id and URL stay what they are, connections and all; those that
   * are gone get no more requests, and what is under way at them ends in peace.
   */
  update(list: readonly InstanceConfig[]): void {
    const staying = new Map(this.#instances.map(instance => [`${instance.id} ${instance.url.href}`, instance]))
    this.#list = list
    this.#instances = list.map(config => {
      const key = `${config.id} ${new URL(config.url).href}`
      const instance = staying.get(key) ?? new Instance(config, this.config, this.#clock)
      staying.delete(key)
      instance.weight = config.weight
      instance.zone = config.zone
      return instance
    })
    for (const gone of staying.values()) gone.pool.close()
    this.reconsider()
  }

  /**
   * The instance that a request goes to: one that is not known to be down; any when all are, since somebody has to find out
   * that they are back. Undefined when there are none.
   * @param balancer the route's, or the service's own
   * @param after where it has been already: left out while there is another choice
   */
  pick(balancer: Balancer, exchange: Exchange, after?: Instance): Instance | undefined {
    if (this.#candidatesUntil < Number.POSITIVE_INFINITY && this.#candidatesUntil <= this.#clock.monotonic())
      this.reconsider()
    return this.#candidates.length === 0 ? undefined : balancer.pick(this.#candidates, exchange, after)
  }

  /** Whether another instance than `failed` is worth asking. */
  hasOther(failed: Instance): boolean {
    const now = this.#clock.monotonic()
    return this.#candidates.some(instance => instance !== failed && instance.downUntil <= now)
  }

  /** A try has ended at its answer's head, or before or after that in `stage`. @param ms how long that took */
  tried(instance: Instance, status: number, stage: Stage | undefined, ms: number): void {
    // What fails fast says nothing of how much the service takes.
    if (stage === 'timeout' || (status > 0 && status < 500)) this.bulkhead?.answered(ms)
    if (stage === 'connect' || stage === 'connect_timeout') {
      instance.downUntil = this.#clock.monotonic() + COOLDOWN_MS
      this.reconsider()
    }
  }

  /** Something that decides who may be asked has changed. */
  reconsider(): void {
    const now = this.#clock.monotonic()
    const up = this.#instances.filter(({ downUntil }) => downUntil <= now)
    this.#candidates = weighty(up.length === 0 ? this.#instances : up)
    this.#candidatesUntil = Math.min(
      ...this.#instances.map(({ downUntil }) => (downUntil > now ? downUntil : Number.POSITIVE_INFINITY))
    )
  }

  close(): void {
    for (const instance of this.#instances) instance.pool.close()
  }
}

/** Those of weight 0 get nothing, unless there is nobody else. */
function weighty(instances: readonly Instance[]): readonly Instance[] {
  const some = instances.filter(({ weight }) => weight > 0)
  return some.length === 0 ? [...instances] : some
}
