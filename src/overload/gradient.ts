/** A window ends when it is this old and has this many samples: enough that its median means something. In milliseconds. */
const WINDOW_MS = 100
const LEAST_SAMPLES = 20
const MOST_SAMPLES = 200
/** How much slower than at its best a service may be before it is asked for less at once. */
const TOLERANCE = 1.5
/** The most that one window takes away: half the limit, and of that this part. What it gives, it gives at once. */
const SMOOTHING = 0.3
const LEAST_GRADIENT = 0.5
/** How fast the best is believed to have become better. */
const LEARNING = 0.2
/** When so much less at once has made it no faster than this, it is not our doing that it is slow. */
const LESS_AT_ONCE = 0.75
const NO_FASTER = 0.9

export interface GradientConfig {
  readonly min: number
  readonly max: number
}

/**
 * How many requests something takes at once without becoming slower, found out from how long it takes (the gradient of
 * Netflix' concurrency-limits and Envoy's adaptive concurrency): the limit is what it was, times how much slower the median
 * is than at best, plus room to try a little more (its square root). If it stays as slow with less at once, then that is
 * what it takes now, and the new best.
 */
export class Gradient {
  readonly #min: number
  readonly #max: number
  readonly #samples: number[] = []
  #since: number | undefined
  /** Most requests at once in this window. */
  #peak = 0
  #limit: number
  /** The median at its best, in milliseconds. */
  #best: number | undefined
  #median = 0
  /** Where it was slowest since it began to be too slow. */
  #from: { readonly limit: number; readonly median: number } | undefined

  constructor({ min, max }: GradientConfig) {
    this.#min = min
    this.#max = Math.max(min, max)
    this.#limit = Math.min(this.#max, Math.max(min, 20))
  }

  /** Requests at once, a whole number. */
  get limit(): number {
    return Math.floor(this.#limit)
  }

  /**
   * A request has been answered.
   * @param ms how long that took
   * @param inside requests at once, this one included
   * @param now monotonic, in milliseconds
   * @returns whether the limit may be another one now
   */
  observe(ms: number, inside: number, now: number): boolean {
    this.#since ??= now
    if (inside > this.#peak) this.#peak = inside
    if (this.#samples.length < MOST_SAMPLES) this.#samples.push(ms)
    if (now - this.#since < WINDOW_MS || this.#samples.length < LEAST_SAMPLES) return false
    const median = medianOf(this.#samples)
    const peak = this.#peak
    this.#samples.length = this.#peak = 0
    this.#since = now
    this.#update(median, peak)
    return true
  }

  #update(latest: number, peak: number): void {
    const median = this.#best === undefined ? latest : (this.#median + latest) / 2
    this.#median = median
    if (this.#best === undefined) this.#best = median
    else if (median < this.#best) this.#best += (median - this.#best) * LEARNING
    // Nobody knows what it would take: it has not been asked.
    if (peak < this.#limit / 2) return
    this.#reconsiderBest(median)
    const gradient = Math.min(1, Math.max(LEAST_GRADIENT, (TOLERANCE * this.#best) / median))
    const change = gradient * this.#limit + Math.sqrt(this.#limit) - this.#limit
    this.#limit = Math.min(this.#max, Math.max(this.#min, this.#limit + (change > 0 ? change : change * SMOOTHING)))
  }

  #reconsiderBest(median: number): void {
    if (median <= TOLERANCE * (this.#best as number)) {
      this.#from = undefined
      return
    }
    if (this.#from === undefined || median > this.#from.median) this.#from = { limit: this.#limit, median }
    if (this.#limit > Math.max(this.#min, this.#from.limit * LESS_AT_ONCE)) return
    if (median >= this.#from.median * NO_FASTER) this.#best = median
    this.#from = undefined
  }
}

function medianOf(samples: readonly number[]): number {
  const sorted = Float64Array.from(samples).sort()
  return sorted[sorted.length >> 1] as number
}
