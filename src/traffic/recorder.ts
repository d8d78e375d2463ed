import type { Insertable, Transaction } from 'kysely'
import type { Logger } from 'pino'
import type { RecordingSettings } from '../config/schema.ts'
import { type AuditEntry, writeAudit } from '../database/audit.ts'
import type { Database } from '../database/database.ts'
import { DatabaseError } from '../database/database-error.ts'
import type { ApiRequestsTable, QuotasTable, Tables, TrafficMinutesTable } from '../database/tables.ts'
import type { Exchange } from '../proxy/exchange.ts'
import type { Clock } from '../runtime/clock.ts'
import { MemoryStore } from '../store/memory.ts'
import type { Store } from '../store/store.ts'
import type { LabelledCounter } from '../telemetry/metrics.ts'
import { encodeLatencies } from './latency.ts'
import { Minutes, type Series } from './minutes.ts'
import { Refusals } from './refusals.ts'
import { Samples } from './samples.ts'

/** How often what happened is written down, in milliseconds: as much is lost at most when the process is killed. */
const FLUSH_MS = 1000
/** How often old rows are looked after, in milliseconds. */
const UPKEEP_MS = 60_000
/** Most records of requests, and most entries for the audit log, that wait for a database that is away. */
const MOST_WAITING = 5000
/** Rows of one statement: SQLite takes no more than 32766 values. */
const ROWS = 500

type Minute = TrafficMinutesTable

/**
 * Writes down what happened, off the request path: counts by the minute, single requests, refusals for the audit log, and what
 * has been used of long limits. While the database is away all of it waits here, as far as there is room, the oldest going first.
 */
export class Recorder {
  readonly #database: Database
  readonly #store: Store
  readonly #clock: Clock
  readonly #log: Logger
  readonly #dropped: LabelledCounter
  readonly #minutes: Minutes
  readonly #samples: Samples
  readonly #refusals = new Refusals()
  /** What waits to be written, besides the minutes. */
  #requests: Insertable<ApiRequestsTable>[] = []
  #entries: AuditEntry[] = []
  readonly #quotas = new Map<string, QuotasTable>()
  #keep: RecordingSettings['keep'] | undefined
  #upkeptAt = Number.NEGATIVE_INFINITY
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> = Promise.resolve()
  /** The timer's last turn, as long as it takes. */
  #turn: Promise<void> | undefined
  readonly #closing = new AbortController()
  #away = false

  constructor(options: {
    database: Database
    store: Store
    clock: Clock
    random: () => number
    log: Logger
    /** Counts what had to be forgotten. */
    dropped: LabelledCounter
    /** This process, among all gateways there have ever been. */
    node: string
  }) {
    this.#database = options.database
    this.#store = options.store
    this.#clock = options.clock
    this.#log = options.log
    this.#dropped = options.dropped
    this.#minutes = new Minutes(options.node)
    this.#samples = new Samples(options.random)
  }

