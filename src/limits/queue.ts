import type { Clock } from '../runtime/clock.ts'
import type { Decision, LimitRequest, Store, StoreTerms } from '../store/store.ts'
import type { RequestMetrics } from '../telemetry/metrics.ts'

/** Requests of all callers that wait for a limit, per queue: what they cost has to be bounded, whoever they are. */
const MOST_WAITING = 10_000
/** The clocks of two machines may be a little apart, and a timer early: a shade later is not asked twice. */
const SHADE_MS = 2

export interface QueueConfig {
  /** Requests of one caller that wait. */
  readonly most: number
  readonly maxWaitMs: number
}

/** A request that a limit has refused for now. */
export interface Waiting {
  /** The limit lets it pass, or refuses it for good since it cannot wait any longer. */
  settled(decision: Decision): void
  failed(error: Error): void
}

interface Place {
  readonly waiting: Waiting
  readonly since: number
  /** As far as is known; what it gets when it has waited for too long. */
  decision: Decision
}

/**
 * Requests that wait until their limit lets them pass (RLM-11). Those of one caller stand in line: the first one asks again
 * when the limit says that it would pass, and nobody else until then. Who would have to wait for longer than he may is
 * refused at once.
 */
export class LimitQueue {
  readonly #store: Store
  readonly #terms: StoreTerms
  readonly #clock: Clock
  readonly #config: QueueConfig
  readonly #metrics: RequestMetrics
  /** By the limits that a caller has to pass, which are the same object for as long as he is remembered. */
  readonly #lines = new Map<readonly LimitRequest[], Line>()
  #waiting = 0

  constructor(
    config: QueueConfig,
    { store, clock, metrics, terms }: { store: Store; clock: Clock; metrics: RequestMetrics; terms: StoreTerms }
  ) {
    this.#config = config
    this.#store = store
    this.#terms = terms
    this.#clock = clock
    this.#metrics = metrics
  }

  /** Whether others wait for the same limits already, whom nobody may overtake. */
  has(requests: readonly LimitRequest[]): boolean {
    return this.#lines.size > 0 && this.#lines.has(requests)
  }

  /**
   * Lets `waiting` wait, if there is a point in it and room. `settled` is called later, unless the returned function is.
   * @param decision the refusal; undefined for one who has not been asked since others wait already
   * @returns what gives the place up; undefined when there is none
   */
  join(requests: readonly LimitRequest[], decision: Decision | undefined, waiting: Waiting): (() => void) | undefined {
    let line = this.#lines.get(requests)
    const refusal = decision ?? line?.refusal
    if (refusal === undefined || refusal.tightest === undefined) return undefined
    const length = line?.places.length ?? 0
    if (length >= this.#config.most || this.#waiting >= MOST_WAITING) return undefined
    if (refusal.retryMs > this.#config.maxWaitMs) return undefined
    if (line === undefined) {
      line = { requests, refusal, places: [], timer: undefined }
      this.#lines.set(requests, line)
      this.#askAgain(line, refusal.retryMs)
    }
    const place = { waiting, since: this.#clock.monotonic(), decision: refusal }
    line.places.push(place)
    this.#count(1)
    return () => this.#leave(line, place)
  }

  /** The refusal that those get who cannot wait behind others. */
  refusalFor(requests: readonly LimitRequest[]): Decision | undefined {
    return this.#lines.get(requests)?.refusal
  }

  #askAgain(line: Line, inMs: number): void {
    line.timer = setTimeout(() => this.#ask(line), inMs + SHADE_MS)
  }

  #ask(line: Line): void {
    line.timer = undefined
    try {
      const decision = this.#store.decide(line.requests, this.#terms)
      if (decision instanceof Promise)
        decision.then(
          late => this.#answered(line, late),
          error => this.#fail(line, error as Error)
        )
      else this.#answered(line, decision)
    } catch (error) {
      this.#fail(line, error as Error)
    }
  }

  #answered(line: Line, decision: Decision): void {
    line.refusal = decision.allowed ? line.refusal : decision
    const now = this.#clock.monotonic()
    if (decision.allowed) {
      const [first] = line.places
      // Who has gone meanwhile has been counted all the same; he had asked.
      if (first !== undefined) {
        this.#take(line, first, now)
        first.waiting.settled(decision)
      }
      if (line.places.length > 0) this.#ask(line)
      return this.#closeIfEmpty(line)
    }
    for (const place of [...line.places]) {
      const left = this.#config.maxWaitMs - (now - place.since)
      if (decision.retryMs <= left) break
      this.#take(line, place, now)
      place.waiting.settled(decision)
    }
    if (line.places.length > 0 && line.timer === undefined) this.#askAgain(line, decision.retryMs)
    this.#closeIfEmpty(line)
  }

  #fail(line: Line, error: Error): void {
    for (const place of [...line.places]) {
      this.#take(line, place, this.#clock.monotonic())
      place.waiting.failed(error)
    }
    this.#closeIfEmpty(line)
  }

  #leave(line: Line, place: Place): void {
    if (!line.places.includes(place)) return
    this.#take(line, place, this.#clock.monotonic())
    this.#closeIfEmpty(line)
  }

  #take(line: Line, place: Place, now: number): void {
    line.places.splice(line.places.indexOf(place), 1)
    this.#metrics.limitWaits.observe((now - place.since) / 1000)
    this.#count(-1)
  }

  #closeIfEmpty(line: Line): void {
    if (line.places.length > 0) return
    clearTimeout(line.timer)
    line.timer = undefined
    if (this.#lines.get(line.requests) === line) this.#lines.delete(line.requests)
  }

  #count(change: 1 | -1): void {
    this.#waiting += change
    this.#metrics.limitsWaiting += change
  }
}

/** Those who wait for the same limits, the first one first. */
interface Line {
  readonly requests: readonly LimitRequest[]
  /** What the limits said last. */
  refusal: Decision
  readonly places: Place[]
  timer: NodeJS.Timeout | undefined
}
