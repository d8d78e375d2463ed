import type { Kysely } from 'kysely'
import { type Migration, Migrator } from 'kysely/migration'
import { DatabaseError } from './database-error.ts'
import { up as identity } from './migrations/001-identity.ts'
import { up as registry } from './migrations/002-registry.ts'
import { up as oauth } from './migrations/003-oauth.ts'
import { up as traffic } from './migrations/004-traffic.ts'
import { up as mfa } from './migrations/005-mfa.ts'
import { up as nodes } from './migrations/006-nodes.ts'
import { up as canaries } from './migrations/007-canaries.ts'
import { up as registrations } from './migrations/008-registrations.ts'
import type { Tables } from './tables.ts'

/** What a column is called in each dialect; see {@link Tables} for what comes out of it. */
export interface ColumnTypes {
  readonly id: 'uuid' | 'text'
  readonly json: 'jsonb' | 'text'
  readonly time: 'bigint' | 'integer'
  readonly flag: 'boolean' | 'integer'
  /** Counts up by itself. */
  readonly sequence: 'bigserial' | 'integer'
}

/** One step from an older state of the tables to a newer one. What has been released is never changed again. */
export type Step = (db: Kysely<unknown>, types: ColumnTypes) => Promise<void>

/** All steps, in order; their names are kept in the database. */
export const STEPS: Readonly<Record<string, Step>> = {
  '001-identity': identity,
  '002-registry': registry,
  '003-oauth': oauth,
  '004-traffic': traffic,
  '005-mfa': mfa,
  '006-nodes': nodes,
  '007-canaries': canaries,
  '008-registrations': registrations
}

const TYPES: Record<'sqlite' | 'postgres', ColumnTypes> = {
  sqlite: { id: 'text', json: 'text', time: 'integer', flag: 'integer', sequence: 'integer' },
  postgres: { id: 'uuid', json: 'jsonb', time: 'bigint', flag: 'boolean', sequence: 'bigserial' }
}

/**
 * Brings the tables up to date: all steps that are missing, or none if one of them fails. Nodes that start at once wait for each other.
 * @param to name of the last step to take, for tests; all if not given
 * @param steps instead of ours, for tests
 * @returns the names of the steps that were taken
 * @throws {DatabaseError} when it is newer than this gateway, out of reach, or a step fails
 */
export async function migrate(
  db: Kysely<Tables>,
  kind: 'sqlite' | 'postgres',
  to?: string,
  steps: Readonly<Record<string, Step>> = STEPS
): Promise<string[]> {
  const migrations: Record<string, Migration> = {}
  for (const [name, step] of Object.entries(steps))
    migrations[name] = { up: db => step(db as Kysely<unknown>, TYPES[kind]) }
  const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations } })
  const { error, results = [] } = to === undefined ? await migrator.migrateToLatest() : await migrator.migrateTo(to)
  if (error instanceof DatabaseError && error.code !== 'query') throw error
  if (error !== undefined) throw new DatabaseError('unusable', migrationTrouble(error as Error), { cause: error })
  return results.map(({ migrationName }) => migrationName)
}

function migrationTrouble({ message }: Error): string {
  const newer = /previously executed migration (\S+) is missing/.exec(message)?.[1]
  if (newer === undefined) return `the database cannot be brought up to date: ${message}`
  return `the database has been used by a newer Sallyport (${newer}); use that one, or a copy from before`
}
