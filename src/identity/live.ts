import type { Change } from '../database/changes.ts'
import type { Database } from '../database/database.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Consumer } from './consumer.ts'

/** How long something is remembered at least, in milliseconds: tokens may be older than the present setting of their life. */
const LEAST_MS = 86_400_000
/** Users that are asked for at once. */
const PAGE = 500

interface Least {
  /** Tokens with a lower `ver` are over. */
  readonly version: number
  /** Tokens without one are, if they are older than this. In milliseconds since 1970. */
  readonly since: number
  forgetAt: number
}

/**
 * What tokens of the gateway's own users stand on, as all nodes know it: sessions that are over, and from which version on
 * a user's tokens are good. In memory, since every request asks; it follows the database's list of changes, and is loaded
 * from that list at the start. Only what is younger than any access token is kept.
 */
export class LiveIdentity {
  readonly #clock: Clock
  readonly #users = new Map<string, Least>()
  readonly #sessions = new Map<string, { forgetAt: number }>()
  readonly #listeners = new Set<() => void>()
  #keepMs = LEAST_MS
  #tidyAt = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** What is remembered. */
  get size(): number {
    return this.#users.size + this.#sessions.size
  }

  /** Whether what this credential stands on has ended. Two look-ups at most, and none for credentials of others. */
  isOver({ grant, userId }: Consumer): boolean {
    if (grant === undefined) return false
    if (grant.sessionId !== undefined && this.#sessions.has(grant.sessionId)) return true
    const least = this.#users.get(userId as string)
    if (least === undefined) return false
    return grant.version === undefined ? grant.issuedAt <= least.since : grant.version < least.version
  }

  /** Tells when something has ended, for whatever outlives the request that was let in. Returns what stops that. */
  onEnd(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Nothing is forgotten while a token may live that was made with this setting. @param ms life of an access token */
  keepFor(ms: number): void {
    this.#keepMs = Math.max(this.#keepMs, ms)
  }

  /** Learns what has ended lately, and follows what ends from now on. */
  async follow(database: Database): Promise<void> {
    const { changes, db } = database
    changes.on('session', ended => this.#endSessions(ended, this.#clock.now()))
    changes.on('user', users => this.#readUsers(database, users, this.#clock.now()))
    const recent = await db
      .selectFrom('changes')
      .select(['kind', 'subject', ({ fn }) => fn.max('at').as('at')])
      .where('kind', 'in', ['user', 'session'])
      .where('at', '>', this.#clock.now() - this.#keepMs)
      .groupBy(['kind', 'subject'])
      .execute()
    for (const change of recent) if (change.kind === 'session') this.#endSessions([change], change.at)
    const users = recent.filter(({ kind }) => kind === 'user')
    await this.#readUsers(database, users, this.#clock.now())
  }

  #endSessions(ended: readonly Change[], at: number): void {
    for (const { subject } of ended) this.#sessions.set(subject, { forgetAt: at + this.#keepMs })
    this.#tell()
  }

  /** Of a user who is not there any more, no token is good. */
  async #readUsers({ db }: Database, users: readonly Change[], now: number): Promise<void> {
    const forgetAt = now + this.#keepMs
    for (let start = 0; start < users.length; start += PAGE) {
      const ids = [...new Set(users.slice(start, start + PAGE).map(({ subject }) => subject))]
      const rows = await db
        .selectFrom('users')
        .select(['id', 'token_version', 'token_version_at'])
        .where('id', 'in', ids)
        .execute()
      const found = new Map(rows.map(row => [row.id, row]))
      for (const id of ids) {
        const row = found.get(id)
        const version = row?.token_version ?? Number.POSITIVE_INFINITY
        const since = row?.token_version_at ?? Number.POSITIVE_INFINITY
        // Two may read at once, and the older answer come last: versions only ever go up.
        if (version >= (this.#users.get(id)?.version ?? 0)) this.#users.set(id, { version, since, forgetAt })
      }
    }
    if (users.length > 0) this.#tell()
  }

  #tell(): void {
    this.#tidy()
    for (const listener of this.#listeners) listener()
  }

  /** Drops what no living token can be about; again when there is twice as much as is left now. */
  #tidy(): void {
    if (this.size < this.#tidyAt) return
    const now = this.#clock.now()
    for (const map of [this.#users, this.#sessions])
      for (const [key, { forgetAt }] of map) if (forgetAt <= now) map.delete(key)
    this.#tidyAt = Math.max(1000, this.size * 2)
  }
}
