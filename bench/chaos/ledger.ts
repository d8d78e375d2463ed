import type { Done, Kind, Outcome } from './load.ts'
import type { Deliveries } from './service.ts'
import type { Excuse, Outages, Weather } from './weather.ts'

const SAMPLES = 25
/** Their outcome is not the gateway's to answer for. */
const NOT_COUNTED: ReadonlySet<Kind> = new Set(['leaver'])

/** How the requests to one service went that had to succeed. */
interface Share {
  counted: number
  failed: number
}

/** Keeps account of every request, and says what the whole came to. */
export class Ledger {
  readonly #weather: ReadonlyMap<string, Weather>
  readonly #deliveries: Deliveries
  readonly #redis: Outages
  readonly #reasonOf: (nonce: string) => string
  readonly #since = performance.now()
  readonly outcomes = new Map<Outcome, number>()
  readonly excused = new Map<Excuse, number>()
  readonly services = new Map<string, Share>()
  /** Failures that count, by outcome and reason. */
  readonly failures = new Map<string, number>()
  readonly samples: string[] = []
  readonly wrong: string[] = []
  readonly latencies: number[] = []
  total = 0
  /** Wrong answers count from the first request on; failures when the process is warm. */
  isWarm = false

  constructor(
    weather: ReadonlyMap<string, Weather>,
    deliveries: Deliveries,
    redis: Outages,
    reasonOf: (nonce: string) => string
  ) {
    this.#weather = weather
    this.#deliveries = deliveries
    this.#redis = redis
    this.#reasonOf = reasonOf
  }

  add(done: Done): void {
    const { kind, service, outcome, from, to } = done
    this.total++
    count(this.outcomes, outcome)
    // What is done once cannot be promised then, and whoever is let in twice has lost his key with the server.
    if (kind === 'keyed' && this.#redis.touches(from, to)) {
      this.#deliveries.delete(done.nonce)
      return count(this.excused, 'redis')
    }
    if (outcome === 'wrong') this.wrong.push(`${done.nonce} to ${service}: ${done.details}`)
    if (NOT_COUNTED.has(kind)) return
    const excuse = this.isWarm ? (this.#weather.get(service) as Weather).excuse(from, to) : 'warm-up'
    if (excuse !== undefined) return count(this.excused, excuse)
    const share = this.services.get(service) ?? { counted: 0, failed: 0 }
    this.services.set(service, share)
    share.counted++
    if (outcome === 'right') {
      if (kind === 'get') this.latencies.push(to - from)
      return
    }
    share.failed++
    // The gateway's line comes a little later than its answer.
    setTimeout(() => this.#explain(done), 500)
  }

  /** The share of requests that succeeded of those that had to; undefined for none. */
  availability(service?: string): number | undefined {
    const shares = service === undefined ? [...this.services.values()] : [this.services.get(service)]
    const counted = shares.reduce((sum, share) => sum + (share?.counted ?? 0), 0)
    const failed = shares.reduce((sum, share) => sum + (share?.failed ?? 0), 0)
    return counted === 0 ? undefined : 1 - failed / counted
  }

  get counted(): number {
    return [...this.services.values()].reduce((sum, { counted }) => sum + counted, 0)
  }

  get failed(): number {
    return [...this.services.values()].reduce((sum, { failed }) => sum + failed, 0)
  }

  /** Requests that must not be repeated, and came to a service more than once. */
  get twice(): string[] {
    return [...this.#deliveries].filter(([, times]) => times > 1).map(([nonce, times]) => `${nonce}: ${times} times`)
  }

  get once(): number {
    return this.#deliveries.size
  }

  #explain({ kind, service, nonce, from, to, outcome, details }: Done): void {
    const reason = this.#reasonOf(nonce) || details
    count(this.failures, `${kind}: ${outcome} ${reason.slice(0, 90)}`)
    const at = ((from - this.#since) / 1000).toFixed(1)
    if (this.samples.length < SAMPLES)
      this.samples.push(`${at} s  ${nonce} to ${service}: ${outcome} after ${(to - from).toFixed(0)} ms, ${reason}`)
  }
}

function count<K>(counts: Map<K, number>, key: K): void {
  counts.set(key, (counts.get(key) ?? 0) + 1)
}
