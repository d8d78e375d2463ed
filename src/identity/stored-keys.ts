import type { Logger } from 'pino'
import { findKeysByHash, type KeyInUse, noteKeyUses } from '../database/api-keys.ts'
import type { Change } from '../database/changes.ts'
import type { Database } from '../database/database.ts'
import { isUnreachable } from '../database/database-error.ts'
import type { Clock } from '../runtime/clock.ts'
import { TwoGenerations } from '../runtime/two-generations.ts'
import { isApiKey } from './api-key.ts'
import type { Consumer } from './consumer.ts'
import { identityFields } from './identity-fields.ts'
import { inCommon } from './permissions.ts'
import { untrusted } from './trouble.ts'

/** Keys remembered, and texts that are none; twice as many at most. */
const MOST = 10_000
/** How long a text that is no key is known to be none, in milliseconds. */
const UNKNOWN_MS = 10_000
/** Keys that are asked for in one query. */
const BATCH = 200
/** How often it is written down which keys have been used, in milliseconds. */
const FLUSH_MS = 10_000

/** A key of the database, with whatever of its owner it depends on. */
export interface StoredKey {
  readonly id: string
  readonly hash: Buffer
  /** Ids of what it depends on: itself, its owner, the owner's roles. */
  readonly subjects: readonly string[]
  /** Whether its owner may do anything at all. */
  readonly active: boolean
  readonly consumer: Consumer
}

interface Question {
  readonly answer: Promise<StoredKey | undefined>
  resolve(key: StoredKey | undefined): void
  reject(error: unknown): void
}

/**
 * The keys of the database (IDN-26), as far as they have been seen. Only the first sight of a key waits for the database, and
 * there is never more than one query under way, for all that wait: a flood of keys that nobody has made is no flood of queries.
 * What is remembered follows the changes of all nodes; while the database is out of reach, what is known stands.
 */
export class StoredKeys {
  readonly #database: Database
  readonly #clock: Clock
  readonly #log: Logger
  readonly #known = new TwoGenerations<StoredKey>(MOST)
  /** Until when a hash is known to be nobody's, in monotonic milliseconds. */
  readonly #unknown = new TwoGenerations<number>(MOST)
  /** What the next query is about. */
  #waiting = new Map<string, Question>()
  /** What the one under way is about, unless something has changed since it began. */
  #asked: ReadonlyMap<string, Question> = new Map()
  /** Changes so far, the last one of each subject, and how many there had been when a consumer was made. */
  #changes = 0
  readonly #changed = new TwoGenerations<number>(MOST)
  readonly #made = new WeakMap<Consumer, { readonly changes: number; readonly subjects: readonly string[] }>()
  readonly #listeners = new Set<() => void>()
  #asking = false
  #used = new Set<string>()
  readonly #timer: NodeJS.Timeout
  readonly #stops: (() => void)[]

  constructor(database: Database, { clock, log }: { clock: Clock; log: Logger }) {
    this.#database = database
    this.#clock = clock
    this.#log = log
    const follow = (changes: readonly Change[]): void => this.#follow(changes)
    this.#stops = ['api_key', 'user', 'role'].map(kind => database.changes.on(kind, follow))
    this.#timer = setInterval(() => void this.flush(), FLUSH_MS).unref()
  }

  /** The key of this hash, if it has been seen. @param hash SHA-256 in hex */
  get(hash: string): StoredKey | undefined {
    return this.#known.get(hash)
  }

