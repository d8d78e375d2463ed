import { createHash } from 'node:crypto'
import type { ConnectionOptions } from 'node:tls'
import type { Logger } from 'pino'
import type { DiscoveryConfig } from '../discovery/settings.ts'
import { Bulkhead } from '../overload/bulkhead.ts'
import type { ConcurrencyConfig } from '../overload/settings.ts'
import type { Exchange } from '../proxy/exchange.ts'
import type { Stage } from '../proxy/stage.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Store } from '../store/store.ts'
import { LabelledCounter } from '../telemetry/metrics.ts'
import { type Balancer, createBalancer } from './balancers/balancer.ts'
import { type BalancerConfig, DEFAULT_BALANCER, DEFAULT_SELECTION, type SelectionConfig } from './balancing-settings.ts'
import { isOut, selectCandidates } from './candidates.ts'
import type { Deadlines } from './deadline.ts'
import type { CheckResult, HealthChecker } from './health/checker.ts'
import { OutlierDetection } from './health/outliers.ts'
import type { HealthCheckConfig, OutlierConfig } from './health/settings.ts'
import { Instance, type InstanceConfig, type InstanceState } from './instance.ts'
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
  /** Who may be asked, beyond what is known of the instances. */
  readonly selection?: SelectionConfig | undefined
  /** How instances are asked how they are. */
  readonly healthCheck?: HealthCheckConfig | undefined
  /** When their traffic speaks against them; never if not given. */
  readonly outliers?: OutlierConfig | undefined
}

/** What a service needs of the process. */
export interface Surroundings {
  readonly clock: Clock
  readonly deadlines: Deadlines
  readonly random: () => number
  readonly log: Pick<Logger, 'info' | 'warn'>
  /** What the gateway calls itself towards services, and among gateways. */
  readonly pseudonym: string
  readonly node: string
  readonly store: Pick<Store, 'kind' | 'get' | 'set' | 'add' | 'delete'>
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
  /** Health checks by result, and ejections. */
  readonly checks = new LabelledCounter()
  readonly ejections = new LabelledCounter()
  readonly #surroundings: Surroundings
  readonly #clock: Clock
  #list: readonly InstanceConfig[]
  readonly #selection: SelectionConfig
  readonly #outliers: OutlierDetection | undefined
  #checker: HealthChecker | undefined
  #instances: readonly Instance[]
  /** Gone from the list, with something still under way. */
  #leaving: readonly Instance[] = []
  /** Those that may be asked, until one of the others may be again. The same list until something changes. */
  #candidates: readonly Instance[] = []
  #candidatesUntil = Number.POSITIVE_INFINITY
  #closed = false

  constructor(config: ServiceConfig, surroundings: Surroundings) {
    const { clock, deadlines, random } = surroundings
    this.name = config.name
    this.config = config
    this.balancer = createBalancer(config.balancer ?? DEFAULT_BALANCER, random)
    this.budget = new RetryBudget(clock)
    this.bulkhead = config.concurrency && new Bulkhead(config.concurrency, clock, deadlines)
    this.#surroundings = surroundings
    this.#clock = clock
    this.#list = config.instances
    this.#selection = config.selection ?? DEFAULT_SELECTION
    this.#outliers = config.outliers && new OutlierDetection(config.outliers)
    this.#instances = config.instances.map(instance => new Instance(instance, config, clock))
    this.reconsider()
  }

  get instances(): readonly Instance[] {
    return this.#instances
  }

  /** Its instances, as they were given last. */
  get list(): readonly InstanceConfig[] {
    return this.#list
  }

  /** Those that have left the list and still have something under way. */
  get leaving(): readonly Instance[] {
    this.#leaving = this.#leaving.filter(({ active }) => active > 0)
    return this.#leaving
  }

