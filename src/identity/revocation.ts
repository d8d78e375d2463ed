import { createHash } from 'node:crypto'
import type { Database } from '../database/database.ts'
import { readRevokedTokens, TOKEN_REVOKED, writeRevokedToken } from '../database/revoked-tokens.ts'
import type { Clock } from '../runtime/clock.ts'
import { TwoGenerations } from '../runtime/two-generations.ts'
import type { Store } from '../store/store.ts'

/** How long the list's word on a token is taken for granted, in milliseconds. */
const VALID_MS = 1000
/** After so long it is asked again while its last word still holds, so that steady traffic never waits. */
const REFRESH_MS = 500
const MOST = 100_000

interface Known {
  revoked: boolean
  /** When the question was asked that was answered, or given up, last; monotonic milliseconds. */
  askedAt: number
  asking: Promise<boolean> | undefined
}

/** Under which key a token is taken back: its `jti`, or its SHA-256 when it has none (IDN-15). */
export function revocationKey(token: string, { jti }: Readonly<Record<string, unknown>>): string {
  return typeof jti === 'string' && jti !== '' ? jti : createHash('sha256').update(token).digest('hex')
}

/**
 * Tokens that have been taken back: `blacklist:{jti}` in the store, for as long as the token would have lived. What the
 * store says of a token is believed for a second, so that revocation costs no round trip per request and still bites within
 * a second everywhere; at once where it was made. While the store is out of reach, what was known last stands (C-29).
 * Without a store that is shared, they are kept in the database: other nodes learn of them as of any other change.
 */
export class Revocations {
  readonly #store: Store
  readonly #clock: Clock
  readonly #database: Database | undefined
  readonly #known = new TwoGenerations<Known>(MOST)
  /** Taken back here, or as the database says: until when, in monotonic milliseconds. */
  readonly #revoked = new Map<string, number>()

  constructor(store: Store, clock: Clock, database?: Database) {
    this.#store = store
    this.#clock = clock
    this.#database = store.kind === 'memory' ? database : undefined
  }

  /** Takes over what the database knows, and follows it from here on. */
  async open(): Promise<void> {
    const database = this.#database
    if (database === undefined) return
    database.changes.on(TOKEN_REVOKED, changes =>
      this.#load(
        database,
        changes.map(({ subject }) => subject)
      )
    )
    await this.#load(database)
  }

  async #load(database: Database, keys?: readonly string[]): Promise<void> {
    const now = this.#clock.now()
    for (const { key, expires_at } of await readRevokedTokens(database, now, keys)) this.#note(key, expires_at - now)
  }

  #note(key: string, ttlMs: number): void {
    this.#revoked.set(key, this.#clock.monotonic() + ttlMs)
  }

  /** @param key of {@link revocationKey} */
  isRevoked(key: string): boolean | Promise<boolean> {
    if (this.#revoked.size > 0 && (this.#revoked.get(key) ?? 0) > this.#clock.monotonic()) return true
    // Nobody else writes to a store in memory.
    if (this.#store.kind === 'memory') return false
    const known = this.#known.get(key) ?? this.#remember(key)
    if (known.revoked) return true
    const age = this.#clock.monotonic() - known.askedAt
    if (age < REFRESH_MS) return false
    const answer = known.asking ?? this.#ask(key, known)
    return age < VALID_MS ? false : answer
  }

  #remember(key: string): Known {
    const known = { revoked: false, askedAt: Number.NEGATIVE_INFINITY, asking: undefined }
    this.#known.set(key, known)
    return known
  }

  /** Never rejects: without an answer the last one stands, until the next time. */
  #ask(key: string, known: Known): Promise<boolean> {
    const askedAt = this.#clock.monotonic()
    const settle = (revoked: boolean): boolean => {
      known.revoked = revoked
      known.askedAt = askedAt
      known.asking = undefined
      return revoked
    }
    known.asking = this.#store.get(`blacklist:${key}`).then(
      value => settle(value !== undefined),
      () => settle(known.revoked)
    )
    return known.asking
  }

  /**
   * Takes a token back. Rejects when the store, or the database in its place, is out of reach: it is then revoked here and
   * nowhere else.
   * @param ttlMs how long it would have lived, in milliseconds
   */
  async revoke(key: string, ttlMs: number): Promise<void> {
    const now = this.#clock.monotonic()
    for (const [old, until] of this.#revoked) if (until <= now) this.#revoked.delete(old)
    this.#note(key, ttlMs)
    if (this.#database === undefined) return this.#store.set(`blacklist:${key}`, '1', ttlMs)
    const wall = this.#clock.now()
    await writeRevokedToken(this.#database, { key, expires_at: wall + Math.ceil(ttlMs) }, wall)
  }
}
