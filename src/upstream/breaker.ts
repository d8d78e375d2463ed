import type { Clock } from '../runtime/clock.ts'
import { CallWindow } from './call-window.ts'

/** As seed 003 has them (RES-01). */
export type BreakerState = 'closed' | 'open' | 'half_open'

/** When a breaker opens and how it closes again. Plain data, so that equal ones are told to be equal. */
export interface BreakerConfig {
  /** Failures in a row that open it; 0 for none. */
  readonly failureThreshold: number
  /** How long it stays open before it tries whether that is still right, in milliseconds. */
  readonly recoveryMs: number
  /** Probes in a row that have to succeed for it to close. */
  readonly successThreshold: number
  /** Answers that are failures; those below 500 never are (H-100). */
  readonly failureStatuses: readonly number[]
  /** How far back the shares of failures and slow calls look, in milliseconds. */
  readonly windowMs: number
  /** Calls in the window from which its shares say something. */
  readonly minimumCalls: number
  /** The share of failures from which it opens, up to 1; 0 for none. */
  readonly errorRate: number
  /** From how long on a call is slow, in milliseconds to the head of its answer; 0 for never. */
  readonly slowMs: number
  /** The share of slow calls from which it opens, up to 1. */
  readonly slowRate: number
  /** Once closed again, let a growing share of the calls through rather than all (RES-13). */
  readonly gradual: boolean
  /** Open at far more failures than are usual here (RES-10). */
  readonly adaptive: boolean
  /** Open when durations or failures are about to be too much (RES-11). */
  readonly predictive: boolean
}

/** What seed 003's `get_stats()` shows (RES-05): totals of this breaker's life. */
export interface BreakerStats {
  readonly state: BreakerState
  readonly failure_count: number
  readonly success_count: number
}

/** What a call needs to pass a breaker, and to tell it how things went; 0 is a refusal. */
export type Permit = number

/** Of a gradual recovery: each step lets one call of so many through. The n-th takes 2^n times the successes of a probe. */
const STEPS: readonly number[] = [10, 4, 2]
const RECOVERED = STEPS.length
const NOBODY = -1

/** Of an adaptive threshold: more than usual by at least this share, and by this many standard errors. */
const LEAST_RISE = 0.1
const STANDARD_ERRORS = 4
/** What opens it while nobody knows what is usual. */
const UNUSUAL = 0.5

/**
 * Keeps calls from a service that fails (RES-01). A closed one lets everything through and counts; an open one lets nothing
 * through until its time is over; a half-open one lets one call at a time try how things are. What a call came to counts only if
 * nothing has changed since it was let in.
 */
export class Breaker {
  readonly config: BreakerConfig
  readonly #clock: Clock
  readonly #onChange: (from: BreakerState) => void
  readonly #window: CallWindow | undefined
  readonly #failureStatuses: ReadonlySet<number>
  #state: BreakerState = 'closed'
  /** Why it is in this state, in words. */
  reason = ''
  /** Monotonic milliseconds. */
  changedAt: number
  failureCount = 0
  successCount = 0
  /** A person has opened it, and a person has to close it. */
  forced = false
  /** The permit of all calls while closed, and of the last probe while half-open. */
  #permit: Permit = 1
  #failuresInRow = 0
  #openUntil = 0
  /** When the probe that is out has gone, or {@link NOBODY}. */
  #probeAt = NOBODY
  /** It has the head of a good answer. */
  #probeIsWell = false
  /** In a row: of probes, or in the present step of a recovery. */
  #successes = 0
  #step = RECOVERED
  #stepSince = 0
  /** Calls since one was let through. */
  #refused = 0

  /** @param onChange told of every transition, after it */
  constructor(config: BreakerConfig, clock: Clock, onChange: (from: BreakerState) => void = () => {}) {
    this.config = config
    this.#clock = clock
    this.#onChange = onChange
    this.changedAt = clock.monotonic()
    this.#failureStatuses = new Set(config.failureStatuses)
    const { errorRate, slowMs, adaptive, windowMs } = config
    if (errorRate > 0 || slowMs > 0 || adaptive) this.#window = new CallWindow(windowMs)
  }

