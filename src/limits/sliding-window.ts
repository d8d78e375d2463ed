import type { Counter, Limit } from './limit.ts'

/** Parts that a window is counted in. */
const SEGMENTS = 16

/**
 * No more than `limit` requests in any stretch of `windowMs`, wherever it begins. Requests are counted in sixteenths of the
 * window, and those of a sixteenth are freed together, when the last of them is as old as the window; so a request is freed
 * up to 1/16 of the window late, and the limit is never exceeded. (The usual estimate from two windows lets through up to
 * twice the limit.)
 */
export class SlidingWindow implements Counter {
  #limit: number
  readonly #windowMs: number
  readonly #segmentMs: number
  /** Ring of the current segment and the sixteen before it: how many requests, and when the last of them came. */
  readonly #counts = new Array<number>(SEGMENTS + 1).fill(0)
  readonly #lasts = new Array<number>(SEGMENTS + 1).fill(0)
  #segment = 0
  #total = 0

  constructor(limit: number, windowMs: number) {
    this.#limit = limit
    this.#windowMs = windowMs
    this.#segmentMs = windowMs / SEGMENTS
  }

  configure(limit: Limit): void {
    this.#limit = limit.limit
  }

  available(now: number): number {
    const segment = Math.floor(now / this.#segmentMs)
    const passed = segment - this.#segment
    if (passed > 0) {
      for (let i = 1; i <= Math.min(passed, SEGMENTS + 1); i++) this.#forget((this.#segment + i) % (SEGMENTS + 1))
      this.#segment = segment
    }
    const oldest = (this.#segment + 1) % (SEGMENTS + 1)
    if ((this.#counts[oldest] as number) > 0 && this.#freedMs(oldest, now) <= 0) this.#forget(oldest)
    return Math.max(0, this.#limit - this.#total)
  }

  #forget(slot: number): void {
    this.#total -= this.#counts[slot] as number
    this.#counts[slot] = 0
  }

  take(now: number): void {
    const slot = this.#segment % (SEGMENTS + 1)
    this.#counts[slot] = (this.#counts[slot] as number) + 1
    this.#lasts[slot] = now
    this.#total++
  }

  used(): number {
    return this.#total
  }

  resetMs(now: number): number {
    return this.#untilFreed(this.#total, now)
  }

  retryMs(now: number): number {
    return this.#total < this.#limit ? 0 : this.#untilFreed(this.#total - this.#limit + 1, now)
  }

  /** Until the requests of a slot are out of the window. */
  #freedMs(slot: number, now: number): number {
    return (this.#lasts[slot] as number) + this.#windowMs - now
  }

  /** Until `requests` of the oldest ones are. */
  #untilFreed(requests: number, now: number): number {
    let freed = 0
    for (let i = 1; i <= SEGMENTS + 1 && requests > 0; i++) {
      const slot = (this.#segment + i) % (SEGMENTS + 1)
      freed += this.#counts[slot] as number
      if (freed >= requests) return this.#freedMs(slot, now)
    }
    return 0
  }
}
