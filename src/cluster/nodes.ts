import { sql } from 'kysely'
import type { Logger } from 'pino'
import type { Database } from '../database/database.ts'
import type { NodesTable } from '../database/tables.ts'

/** How often a node says that it is there, in milliseconds, … */
const BEAT_MS = 1000
/** … for how long that is believed, … */
const BELIEVED_MS = 5000
/** … and when it is forgotten. */
const FORGOTTEN_MS = 60_000

/** PostgreSQL's own time, so that no node's clock makes another one look dead. */
const NOW = sql<number>`(extract(epoch from clock_timestamp()) * 1000)::bigint`

/** What a gateway says of itself. */
export type NodeState = Omit<NodesTable, 'seen_at'>

/**
 * The gateways on one PostgreSQL: each writes down what it serves, at once when that changes and else every second. A node that
 * ends takes itself off the list; one that is killed is off it after five seconds.
 */
export class Nodes {
  readonly #database: Database
  readonly #log: Logger
  readonly #describe: () => NodeState
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()
  #away = false

  /** @param describe what there is to say, now */
  constructor(database: Database, log: Logger, describe: () => NodeState) {
    this.#database = database
    this.#log = log
    this.#describe = describe
  }

  open(): Promise<void> {
    this.#timer = setInterval(() => void this.report(), BEAT_MS).unref()
    return this.report()
  }

  /** Says what this gateway is and serves. Never rejects: without the database nobody could read it either. */
  report(): Promise<void> {
    this.#writing = this.#writing.then(() => this.#write())
    return this.#writing
  }

  async #write(): Promise<void> {
    const { db } = this.#database
    const row = { ...this.#describe(), seen_at: NOW }
    try {
      await db
        .insertInto('nodes')
        .values(row)
        .onConflict(conflict => conflict.column('id').doUpdateSet(row))
        .execute()
      await db.deleteFrom('nodes').where('seen_at', '<', sql<number>`${NOW} - ${FORGOTTEN_MS}::bigint`).execute()
      this.#away = false
    } catch (error) {
      if (!this.#away) this.#log.warn({ err: error }, 'other gateways cannot be told that this one is there')
      this.#away = true
    }
  }

  /** All that have been heard of lately, the oldest first. @throws {DatabaseError} */
  list(): Promise<NodesTable[]> {
    return this.#database.db
      .selectFrom('nodes')
      .selectAll()
      .where('seen_at', '>=', sql<number>`${NOW} - ${BELIEVED_MS}::bigint`)
      .orderBy('started_at')
      .orderBy('id')
      .execute()
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#writing
    const { id } = this.#describe()
    await this.#database.db
      .deleteFrom('nodes')
      .where('id', '=', id)
      .execute()
      .catch(() => {})
  }
}
