import type { Clock } from '../runtime/clock.ts'

/** When a failed try is made again. */
export interface RetryPolicy {
  /** Tries after the first one. */
  readonly attempts: number
  /** The first pause, in milliseconds; it doubles from try to try, and a random part of it is waited. */
  readonly backoffMs: number
  readonly maxBackoffMs: number
  /** Methods that may be sent twice (RFC 9110 section 9.2.2). */
  readonly methods: ReadonlySet<string>
  /** What is worth another try. */
  readonly on: ReadonlySet<Failure>
  /** Retries that each request brings along for all of its service's. */
  readonly budget: number
}

/** How a try failed: no connection, the connection cut, no answer in time, or an answer with this status. */
export type Failure = 'connect' | 'reset' | 'timeout' | number

/** A try that failed before anything had gone to the client. */
export interface FailedTry {
  readonly failure: Failure
  readonly method: string
  /** Its service does it but once, however often it is sent. */
  readonly repeatable: boolean
  /** The request's body: at hand, still with the client to its last byte, or partly gone. */
  readonly body: 'whole' | 'untouched' | 'begun'
  /** Tries so far, this one included. */
  readonly tries: number
  /** There is another instance that is not known to be down. */
  readonly hasOther: boolean
  /** The service closed a kept connection just as it was used again (RFC 9112 section 9.3.1). */
  readonly stale: boolean
}

/**
 * What follows a failed try: another instance at once, a new connection at once, another try after a pause and if the
 * budget allows it, or the failure as the answer.
 */
export type NextStep = 'other' | 'afresh' | 'again' | 'give'

/** Decides what follows a failed try. */
export function afterFailure(policy: RetryPolicy, failed: FailedTry): NextStep {
  const { failure, method, repeatable, body, tries, hasOther, stale } = failed
  // Without a connection nothing was sent, so whatever the method somebody else may have it.
  const mayRepeat =
    failure === 'connect' ? body !== 'begun' : body === 'whole' && (repeatable || policy.methods.has(method))
  if (!mayRepeat) return 'give'
  if (failure === 'connect' && hasOther) return 'other'
  if (stale) return 'afresh'
  return policy.on.has(failure) && tries <= policy.attempts ? 'again' : 'give'
}

/** Methods whose repetition changes nothing (RFC 9110 section 9.2.2). */
export const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'])

/** Retries that a request brings along, unless its route says otherwise. */
export const BUDGET = 0.15
/** Retries that come back each second, so that a quiet service has some too. */
const PER_SECOND = 1
const MOST = 10

/**
 * Keeps retries to a share of a service's requests, so that its outage is not multiplied by its callers (H-93): about 15 %,
 * plus one a second.
 */
export class RetryBudget {
  readonly #clock: Clock
  #balance = MOST
  #at: number

  constructor(clock: Clock) {
    this.#clock = clock
    this.#at = clock.monotonic()
  }

  /** A request has come. @param share of a retry that it brings along */
  deposit(share: number): void {
    if (this.#balance < MOST) this.#balance += share
  }

  /** Whether a retry may be made; if so, it is paid for. */
  withdraw(): boolean {
    const now = this.#clock.monotonic()
    this.#balance = Math.min(MOST, this.#balance + ((now - this.#at) / 1000) * PER_SECOND)
    this.#at = now
    if (this.#balance < 1) return false
    this.#balance -= 1
    return true
  }
}

/** The pause before try `attempt` (1 is the first retry), in milliseconds: exponential with full jitter. */
export function backoff(policy: RetryPolicy, attempt: number, random: () => number): number {
  return Math.min(policy.maxBackoffMs, policy.backoffMs * 2 ** (attempt - 1)) * random()
}

/** `Retry-After` in milliseconds from now: seconds, or a date; 0 for what is neither. @param now milliseconds since 1970 */
export function retryAfterMs(value: string, now: number): number {
  if (/^\d+$/.test(value)) return Number(value) * 1000
  const date = Date.parse(value)
  return Number.isNaN(date) ? 0 : Math.max(0, date - now)
}
