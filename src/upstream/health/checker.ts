import type { Instance } from '../instance.ts'
import type { Service, Surroundings } from '../service.ts'
import { isShortage } from '../shortage.ts'
import { type Findings, nameOf, type SharedChecks, TURN_MS } from './federation.ts'
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
  /** The gateway that has asked. */
  readonly by: string
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
  /** When another gateway had found what counted last, by its clock; 0 while that is waited for. */
  heardAt: number | undefined
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
  /** Undefined where there is nobody to share with. */
  readonly #shared: SharedChecks | undefined
  #timer: NodeJS.Timeout | undefined
  #turns: NodeJS.Timeout | undefined
  /** Another gateway checks. */
  #listens = false
  /** Something was found here that the others do not know. */
  #untold = false
  #stopped = false

  constructor(service: Service, how: HealthCheckConfig, surroundings: Surroundings, shared?: SharedChecks) {
    this.#service = service
    this.#how = how
    this.#surroundings = surroundings
    this.#shared = shared
  }

  /** Begins with the regular checks, if there are to be any. */
  async start(): Promise<void> {
    if (this.#how.intervalMs === 0) return
    if (this.#shared !== undefined) {
      this.#turns = setInterval(() => void this.turn(), TURN_MS).unref()
      await this.turn()
    }
    await this.tick()
  }

  /** Looks whether another gateway checks, and what it has found; or says what was found here. */
  async turn(): Promise<void> {
    const findings = await this.#shared?.turn()
    if (this.#stopped) return
    this.#follow()
    if (findings !== undefined) {
      this.#listens = true
      this.#hear(findings)
      return
    }
    if (this.#untold) await this.#tell()
    if (!this.#listens) return
    this.#listens = false
    this.#resume()
  }

  /** What others have found counts as found here. While they are heard of, there are no checks of our own. */
  #hear(findings: Findings): void {
    const now = this.#surroundings.clock.monotonic()
    for (const [instance, watch] of this.#watches) {
      const finding = findings[nameOf(instance)]
      if (finding === undefined) {
        // It may only just begin. If it does not know the instance at all, somebody has to ask.
        if (watch.heardAt === undefined) watch.dueAt = now + this.#how.intervalMs
        watch.heardAt ??= 0
      } else if (finding.result.at !== watch.heardAt) {
        watch.heardAt = finding.result.at
        watch.dueAt = now + 2 * this.#how.intervalMs + TURN_MS
        this.#found(instance, watch, finding.result, finding.streak)
      }
    }
  }

  /** Nobody else checks any more. */
  #resume(): void {
    const { clock } = this.#surroundings
    for (const watch of this.#watches.values()) {
      watch.heardAt = undefined
      if (watch.stop === undefined) watch.dueAt = Math.min(watch.dueAt, clock.monotonic() + this.#firstMs())
    }
    void this.tick()
  }

  async #tell(): Promise<void> {
    this.#untold = false
    const known = [...this.#watches].flatMap(([instance, { streak }]) =>
      instance.lastCheck === undefined ? [] : [[nameOf(instance), { result: instance.lastCheck, streak }] as const]
    )
    await this.#shared?.tell(Object.fromEntries(known), 3 * this.#how.intervalMs + TURN_MS)
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
    clearInterval(this.#turns)
    this.#shared?.leave()
    for (const { stop } of this.#watches.values()) stop?.abort()
  }

  /** Watches the instances that the service has now. */
  #follow(): void {
    const { clock } = this.#surroundings
    const present = new Set(this.#service.instances)
    for (const [instance, { stop }] of this.#watches) {
      if (present.has(instance)) continue
      stop?.abort()
      this.#watches.delete(instance)
    }
    for (const instance of present) {
      if (this.#watches.has(instance)) continue
      const dueAt = clock.monotonic() + this.#firstMs()
      this.#watches.set(instance, { dueAt, stop: undefined, streak: 0, heardAt: undefined })
    }
  }

  #firstMs(): number {
    return this.#surroundings.random() * Math.min(FIRST_MS, this.#how.intervalMs)
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
    const { clock, random, pseudonym, node } = this.#surroundings
    const watch = this.#watches.get(instance) as Watch
    const stop = new AbortController()
    watch.stop = stop
    watch.dueAt = Number.POSITIVE_INFINITY
    const since = clock.monotonic()
    const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(this.#how.timeoutMs)])
    const question = { service: this.#service.config, how: this.#how, via: pseudonym, signal }
    const { status, error } = await probe(instance, question).catch(cause => {
      // Nobody has been asked.
      if (isShortage(cause)) stop.abort()
      return { status: null, error: codeOf(cause) }
    })
    watch.stop = undefined
    const now = clock.monotonic()
    watch.dueAt = now + this.#how.intervalMs * (1 + (random() * 2 - 1) * JITTER)
    if (this.#stopped) return
    if (this.#how.intervalMs > 0) this.#setTimer(now)
    if (stop.signal.aborted) return
    const tookMs = Math.round((now - since) * 10) / 10
    const healthy = error === null
    const streak = healthy ? Math.max(0, watch.streak) + 1 : Math.min(0, watch.streak) - 1
    const isNews = this.#found(instance, watch, { healthy, at: clock.now(), tookMs, status, error, by: node }, streak)
    this.#untold = true
    if (isNews) await this.#tell()
  }

  /** @returns whether that makes the instance another one than it was */
  #found(instance: Instance, watch: Watch, result: CheckResult, streak: number): boolean {
    const { healthyAfter, unhealthyAfter, intervalMs } = this.#how
    const isFirst = instance.lastCheck === undefined
    watch.streak = streak
    const decides = isFirst || (result.healthy ? streak >= healthyAfter : -streak >= unhealthyAfter)
    // Where nobody looks regularly, nobody would find out either that it is well again.
    return this.#service.checked(instance, result, decides && intervalMs > 0)
  }
}

function codeOf(error: unknown): string {
  const { name, code, message } = error as { name?: string; code?: string; message?: string }
  if (name === 'TimeoutError' || code === 'UND_ERR_CONNECT_TIMEOUT') return 'timeout'
  return code ?? message ?? 'failed'
}
