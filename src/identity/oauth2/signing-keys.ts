import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type JsonWebKey,
  randomBytes,
  randomUUID
} from 'node:crypto'
import type { Transaction } from 'kysely'
import type { Logger } from 'pino'
import type { Database } from '../../database/database.ts'
import { isDuplicate } from '../../database/database-error.ts'
import { deleteKeys, KEYS_CHANGED, readKeys, replaceKeys } from '../../database/oauth.ts'
import type { OAuthKeysTable, Tables } from '../../database/tables.ts'
import type { Clock } from '../../runtime/clock.ts'
import { type KeySource, keysFor, publicKey, type VerificationKey } from '../keys.ts'

/** What OAuth's tokens are signed with. */
export const ALGORITHM = 'ES256'
/** Shortest time between two looks for a key that a token names and nobody knows, in milliseconds. */
const INTERVAL_MS = 1000

/** A key of the database, ready to sign. */
export interface SigningKey {
  readonly kid: string
  /** Private, as oidc-provider takes it. */
  readonly jwk: JsonWebKey & { kid: string; alg: string; use: string }
  /** Milliseconds since 1970. */
  readonly createdAt: number
  /** When another took over; undefined for the one that signs. */
  readonly retiredAt: number | undefined
}

export interface SigningKeysOptions {
  readonly database: Database
  readonly clock: Clock
  readonly log: Logger
  /** After which age a key is replaced, in milliseconds. */
  readonly maxAgeMs: number
  /** How long anything signed with a key may live, in milliseconds: so long it is published after it has been replaced. */
  readonly lifeMs: number
}

/**
 * The keys of the gateway's own OAuth tokens and cookies. They are in the database, made by whichever node comes first, and
 * every node follows it; the gateway verifies with them without asking its own key endpoint.
 */
export class SigningKeys implements KeySource {
  version = 0
  readonly dueAt = Number.POSITIVE_INFINITY
  readonly #options: SigningKeysOptions
  readonly #unfollow: () => void
  #verification: readonly VerificationKey[] = []
  #signing: readonly SigningKey[] = []
  #cookies: readonly string[] = []
  /** Ids of what signs, as known here: a rotation replaces that, and nothing that another node has made since. */
  #current: readonly string[] = []
  #fingerprint = ''
  #triedAt = Number.NEGATIVE_INFINITY
  #loading: Promise<void> | undefined

  constructor(options: SigningKeysOptions) {
    this.#options = options
    this.#unfollow = options.database.changes.on(KEYS_CHANGED, () => this.#read())
  }

  get available(): boolean {
    return this.#verification.length > 0
  }

  /** The one that signs comes first, then those that still verify. */
  get signing(): readonly SigningKey[] {
    return this.#signing
  }

  /** Secrets that cookies are signed with: the first one signs, the others still count. */
  get cookies(): readonly string[] {
    return this.#cookies
  }

  find(kid: string | undefined): readonly VerificationKey[] {
    return keysFor(this.#verification, kid)
  }

  /** Looks whether another node has made the key that nobody knows here; while the database is away, what is known stands. */
  refresh(): Promise<void> | undefined {
    if (this.#loading !== undefined) return this.#loading
    const now = this.#options.clock.monotonic()
    if (now - this.#triedAt < INTERVAL_MS) return undefined
    this.#triedAt = now
    this.#loading = this.open()
      .catch(error => this.#options.log.warn({ err: error }, 'the keys of OAuth cannot be read; what is known stands'))
      .finally(() => {
        this.#loading = undefined
      })
    return this.#loading
  }

  /** Reads the keys; makes the first ones if there are none, of which one node's are kept. @throws {DatabaseError} */
  async open(): Promise<void> {
    await this.#read()
    if (!this.available) await this.rotate()
  }

  /** Replaces keys that are old, and forgets those that nothing alive was signed with. @throws {DatabaseError} */
  async maintain(): Promise<void> {
    const { database, clock, maxAgeMs, lifeMs, log } = this.#options
    const now = clock.now()
    await deleteKeys(database.db, now - lifeMs)
    await this.open()
    const [current] = this.#signing
    if (current === undefined || now - current.createdAt < maxAgeMs) return
    await this.rotate()
    log.info({ kid: this.#signing[0]?.kid }, 'the keys of OAuth were old and have been replaced')
  }

  /**
   * Makes new keys, which sign from now on; everything signed before stays good. Of nodes that do so at once one wins.
   * @param alsoDo in the same transaction
   * @throws {DatabaseError}
   */
  async rotate(alsoDo?: (transaction: Transaction<Tables>, kid: string) => Promise<void>): Promise<void> {
    const { database, clock } = this.#options
    const kid = randomUUID()
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const made = [
      { id: kid, purpose: 'signature' as const, material: JSON.stringify(privateKey.export({ format: 'jwk' })) },
      { id: randomUUID(), purpose: 'cookie' as const, material: randomBytes(32).toString('base64url') }
    ]
    try {
      await replaceKeys(
        database,
        this.#current,
        made,
        clock.now(),
        transaction => alsoDo?.(transaction, kid) ?? Promise.resolve()
      )
    } catch (error) {
      if (!isDuplicate(error)) throw error
    }
    await this.#read()
  }

  async #read(): Promise<void> {
    const { database, clock, lifeMs } = this.#options
    const oldest = clock.now() - lifeMs
    const rows = (await readKeys(database.db)).filter(({ retired_at }) => retired_at === null || retired_at > oldest)
    const fingerprint = rows.map(({ id, current }) => `${id} ${current}`).join('\n')
    if (fingerprint === this.#fingerprint) return
    const sorted = [...rows].sort((a, b) => Number(b.current !== null) - Number(a.current !== null))
    this.#current = rows.filter(({ current }) => current !== null).map(({ id }) => id)
    this.#signing = sorted.filter(({ purpose }) => purpose === 'signature').map(signingKey)
    this.#cookies = sorted.filter(({ purpose }) => purpose === 'cookie').map(({ material }) => material)
    this.#verification = this.#signing.map(({ jwk, kid }) =>
      publicKey(
        {
          key: createPublicKey(createPrivateKey({ key: jwk, format: 'jwk' })).export({ format: 'jwk' }),
          format: 'jwk'
        },
        kid,
        [ALGORITHM]
      )
    )
    this.#fingerprint = fingerprint
    this.version++
  }

  close(): void {
    this.#unfollow()
  }
}

function signingKey({ id, material, created_at, retired_at }: OAuthKeysTable): SigningKey {
  const jwk = { ...(JSON.parse(material) as JsonWebKey), kid: id, alg: ALGORITHM, use: 'sig' }
  return {
    kid: id,
    jwk,
    createdAt: Number(created_at),
    retiredAt: retired_at === null ? undefined : Number(retired_at)
  }
}
