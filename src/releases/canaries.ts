import { createHash } from 'node:crypto'
import type { Logger } from 'pino'
import { type AuditEntry, noteChange, writeAudit } from '../database/audit.ts'
import { beginCanary, readCanary, writeCanary } from '../database/canaries.ts'
import type { Database } from '../database/database.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Leases } from '../runtime/leases.ts'
import type { Store } from '../store/store.ts'
import { type Family, family, LabelledCounter } from '../telemetry/metrics.ts'
import { after, Canary, type CanaryAction, type CanaryRecord, startOf } from './canary.ts'
import type { CanaryRelease } from './settings.ts'

/** How often what could not be read or written is tried again, and a store without messages is looked at, in milliseconds. */
const LOOK_MS = 2000
/** How long Redis keeps how a canary stands, in milliseconds. */
const KEEP_MS = 90 * 86_400_000
/** What changes of canaries are called among those of the database. */
const CHANGE = 'canary'

/** Who has changed something, for the audit log. */
export type Actor = Pick<AuditEntry, 'at' | 'actor' | 'clientIp' | 'requestId'>

interface Context {
  readonly clock: Clock
  readonly leases: Leases
  readonly log: Logger
  readonly store: Store
  readonly database: Database | undefined
}

/**
 * All canaries of the process. When one began, and what was decided on it, is in the database, else in Redis, so that it goes on
 * after a restart and all gateways are at the same step; with neither it is known as long as the process lives. While what keeps
 * it is out of reach, what is known stands.
 */
export class Canaries {
  readonly #context: Context
  /** Those that are served. */
  readonly #entered = new Set<Canary>()
  /** How each stands, by name: a configuration that changes its steps goes on where the last one was. */
  readonly #records = new Map<string, CanaryRecord>()
  /** Those of which the last word has not been read, or not been written. */
  readonly #behind = new Map<string, AuditEntry | undefined>()
  readonly #aborts = new LabelledCounter()
  #timer: NodeJS.Timeout | undefined
  #unfollow: (() => void) | undefined

  constructor(context: Context) {
    this.#context = context
  }

  /** The canary of a route. It begins when the configuration that asks for it is put in charge. */
  acquire(release: CanaryRelease, onLease: (key: string) => void): Canary {
    const { leases, clock } = this.#context
    const key = `canary:${release.id}:${createHash('sha256').update(JSON.stringify(release)).digest('hex')}`
    onLease(key)
    return leases.acquire(
      key,
      () => new Canary(release, clock, (canary, reason) => this.#abort(canary, reason)),
      canary => this.#entered.delete(canary)
    )
  }

  /** The configuration that has acquired them is in charge now. */
  async enter(canaries: readonly Canary[]): Promise<void> {
    if (canaries.length === 0) return
    this.#follow()
    await Promise.all(
      canaries.map(async canary => {
        this.#entered.add(canary)
        const { id } = canary.release
        const known = this.#records.get(id)
        if (known !== undefined) canary.record = known
        else await this.#catchUp(id)
      })
    )
  }

  /** Those that are served, by the names of their routes. */
  all(): Canary[] {
    return [...this.#entered].sort((a, b) => a.release.route.localeCompare(b.release.route))
  }

  /**
   * Does something to a canary by hand.
   * @returns whether it made sense as it was
   */
  async act(canary: Canary, action: CanaryAction, reason: string, actor: Actor): Promise<boolean> {
    const { id } = canary.release
    const before = (await this.#read(id)) ?? canary.record
    if (before === undefined) return false
    const record = after(before, action, { now: actor.at, by: actor.actor, reason })
    if (record === undefined) return false
    const { route } = canary.release
    const entry = { ...actor, action: `canary.${action}`, target: `route:${route}`, before, after: record }
    await this.#write(id, record, { ...entry, outcome: 'changed' })
    this.#know(id, record)
    return true
  }

  #abort(canary: Canary, reason: string): void {
    const { log, clock } = this.#context
    const { id, route } = canary.release
    const before = canary.record as CanaryRecord
    const now = clock.now()
    const record = after(before, 'abort', { now, by: 'gateway', reason })
    if (record === undefined) return
    this.#know(id, record)
    this.#aborts.inc({ route, reason: reason.split(':', 1)[0] as string })
    log.error({ route, canary: canary.release.canary, reason }, 'canary aborted')
    this.#behind.set(id, {
      at: now,
      actor: 'gateway',
      action: 'canary.abort',
      target: `route:${route}`,
      outcome: 'changed',
      before,
      after: record,
      details: reason
    })
    void this.#catchUp(id)
  }

