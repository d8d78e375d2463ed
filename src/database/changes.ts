import type { Kysely, Transaction } from 'kysely'
import type { Logger } from 'pino'
import type { Clock } from '../runtime/clock.ts'
import { takeLock } from './database.ts'
import { isUnreachable } from './database-error.ts'
import type { Tables } from './tables.ts'

/** How often other nodes' changes are looked for, in milliseconds. */
const POLL_MS = 1000
/** How long a change is kept for nodes that cannot ask, in milliseconds. */
const KEEP_MS = 7 * 86_400_000
const PAGE = 1000

/** Something that has changed, for those who keep a copy in memory. */
export interface Change {
  readonly kind: string
  readonly subject: string
}

type Listener = (changes: readonly Change[]) => void | Promise<void>

/**
 * What has changed in the database, as all nodes see it: an append-only table that each follows from where it was, within a
 * second; the node that makes a change follows it at once. While the database is out of reach what is known stands.
 */
export class Changes {
  readonly #db: Kysely<Tables>
  readonly #postgres: boolean
  readonly #clock: Clock
  readonly #log: Logger
  readonly #listeners = new Map<string, Set<Listener>>()
  #seq = 0
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> = Promise.resolve()
  /** A look that waits for the running one to end. */
  #next: Promise<void> | undefined
  #prunedAt = 0
  /** Why the last look has failed, as a code: anybody may read it. */
  error: string | undefined

  constructor(db: Kysely<Tables>, options: { postgres: boolean; clock: Clock; log: Logger }) {
    this.#db = db
    this.#postgres = options.postgres
    this.#clock = options.clock
    this.#log = options.log
  }

  /** Remembers where the table ends: what is loaded after this misses nothing. */
  async open(): Promise<void> {
    const { last } = await this.#db
      .selectFrom('changes')
      .select(({ fn }) => fn.max('seq').as('last'))
      .executeTakeFirstOrThrow()
    this.#seq = Number(last ?? 0)
    this.#timer = setInterval(() => void this.poll(), POLL_MS).unref()
  }

  /**
   * Tells of changes of a kind, of any node's. A listener that fails is logged, and told nothing again of that change; when it
   * is the database that has failed it, all are told again of what they may know already.
   */
  on(kind: string, listener: Listener): () => void {
    const listeners = this.#listeners.get(kind) ?? new Set()
    this.#listeners.set(kind, listeners.add(listener))
    return () => listeners.delete(listener)
  }

  /** Writes changes down, as the last thing of a transaction. */
  async note(transaction: Transaction<Tables>, changes: readonly Change[]): Promise<void> {
    if (changes.length === 0) return
    // Held from here to the commit, so that changes become visible in the order of their numbers.
    if (this.#postgres) await takeLock(transaction, 'order')
    const at = this.#clock.now()
    // Databases count the parameters of a statement.
    for (let i = 0; i < changes.length; i += PAGE)
      await transaction
        .insertInto('changes')
        .values(changes.slice(i, i + PAGE).map(({ kind, subject }) => ({ kind, subject, at })))
        .execute()
  }

  /** Looks for changes now: for all that were committed before the call. Never rejects. */
  poll(): Promise<void> {
    this.#next ??= this.#running.then(() => {
      this.#next = undefined
      return this.#poll()
    })
    this.#running = this.#next
    return this.#next
  }

  async #poll(): Promise<void> {
    try {
      await this.#follow()
      await this.#prune()
      if (this.error !== undefined) this.#log.info('changes are followed again')
      this.error = undefined
    } catch (error) {
      if (this.error === undefined)
        this.#log.warn({ err: error }, 'changes by other gateways cannot be followed; what is known stands')
      this.error = (error as { code?: string }).code ?? 'failed'
    }
  }

  async #follow(): Promise<void> {
    for (;;) {
      const rows = await this.#db
        .selectFrom('changes')
        .select(['seq', 'kind', 'subject'])
        .where('seq', '>', this.#seq)
        .orderBy('seq')
        .limit(PAGE)
        .execute()
      const last = rows.at(-1)
      if (last === undefined) return
      await this.#tell(rows)
      this.#seq = Number(last.seq)
    }
  }

  async #tell(changes: readonly Change[]): Promise<void> {
    for (const [kind, listeners] of this.#listeners) {
      const theirs = changes.filter(change => change.kind === kind)
      if (theirs.length === 0) continue
      for (const listener of listeners) {
        try {
          await listener(theirs)
        } catch (error) {
          if (isUnreachable(error)) throw error
          this.#log.error({ err: error, kind }, 'a change has not been taken over')
        }
      }
    }
  }

  async #prune(): Promise<void> {
    const now = this.#clock.now()
    if (now - this.#prunedAt < KEEP_MS / 100) return
    this.#prunedAt = now
    await this.#db
      .deleteFrom('changes')
      .where('at', '<', now - KEEP_MS)
      .execute()
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#running
  }
}
