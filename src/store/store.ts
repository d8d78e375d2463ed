import type { Limit } from '../limits/limit.ts'
import type { LabelledCounter } from '../telemetry/metrics.ts'

/** One limit that a request has to pass, and where it is counted. Made once and kept: stores look at it at every request. */
export interface LimitRequest {
  readonly limit: Limit
  /** Who or what is counted: `user:alice`, `ip:192.0.2.1`, `service:orders`, `global`. */
  readonly subject: string
  /** Which of the subject's counters: `user|60000s`. Another window or way to count is another counter. */
  readonly counter: string
  /** Both together; no two counters share one. */
  readonly key: string
}

/** @param what the limit it is: `user`, `route:/api/**`; see {@link Usage.name} */
export function limitRequest(limit: Limit, subject: string, what: string): LimitRequest {
  const counter = `${what}|${limit.windowMs}${limit.algorithm[0]}`
  return { limit, subject, counter, key: keyOf(subject, counter) }
}

/** What tells a subject's counter from all others. */
export function keyOf(subject: string, counter: string): string {
  return `${subject}\n${counter}`
}

/** The limit that a counter belongs to, from its name. */
export function nameOf(counter: string): string {
  return counter.slice(0, counter.lastIndexOf('|'))
}

/** How a shared store is to be used. The settings under `rate_limits` are such terms, and may change at every reload. */
export interface StoreTerms {
  /** What the keys of counters begin with. */
  readonly prefix: string
  /** Whether tokens of busy counters may be taken in batches. */
  readonly lease: boolean
  /** What happens while the store is out of reach. */
  readonly on_store_error: 'local' | 'allow' | 'deny'
}

/** What the limits of a request came to. Times are whole milliseconds, rounded up. */
export interface Decision {
  readonly allowed: boolean
  /**
   * The limit that denied the request for longest, or else the one with the smallest share left. Undefined when nobody could
   * be asked, and `on_store_error` has decided.
   */
  readonly tightest: Limit | undefined
  readonly remaining: number
  /** Until the tightest limit is whole again. */
  readonly resetMs: number
  /** Until one more request passes; 0 when it would now. */
  readonly retryMs: number
}

/** How a counter stands, for those who administer it (RLM-08, RLM-14). */
export interface Usage {
  /** `user`, `ip`, `global`, or `route:` and where the limit was written. */
  readonly name: string
  readonly algorithm: Limit['algorithm']
  /** As of the last request. */
  readonly limit: number
  readonly windowMs: number
  readonly used: number
  readonly remaining: number
  readonly resetMs: number
}

/**
 * Fast state that several gateways may share: counters, and values with a life. Atomic per call.
 *
 * Reads and writes reject with a {@link StoreUnreachable} while the store is out of reach; {@link Store.decide} does not,
 * since the caller says beforehand what is to happen then.
 */
export interface Store {
  readonly kind: 'memory' | 'redis'
  /** Decisions made without the store, by what was done instead. */
  readonly errors: LabelledCounter
  /** How far this machine's clock is ahead of the store's, in milliseconds, as far as is known (RLM-28). */
  readonly clockSkewMs: number

  /**
   * Counts a request against all of `requests` if every one of them lets it pass, and against none if one does not. The
   * answer comes at once when it is known here, so that most requests wait for nothing.
   */
  decide(requests: readonly LimitRequest[], terms: StoreTerms): Decision | Promise<Decision>
  /** What `subject` has used, under whatever limits; nothing is counted. */
  usage(subject: string, terms: StoreTerms): Promise<Usage[]>
  /** Forgets what `subject` has used. */
  reset(subject: string, terms: StoreTerms): Promise<void>

  get(key: string): Promise<string | undefined>
  /** @param ttlMs milliseconds until the value is gone. */
  set(key: string, value: string, ttlMs: number): Promise<void>
  /** Sets a value if there is none: of several who do so at once, one succeeds. @returns whether it was set */
  add(key: string, value: string, ttlMs: number): Promise<boolean>
  delete(key: string): Promise<void>

  /** Says how the store is. Rejects while it is out of reach. */
  check(): Promise<Record<string, unknown> | undefined>
  close(): Promise<void>
}

/** The store cannot be asked now. `code` is safe to show: it holds no address. */
export class StoreUnreachable extends Error {
  readonly code: string

  constructor(code: string) {
    super(`the store is out of reach (${code})`)
    this.code = code
  }
}
