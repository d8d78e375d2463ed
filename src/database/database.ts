import type { Kysely, Transaction } from 'kysely'
import type { Logger } from 'pino'
import type { StorageSettings } from '../config/schema.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Change, Changes } from './changes.ts'
import type { Tables } from './tables.ts'

/**
 * Durable records: users, keys, services, what happened. SQLite in the data folder, or PostgreSQL; the same tables and the
 * same queries on both. Everything here rejects with a `DatabaseError` that says what kind of trouble it is.
 */
export interface Database {
  readonly kind: 'sqlite' | 'postgres'
  /** For reading, and for single writes that nobody else has to know of. */
  readonly db: Kysely<Tables>
  readonly changes: Changes
  /**
   * All or nothing. Changes that are noted become known here before this resolves, and to all other nodes within a second.
   * @param work gets the transaction, and a list to put changes into that others keep copies of
   */
  transaction<T>(work: (transaction: Transaction<Tables>, changed: Change[]) => Promise<T>): Promise<T>
  /** Says how it is. Rejects while it is out of reach. */
  check(): Promise<Record<string, unknown>>
  close(): Promise<void>
}

/**
 * Opens the database that the configuration asks for, and brings its tables up to date.
 * @throws {DatabaseError} `busy` when another gateway has the folder; `unreachable`, `unusable`
 */
export async function openDatabase(
  storage: Pick<StorageSettings, 'database_url' | 'data_dir'>,
  { clock, log }: { clock: Clock; log: Logger }
): Promise<Database> {
  const { kind, db } = await connect(storage, log)
  const { Changes } = await import('./changes.ts')
  const changes = new Changes(db, { postgres: kind === 'postgres', clock, log })
  try {
    await bringUpToDate({ kind, db }, storage, log)
    await changes.open()
  } catch (error) {
    await db.destroy()
    throw error
  }
  return {
    kind,
    db,
    changes,
    async transaction(work) {
      const changed: Change[] = []
      const result = await db.transaction().execute(async transaction => {
        const result = await work(transaction, changed)
        await changes.note(transaction, changed)
        return result
      })
      if (changed.length > 0) await changes.poll()
      return result
    },
    async check() {
      await db.selectNoFrom(({ lit }) => lit(1).as('one')).execute()
      return { kind, ...(changes.error === undefined ? {} : { following: changes.error }) }
    },
    async close() {
      await changes.close()
      await db.destroy()
    }
  }
}

/** PostgreSQL's advisory locks, which last as long as a transaction: each number is for one thing. */
export const LOCKS = {
  /** The order of changes. */
  order: 0x5a11_0001,
  /** What users may do. */
  access: 0x5a11_0002,
  /** Who tidies up. */
  upkeep: 0x5a11_0003
}

/** Waits for a lock of PostgreSQL's, and has it to the end of the transaction. */
export async function takeLock(transaction: Transaction<Tables>, lock: keyof typeof LOCKS): Promise<void> {
  await transaction.selectNoFrom(({ fn, val }) => fn('pg_advisory_xact_lock', [val(LOCKS[lock])]).as('held')).execute()
}

/** SQLite's file within the data folder. */
export const SQLITE_FILE = 'sallyport.db'

/** A database as it is, whatever tables it has. */
export interface Connection {
  readonly kind: Database['kind']
  readonly db: Kysely<Tables>
}

/**
 * Connects to the database that the configuration asks for.
 * @param options `patient`: statements may take as long as they like
 * @throws {DatabaseError} when SQLite's file cannot be had; PostgreSQL is not asked yet
 */
export async function connect(
  { database_url: url, data_dir }: Pick<StorageSettings, 'database_url' | 'data_dir'>,
  log: Logger,
  options: { patient?: boolean } = {}
): Promise<Connection> {
  // Kysely and pg take a good part of a start to load; gateways without a database do without.
  const dialect = url
    ? (await import('./postgres.ts')).postgresDialect(url, log, options)
    : await (await import('./sqlite.ts')).sqliteDialect(data_dir)
  const { Kysely } = await import('kysely')
  const db = new Kysely<Tables>({ dialect })
  // What it has never used it does not close either, and SQLite's file is ours from here on.
  if (!url) await db.connection().execute(async () => {})
  return { kind: url ? 'postgres' : 'sqlite', db }
}

/** Takes the migrations that are missing; on PostgreSQL over a connection of their own, that lets them take their time. */
async function bringUpToDate(
  { kind, db }: Connection,
  storage: Pick<StorageSettings, 'database_url' | 'data_dir'>,
  log: Logger
): Promise<void> {
  const { migrate } = await import('./migrate.ts')
  if (kind === 'sqlite') return void (await migrate(db, kind))
  const { db: patient } = await connect(storage, log, { patient: true })
  try {
    await migrate(patient, kind)
  } finally {
    await patient.destroy()
  }
}
