import { createHash } from 'node:crypto'
import type { Database } from '../database/database.ts'
import { readRevokedTokens, TOKEN_REVOKED, writeRevokedTokens } from '../database/revoked-tokens.ts'
import type { Clock } from '../runtime/clock.ts'
import { TwoGenerations } from '../runtime/two-generations.ts'
import type { Store } from '../store/store.ts'

/** How long the list's word on a token is taken for granted, in milliseconds. */
const VALID_MS = 1000
/** After so long it is asked again while its last word still holds, so that steady traffic never waits. */
const REFRESH_MS = 500
const MOST = 100_000
/** Tokens taken back that are kept before any is looked at for its age. */
const LEAST_TIDY = 1000

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
  #tidyAt = LEAST_TIDY

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

  /** Tokens known to be taken back, and not forgotten yet. */
  get size(): number {
    return this.#revoked.size
  }

  #note(key: string, ttlMs: number): void {
    const now = this.#clock.monotonic()
    if (this.#revoked.size >= this.#tidyAt) this.#tidy(now)
    this.#revoked.set(key, now + ttlMs)
  }

  /** Drops what no living token can be about; again when there is twice as much as is left now. */
  #tidy(now: number): void {
    for (const [key, until] of this.#revoked) if (until <= now) this.#revoked.delete(key)
    this.#tidyAt = Math.max(LEAST_TIDY, this.#revoked.size * 2)
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
   * Takes tokens back. Rejects when the store, or the database in its place, is out of reach: they are then revoked here and
   * nowhere else.
   * @param tokens `key` of {@link revocationKey}; `ttlMs`: how long it would have lived, in milliseconds
   */
  async revoke(tokens: readonly { readonly key: string; readonly ttlMs: number }[]): Promise<void> {
    for (const { key, ttlMs } of tokens) this.#note(key, ttlMs)
    if (this.#database === undefined) {
      await Promise.all(tokens.map(({ key, ttlMs }) => this.#store.set(`blacklist:${key}`, '1', ttlMs)))
      return
    }
    const wall = this.#clock.now()
    const rows = tokens.map(({ key, ttlMs }) => ({ key, expires_at: wall + Math.ceil(ttlMs) }))
    if (rows.length > 0) await writeRevokedTokens(this.#database, rows, wall)
  }
}
