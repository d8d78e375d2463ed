import type { ConnectionOptions } from 'node:tls'
import type { Clock } from '../runtime/clock.ts'
import { Pool, type PoolOptions } from './pool.ts'
import { RetryBudget } from './retry.ts'

export interface InstanceConfig {
  readonly id: string
  /** Scheme, host, port and a base path that is put before every path. */
  readonly url: string
  readonly weight: number
}

export interface ServiceConfig {
  readonly name: string
  readonly instances: readonly InstanceConfig[]
  readonly pool: Omit<PoolOptions, 'tls' | 'networks'>
  readonly tls?: ConnectionOptions | undefined
  /** Where its addresses have to be, for one that somebody has registered. */
  readonly networks?: readonly string[] | undefined
}

/** After so long without a connection failure an instance is asked again, in milliseconds. */
const COOLDOWN_MS = 1000

/** One address of a service. */
export class Instance {
  readonly id: string
  readonly url: URL
  /** What comes before every path, without a trailing slash. */
  readonly basePath: string
  readonly pool: Pool
  /** Monotonic time until which it is left out, after nobody answered at its address. */
  downUntil = 0

  constructor(config: InstanceConfig, service: ServiceConfig, clock: Clock) {
    this.id = config.id
    this.url = new URL(config.url)
    this.basePath = this.url.pathname.replace(/\/+$/, '')
    this.pool = new Pool(this.url.origin, { ...service.pool, tls: service.tls, networks: service.networks }, clock)
  }
}

/** A named backend API and how it is reached. Lives in the runtime, beyond any one configuration. */
export class Service {
  readonly name: string
  readonly config: ServiceConfig
  readonly instances: readonly Instance[]
  readonly budget: RetryBudget
  readonly #clock: Clock
  #turn = 0

  constructor(config: ServiceConfig, clock: Clock) {
    this.name = config.name
    this.config = config
    this.#clock = clock
    this.instances = config.instances.map(instance => new Instance(instance, config, clock))
    this.budget = new RetryBudget(clock)
  }

  /**
   * The instance whose turn it is: round robin over those that are not known to be down; over all when all are, since
   * somebody has to find out that they are back. `after` is left out while there is another choice.
   */
  pick(after?: Instance): Instance | undefined {
    const { instances } = this
    if (instances.length === 1) return instances[0]
    const now = this.#clock.monotonic()
    let fallback: Instance | undefined
    for (let i = 0; i < instances.length; i++) {
      this.#turn = (this.#turn + 1) % instances.length
      const instance = instances[this.#turn] as Instance
      if (instance === after) continue
      if (instance.downUntil <= now) return instance
      fallback ??= instance
    }
    return fallback ?? after
  }

  /** Whether another instance than `failed` is worth asking. */
  hasOther(failed: Instance): boolean {
    const now = this.#clock.monotonic()
    return this.instances.some(instance => instance !== failed && instance.downUntil <= now)
  }

  /** Nobody answered at this address; it is left out for a moment. */
  unreachable(instance: Instance): void {
    instance.downUntil = this.#clock.monotonic() + COOLDOWN_MS
  }

  close(): void {
    for (const instance of this.instances) instance.pool.close()
  }
}
