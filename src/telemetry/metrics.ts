import { existsSync, statfsSync } from 'node:fs'

/**
 * What is counted per request. The registry of `fastify-metrics` renders these when somebody asks; while requests are
 * served, a series is an object at hand, never a look-up by labels.
 */

type Labels = Record<string, string>

export interface Sample {
  readonly value: number
  readonly labels: Labels
  readonly metricName?: string
}

/** A metric as a Prometheus registry takes it. */
export interface Family {
  readonly name: string
  readonly help: string
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly aggregator: 'sum'
  get(): Promise<{ name: string; help: string; type: string; values: Sample[] }>
  reset(): void
}

/** A metric whose samples are made when somebody asks. */
export function family(name: string, help: string, type: Family['type'], collect: () => Sample[]): Family {
  return {
    name,
    help,
    type,
    aggregator: 'sum',
    get: async () => ({ name, help, type, values: collect() }),
    reset: () => {}
  }
}

/** Upper bounds of the buckets, in seconds. */
export const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30] as const

/** Counts, sum and buckets of durations. */
export class Histogram {
  count = 0
  /** Seconds. */
  sum = 0
  readonly buckets = new Float64Array(BUCKETS.length)

  observe(seconds: number): void {
    this.count++
    this.sum += seconds
    for (let i = 0; i < BUCKETS.length; i++) {
      if (seconds <= (BUCKETS[i] as number)) {
        this.buckets[i] = (this.buckets[i] as number) + 1
        return
      }
    }
  }

  add(other: Histogram): void {
    this.count += other.count
    this.sum += other.sum
    for (let i = 0; i < BUCKETS.length; i++)
      this.buckets[i] = (this.buckets[i] as number) + (other.buckets[i] as number)
  }

  samples(name: string, labels: Labels): Sample[] {
    const samples: Sample[] = []
    let cumulative = 0
    for (let i = 0; i < BUCKETS.length; i++) {
      cumulative += this.buckets[i] as number
      samples.push({ metricName: `${name}_bucket`, labels: { ...labels, le: String(BUCKETS[i]) }, value: cumulative })
    }
    samples.push({ metricName: `${name}_bucket`, labels: { ...labels, le: '+Inf' }, value: this.count })
    samples.push(
      { metricName: `${name}_sum`, labels, value: this.sum },
      { metricName: `${name}_count`, labels, value: this.count }
    )
    return samples
  }
}

/** Requests of one method to one endpoint. */
export class EndpointSeries {
  readonly endpoint: string
  readonly method: string
  active = 0
  readonly #byStatus: (Histogram | undefined)[] = []

  constructor(endpoint: string, method: string) {
    this.endpoint = endpoint
    this.method = method
  }

  observe(status: number, seconds: number): void {
    const index = status - 100
    let histogram = this.#byStatus[index]
    if (histogram === undefined) {
      histogram = new Histogram()
      this.#byStatus[index] = histogram
    }
    histogram.observe(seconds)
  }

  statuses(): [status: string, histogram: Histogram][] {
    return this.#byStatus.flatMap((histogram, i) =>
      histogram === undefined ? [] : [[String(i + 100), histogram] as [string, Histogram]]
    )
  }
}

/** The label of requests that belong to no endpoint. */
export const UNKNOWN = '__unknown__'

/** Methods with a label of their own; the others share one, so that nobody can make up series (H-126). */
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])

/** Requests to one endpoint. */
export class Endpoint {
  readonly #name: string
  readonly #byMethod = new Map<string, EndpointSeries>()

  constructor(name: string) {
    this.#name = name
  }

  /** The series of a method; the same object every time. */
  of(method: string): EndpointSeries {
    const label = METHODS.has(method) ? method : 'other'
    let series = this.#byMethod.get(label)
    if (series === undefined) {
      series = new EndpointSeries(this.#name, label)
      this.#byMethod.set(label, series)
    }
    return series
  }

  get series(): Iterable<EndpointSeries> {
    return this.#byMethod.values()
  }
}

/** A counter with labels, for what does not happen at every request. */
export class LabelledCounter {
  readonly #values = new Map<string, { labels: Labels; value: number }>()

  inc(labels: Labels, by = 1): void {
    const key = JSON.stringify(labels)
    const entry = this.#values.get(key)
    if (entry === undefined) this.#values.set(key, { labels, value: by })
    else entry.value += by
  }

