import { randomBytes } from 'node:crypto'
import type { Logger } from 'pino'
import type { Database } from '../database/database.ts'
import type { DiscoveryTerms } from '../discovery/discovery.ts'
import { Registrations } from '../discovery/registrations.ts'
import { Watches } from '../discovery/watches.ts'
import { LiveIdentity } from '../identity/live.ts'
import { Passwords } from '../identity/password.ts'
import { Revocations } from '../identity/revocation.ts'
import { StoredKeys } from '../identity/stored-keys.ts'
import { Suspects } from '../limits/abuse.ts'
import { IpBlocks } from '../limits/ip-blocks.ts'
import { Overload } from '../overload/overload.ts'
import type { Signals } from '../overload/signals.ts'
import { Canaries } from '../releases/canaries.ts'
import { MemoryStore } from '../store/memory.ts'
import type { Store } from '../store/store.ts'
import type { Log, LogSink } from '../telemetry/log.ts'
import { RequestMetrics } from '../telemetry/metrics.ts'
import { createRequestIds } from '../telemetry/request-id.ts'
import { Recorder } from '../traffic/recorder.ts'
import { Breakers } from '../upstream/breakers.ts'
import { Deadlines } from '../upstream/deadline.ts'
import { Services } from '../upstream/services.ts'
import { type Clock, systemClock } from './clock.ts'
import { Leases } from './leases.ts'
import { type Pause, systemPause } from './pause.ts'

/** Something outside that the gateway relies on, as `/health/dependencies` shows it. */
export interface Dependency {
  readonly name: string
  /** Throws when it is out of reach; may say more than that it is there. */
  check(): Promise<Record<string, unknown> | undefined>
}

/** Answers that are kept for those who ask again, in bytes of memory. */
const ANSWER_BYTES = 64 * 1024 * 1024

/**
 * What outlives every configuration: time, chance, counters, connections. Passed to whoever needs it; there is one per
 * process, and as many as it likes per test.
 */
export class Runtime {
  readonly clock: Clock
  readonly random: () => number
  readonly log: Logger
  /** Where finished lines go; the access log writes past the logger. */
  readonly sink: LogSink
  /** Whether a person reads the log. */
  readonly pretty: boolean
  readonly store: Store
  /** Where answers are kept for those who ask again: the store, or so much of this process's memory. */
  readonly answers: Store
  /** What the last answers take that stand in for failures. */
  readonly lastAnswers = { bytes: 0 }
  /** Users, keys, services, what happened; undefined with `storage.database: false`, and where nothing is served. */
  readonly database: Database | undefined
  /** Writes down what happens; undefined without a database. */
  readonly recorder: Recorder | undefined
  readonly leases = new Leases()
  /** Instances that have registered themselves; undefined without a database. */
  readonly registrations: Registrations | undefined
  /** What those need who ask for services. */
  readonly discovery: DiscoveryTerms
  /** Who says where services are. */
  readonly watches: Watches
  /** Where requests go. */
  readonly services: Services
  readonly breakers: Breakers
  readonly canaries: Canaries
  readonly deadlines: Deadlines
  readonly ipBlocks: IpBlocks
  /** Callers who do not keep to their limits. */
  readonly suspects: Suspects
  /** Keeps it from taking on more than it can do. */
  readonly overload: Overload
  readonly metrics: RequestMetrics
  readonly revocations: Revocations
  /** What has become of the users' sessions. */
  readonly live: LiveIdentity
  readonly passwords = new Passwords()
  /** API keys of the database; undefined without one. */
  readonly storedKeys: StoredKeys | undefined
  readonly requestId: () => string
  readonly dependencies = new Set<Dependency>()
  /** This process, among all gateways. */
  readonly node: string
  /** What it calls itself in `Via` (RFC 9110 section 7.6.3). */
  readonly pseudonym: string
  readonly startedAt: number

  constructor(options: {
    log: Log
    clock?: Clock
    random?: () => number
    pause?: Pause
    store?: Store
    database?: Database | undefined
    signals?: Signals | undefined
  }) {
    this.clock = options.clock ?? systemClock
    this.random = options.random ?? Math.random
    this.log = options.log.logger
    this.sink = options.log.sink
    this.pretty = options.log.pretty
    this.store = options.store ?? new MemoryStore(this.clock)
    this.answers = this.store.kind === 'memory' ? new MemoryStore(this.clock, ANSWER_BYTES) : this.store
    this.database = options.database
    this.deadlines = new Deadlines(this.clock)
    const { clock, random, log, leases, dependencies } = this
    this.discovery = { clock, random, log, leases, pause: options.pause ?? systemPause }
    this.registrations = this.database && new Registrations(this.database, { clock, log })
    this.watches = new Watches(this.discovery, dependencies, this.registrations)
    this.services = new Services(this.leases, this)
    this.metrics = new RequestMetrics(this.store, this.watches)
    this.revocations = new Revocations(this.store, this.clock, this.database)
    this.storedKeys = this.database === undefined ? undefined : new StoredKeys(this.database, this)
    this.live = new LiveIdentity(this.clock)
    this.requestId = createRequestIds(this.clock)
    this.node = randomBytes(4).toString('hex')
    this.pseudonym = `1.1 sallyport-${this.node}`
    this.startedAt = this.clock.now()
    this.overload = new Overload({ clock, random, log, signals: options.signals })
    const { store, database, node } = this
    this.ipBlocks = new IpBlocks({ store, database, clock, log })
    this.suspects = new Suspects(clock, this.ipBlocks)
    this.breakers = new Breakers({ clock, random, leases, log, store, node })
    this.canaries = new Canaries({ clock, leases, log, store, database })
    const dropped = this.metrics.recordsDropped
    if (database !== undefined) this.recorder = new Recorder({ database, store, clock, random, log, node, dropped })
    if (store.kind !== 'memory') this.dependencies.add({ name: store.kind, check: () => store.check() })
    if (database !== undefined) this.dependencies.add({ name: 'database', check: () => database.check() })
  }

  async close(): Promise<void> {
    this.deadlines.stop()
    this.watches.close()
    this.registrations?.close()
    this.breakers.close()
    this.canaries.close()
    this.overload.close()
    this.ipBlocks.close()
    await this.recorder?.close()
    await this.store.close()
    await this.storedKeys?.close()
    await this.database?.close()
  }
}
