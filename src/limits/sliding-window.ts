import type { Counter, Limit } from './limit.ts'

/** Parts that a window is counted in. */
export const SEGMENTS = 16

/**
 * No more than `limit` requests in any stretch of `windowMs`, wherever it begins. Requests are counted in sixteenths of the
 * window, and a sixteenth counts until all of it is out of the window; so a request is freed up to 1/16 of the window late,
 * and the limit is never exceeded. (The usual estimate from two windows lets through up to twice the limit.)
 */
export class SlidingWindow implements Counter {
  #limit: number
  readonly #segmentMs: number
  /** Ring of the current segment and the sixteen before it. */
  readonly #counts = new Array<number>(SEGMENTS + 1).fill(0)
  #segment = 0
  #total = 0

  constructor(limit: number, windowMs: number) {
    this.#limit = limit
    this.#segmentMs = windowMs / SEGMENTS
  }

  configure(limit: Limit): void {
    this.#limit = limit.limit
  }

  available(now: number): number {
    const segment = Math.floor(now / this.#segmentMs)
    const passed = segment - this.#segment
    if (passed > 0) {
      for (let i = 1; i <= Math.min(passed, SEGMENTS + 1); i++) {
        const slot = (this.#segment + i) % (SEGMENTS + 1)
        this.#total -= this.#counts[slot] as number
        this.#counts[slot] = 0
      }
      this.#segment = segment
    }
    return Math.max(0, this.#limit - this.#total)
  }

  take(): void {
    const slot = this.#segment % (SEGMENTS + 1)
    this.#counts[slot] = (this.#counts[slot] as number) + 1
    this.#total++
  }

  used(): number {
    return this.#total
  }

  resetMs(now: number): number {
    return this.#freedMs(now, this.#total)
  }

  retryMs(now: number): number {
    return this.#total < this.#limit ? 0 : this.#freedMs(now, this.#total - this.#limit + 1)
  }

  /** Until `requests` of the oldest ones are out of the window. */
  #freedMs(now: number, requests: number): number {
    let freed = 0
    for (let age = SEGMENTS; age >= 0 && requests > 0; age--) {
      const segment = this.#segment - age
      if (segment < 0) continue
      freed += this.#counts[segment % (SEGMENTS + 1)] as number
      if (freed >= requests) return (segment + SEGMENTS + 1) * this.#segmentMs - now
    }
    return 0
  }
}
