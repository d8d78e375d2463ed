import { capacityOf, type Limit } from '../limits/limit.ts'
import type { Decision, LimitRequest } from './store.ts'

/** How long a node may hold tokens, in milliseconds; less when their window or segment ends before that. */
const LEASE_MS = 1000
/** Requests a second from which a counter is worth a lease. */
const HOT = 8
/** How long a node answers by itself that a busy counter is used up, in milliseconds. */
const DENIAL_MS = 250

/** Tokens to give back, as the script wants to be told of them. */
export interface Leftover {
  readonly redisKey: string
  readonly lease: string
}

/**
 * What a node knows of one counter in the shared store: how busy it is, and what of it the node may decide by itself. Tokens
 * are held until they are spent or their time is over, and have been counted when they were taken: whatever becomes of the
 * node, the limit holds. Times are monotonic milliseconds.
 */
export class SharedCounter {
  readonly subject: string
  readonly key: string
  readonly redisKey: string
  readonly #counter: string
  #limit: Limit
  #capacity: number
  #definition: string
  /** Where it stands in the last script that was run. */
  batch = 0
  index = 0
  /** Tokens held, what else was left when they were taken, until when they hold, and which period they belong to. */
  #tokens = 0
  #left = 0
  #until = 0
  #period = 0
  #resetAt = 0
  #asking = false
  #deniedUntil = 0
  #retryAt = 0
  #since = 0
  #count = 0
  #before = 0

  constructor({ limit, subject, counter, key }: LimitRequest, prefix: string) {
    this.subject = subject
    this.key = key
    this.redisKey = prefix + subject
    this.#counter = counter
    this.#limit = limit
    this.#capacity = capacityOf(limit)
    this.#definition = this.#define(0)
  }

  get limit(): Limit {
    return this.#limit
  }

  /** Whether `limit` is another one, and not only another object. */
  differsFrom({ limit, burst }: Limit): boolean {
    return limit !== this.#limit.limit || burst !== this.#limit.burst
  }

  /** A new configuration of the same limit holds at once: what is held was measured by the old one. */
  configure(limit: Limit): void {
    this.#limit = limit
    this.#capacity = capacityOf(limit)
    this.#definition = this.#define(0)
    this.#until = 0
    this.#deniedUntil = 0
  }

  /** Counts a request, wherever it is going to be decided, to tell busy counters from others. */
  note(now: number): void {
    const passed = now - this.#since
    if (passed >= 1000) {
      this.#before = passed < 2000 ? this.#count : 0
      this.#count = 0
      this.#since = now
    }
    this.#count++
  }

  /** Whether a token is at hand. */
  covers(now: number): boolean {
    return this.#tokens > 0 && now < this.#until
  }

  /** Whether it is known here that there is nothing left. */
  denies(now: number): boolean {
    return now < this.#deniedUntil
  }

  /** Spends a token. @returns the period it belongs to, for {@link refund} */
  spend(): number {
    this.#tokens--
    return this.#period
  }

  /** A token that was not needed after all; if its lease is over, it goes back with the rest of that. */
  refund(period: number): void {
    if (period === this.#period) this.#tokens++
  }

  /** Requests that would still pass, as far as is known here. */
  get remaining(): number {
    return this.#left + this.#tokens
  }

  get capacity(): number {
    return this.#capacity
  }

  /** The counter's definition, as the script reads it; asks for a lease when that is worth it. */
  ask(now: number, mayLease: boolean): string {
    const busy = Math.max(this.#before, this.#count)
    if (!mayLease || this.#asking || busy < HOT || this.covers(now)) return this.#definition
    this.#asking = true
    return this.#define(busy)
  }

  #define(wanted: number): string {
    const { algorithm, limit, windowMs, burst } = this.#limit
    return JSON.stringify([algorithm[0], limit, windowMs, burst, this.#counter, wanted])
  }

  /** No answer has come to {@link ask}. */
  unanswered(): void {
    this.#asking = false
  }

  /**
   * @param left what remains in the store besides
   * @param endsMs how long the period lasted when the store answered
   * @param sentAt when it was asked, so that the lease is over here no later than there
   * @returns what was held until now, if it belongs to another period and so has to go back
   */
  grant(tokens: number, left: number, endsMs: number, period: number, sentAt: number): Leftover | undefined {
    this.#asking = false
    if (tokens === 0) return undefined
    const over = period === this.#period ? undefined : this.end()
    this.#tokens += tokens
    this.#left = left
    this.#period = period
    this.#until = sentAt + Math.min(endsMs, LEASE_MS)
    this.#resetAt = this.#limit.algorithm === 'sliding_window' ? this.#until + this.#limit.windowMs : sentAt + endsMs
    return over
  }

  /** The store has refused a request on account of this counter; a busy one is not asked again at once. */
  refused({ resetMs, retryMs }: Decision, sentAt: number): void {
    if (Math.max(this.#before, this.#count) < HOT) return
    this.#deniedUntil = sentAt + Math.min(retryMs, DENIAL_MS)
    this.#retryAt = sentAt + retryMs
    this.#resetAt = sentAt + resetMs
  }

  /** Whether what is held can be spent no more. */
  isOver(now: number): boolean {
    return now >= this.#until
  }

  /** Ends the lease. @returns what has not been spent, if anything */
  end(): Leftover | undefined {
    const tokens = this.#tokens
    if (tokens === 0) return undefined
    this.#tokens = 0
    const { algorithm, windowMs } = this.#limit
    const lease = JSON.stringify([algorithm[0], windowMs, this.#counter, this.#period, tokens])
    return { redisKey: this.redisKey, lease }
  }

  /** Forgets what is held, without giving it back: the counter is gone. */
  forget(): void {
    this.#tokens = 0
    this.#until = 0
    this.#deniedUntil = 0
  }

  /** The decision on a request that this counter let pass with a token at hand. */
  passed(now: number): Decision {
    const { algorithm, limit, windowMs } = this.#limit
    const remaining = this.remaining
    const resetMs =
      algorithm === 'token_bucket' ? ((this.#capacity - remaining) * windowMs) / limit : this.#resetAt - now
    return { allowed: true, tightest: this.#limit, remaining, resetMs: Math.max(0, Math.ceil(resetMs)), retryMs: 0 }
  }

  /** The decision on a request that {@link denies} stops. */
  stopped(now: number): Decision {
    return {
      allowed: false,
      tightest: this.#limit,
      remaining: 0,
      resetMs: Math.max(0, Math.ceil(this.#resetAt - now)),
      retryMs: Math.max(0, Math.ceil(this.#retryAt - now))
    }
  }
}
