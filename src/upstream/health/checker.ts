import type { Instance } from '../instance.ts'
import type { Service, Surroundings } from '../service.ts'
import { probe } from './probe.ts'
import type { HealthCheckConfig } from './settings.ts'

/** What a health check has found. */
export interface CheckResult {
  readonly healthy: boolean
  /** Milliseconds since 1970. */
  readonly at: number
  readonly tookMs: number
  /** Of the answer, where the protocol has one. */
  readonly status: number | null
  /** `ECONNREFUSED`, `timeout`, `status 503`, … */
  readonly error: string | null
}

/** The first check of an instance comes within this time, in milliseconds, or within an interval that is shorter. */
const FIRST_MS = 1000
/** Intervals are so much longer or shorter by chance: checks that began together do not stay together. */
const JITTER = 0.1

/** One instance, as it is watched. */
interface Watch {
  /** Monotonic time of the next check; Infinity while one is under way. */
  dueAt: number
  /** Ends the one under way. */
  stop: AbortController | undefined
  /** Results of the same kind in a row: good ones counted up from 1, bad ones down from -1. */
  streak: number
}

/**
 * Asks the instances of one service how they are (HLB-01, HLB-02): regularly once it is started, and when somebody wants to
 * know.
 */
export class HealthChecker {
  readonly #service: Service
  readonly #how: HealthCheckConfig
  readonly #surroundings: Surroundings
  readonly #watches = new Map<Instance, Watch>()
  readonly #running = new Map<Instance, Promise<void>>()
  #timer: NodeJS.Timeout | undefined
  #stopped = false

  constructor(service: Service, how: HealthCheckConfig, surroundings: Surroundings) {
    this.#service = service
    this.#how = how
    this.#surroundings = surroundings
  }

  /**
   * Makes the checks that are due, and sets a timer for those to come; called again whenever instances have come or gone.
   * @returns when the checks that it has begun are over
   */
  async tick(): Promise<void> {
    if (this.#stopped || this.#how.intervalMs === 0) return
    this.#follow()
    const now = this.#surroundings.clock.monotonic()
    const due = [...this.#watches].filter(([, { dueAt }]) => dueAt <= now)
    const checks = due.map(([instance]) => this.#check(instance))
    this.#setTimer(now)
    await Promise.all(checks)
  }

  /** Asks all of them now; who wants to know while that is under way gets the same answers. */
  async checkAll(): Promise<void> {
    this.#follow()
    await Promise.all([...this.#watches.keys()].map(instance => this.#check(instance)))
  }

  /** Ends what is under way; nothing is found any more. */
  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
    for (const { stop } of this.#watches.values()) stop?.abort()
  }

  /** Watches the instances that the service has now. */
  #follow(): void {
    const { clock, random } = this.#surroundings
    const present = new Set(this.#service.instances)
    for (const [instance, { stop }] of this.#watches) {
      if (present.has(instance)) continue
      stop?.abort()
      this.#watches.delete(instance)
    }
    for (const instance of present) {
      if (this.#watches.has(instance)) continue
      const dueAt = clock.monotonic() + random() * Math.min(FIRST_MS, this.#how.intervalMs)
      this.#watches.set(instance, { dueAt, stop: undefined, streak: 0 })
    }
  }

  #setTimer(now: number): void {
    clearTimeout(this.#timer)
    const next = Math.min(...[...this.#watches.values()].map(({ dueAt }) => dueAt))
    if (next < Number.POSITIVE_INFINITY)
      this.#timer = setTimeout(() => void this.tick(), Math.max(0, next - now)).unref()
  }

  #check(instance: Instance): Promise<void> {
    const running = this.#running.get(instance)
    if (running !== undefined) return running
    const check = this.#ask(instance).finally(() => this.#running.delete(instance))
    this.#running.set(instance, check)
    return check
  }

  async #ask(instance: Instance): Promise<void> {
    const { clock, random, pseudonym } = this.#surroundings
    const watch = this.#watches.get(instance) as Watch
    watch.stop = new AbortController()
    watch.dueAt = Number.POSITIVE_INFINITY
    const since = clock.monotonic()
    const signal = AbortSignal.any([watch.stop.signal, AbortSignal.timeout(this.#how.timeoutMs)])
    const question = { service: this.#service.config, how: this.#how, via: pseudonym, signal }
    const { status, error } = await probe(instance, question).catch(cause => ({ status: null, error: codeOf(cause) }))
    if (watch.stop.signal.aborted) return
    const now = clock.monotonic()
    const tookMs = Math.round((now - since) * 10) / 10
    this.#found(instance, watch, { healthy: error === null, at: clock.now(), tookMs, status, error })
    watch.dueAt = now + this.#how.intervalMs * (1 + (random() * 2 - 1) * JITTER)
    if (this.#how.intervalMs > 0) this.#setTimer(now)
  }

  #found(instance: Instance, watch: Watch, result: CheckResult): void {
    const { healthyAfter, unhealthyAfter, intervalMs } = this.#how
    const isFirst = instance.lastCheck === undefined
    watch.streak = result.healthy ? Math.max(0, watch.streak) + 1 : Math.min(0, watch.streak) - 1
    const decides = isFirst || (result.healthy ? watch.streak >= healthyAfter : -watch.streak >= unhealthyAfter)
    // Where nobody looks regularly, nobody would find out either that it is well again.
    this.#service.checked(instance, result, decides && intervalMs > 0)
  }
}

function codeOf(error: unknown): string {
  const { name, code, message } = error as { name?: string; code?: string; message?: string }
  if (name === 'TimeoutError' || code === 'UND_ERR_CONNECT_TIMEOUT') return 'timeout'
  return code ?? message ?? 'failed'
}
