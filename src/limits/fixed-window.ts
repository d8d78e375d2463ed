import type { Counter, Limit } from './limit.ts'

/** No more than `limit` requests in each window, windows being laid end to end from 1970 (so that a day is a UTC day). */
export class FixedWindow implements Counter {
  #limit: number
  readonly #windowMs: number
  #window = -1
  #used = 0

  constructor(limit: number, windowMs: number) {
    this.#limit = limit
    this.#windowMs = windowMs
  }

  configure(limit: Limit): void {
    this.#limit = limit.limit
  }

  /** Goes on from what was counted before a restart, in the window that there is at `now`. */
  restore(used: number, now: number): void {
    this.#window = Math.floor(now / this.#windowMs)
    this.#used = used
  }

  available(now: number): number {
    const window = Math.floor(now / this.#windowMs)
    // Only forward: a clock that is set back must not start a window anew.
    if (window > this.#window) {
      this.#window = window
      this.#used = 0
    }
    return Math.max(0, this.#limit - this.#used)
  }

  take(): void {
    this.#used++
  }

  used(): number {
    return this.#used
  }

  resetMs(now: number): number {
    return this.#used === 0 ? 0 : (this.#window + 1) * this.#windowMs - now
  }

  retryMs(now: number): number {
    return this.#used < this.#limit ? 0 : this.resetMs(now)
  }
}
