import type { Consumer } from '../identity/consumer.ts'
import type { Exchange } from '../proxy/exchange.ts'
import { apiKeyOf, endpointOf, storable, userOf } from './caller.ts'
import { bucketOf, LATENCY_BUCKETS } from './latency.ts'

export const MINUTE = 60_000
export const HOUR = 60 * MINUTE
/** Most series of a minute; what is beyond is counted without saying of whom, and from twice as many on without saying of what. */
const MOST_SERIES = 500
/** Most series that wait for a database that is away … */
const MOST_WAITING = 10 * MOST_SERIES
/** … and for how long, in milliseconds. No hour is closed while a minute of it may still come. */
export const LONGEST_WAIT = 60 * MINUTE

/** What stands in a report for callers, endpoints and services of which there were too many. */
const OTHER = '(other)'

/** From when on there are minutes, if they are kept for `keptMs`; all in milliseconds. */
export function oldestMinute(keptMs: number, now: number): number {
  return now - (now % HOUR) - keptMs
}

/** Requests of one caller to one endpoint with one status, within a minute. */
export class Series {
  readonly at: number
  readonly node: string
  readonly service: string
  readonly endpoint: string
  readonly userId: string
  readonly apiKeyId: string
  readonly status: number
  requests = 0
  bytesIn = 0
  bytesOut = 0
  durationMs = 0
  readonly latencies = new Uint32Array(LATENCY_BUCKETS)
  /** As many of the requests as the database knows of. */
  saved = 0

  constructor(minute: Minute, service: string, endpoint: string, userId: string, apiKeyId: string, status: number) {
    this.at = minute.at
    this.node = minute.node
    this.service = service
    this.endpoint = endpoint
    this.userId = userId
    this.apiKeyId = apiKeyId
    this.status = status
  }

  add({ bytesIn, bytesOut, durationMs, tunnelled }: Exchange): void {
    this.requests++
    this.bytesIn += bytesIn
    this.bytesOut += bytesOut
    this.durationMs += durationMs
    // How long a WebSocket was open says nothing of how fast anybody answers.
    if (tunnelled) return
    const bucket = bucketOf(durationMs)
    this.latencies[bucket] = (this.latencies[bucket] as number) + 1
  }
}

/** What happened in one minute. */
class Minute {
  readonly at: number
  /** Which rows of the database are this gateway's. */
  readonly node: string
  readonly series: Series[] = []
  /** Service, endpoint, caller, status: looked up by strings that are there anyway, so that counting makes nothing. */
  readonly #tree = new Map<string, Map<string, Map<string, Map<number, Series>>>>()
  readonly #byName = new Map<string, Series>()

  constructor(at: number, node: string) {
    this.at = at
    this.node = node
  }

  count(exchange: Exchange, status: number): void {
    const service = (exchange.target ?? exchange.route?.target)?.series.service ?? ''
    const endpoint = endpointOf(exchange)
    const { consumer } = exchange
    const caller = consumer === undefined ? '' : consumer.key
    const series = this.#find(service, endpoint, caller, status) ?? this.#place(service, endpoint, consumer, status)
    series.add(exchange)
  }

  #find(service: string, endpoint: string, caller: string, status: number): Series | undefined {
    return this.#tree.get(service)?.get(endpoint)?.get(caller)?.get(status)
  }

  /** A new series, as long as there is room; callers make it scarce first, so they are the first to lose their names. */
  #place(service: string, endpoint: string, consumer: Consumer | undefined, status: number): Series {
    if (this.series.length < MOST_SERIES)
      return this.#add(service, endpoint, consumer?.key ?? '', status, userOf(consumer), apiKeyOf(consumer))
    const known = this.#find(service, endpoint, OTHER, status)
    if (known !== undefined) return known
    if (this.series.length < 2 * MOST_SERIES) return this.#add(service, endpoint, OTHER, status, OTHER, OTHER)
    return this.#find(OTHER, OTHER, OTHER, status) ?? this.#add(OTHER, OTHER, OTHER, status, OTHER, OTHER)
  }

  #add(service: string, endpoint: string, caller: string, status: number, userId: string, apiKeyId: string): Series {
    const names = [storable(service), storable(endpoint, 1024), userId, apiKeyId, status] as const
    // Two callers may have one name once it has been made storable; the database has one row for both.
    const name = JSON.stringify(names)
    let series = this.#byName.get(name)
    if (series === undefined) {
      series = new Series(this, ...names)
      this.#byName.set(name, series)
      this.series.push(series)
    }
    const endpoints = held(this.#tree, service, () => new Map<string, Map<string, Map<number, Series>>>())
    const callers = held(endpoints, endpoint, () => new Map<string, Map<number, Series>>())
    held(callers, caller, () => new Map<number, Series>()).set(status, series)
    return series
  }
}

function held<V>(map: Map<string, V>, key: string, make: () => V): V {
  let value = map.get(key)
  if (value === undefined) {
    value = make()
    map.set(key, value)
  }
  return value
}

/** What happened in this minute, and in those that the database does not know all of yet. */
export class Minutes {
  readonly #node: string
  /** Oldest first; the last is the one that is being counted in. */
  readonly #minutes: Minute[] = []
  #current = new Minute(0, '')
  /** How often the clock was set back. */
  #rewinds = 0

  /** @param node the process; no other has ever been called so */
  constructor(node: string) {
    this.#node = node
  }

  /** @returns requests that had to be forgotten, which is 0 unless the database has been away for long */
  count(exchange: Exchange, status: number, now: number): number {
    const sinceMinute = now - this.#current.at
    const forgotten = sinceMinute >= 0 && sinceMinute < MINUTE ? 0 : this.#begin(now - (now % MINUTE))
    this.#current.count(exchange, status)
    return forgotten
  }

  #begin(at: number): number {
    // Rows are written over with what is known here: minutes that come again are counted in rows of their own.
    if (at < this.#current.at) this.#rewinds++
    this.#current = new Minute(at, this.#rewinds === 0 ? this.#node : `${this.#node}.${this.#rewinds}`)
    this.#minutes.push(this.#current)
    let waiting = 0
    for (const { series } of this.#minutes) waiting += series.length
    let forgotten = 0
    while (waiting > MOST_WAITING || at - (this.#minutes[0] as Minute).at > LONGEST_WAIT) {
      const { series } = this.#minutes.shift() as Minute
      waiting -= series.length
      for (const { requests, saved } of series) forgotten += requests - saved
    }
    return forgotten
  }

  /** What the database does not know yet. */
  unsaved(): Series[] {
    return this.#minutes.flatMap(({ series }) => series.filter(({ requests, saved }) => requests > saved))
  }

  /** Lets go of minutes that are over and known to the database. */
  tidy(): void {
    const waiting = this.#minutes.filter(
      minute => minute === this.#current || minute.series.some(({ requests, saved }) => requests > saved)
    )
    this.#minutes.splice(0, this.#minutes.length, ...waiting)
  }
}
