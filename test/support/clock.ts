import type { Clock } from '../../src/runtime/clock.ts'

/** Time that stands still until it is told to go on. */
export class FakeClock implements Clock {
  #now: number
  #monotonic = 1000

  constructor(now = Date.UTC(2026, 0, 1)) {
    this.#now = now
  }

  now(): number {
    return this.#now
  }

  monotonic(): number {
    return this.#monotonic
  }

  advance(ms: number): void {
    this.#now += ms
    this.#monotonic += ms
  }

  /** Somebody sets the wall clock. */
  set(now: number): void {
    this.#now = now
  }
}