  /**
   * The key of a hash that has not been seen; undefined if there is none.
   * Rejects with a {@link GatewayError}, 503, while the database is out of reach.
   * @param key the text itself: what no key of ours looks like is not asked for
   */
  find(key: string, hash: string): undefined | Promise<StoredKey | undefined> {
    if (!isApiKey(key) || (this.#unknown.peek(hash) ?? 0) > this.#clock.monotonic()) return undefined
    const question = this.#waiting.get(hash) ?? this.#asked.get(hash)
    return question?.answer ?? this.#ask(hash)
  }

  #ask(hash: string): Promise<StoredKey | undefined> {
    const { promise: answer, resolve, reject } = Promise.withResolvers<StoredKey | undefined>()
    this.#waiting.set(hash, { answer, resolve, reject })
    if (!this.#asking) void this.#askAll()
    return answer
  }

  /** Asks for all that wait, and for those that have come meanwhile, until nobody does. Never rejects. */
  async #askAll(): Promise<void> {
    this.#asking = true
    while (this.#waiting.size > 0) {
      const questions = new Map([...this.#waiting].slice(0, BATCH))
      for (const hash of questions.keys()) this.#waiting.delete(hash)
      this.#asked = questions
      const changes = this.#changes
      try {
        const found = await findKeysByHash(this.#database.db, [...questions.keys()])
        const keys = found.map(key => [key.hash, storedKey(key)] as const)
        for (const [, { consumer, subjects }] of keys) this.#made.set(consumer, { changes, subjects })
        this.#answer(questions, new Map(keys), changes === this.#changes)
      } catch (error) {
        // Those who have come since would only wait for the same to happen to them.
        const all = [...questions.values(), ...this.#waiting.values()]
        this.#waiting = new Map()
        const refusal = isUnreachable(error) ? untrusted('api_keys_unavailable') : error
        for (const { reject } of all) reject(refusal)
      }
    }
    this.#asked = new Map()
    this.#asking = false
  }

  /** An answer from before a change is good for those who had asked by then, and must not be kept. */
  #answer(questions: ReadonlyMap<string, Question>, found: ReadonlyMap<string, StoredKey>, unchanged: boolean): void {
    for (const [hash, { resolve }] of questions) {
      const key = found.get(hash)
      if (unchanged && key !== undefined) this.#known.set(hash, key)
      if (unchanged && key === undefined) this.#unknown.set(hash, this.#clock.monotonic() + UNKNOWN_MS)
      resolve(key)
    }
  }

  #follow(changes: readonly Change[]): void {
    this.#changes++
    this.#asked = new Map()
    const subjects = new Set(changes.map(({ subject }) => subject))
    for (const subject of subjects) this.#changed.set(subject, this.#changes)
    this.#known.deleteWhere((_, key) => key.subjects.some(subject => subjects.has(subject)))
    for (const listener of this.#listeners) listener()
  }

  /**
   * Whether a key, its owner or one of the owner's roles has changed since this was made of it; for whatever outlives the
   * request that was let in. False for all other credentials.
   */
  isOver(consumer: Consumer): boolean {
    const made = this.#made.get(consumer)
    return made?.subjects.some(subject => (this.#changed.peek(subject) ?? 0) > made.changes) === true
  }

  /** Tells when something has changed that keys depend on. Returns what stops that. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Remembers that a key has been used, until it is written down. */
  noteUse({ id }: StoredKey): void {
    this.#used.add(id)
  }

  /** Writes down which keys have been used since the last time. Never rejects; what cannot be written waits for the next time. */
  async flush(): Promise<void> {
    if (this.#used.size === 0) return
    const used = this.#used
    this.#used = new Set()
    try {
      await noteKeyUses(this.#database.db, [...used], this.#clock.now())
    } catch (error) {
      for (const id of used) this.#used.add(id)
      if (!isUnreachable(error)) this.#log.error({ err: error }, 'the use of API keys has not been written down')
    }
  }

  /** Ends before the database does. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    for (const stop of this.#stops) stop()
    await this.flush()
  }
}

/** What a key may do is what its owner may, as far as the key says so, too: also when the owner's roles have changed since. */
function storedKey({ id, hash, name, permissions, expiresAt, owner }: KeyInUse): StoredKey {
  const consumer = {
    key: `key:${id}`,
    kind: 'api_key' as const,
    id,
    name,
    roles: Object.freeze(owner.roles.map(role => role.name)),
    permissions: Object.freeze(
      inCommon(
        permissions,
        owner.roles.flatMap(role => role.permissions)
      )
    ),
    tier: owner.tier,
    credential: 'api_key' as const,
    claims: Object.freeze({}),
    userId: owner.id,
    expiresAt: expiresAt ?? Number.POSITIVE_INFINITY
  }
  return {
    id,
    hash: Buffer.from(hash, 'hex'),
    subjects: [id, owner.id, ...owner.roles.map(role => role.id)],
    active: owner.active,
    consumer: Object.freeze({ ...consumer, identityFields: identityFields(consumer) })
  }
}
