/** How requests are counted against a limit (contract C-04). */
export type Algorithm = 'token_bucket' | 'sliding_window' | 'fixed_window'

/** So many requests in so much time. */
export interface Limit {
  /** What it is called in headers, logs and metrics: `user`, `service`, `global`. */
  readonly name: string
  readonly algorithm: Algorithm
  /** Requests per window, a whole number. For token buckets: tokens that come back per window, which may be a fraction. */
  readonly limit: number
  readonly windowMs: number
  /** Token buckets: how many tokens fit in. Counters only report it (C-06). */
  readonly burst: number
}

/** The most requests that a limit lets through at once. */
export function capacityOf(limit: Limit): number {
  return limit.algorithm === 'token_bucket' ? limit.burst : limit.limit
}

/** A counter of one algorithm. All three are asked in the same two steps, so that several are decided as one. */
export interface Counter {
  /** A new configuration of the same limit: what was counted stays counted. */
  configure(limit: Limit): void
  /** Requests that would pass at `now`. */
  available(now: number): number
  /** Counts one request; only after {@link available}, at the same `now`. */
  take(now: number): void
  /** Requests counted; after {@link available}, at the same `now`. */
  used(now: number): number
  /** Until the counter is as if nothing had happened, in milliseconds. */
  resetMs(now: number): number
  /** Until one request passes again, in milliseconds. */
  retryMs(now: number): number
}
