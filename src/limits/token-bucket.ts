import type { Counter, Limit } from './limit.ts'

/**
 * A bucket that starts full, loses a token per request and is refilled evenly (RLM-05).
 *
 * @example
 * const bucket = new TokenBucket(20, 100 / 60)
 * if (!bucket.consume()) throw new Error('too fast')
 */
export class TokenBucket implements Counter {
  capacity: number
  /** Tokens per second. */
  refillRate: number
  readonly #now: () => number
  /** Tokens at {@link #at}. More than fit in until the first is taken: a new bucket is full, however large it is made. */
  #tokens = Number.POSITIVE_INFINITY
  #at: number

  /** @param now milliseconds that only go forward. */
  constructor(capacity: number, refillRate: number, now: () => number = () => performance.now()) {
    this.capacity = capacity
    this.refillRate = refillRate
    this.#now = now
    this.#at = now()
  }

  /** Tokens in the bucket, a fraction included. */
  get tokens(): number {
    return this.#level(this.#now())
  }

  /** Takes `tokens` out if there are that many; says whether. */
  consume(tokens = 1): boolean {
    const now = this.#now()
    if (this.#level(now) < tokens) return false
    this.take(now, tokens)
    return true
  }

  configure(limit: Limit): void {
    this.capacity = limit.burst
    this.refillRate = limit.limit / (limit.windowMs / 1000)
  }

  /** Written down only when something is taken, so that looking changes nothing, not even a rounding. */
  #level(now: number): number {
    const passed = Math.max(0, now - this.#at)
    return Math.min(this.capacity, this.#tokens + (passed / 1000) * this.refillRate)
  }

  available(now: number): number {
    return Math.floor(this.#level(now))
  }

  take(now: number, tokens = 1): void {
    this.#tokens = this.#level(now) - tokens
    this.#at = Math.max(now, this.#at)
  }

  used(now: number): number {
    return this.capacity - this.available(now)
  }

  resetMs(now: number): number {
    return ((this.capacity - this.#level(now)) / this.refillRate) * 1000
  }

  retryMs(now: number): number {
    const level = this.#level(now)
    return level >= 1 ? 0 : ((1 - level) / this.refillRate) * 1000
  }
}
