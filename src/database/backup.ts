import { closeSync, openSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type Kysely, sql } from 'kysely'
import { DatabaseError } from './database-error.ts'
import type { Tables } from './tables.ts'

/**
 * Writes a copy of an SQLite database into `folder`, as it is at one moment. Whoever asks the database something meanwhile waits;
 * nobody else does.
 * @param at milliseconds since 1970; what the copy is called after
 * @throws {DatabaseError} when there is no room, or the folder cannot be written
 */
export async function backUp(db: Kysely<Tables>, folder: string, at: number): Promise<{ file: string; bytes: number }> {
  const file = join(folder, `sallyport-${new Date(at).toISOString().replaceAll(':', '-')}.db`)
  try {
    // SQLite takes an empty file as it takes none, and leaves its mode as it is.
    closeSync(openSync(file, 'wx', 0o600))
  } catch (error) {
    throw new DatabaseError('unreachable', `${file} cannot be made (${(error as NodeJS.ErrnoException).code})`)
  }
  try {
    await sql`vacuum into ${file}`.execute(db)
  } catch (error) {
    rmSync(file)
    throw error
  }
  return { file, bytes: statSync(file).size }
}