  /** Goes on where the last gateway on this database has ended, and begins to write. @throws {DatabaseError} */
  async open(): Promise<void> {
    if (this.#store instanceof MemoryStore) this.#store.restoreQuotas(await readQuotas(this.#database, this.#clock))
    this.#timer = setInterval(() => {
      // A database that takes its time is not asked again meanwhile.
      this.#turn ??= this.#takeTurn().finally(() => {
        this.#turn = undefined
      })
    }, FLUSH_MS).unref()
  }

  configure({ requests_per_second, keep }: RecordingSettings): void {
    this.#samples.most = (requests_per_second * FLUSH_MS) / 1000
    this.#keep = keep
  }

  /** Told of every request when it is over. This is the request path: nothing waits, and next to nothing is made. */
  readonly observe = (exchange: Exchange): void => {
    const now = this.#clock.now()
    const { status } = exchange
    const forgotten = this.#minutes.count(exchange, status, now)
    if (forgotten > 0) this.#dropped.inc({ what: 'counts' }, forgotten)
    this.#samples.offer(exchange, status, now)
    if (status === 401 || status === 403) this.#noteRefusal(exchange, now)
  }

  /** What services refuse is theirs to know; who has failed to log in is in the audit log already, by name. */
  #noteRefusal(exchange: Exchange, now: number): void {
    if (exchange.errorCode !== '' && exchange.errorCode !== 'invalid_credentials') this.#refusals.note(exchange, now)
  }

  async #takeTurn(): Promise<void> {
    await this.flush()
    const now = this.#clock.now()
    if (this.#keep === undefined || this.#away || now - this.#upkeptAt < UPKEEP_MS) return
    this.#upkeptAt = now
    await this.upkeep()
  }

  /** Writes what there is, now. Never rejects: what cannot be written waits. */
  flush(): Promise<void> {
    this.#running = this.#running.then(() => this.#flush())
    return this.#running
  }

  async #flush(): Promise<void> {
    this.#collect()
    // Rows are made for a database that is there to take them.
    if (this.#away && !(await this.#isBack())) return
    const series = this.#minutes.unsaved()
    const minutes = series.map(rowOf)
    const requests = [...this.#requests]
    const entries = [...this.#entries]
    // In one order on all gateways, so that none waits for another that waits for it.
    const quotas = [...this.#quotas].sort(([a], [b]) => (a < b ? -1 : 1))
    if (minutes.length + requests.length + entries.length + quotas.length === 0) return
    try {
      await this.#database.transaction(async transaction => {
        await inPieces(minutes, rows => writeMinutes(transaction, rows))
        await inPieces(requests, rows => writeRequests(transaction, rows))
        await inPieces(entries, rows => writeAudit(transaction, rows))
        await inPieces(
          quotas.map(([, row]) => row),
          rows => writeQuotas(transaction, rows)
        )
      })
      if (this.#away) this.#log.info('what happens is written down again')
      this.#away = false
    } catch (error) {
      if (!isRefusal(error)) return this.#wait(error as Error)
      // It would be refused again for ever, and everything after it with it.
      this.#log.error({ err: error }, 'what happened cannot be written down, and is forgotten')
      this.#dropped.inc({ what: 'requests' }, requests.length)
      this.#dropped.inc({ what: 'refusals' }, entries.length)
      this.#dropped.inc(
        { what: 'counts' },
        series.reduce((sum, { requests, saved }) => sum + requests - saved, 0)
      )
    }
    for (const [i, row] of minutes.entries()) (series[i] as Series).saved = row.requests
    this.#minutes.tidy()
    this.#requests = this.#requests.slice(requests.length)
    this.#entries = this.#entries.slice(entries.length)
    for (const [key, row] of quotas) if (this.#quotas.get(key) === row) this.#quotas.delete(key)
  }

  /** Takes over what has come up since the last time. */
  #collect(): void {
    this.#requests.push(...this.#samples.take())
    this.#entries.push(...this.#refusals.take(this.#clock.now()))
    this.#dropOldest(this.#requests, 'requests')
    this.#dropOldest(this.#entries, 'refusals')
    if (!(this.#store instanceof MemoryStore)) return
    for (const { subject, counter, limit, windowMs, used, endsAt } of this.#store.takeQuotas())
      this.#quotas.set(`${subject}\n${counter}`, {
        subject,
        counter,
        limit,
        window_ms: windowMs,
        used,
        ends_at: endsAt
      })
  }

  #dropOldest(waiting: unknown[], what: string): void {
    if (waiting.length <= MOST_WAITING) return
    this.#dropped.inc({ what }, waiting.length - MOST_WAITING)
    waiting.splice(0, waiting.length - MOST_WAITING)
  }

  #isBack(): Promise<boolean> {
    return this.#database.check().then(
      () => true,
      () => false
    )
  }

  #wait(error: Error): void {
    if (!this.#away) this.#log.warn({ err: error }, 'what happens cannot be written down now; it waits')
    this.#away = true
  }

  /** Makes hours of minutes and lets go of what is old. Never rejects: there is a next time. */
  async upkeep(): Promise<void> {
    if (this.#keep === undefined) return
    try {
      const { upkeep } = await import('./upkeep.ts')
      await upkeep(this.#database, this.#keep, this.#clock.now(), this.#closing.signal)
    } catch (error) {
      this.#log.warn({ err: error }, 'what happened cannot be tidied up now')
    }
  }

  /** Writes the rest. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    this.#closing.abort()
    await this.#turn
    await this.flush()
    if (this.#away) this.#log.error('the database is away: what happened last is lost')
  }
}

function rowOf(series: Series): Minute {
  const { at, node, service, endpoint, status, requests } = series
  return {
    at,
    node,
    service,
    endpoint,
    user_id: series.userId,
    api_key_id: series.apiKeyId,
    status,
    requests,
    bytes_in: series.bytesIn,
    bytes_out: series.bytesOut,
    duration_ms: Math.round(series.durationMs),
    latencies: encodeLatencies(series.latencies)
  }
}

/** Whether the database will never take it. */
function isRefusal(error: unknown): boolean {
  return !(error instanceof DatabaseError) || !['unreachable', 'busy', 'unusable'].includes(error.code)
}

async function inPieces<T>(rows: readonly T[], write: (rows: readonly T[]) => Promise<unknown>): Promise<void> {
  for (let i = 0; i < rows.length; i += ROWS) await write(rows.slice(i, i + ROWS))
}

/** A row says all that its gateway knows of its minute: written twice it is the same. */
function writeMinutes(transaction: Transaction<Tables>, rows: readonly Minute[]): Promise<unknown> {
  return transaction
    .insertInto('traffic_minutes')
    .values(rows)
    .onConflict(conflict =>
      conflict
        .columns(['at', 'node', 'service', 'endpoint', 'user_id', 'api_key_id', 'status'])
        .doUpdateSet(({ ref }) => ({
          requests: ref('excluded.requests'),
          bytes_in: ref('excluded.bytes_in'),
          bytes_out: ref('excluded.bytes_out'),
          duration_ms: ref('excluded.duration_ms'),
          latencies: ref('excluded.latencies')
        }))
    )
    .execute()
}

/** The answer to a commit may be lost, and then they are there already. */
function writeRequests(
  transaction: Transaction<Tables>,
  rows: readonly Insertable<ApiRequestsTable>[]
): Promise<unknown> {
  return transaction
    .insertInto('api_requests')
    .values(rows)
    .onConflict(conflict => conflict.column('id').doNothing())
    .execute()
}

function writeQuotas(transaction: Transaction<Tables>, rows: readonly QuotasTable[]): Promise<unknown> {
  return transaction
    .insertInto('quotas')
    .values(rows)
    .onConflict(conflict =>
      conflict.columns(['subject', 'counter']).doUpdateSet(({ ref }) => ({
        limit: ref('excluded.limit'),
        used: ref('excluded.used'),
        ends_at: ref('excluded.ends_at')
      }))
    )
    .execute()
}

async function readQuotas({ db }: Database, clock: Clock) {
  const rows = await db.selectFrom('quotas').selectAll().where('ends_at', '>', clock.now()).execute()
  return rows.map(({ window_ms: windowMs, ends_at: endsAt, ...row }) => ({ ...row, windowMs, endsAt }))
}
