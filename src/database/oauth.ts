import type { Kysely, Transaction } from 'kysely'
import type { Database } from './database.ts'
import type { OAuthArtifactsTable, OAuthKeysTable, Tables } from './tables.ts'

type Db = Kysely<Tables> | Transaction<Tables>

/** Under which kind changes of the keys are known. */
export const KEYS_CHANGED = 'oauth_keys'

/** Signed tokens: kept by their `jti` only so that they can be taken back, and asked about. */
export const SIGNED_MODELS: ReadonlySet<string> = new Set(['AccessToken', 'ClientCredentials'])

/** All keys, the youngest first. */
export function readKeys(db: Db): Promise<OAuthKeysTable[]> {
  return db.selectFrom('oauth_keys').selectAll().orderBy('created_at', 'desc').orderBy('id').execute()
}

/**
 * Makes these the keys that sign from now on, in the place of those whose ids are `replaced`, which stay, retired.
 * @throws {DatabaseError} `duplicate` when another node has just done the same
 */
export async function replaceKeys(
  database: Database,
  replaced: readonly string[],
  keys: readonly Pick<OAuthKeysTable, 'id' | 'purpose' | 'material'>[],
  now: number,
  alsoDo: (transaction: Transaction<Tables>) => Promise<void> = async () => {}
): Promise<void> {
  await database.transaction(async (transaction, changed) => {
    if (replaced.length > 0)
      await transaction
        .updateTable('oauth_keys')
        .set({ current: null, retired_at: now })
        .where('id', 'in', replaced)
        .where('current', 'is not', null)
        .execute()
    await transaction
      .insertInto('oauth_keys')
      .values(keys.map(key => ({ ...key, current: key.purpose, created_at: now, retired_at: null })))
      .execute()
    await alsoDo(transaction)
    changed.push({ kind: KEYS_CHANGED, subject: keys.map(({ id }) => id).join(' ') })
  })
}

/** Forgets keys that were retired before `before`. */
export async function deleteKeys(db: Db, before: number): Promise<void> {
  await db.deleteFrom('oauth_keys').where('retired_at', '<', before).execute()
}

/** An artifact that has not expired. */
export function findArtifact(
  db: Db,
  model: string,
  by: Partial<Pick<OAuthArtifactsTable, 'id' | 'uid'>>,
  now: number
): Promise<OAuthArtifactsTable | undefined> {
  let query = db.selectFrom('oauth_artifacts').selectAll().where('model', '=', model).where('expires_at', '>', now)
  if (by.id !== undefined) query = query.where('id', '=', by.id)
  if (by.uid !== undefined) query = query.where('uid', '=', by.uid)
  return query.executeTakeFirst()
}

/** Writes an artifact, over one of the same id. */
export async function saveArtifact(db: Db, row: OAuthArtifactsTable): Promise<void> {
  const { model, id, ...rest } = row
  await db
    .insertInto('oauth_artifacts')
    .values(row)
    .onConflict(conflict => conflict.columns(['model', 'id']).doUpdateSet(rest))
    .execute()
}

/** Writes an artifact unless there is one of the same id. @returns whether it did: of several who try at once, one is told so */
export async function insertArtifact(db: Db, row: OAuthArtifactsTable): Promise<boolean> {
  const written = await db
    .insertInto('oauth_artifacts')
    .values(row)
    .onConflict(conflict => conflict.columns(['model', 'id']).doNothing())
    .returning('id')
    .executeTakeFirst()
  return written !== undefined
}

/** Marks an artifact as used. @returns whether it was not before: of several who try at once, one is told so */
export async function consumeArtifact(db: Db, model: string, id: string, now: number): Promise<boolean> {
  const { numUpdatedRows } = await db
    .updateTable('oauth_artifacts')
    .set({ consumed_at: now })
    .where('model', '=', model)
    .where('id', '=', id)
    .where('consumed_at', 'is', null)
    .executeTakeFirst()
  return numUpdatedRows === 1n
}

/** Whether a grant is there; as long as the transaction lasts it stays. */
export async function holdGrant(
  transaction: Transaction<Tables>,
  kind: Database['kind'],
  id: string
): Promise<boolean> {
  const query = transaction.selectFrom('oauth_artifacts').select('id').where('model', '=', 'Grant').where('id', '=', id)
  const row = await (kind === 'postgres' ? query.forShare() : query).executeTakeFirst()
  return row !== undefined
}

/** Forgets everything that a client was given. @returns its signed tokens, which are still to be taken back */
export async function endArtifactsOf(
  { db }: Database,
  clientId: string,
  now: number
): Promise<{ id: string; expires_at: number }[]> {
  const ended = await db
    .deleteFrom('oauth_artifacts')
    .where('client_id', '=', clientId)
    .returning(['model', 'id', 'expires_at'])
    .execute()
  return ended.filter(({ model, expires_at }) => SIGNED_MODELS.has(model) && expires_at > now)
}

/** Whether a session has begun and not ended. */
export async function isSessionAlive(db: Db, id: string, now: number): Promise<boolean> {
  const row = await db
    .selectFrom('sessions')
    .select('id')
    .where('id', '=', id)
    .where('revoked_at', 'is', null)
    .where('expires_at', '>', now)
    .executeTakeFirst()
  return row !== undefined
}

/** Forgets artifacts that have expired. */
export async function deleteExpiredArtifacts(db: Db, now: number): Promise<void> {
  await db.deleteFrom('oauth_artifacts').where('expires_at', '<=', now).execute()
}
