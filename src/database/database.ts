import type { Dialect, Kysely, Transaction } from 'kysely'
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
  const { database_url: url } = storage
  // Kysely and pg take a good part of a start to load; gateways without a database do without.
  const dialect = url ? await postgres(url, log) : await sqlite(storage.data_dir)
  const [{ Kysely }, { migrate }, { Changes }] = await Promise.all([
    import('kysely'),
    import('./migrate.ts'),
    import('./changes.ts')
  ])
  const kind = url ? 'postgres' : 'sqlite'
  const db = new Kysely<Tables>({ dialect })
  const changes = new Changes(db, { postgres: kind === 'postgres', clock, log })
  try {
    await migrate(db, kind)
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

async function sqlite(folder: string): Promise<Dialect> {
  return (await import('./sqlite.ts')).sqliteDialect(folder)
}

async function postgres(url: string, log: Logger): Promise<Dialect> {
  return (await import('./postgres.ts')).postgresDialect(url, log)
}
