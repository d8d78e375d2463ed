/** How many pieces a window consists of; one of them goes at a time. */
const BUCKETS = 10
/** What is left of the long view's weight after each bucket: it remembers about 500 of them. */
const MEMORY = 0.998
/** The long view says something once it has seen this many times the least number of calls. */
const TRUSTED_FROM = 5
/** Buckets in a row, each with calls, that make a trend. */
const TREND_BUCKETS = 5
/** How well a line has to fit for it to be one (the coefficient of determination). */
const TREND_FIT = 0.8

/** Calls of the recent past, and what has become of them. Nothing is kept of the single call. */
export class CallWindow {
  calls = 0
  failures = 0
  slow = 0
  readonly #bucketMs: number
  readonly #calls = new Float64Array(BUCKETS)
  readonly #failures = new Float64Array(BUCKETS)
  readonly #slow = new Float64Array(BUCKETS)
  readonly #durations = new Float64Array(BUCKETS)
  /** The number of the present bucket since the beginning of time. */
  #bucket = Number.NEGATIVE_INFINITY
  #pastCalls = 0
  #pastFailures = 0

  /** @param windowMs how far back it looks, in milliseconds */
  constructor(windowMs: number) {
    this.#bucketMs = windowMs / BUCKETS
  }

  /**
   * Counts a call that has ended.
   * @param now monotonic milliseconds
   * @returns whether it is the first of its bucket: what is told from buckets may have changed
   */
  record(now: number, failed: boolean, slow: boolean, ms: number): boolean {
    const begun = this.forget(now)
    const i = this.#bucket % BUCKETS
    add(this.#calls, i, 1)
    add(this.#durations, i, ms)
    this.calls++
    if (failed) {
      add(this.#failures, i, 1)
      this.failures++
    }
    if (slow) {
      add(this.#slow, i, 1)
      this.slow++
    }
    return begun
  }

  /** Lets go of what is older than the window. @returns whether a new bucket has begun */
  forget(now: number): boolean {
    const bucket = Math.floor(now / this.#bucketMs)
    if (bucket === this.#bucket) return false
    const steps = Math.min(BUCKETS, bucket - this.#bucket)
    for (let step = 1; step <= steps; step++) this.#drop((bucket - steps + step + BUCKETS) % BUCKETS)
    this.#bucket = bucket
    return true
  }

  #drop(i: number): void {
    const calls = this.#calls[i] as number
    if (calls > 0) {
      this.#pastCalls = this.#pastCalls * MEMORY + calls
      this.#pastFailures = this.#pastFailures * MEMORY + (this.#failures[i] as number)
    }
    this.calls -= calls
    this.failures -= this.#failures[i] as number
    this.slow -= this.#slow[i] as number
    this.#calls[i] = this.#failures[i] = this.#slow[i] = this.#durations[i] = 0
  }

  /** Begins anew. What came before the window is still known; what is in it now is not added to that. */
  clear(): void {
    for (const list of [this.#calls, this.#failures, this.#slow, this.#durations]) list.fill(0)
    this.calls = this.failures = this.slow = 0
  }

  /**
   * The share of calls that have failed before this window, which is what is usual; undefined while too little is known.
   * @param minimumCalls from which a window says something
   */
  baseline(minimumCalls: number): number | undefined {
    return this.#pastCalls < minimumCalls * TRUSTED_FROM ? undefined : this.#pastFailures / this.#pastCalls
  }

  /**
   * What a measure will be if it goes on as in the last buckets, half a window from now: the mean duration in milliseconds, or
   * the share of calls that fail. Undefined unless it rises in something like a line.
   */
  forecast(of: 'duration' | 'failures'): number | undefined {
    const values: number[] = []
    // The present bucket has only begun.
    for (let back = TREND_BUCKETS; back >= 1; back--) {
      const i = (this.#bucket - back + BUCKETS) % BUCKETS
      const calls = this.#calls[i] as number
      if (!(calls > 0)) return undefined
      values.push((of === 'duration' ? (this.#durations[i] as number) : (this.#failures[i] as number)) / calls)
    }
    return extend(values, BUCKETS / 2)
  }
}

function add(list: Float64Array, i: number, amount: number): void {
  list[i] = (list[i] as number) + amount
}

/**
 * Puts a line through `values`, which are one apart (least squares).
 * @returns its value `ahead` after the last of them; undefined if it does not rise or does not fit
 */
function extend(values: readonly number[], ahead: number): number | undefined {
  const n = values.length
  const middle = (n - 1) / 2
  const mean = values.reduce((sum, value) => sum + value, 0) / n
  let xy = 0
  let xx = 0
  let yy = 0
  for (const [x, y] of values.entries()) {
    xy += (x - middle) * (y - mean)
    xx += (x - middle) ** 2
    yy += (y - mean) ** 2
  }
  if (xy <= 0 || xy ** 2 / (xx * yy) < TREND_FIT) return undefined
  return mean + (xy / xx) * (n - 1 - middle + ahead)
}