  /** How many instances are in which state; without those that nobody is in. */
  states(): Partial<Record<InstanceState, number>> {
    this.refresh()
    const counts: Partial<Record<InstanceState, number>> = {}
    for (const { state } of [...this.#instances, ...this.leaving]) counts[state] = (counts[state] ?? 0) + 1
    return counts
  }

  /** It is served now: checks begin, if it has any. */
  start(): void {
    if (this.config.healthCheck !== undefined && this.config.healthCheck.intervalMs > 0) void this.#checks()
  }

  /** Asks all instances how they are; resolves when all have answered, or have not. */
  async checkNow(): Promise<void> {
    const checker = await this.#checks()
    await checker?.checkAll()
  }

  /** What makes the checks; begun with when it is asked for first. */
  async #checks(): Promise<HealthChecker | undefined> {
    const { healthCheck, selection } = this.config
    if (healthCheck === undefined) return undefined
    const [{ HealthChecker }, { SharedChecks }] = await Promise.all([
      import('./health/checker.ts'),
      import('./health/federation.ts')
    ])
    if (this.#closed || this.#checker !== undefined) return this.#checker
    const { store, node } = this.#surroundings
    // What is seen from another zone, or asked in another way, is another matter.
    const key = createHash('sha256').update(JSON.stringify([this.name, selection?.zone, healthCheck]))
    const shared = store.kind === 'memory' ? undefined : new SharedChecks(store, node, key.digest('base64url'))
    this.#checker = new HealthChecker(this, healthCheck, this.#surroundings, shared)
    await this.#checker.start()
    return this.#checker
  }

  /**
   * Takes a whole new list of instances. Those of the same id and URL stay what they are, connections and all; those that
   * are gone get no more requests, and what is under way at them ends in peace.
   */
  update(list: readonly InstanceConfig[]): void {
    const staying = new Map(this.#instances.map(instance => [`${instance.id} ${instance.url.href}`, instance]))
    this.#list = list
    const isFirst = staying.size === 0
    this.#instances = list.map(config => {
      const key = `${config.id} ${new URL(config.url).href}`
      const instance = staying.get(key) ?? this.#newcomer(config, isFirst)
      staying.delete(key)
      instance.weight = config.weight
      instance.zone = config.zone
      return instance
    })
    for (const gone of staying.values()) {
      gone.pool.close()
      if (gone.active > 0) this.#enter(gone, 'draining', `it has left; ${gone.active} under way`)
    }
    this.#leaving = [...this.leaving, ...[...staying.values()].filter(({ active }) => active > 0)]
    this.reconsider()
    void this.#checker?.tick()
  }

  /** @param alone there is nobody else yet */
  #newcomer(config: InstanceConfig, alone: boolean): Instance {
    const instance = new Instance(config, this.config, this.#clock)
    if (alone) return instance
    instance.startedAt = this.#clock.monotonic()
    instance.untested = (this.config.healthCheck?.intervalMs ?? 0) > 0
    return instance
  }

  /**
   * The instance that a request goes to: one that nothing speaks against; where nobody answers is asked when there is nobody
   * else, since somebody has to find out that it is back. Undefined when none may be asked.
   * @param balancer the route's, or the service's own
   * @param after where it has been already: left out while there is another choice
   */
  pick(balancer: Balancer, exchange: Exchange, after?: Instance): Instance | undefined {
    this.refresh()
    return this.#candidates.length === 0 ? undefined : balancer.pick(this.#candidates, exchange, after)
  }

  /** Whether another instance than `failed` is worth asking. */
  hasOther(failed: Instance): boolean {
    const now = this.#clock.monotonic()
    return this.#candidates.some(instance => instance !== failed && instance.downUntil <= now)
  }

  /** Seconds until somebody may be asked again, as far as that is known; for those who are refused when nobody may. */
  get retryAfter(): number {
    const known = Math.min(this.#candidatesUntil - this.#clock.monotonic(), this.config.healthCheck?.intervalMs || 1000)
    return Math.max(1, Math.ceil(known / 1000))
  }

  /** A try has ended at its answer's head, or before or after that in `stage`. @param ms how long that took */
  tried(instance: Instance, status: number, stage: Stage | undefined, ms: number): void {
    // What fails fast says nothing of how much the service takes.
    if (stage === 'timeout' || (status > 0 && status < 500)) this.bulkhead?.answered(ms)
    if (stage === 'connect' || stage === 'connect_timeout') {
      const now = this.#clock.monotonic()
      const isNews = instance.downUntil <= now
      instance.downUntil = now + COOLDOWN_MS
      instance.unreachable = true
      this.#settle(instance, stage)
      if (isNews) this.reconsider()
    } else if (instance.unreachable && stage !== 'pool') {
      instance.unreachable = false
      this.#settle(instance, 'it answers again')
    }
    if (this.#outliers !== undefined) this.#count(this.#outliers, instance, status, stage)
  }

  #count(outliers: OutlierDetection, instance: Instance, status: number, stage: Stage | undefined): void {
    // That all connections are in use is our own limit.
    const failed = stage === undefined ? status >= 500 : stage !== 'pool'
    const why = outliers.count(instance, failed, this.#instances, this.#clock.monotonic())
    if (why === undefined) return
    this.ejections.inc({ service: this.name })
    this.#settle(instance, why)
    this.reconsider()
  }

  /** A health check has found `result`, which may decide how the instance is. @returns whether it is another one now */
  checked(instance: Instance, result: CheckResult, decides: boolean): boolean {
    this.checks.inc({ service: this.name, result: result.healthy ? 'healthy' : 'unhealthy' })
    instance.lastCheck = result
    if (!decides || (instance.unhealthy === !result.healthy && !instance.untested)) return false
    instance.unhealthy = !result.healthy
    instance.untested = false
    if (result.healthy) this.#begin(instance)
    this.#settle(instance, result.error ?? 'health checks are good')
    this.reconsider()
    return true
  }

  /** Looks whether time has brought somebody back. */
  refresh(): void {
    if (this.#candidatesUntil < Number.POSITIVE_INFINITY && this.#candidatesUntil <= this.#clock.monotonic())
      this.reconsider()
  }

  /** Something that decides who may be asked has changed. */
  reconsider(): void {
    const now = this.#clock.monotonic()
    for (const instance of this.#instances)
      if (instance.state === 'ejected' && instance.ejectedUntil <= now) this.#return(instance)
    const { instances, until } = selectCandidates(this.#instances, this.#selection, now)
    this.#candidates = instances
    this.#candidatesUntil = until
  }

  /** An ejected instance whose time is over takes part again, slowly if that is asked for. */
  #return(instance: Instance): void {
    this.#begin(instance)
    this.#settle(instance, 'its time is over')
  }

  #begin(instance: Instance): void {
    instance.startedAt = this.#clock.monotonic()
  }

  /** Works out how an instance is, now that something has happened to it. */
  #settle(instance: Instance, why: string): void {
    if (instance.state !== 'draining') this.#enter(instance, stateOf(instance, this.#clock.monotonic()), why)
  }

  #enter(instance: Instance, state: InstanceState, why: string): void {
    if (instance.state === state) return
    instance.state = state
    instance.since = this.#clock.now()
    instance.why = why
    const { log } = this.#surroundings
    const event = { service: this.name, instance: instance.id, state, reason: why }
    if (state === 'healthy' || state === 'draining') log.info(event, `an instance is ${state}`)
    else log.warn(event, `an instance is ${state}`)
  }

  close(): void {
    this.#closed = true
    this.#checker?.stop()
    for (const instance of this.#instances) instance.pool.close()
  }
}

function stateOf(instance: Instance, now: number): InstanceState {
  if (!isOut(instance, now)) return instance.unreachable ? 'unreachable' : 'healthy'
  return instance.unhealthy ? 'unhealthy' : 'ejected'
}