  /** Drops the counts that have this value of a label. */
  forget(label: string, value: string): void {
    for (const [key, { labels }] of this.#values) if (labels[label] === value) this.#values.delete(key)
  }

  samples(): Sample[] {
    return [...this.#values.values()]
  }
}

/** What has become of copies of a route's requests. */
export class MirrorSeries {
  /** Answered, and not compared. */
  sent = 0
  equal = 0
  different_status = 0
  different_body = 0
  failed = 0
  /** Not sent: too large, or too many at once. */
  skipped = 0
}

export type MirrorResult = keyof MirrorSeries

/** Requests by endpoint and by who makes them: a counter each at hand, and one for all who are too many to be told apart. */
class UsageCounter {
  readonly #byEndpoint = new Map<string, Map<string, number>>()

  /** The function that counts a request to `endpoint`. @param most callers told apart there */
  of(endpoint: string, most: number): (caller: string) => void {
    const counts = heldIn(this.#byEndpoint, endpoint, () => new Map<string, number>())
    return caller => {
      const label = counts.has(caller) || counts.size < most ? caller : OTHERS
      counts.set(label, (counts.get(label) ?? 0) + 1)
    }
  }

  forget(endpoint: string): void {
    this.#byEndpoint.delete(endpoint)
  }

  samples(): Sample[] {
    return [...this.#byEndpoint].flatMap(([endpoint, counts]) =>
      [...counts].map(([consumer, value]) => ({ labels: { endpoint, consumer }, value }))
    )
  }
}

/** The label of callers who are not told apart. */
const OTHERS = '__others__'

/** Requests to one service. */
export class ServiceSeries {
  readonly service: string
  readonly duration = new Histogram()
  readonly statuses = new Map<number, number>()
  readonly errors = new Map<string, number>()

  constructor(service: string) {
    this.service = service
  }

  answered(status: number, seconds: number): void {
    this.duration.observe(seconds)
    this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1)
  }

  failed(stage: string): void {
    this.errors.set(stage, (this.errors.get(stage) ?? 0) + 1)
  }
}

/** What the store that is shared between gateways counts of itself. */
interface StoreState {
  readonly errors: LabelledCounter
  readonly clockSkewMs: number
}

/** What is known of who says where services are. */
interface WatchStates {
  readonly all: readonly {
    readonly name: string
    readonly instances: readonly unknown[]
    readonly stale: boolean
    readonly updates: number
    readonly errors: number
  }[]
}

function heldIn<V>(map: Map<string, V>, name: string, make: () => V): V {
  let held = map.get(name)
  if (held === undefined) {
    held = make()
    map.set(name, held)
  }
  return held
}

/** What a configuration may name, and metrics tell apart. */
export type SeriesKind = 'endpoint' | 'service' | 'plugin'

/** Every request metric of the process; generations share it. */
export class RequestMetrics {
  readonly #endpoints = new Map<string, Endpoint>()
  readonly #services = new Map<string, ServiceSeries>()
  readonly #plugins = new Map<string, Histogram>()
  readonly authenticationFailures = new LabelledCounter()
  readonly rateLimitHits = new LabelledCounter()
  readonly storeErrors: LabelledCounter
  readonly reloads = new LabelledCounter()
  readonly #mirrors = new Map<string, MirrorSeries>()
  /** Requests for what is deprecated, by who makes them. */
  readonly deprecatedRequests = new UsageCounter()
  readonly recordsDropped = new LabelledCounter()
  readonly connectionsRefused = new LabelledCounter()
  websockets = 0
  /** Requests that wait for a limit to let them pass, and how long those waited that did, in seconds. */
  limitsWaiting = 0
  readonly limitWaits = new Histogram()
  generation = { version: '', since: 0 }
  /** Where data are kept: the disk that may run full. */
  dataDir = '.'
  /** When the certificate of the gateway's own listener ends, in milliseconds since 1970; undefined without TLS. */
  certificateExpiry: number | undefined
  readonly #store: StoreState
  readonly #watches: WatchStates

  constructor(
    store: StoreState = { errors: new LabelledCounter(), clockSkewMs: 0 },
    watches: WatchStates = { all: [] }
  ) {
    this.#store = store
    this.#watches = watches
    this.storeErrors = store.errors
  }

  /** The series of an endpoint; the same object every time. @param name the route's pattern, never a path. */
  endpoint(name: string): Endpoint {
    return heldIn(this.#endpoints, name, () => new Endpoint(name))
  }

  /** What has become of copies of an endpoint's requests; the same object every time. */
  mirror(name: string): MirrorSeries {
    return heldIn(this.#mirrors, name, () => new MirrorSeries())
  }

  /** The series of a service; the same object every time. */
  service(name: string): ServiceSeries {
    return heldIn(this.#services, name, () => new ServiceSeries(name))
  }

  /** The time that a third party's plugin takes; the same object every time. */
  plugin(name: string): Histogram {
    return heldIn(this.#plugins, name, () => new Histogram())
  }

  /** Drops what is known of something that is no more; if it comes back it begins at 0, as after a start. */
  forget(kind: SeriesKind, name: string): void {
    if (kind === 'service') this.#services.delete(name)
    else if (kind === 'plugin') this.#plugins.delete(name)
    else {
      this.#endpoints.delete(name)
      this.rateLimitHits.forget('endpoint', name)
      this.deprecatedRequests.forget(name)
      this.#mirrors.delete(name)
    }
  }

  #disk(): { free: number; total: number } {
    const { bavail, blocks, bsize } = statfsSync(existsSync(this.dataDir) ? this.dataDir : '.')
    return { free: bavail * bsize, total: blocks * bsize }
  }

  #allSeries(): EndpointSeries[] {
    return [...this.#endpoints.values()].flatMap(endpoint => [...endpoint.series])
  }

  /** All of it, for a registry. */
  families(): Family[] {
    const endpoints = () => this.#allSeries()
    const services = () => [...this.#services.values()]
    const each =
      <T>(list: () => T[], samples: (item: T) => Sample[]) =>
      () =>
        list().flatMap(samples)
    const byStatus = (
      name: string,
      make: (series: EndpointSeries, status: string, histogram: Histogram) => Sample[],
      type: Family['type'],
      help: string
    ) =>
      family(
        name,
        help,
        type,
        each(endpoints, series => series.statuses().flatMap(([status, histogram]) => make(series, status, histogram)))
      )
    return [
      byStatus(
        'http_request_duration_seconds',
        ({ method, endpoint }, status, histogram) =>
          histogram.samples('http_request_duration_seconds', { method, endpoint, status }),
        'histogram',
        'Duration of requests in seconds'
      ),
      byStatus(
        'http_request_count',
        ({ method, endpoint }, status, { count }) => [{ labels: { method, endpoint, status }, value: count }],
        'counter',
        'Requests by endpoint and status'
      ),
      byStatus(
        'api_requests_total',
        ({ method, endpoint }, status, { count }) => [
          { labels: { method, endpoint, status_code: status }, value: count }
        ],
        'counter',
        'Total count of API requests'
      ),
      family('api_request_latency_seconds', 'API request latency in seconds', 'histogram', each(endpoints, latency)),
      family(
        'api_active_requests',
        'Number of active API requests',
        'gauge',
        each(endpoints, ({ method, endpoint, active }) => [{ labels: { method, endpoint }, value: active }])
      ),
      family(
        'service_request_duration_seconds',
        'Time until a service answered, in seconds',
        'histogram',
        each(services, ({ service, duration }) => duration.samples('service_request_duration_seconds', { service }))
      ),
      family(
        'service_request_count',
        'Answers of services by status',
        'counter',
        each(services, ({ service, statuses }) =>
          [...statuses].map(([status, value]) => ({ labels: { service, status: String(status) }, value }))
        )
      ),
      family(
        'service_error_count',
        'Tries at services that failed, by stage',
        'counter',
        each(services, ({ service, errors }) =>
          [...errors].map(([stage, value]) => ({ labels: { service, stage }, value }))
        )
      ),
      family('gateway_plugin_duration_seconds', 'Time in hooks of third parties’ plugins', 'histogram', () =>
        [...this.#plugins].flatMap(([plugin, histogram]) =>
          histogram.samples('gateway_plugin_duration_seconds', { plugin })
        )
      ),
      family('authentication_failures', 'Refused credentials by reason', 'counter', () =>
        this.authenticationFailures.samples()
      ),
      family('rate_limit_hits', 'Requests refused by a limit', 'counter', () => this.rateLimitHits.samples()),
      family('gateway_rate_limit_violations_total', 'Requests refused by a limit', 'counter', () =>
        this.rateLimitHits.samples()
      ),
      family('gateway_deprecated_requests_total', 'Requests for what is deprecated, by who makes them', 'counter', () =>
        this.deprecatedRequests.samples()
      ),
      family('gateway_disk_free_bytes', 'Free on the disk where data are kept', 'gauge', () => [
        { labels: {}, value: this.#disk().free }
      ]),
      family('gateway_disk_total_bytes', 'All of the disk where data are kept', 'gauge', () => [
        { labels: {}, value: this.#disk().total }
      ]),
      family('gateway_rate_limit_queue_length', 'Requests that wait for a limit', 'gauge', () => [
        { labels: {}, value: this.limitsWaiting }
      ]),
      family('gateway_rate_limit_wait_seconds', 'How long requests have waited for a limit', 'histogram', () =>
        this.limitWaits.samples('gateway_rate_limit_wait_seconds', {})
      ),
      family('gateway_mirrored_requests_total', 'Copies of requests for another service, by result', 'counter', () =>
        [...this.#mirrors].flatMap(([endpoint, series]) =>
          Object.entries(series).map(([result, value]) => ({ labels: { endpoint, result }, value }))
        )
      ),
      family('gateway_store_errors_total', 'Decisions made without the store', 'counter', () =>
        this.storeErrors.samples()
      ),
      family(
        'gateway_store_clock_skew_seconds',
        'How far this machine’s clock is ahead of the shared store’s',
        'gauge',
        () => [{ labels: {}, value: this.#store.clockSkewMs / 1000 }]
      ),
      family('gateway_records_dropped_total', 'What could not be written to the database and is lost', 'counter', () =>
        this.recordsDropped.samples()
      ),
      family('gateway_config_reloads_total', 'Configuration changes by result', 'counter', () =>
        this.reloads.samples()
      ),
      family(
        'gateway_connections_refused_total',
        'Connections closed at once, by the limit that they met',
        'counter',
        () => this.connectionsRefused.samples()
      ),
      family('gateway_config_info', 'The configuration in use', 'gauge', () => [
        { labels: { version: this.generation.version }, value: 1 }
      ]),
      family('gateway_config_applied_timestamp_seconds', 'When the configuration in use was applied', 'gauge', () => [
        { labels: {}, value: this.generation.since / 1000 }
      ]),
      family(
        'gateway_tls_certificate_expiry_seconds',
        'When the certificate of the listener ends, in seconds since 1970',
        'gauge',
        () => (this.certificateExpiry === undefined ? [] : [{ labels: {}, value: this.certificateExpiry / 1000 }])
      ),
      ...this.#discoveryFamilies(),
      family('gateway_websocket_connections', 'Open WebSockets', 'gauge', () => [
        { labels: {}, value: this.websockets }
      ])
    ]
  }

  /** Only where services are looked for. */
  #discoveryFamilies(): Family[] {
    const about = (
      name: string,
      type: Family['type'],
      help: string,
      value: (watch: WatchStates['all'][number]) => number
    ): Family =>
      family(name, help, type, () =>
        this.#watches.all.map(watch => ({ labels: { service: watch.name }, value: value(watch) }))
      )
    return [
      about(
        'gateway_discovery_instances',
        'gauge',
        'Instances that discovery has found',
        ({ instances }) => instances.length
      ),
      about(
        'gateway_discovery_stale',
        'gauge',
        'Whether what is served is older than what is to be known',
        ({ stale }) => Number(stale)
      ),
      about('gateway_discovery_updates_total', 'counter', 'Changes of the list of instances', ({ updates }) => updates),
      about('gateway_discovery_errors_total', 'counter', 'Times that discovery did not answer', ({ errors }) => errors)
    ]
  }

  /** Totals for `/api/v1/metrics/requests`. */
  summary(): { count: number; duration_seconds: number; active: number; status_codes: Record<string, number> } {
    const status_codes: Record<string, number> = {}
    let count = 0
    let duration = 0
    let active = 0
    for (const series of this.#allSeries()) {
      active += series.active
      for (const [status, histogram] of series.statuses()) {
        count += histogram.count
        duration += histogram.sum
        status_codes[status] = (status_codes[status] ?? 0) + histogram.count
      }
    }
    return { count, duration_seconds: duration, active, status_codes }
  }
}

function latency(series: EndpointSeries): Sample[] {
  const total = new Histogram()
  for (const [, histogram] of series.statuses()) total.add(histogram)
  return total.samples('api_request_latency_seconds', { method: series.method, endpoint: series.endpoint })
}