  get state(): BreakerState {
    return this.#state
  }

  getStats(): BreakerStats {
    return { state: this.#state, failure_count: this.failureCount, success_count: this.successCount }
  }

  /** Whether an answer of this status is a failure. */
  isFailure(status: number): boolean {
    return status >= 500 && this.#failureStatuses.has(status)
  }

  /**
   * Asks for a call. A permit that is not 0 has to be given back once, with {@link succeeded}, {@link failed} or {@link left}.
   */
  enter(): Permit {
    if (this.#state === 'closed' && this.#step === RECOVERED) return this.#permit
    const now = this.#clock.monotonic()
    if (this.#state === 'closed') return this.#admitShare(now)
    if (this.#state === 'open') {
      if (this.forced || now < this.#openUntil) return 0
      this.#become('half_open', 'recovery_timeout is over')
    }
    return this.#probe(now)
  }

  /** One probe at a time; one that is not heard of for as long as the breaker was open is not waited for any longer. */
  #probe(now: number): Permit {
    if (this.#probeAt !== NOBODY) {
      if (now - this.#probeAt < this.config.recoveryMs) return 0
      // Its answer has begun well and has no end, as that of a stream.
      if (this.#probeIsWell && this.#probeSucceeded()) return this.enter()
    }
    this.#probeAt = now
    this.#probeIsWell = false
    return ++this.#permit
  }

  #admitShare(now: number): Permit {
    if (now - this.#stepSince >= this.config.recoveryMs) this.#nextStep(now)
    if (this.#step === RECOVERED) return this.#permit
    this.#refused++
    if (this.#refused < (STEPS[this.#step] as number)) return 0
    this.#refused = 0
    return this.#permit
  }

  /** Of a hundred calls, how many it lets through while it recovers gradually; undefined at all other times. */
  get recoveringPercent(): number | undefined {
    const oneOf = STEPS[this.#step]
    return this.#state === 'closed' && oneOf !== undefined ? 100 / oneOf : undefined
  }

  /** Milliseconds until it is worth asking again. */
  get retryAfterMs(): number {
    return this.#state === 'open' ? Math.max(0, this.#openUntil - this.#clock.monotonic()) : 0
  }

  /** The head of a good answer has come; how it ends is not known yet. */
  answering(permit: Permit): void {
    if (this.#state === 'half_open' && permit === this.#permit) this.#probeIsWell = true
  }

  /** The call has come to a good end. @param ms to the head of its answer */
  succeeded(permit: Permit, ms: number): void {
    this.successCount++
    if (permit !== this.#permit) return
    if (this.#state === 'half_open') {
      this.#probeSucceeded()
      return
    }
    this.#failuresInRow = 0
    if (this.#step !== RECOVERED) this.#stepSucceeded()
    if (this.#window !== undefined) this.#count(this.#window, false, ms)
  }

  /** The call has failed. @param ms until it did, or to the head of its answer if that has come */
  failed(permit: Permit, ms: number): void {
    this.failureCount++
    if (permit !== this.#permit) return
    if (this.#state === 'half_open') return this.open('the probe has failed')
    this.#successes = 0
    this.#failuresInRow++
    const { failureThreshold } = this.config
    if (failureThreshold > 0 && this.#failuresInRow >= failureThreshold)
      return this.open(`${this.#failuresInRow} failures in a row`)
    if (this.#window !== undefined) this.#count(this.#window, true, ms)
  }

  /** The call has ended without a verdict: its client has gone. That it was slow until then is known all the same. */
  left(permit: Permit, ms: number): void {
    if (permit !== this.#permit) return
    if (this.#state === 'half_open') this.#probeAt = NOBODY
    else if (this.#window !== undefined && this.#isSlow(ms)) this.#count(this.#window, false, ms)
  }

  #isSlow(ms: number): boolean {
    const { slowMs } = this.config
    return slowMs > 0 && ms >= slowMs
  }

  /** @returns whether it is closed now */
  #probeSucceeded(): boolean {
    this.#probeAt = NOBODY
    this.#successes++
    const { successThreshold, gradual } = this.config
    if (this.#successes < successThreshold) return false
    this.#close(`${this.#successes} probes in a row have succeeded`, gradual ? 0 : RECOVERED)
    return true
  }

  #stepSucceeded(): void {
    this.#successes++
    if (this.#successes >= this.config.successThreshold * 2 ** (this.#step + 1)) this.#nextStep(this.#clock.monotonic())
  }

  /** Also after a while without an end to it, since a service that is hardly asked would not recover otherwise. */
  #nextStep(now: number): void {
    this.#step++
    this.#stepSince = now
    this.#successes = 0
  }

  #count(window: CallWindow, failed: boolean, ms: number): void {
    const slow = this.#isSlow(ms)
    const begun = window.record(this.#clock.monotonic(), failed, slow, ms)
    if (window.calls < this.config.minimumCalls) return
    const reason =
      (failed ? this.#tooManyFailures(window) : undefined) ??
      (slow ? this.#tooSlow(window) : undefined) ??
      (begun && this.config.predictive ? this.#soonTooMuch(window) : undefined)
    if (reason !== undefined) this.open(reason)
  }

  #tooManyFailures(window: CallWindow): string | undefined {
    const { errorRate, adaptive, minimumCalls } = this.config
    const { calls, failures } = window
    const rate = failures / calls
    const usual = adaptive ? window.baseline(minimumCalls) : undefined
    if (usual !== undefined) {
      const error = Math.sqrt((usual * (1 - usual)) / calls)
      if (rate <= usual + Math.max(LEAST_RISE, STANDARD_ERRORS * error)) return undefined
      return `${percent(rate)} of ${calls} calls have failed, where ${percent(usual)} is usual`
    }
    const most = errorRate > 0 ? errorRate : adaptive ? UNUSUAL : Number.POSITIVE_INFINITY
    return rate >= most ? `${percent(rate)} of ${calls} calls have failed` : undefined
  }

  #tooSlow({ calls, slow }: CallWindow): string | undefined {
    const rate = slow / calls
    return rate >= this.config.slowRate
      ? `${percent(rate)} of ${calls} calls took ${this.config.slowMs} ms or more`
      : undefined
  }

  #soonTooMuch(window: CallWindow): string | undefined {
    const { slowMs, errorRate } = this.config
    const duration = slowMs > 0 ? window.forecast('duration') : undefined
    if (duration !== undefined && duration >= slowMs) return `calls are about to take ${Math.round(duration)} ms`
    const failures = errorRate > 0 ? window.forecast('failures') : undefined
    if (failures !== undefined && failures >= errorRate) return `${percent(failures)} of the calls are about to fail`
    return undefined
  }

  /** Opens it, whatever it has counted. @param ms for how long, in milliseconds; as configured unless given */
  open(reason: string, ms: number = this.config.recoveryMs): void {
    this.#openUntil = Math.max(this.#openUntil, this.#clock.monotonic() + ms)
    this.#become('open', reason)
  }

  /** Lets it try at the next call whether it may close. */
  reconsider(): void {
    if (this.#state === 'open') this.#openUntil = this.#clock.monotonic()
  }

  /** Opens it until somebody closes it. */
  force(reason: string): void {
    this.forced = true
    this.open(reason)
  }

  /** Closes it and forgets what it has counted. */
  reset(reason: string): void {
    this.forced = false
    this.failureCount = this.successCount = 0
    this.#close(reason, RECOVERED)
  }

  #close(reason: string, step: number): void {
    this.#step = step
    this.#stepSince = this.#clock.monotonic()
    this.#refused = 0
    this.#become('closed', reason)
  }

  #become(state: BreakerState, reason: string): void {
    const from = this.#state
    this.#state = state
    this.reason = reason
    this.changedAt = this.#clock.monotonic()
    this.#permit++
    this.#probeAt = NOBODY
    this.#successes = 0
    this.#failuresInRow = 0
    this.#window?.clear()
    if (state !== from) this.#onChange(from)
  }
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`
}
