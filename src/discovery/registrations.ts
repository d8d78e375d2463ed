import type { Logger } from 'pino'
import { type AuditEntry, writeAudit } from '../database/audit.ts'
import type { Change } from '../database/changes.ts'
import type { Database } from '../database/database.ts'
import { isUnreachable } from '../database/database-error.ts'
import {
  deleteRegistration,
  putRegistration,
  type Registration,
  readBeats,
  readRegistrations,
  renewRegistration
} from '../database/registrations.ts'
import type { Clock } from '../runtime/clock.ts'
import type { InstanceList } from './discovery.ts'

/** How often it is looked who has said that he is there, in milliseconds. */
const LOOK_MS = 5000
/** When nobody has looked for so long, nobody can have been heard either. In milliseconds. */
const DEAF_MS = 3 * LOOK_MS

/** A registration, and since when it has not been renewed as far as this gateway has seen. */
interface Held {
  registration: Registration
  beats: number
  /** Monotonic. */
  heardAt: number
}

/**
 * Instances that have registered themselves (REG-15): in the database, so that all gateways have them. Each says again and
 * again that it is still there; one that has not for its time to live is deleted by whichever gateway sees it first. How long
 * that is each measures by its own clock, from what it has seen itself: no two clocks are compared (H-128). While the database
 * is out of reach nobody can say anything, and so nobody ends (H-124).
 */
export class Registrations {
  readonly #database: Database
  readonly #clock: Clock
  readonly #log: Logger
  readonly #byService = new Map<string, Map<string, Held>>()
  /** Told of services whose instances have changed. */
  onChange: (service: string) => void = () => {}
  #lookedAt = 0
  /** Somebody could not be heard since then, for want of the database. */
  #deaf = false
  #unfollow: (() => void) | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(database: Database, { clock, log }: { clock: Clock; log: Logger }) {
    this.#database = database
    this.#clock = clock
    this.#log = log
  }

  /** Reads them, and follows them from now on. @throws {DatabaseError} */
  async open(): Promise<void> {
    this.#unfollow = this.#database.changes.on('registrations', changes => this.#follow(changes))
    this.#keep(await readRegistrations(this.#database.db))
    this.#lookedAt = this.#clock.monotonic()
    this.#timer = setInterval(() => void this.look(), LOOK_MS).unref()
  }

  close(): void {
    this.#unfollow?.()
    clearInterval(this.#timer)
  }

  /** Registrations of a service. */
  of(service: string): Registration[] {
    return [...(this.#byService.get(service)?.values() ?? [])].map(({ registration }) => registration)
  }

  /** The same, as those who send requests there take them. */
  instancesOf(service: string): InstanceList {
    return this.of(service)
      .map(({ id, url, weight, zone }) => ({ id, url, weight, ...(zone !== null && { zone }) }))
      .sort((a, b) => (a.id < b.id ? -1 : 1))
  }

  /**
   * Registers an instance, or takes over what it says of itself now. Resolves when this gateway sends requests there.
   * @param audit makes the entry about it, if it is another than before
   * @returns `full` when the service has as many as it may
   */
  async register(
    given: Omit<Registration, 'beats' | 'created_at' | 'renewed_at'>,
    audit: (before: Registration | undefined, after: Registration) => AuditEntry
  ): Promise<{ registration: Registration; isNew: boolean } | 'full'> {
    const result = await this.#database.transaction(async (transaction, changed) => {
      const put = await putRegistration(transaction, { ...given, renewed_at: this.#clock.now() })
      if (put === 'full' || isSame(put.before, put.after)) return put
      await writeAudit(transaction, [audit(put.before, put.after)])
      changed.push({ kind: 'registrations', subject: given.service })
      return put
    })
    if (result === 'full') return result
    this.#heard(result.after)
    return { registration: result.after, isNew: result.before === undefined }
  }

  /** An instance says that it is still there. @returns undefined when it is not registered, or not any more */
  async renew(service: string, id: string): Promise<Registration | undefined> {
    let registration: Registration | undefined
    try {
      registration = await renewRegistration(this.#database.db, { service, id }, this.#clock.now())
    } catch (error) {
      if (isUnreachable(error)) this.#deaf = true
      throw error
    }
    if (registration !== undefined) this.#heard(registration)
    return registration
  }

  /** Takes an instance away. @returns whether it was there */
  deregister(service: string, id: string, audit: AuditEntry): Promise<boolean> {
    return this.#database.transaction(async (transaction, changed) => {
      if (!(await deleteRegistration(transaction, { service, id }))) return false
      await writeAudit(transaction, [audit])
      changed.push({ kind: 'registrations', subject: service })
      return true
    })
  }

  /** Looks who is still there, and lets go of those who are not. Never rejects. */
  async look(): Promise<void> {
    if (this.#byService.size === 0) {
      this.#lookedAt = this.#clock.monotonic()
      return
    }
    try {
      const beats = await readBeats(this.#database.db)
      const now = this.#clock.monotonic()
      const deaf = this.#deaf || now - this.#lookedAt > DEAF_MS
      this.#deaf = false
      this.#lookedAt = now
      for (const { service, id, beats: count } of beats) {
        const held = this.#byService.get(service)?.get(id)
        if (held !== undefined && held.beats !== count) Object.assign(held, { beats: count, heardAt: now })
      }
      for (const held of this.#all()) {
        if (deaf) held.heardAt = now
        else if (now - held.heardAt > held.registration.ttl_ms) await this.#expire(held)
      }
    } catch (error) {
      if (isUnreachable(error)) this.#deaf = true
      else this.#log.error({ err: error }, 'registered instances cannot be looked at; they stay')
    }
  }

  async #expire({ registration, beats }: Held): Promise<void> {
    const { service, id } = registration
    const gone = await this.#database.transaction(async (transaction, changed) => {
      if (!(await deleteRegistration(transaction, registration, beats))) return false
      changed.push({ kind: 'registrations', subject: service })
      return true
    })
    if (gone) this.#log.warn({ service, instance: id }, 'a registered instance has not been heard of and is let go of')
  }

  async #follow(changes: readonly Change[]): Promise<void> {
    const services = [...new Set(changes.map(({ subject }) => subject))]
    const found = await readRegistrations(this.#database.db, services)
    const before = new Map(services.map(service => [service, this.#byService.get(service)]))
    for (const service of services) this.#byService.delete(service)
    this.#keep(found, before)
    for (const service of services) this.onChange(service)
  }

  #keep(registrations: readonly Registration[], before = new Map<string, Map<string, Held> | undefined>()): void {
    const now = this.#clock.monotonic()
    for (const registration of registrations) {
      const { service, id, beats } = registration
      const held = before.get(service)?.get(id)
      const heardAt = held?.beats === beats ? held.heardAt : now
      const together = this.#byService.get(service) ?? new Map<string, Held>()
      this.#byService.set(service, together.set(id, { registration, beats, heardAt }))
    }
  }

  /** Of those that are known here; the others come with their change. */
  #heard({ service, id, beats }: Registration): void {
    const held = this.#byService.get(service)?.get(id)
    if (held !== undefined) Object.assign(held, { beats, heardAt: this.#clock.monotonic() })
  }

  #all(): Held[] {
    return [...this.#byService.values()].flatMap(together => [...together.values()])
  }
}

function isSame(before: Registration | undefined, after: Registration): boolean {
  return (['url', 'weight', 'zone', 'ttl_ms'] as const).every(key => before?.[key] === after[key])
}