  #know(id: string, record: CanaryRecord): void {
    this.#records.set(id, record)
    for (const canary of this.#entered) if (canary.release.id === id) canary.record = record
  }

  /** Writes what is not written, and reads how it stands: it begins now if nobody knows better. What fails is tried again. */
  async #catchUp(id: string): Promise<void> {
    const { database, log, clock } = this.#context
    const entry = this.#behind.get(id)
    this.#behind.set(id, entry)
    const known = this.#records.get(id) ?? startOf(clock.now(), 'gateway')
    try {
      if (entry !== undefined) await this.#write(id, known, entry)
      else if (database !== undefined) await beginCanary(database.db, id, known)
      const record = await this.#read(id)
      if (record === undefined && this.#shared) await this.#context.store.set(KEY + id, JSON.stringify(known), KEEP_MS)
      this.#know(id, record ?? known)
      this.#behind.delete(id)
    } catch (err) {
      if (!this.#records.has(id)) this.#know(id, known)
      log.warn({ err, canary: id }, 'how a canary stands cannot be kept; it goes on as known here')
    }
  }

  /** Whether Redis is what gateways share. */
  get #shared(): boolean {
    return this.#context.database === undefined && this.#context.store.kind === 'redis'
  }

  async #read(id: string): Promise<CanaryRecord | undefined> {
    const { database, store } = this.#context
    if (database !== undefined) return readCanary(database.db, id)
    const json = this.#shared ? await store.get(KEY + id) : undefined
    return json === undefined ? undefined : recordOf(json)
  }

  async #write(id: string, record: CanaryRecord, entry: AuditEntry): Promise<void> {
    const { database, store } = this.#context
    if (database !== undefined)
      return database.transaction(async (transaction, changed) => {
        await writeCanary(transaction, id, record)
        await writeAudit(transaction, [entry])
        changed.push({ kind: CHANGE, subject: id })
      })
    if (this.#shared) await store.set(KEY + id, JSON.stringify(record), KEEP_MS)
    await noteChange(this.#context, entry)
  }

  /** Learns what other gateways decide. */
  #follow(): void {
    this.#unfollow ??= this.#context.database?.changes.on(CHANGE, async changes => {
      for (const { subject } of changes) {
        const record = this.#records.has(subject) ? await this.#read(subject) : undefined
        if (record !== undefined) this.#know(subject, record)
      }
    })
    this.#timer ??= setInterval(() => void this.look(), LOOK_MS).unref()
  }

  /** Catches up with what could not be read or written, and with what others have written where nobody says so. */
  async look(): Promise<void> {
    const served = new Set([...this.#entered].map(({ release }) => release.id))
    for (const id of served) if (this.#shared || this.#behind.has(id)) await this.#catchUp(id)
  }

  families(): Family[] {
    return [
      family('gateway_canary_weight', 'Requests of a hundred that a route’s canary gets', 'gauge', () =>
        this.all().map(({ release: { route }, weight }) => ({ labels: { route }, value: weight }))
      ),
      family(
        'gateway_canary_aborts_total',
        'Canaries that have been aborted for what they did, by reason',
        'counter',
        () => this.#aborts.samples()
      )
    ]
  }

  close(): void {
    clearInterval(this.#timer)
    this.#unfollow?.()
  }
}

const KEY = 'canary:'

/** Undefined for what is no record: half of one could send everybody to a canary that nobody has promoted (H-82). */
function recordOf(json: string): CanaryRecord | undefined {
  try {
    const record = JSON.parse(json) as CanaryRecord
    const times = [record.startedAt, record.pausedMs, record.pausedAt ?? 0]
    return times.every(Number.isFinite) && typeof record.outcome === 'string' ? record : undefined
  } catch {
    return undefined
  }
}
