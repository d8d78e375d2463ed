import type { Clock } from './clock.ts'

/** How long work may hold the event loop at a stretch, in milliseconds. */
const STRETCH_MS = 8

/**
 * Long work, done in stretches so that requests are served in between: a configuration of a thousand routes takes longer to
 * read and to build than anybody should have to wait.
 *
 * @example
 * const stretches = new Stretches(clock)
 * for (const item of items) {
 *   work(item)
 *   if (stretches.isOver) await stretches.next()
 * }
 */
export class Stretches {
  readonly #clock: Clock
  #since: number

  constructor(clock: Clock) {
    this.#clock = clock
    this.#since = clock.monotonic()
  }

  get isOver(): boolean {
    return this.#clock.monotonic() - this.#since > STRETCH_MS
  }

  /** Lets everything else have its turn. */
  async next(): Promise<void> {
    await new Promise(resolve => setImmediate(resolve))
    this.#since = this.#clock.monotonic()
  }
}
