import { randomUUID } from 'node:crypto'
import type { Selectable, Transaction } from 'kysely'
import type { ApiKeysTable, Tables } from './tables.ts'
import type { Queries } from './users.ts'

/** A key as the rest of the gateway knows it (IDN-25): what it hashes to stays in here. */
export interface ApiKey {
  readonly id: string
  readonly userId: string
  readonly name: string
  /** How it begins. */
  readonly prefix: string
  readonly permissions: readonly string[]
  /** Until when the key that it has replaced is good; undefined if that is over. */
  readonly previousUntil: number | undefined
  readonly expiresAt: number | undefined
  readonly lastUsedAt: number | undefined
  readonly createdAt: number
  readonly updatedAt: number
}

/** What a secret leaves behind: enough to know it again, not enough to make it. */
export interface KeyPrint {
  readonly prefix: string
  /** SHA-256, in hex. */
  readonly hash: string
}

/** @throws {DatabaseError} `reference` when there is no such user */
export async function createApiKey(
  trx: Transaction<Tables>,
  key: KeyPrint & Pick<ApiKey, 'userId' | 'name' | 'permissions' | 'expiresAt'>,
  now: number
): Promise<string> {
  const id = randomUUID()
  await trx
    .insertInto('api_keys')
    .values({
      id,
      user_id: key.userId,
      name: key.name,
      prefix: key.prefix,
      hash: key.hash,
      permissions: JSON.stringify(key.permissions),
      expires_at: key.expiresAt ?? null,
      created_at: now,
      updated_at: now
    })
    .execute()
  return id
}

/** The key of an id, which has to be a UUID; undefined if there is none. */
export async function findApiKey(db: Queries, id: string): Promise<ApiKey | undefined> {
  const row = await db.selectFrom('api_keys').selectAll().where('id', '=', id).executeTakeFirst()
  return row === undefined ? undefined : keyOf(row)
}

/** Keys, the youngest first. @param userId whose; everybody's if undefined */
export async function listApiKeys(
  db: Queries,
  userId: string | undefined,
  { limit, offset }: { limit: number; offset: number }
): Promise<{ keys: ApiKey[]; total: number }> {
  const query = db
    .selectFrom('api_keys')
    .$if(userId !== undefined, query => query.where('user_id', '=', userId as string))
  const { total } = await query.select(({ fn }) => fn.countAll().as('total')).executeTakeFirstOrThrow()
  const rows = await query.selectAll().orderBy('created_at', 'desc').orderBy('id').limit(limit).offset(offset).execute()
  return { keys: rows.map(keyOf), total: Number(total) }
}

/** Changes what a key is called, may do, and until when, as far as that is given; the key itself stays. */
export async function updateApiKey(
  trx: Transaction<Tables>,
  id: string,
  change: {
    readonly name: string | undefined
    readonly permissions: readonly string[] | undefined
    /** Milliseconds since 1970; null for never. */
    readonly expiresAt: number | null | undefined
  },
  now: number
): Promise<void> {
  const { name, permissions, expiresAt } = change
  await trx
    .updateTable('api_keys')
    .set({
      ...(name !== undefined && { name }),
      ...(permissions !== undefined && { permissions: JSON.stringify(permissions) }),
      ...(expiresAt !== undefined && { expires_at: expiresAt }),
      updated_at: now
    })
    .where('id', '=', id)
    .execute()
}

/**
 * Puts another secret in place of a key's. Of several at once the last one counts; each has the one before it as the one that
 * is good for a while.
 * @param previousUntil until when the present secret is still good; undefined to end it now
 */
export async function rotateApiKey(
  trx: Transaction<Tables>,
  id: string,
  { prefix, hash }: KeyPrint,
  previousUntil: number | undefined,
  now: number
): Promise<void> {
  await trx
    .updateTable('api_keys')
    .set(({ ref }) => ({
      previous_hash: previousUntil === undefined ? null : ref('hash'),
      previous_until: previousUntil ?? null,
      prefix,
      hash,
      updated_at: now
    }))
    .where('id', '=', id)
    .execute()
}

/** Whether there was such a key. */
export async function deleteApiKey(trx: Transaction<Tables>, id: string): Promise<boolean> {
  const { numDeletedRows } = await trx.deleteFrom('api_keys').where('id', '=', id).executeTakeFirst()
  return numDeletedRows > 0
}

/** A key as it is used: what it hashes to, and whose it is by now. */
export interface KeyInUse {
  readonly id: string
  /** SHA-256 of the secret that was asked for, in hex. */
  readonly hash: string
  readonly name: string
  readonly permissions: readonly string[]
  /** When it ends, the end of a replaced secret included; undefined for never. */
  readonly expiresAt: number | undefined
  readonly owner: {
    readonly id: string
    readonly active: boolean
    readonly tier: string | undefined
    readonly roles: readonly { readonly id: string; readonly name: string; readonly permissions: readonly string[] }[]
  }
}

/** The keys that hash to any of `hashes`, present secrets and replaced ones, each with its owner as it is now. */
export async function findKeysByHash(db: Queries, hashes: readonly string[]): Promise<KeyInUse[]> {
  const wanted = [...hashes]
  const rows = await db
    .selectFrom('api_keys as key')
    .innerJoin('users', 'users.id', 'key.user_id')
    .select(['key.id', 'key.name', 'key.hash', 'key.previous_hash', 'key.previous_until', 'key.permissions'])
    .select(['key.expires_at', 'key.user_id', 'users.active', 'users.tier'])
    .where(({ or, eb }) => or([eb('key.hash', 'in', wanted), eb('key.previous_hash', 'in', wanted)]))
    .execute()
  if (rows.length === 0) return []
  const roles = await db
    .selectFrom('user_roles')
    .innerJoin('roles', 'roles.id', 'user_roles.role_id')
    .select(['user_roles.user_id', 'roles.id', 'roles.name', 'roles.permissions'])
    .where('user_roles.user_id', 'in', [...new Set(rows.map(row => row.user_id))])
    .orderBy('roles.name')
    .execute()
  const asked = new Set(hashes)
  return rows.flatMap(row => {
    const owner = {
      id: row.user_id,
      active: Boolean(row.active),
      tier: row.tier ?? undefined,
      roles: roles
        .filter(role => role.user_id === row.user_id)
        .map(({ id, name, permissions }) => ({ id, name, permissions: JSON.parse(permissions) as string[] }))
    }
    const key = { id: row.id, name: row.name, permissions: JSON.parse(row.permissions) as string[], owner }
    const expiresAt = row.expires_at ?? undefined
    const replacedAt = Math.min(row.previous_until ?? 0, row.expires_at ?? Number.POSITIVE_INFINITY)
    return [
      ...(asked.has(row.hash) ? [{ ...key, hash: row.hash, expiresAt }] : []),
      ...(row.previous_hash !== null && asked.has(row.previous_hash)
        ? [{ ...key, hash: row.previous_hash, expiresAt: replacedAt }]
        : [])
    ]
  })
}

/** Writes down that keys have been used. @param at milliseconds since 1970 */
export async function noteKeyUses(db: Queries, ids: readonly string[], at: number): Promise<void> {
  // Databases count the parameters of a statement.
  for (let i = 0; i < ids.length; i += 500)
    await db
      .updateTable('api_keys')
      .set({ last_used_at: at })
      .where('id', 'in', ids.slice(i, i + 500))
      .execute()
}

function keyOf(row: Selectable<ApiKeysTable>): ApiKey {
  return {
    id: row.id,
    userId: row.user_id,
    name: row.name,
    prefix: row.prefix,
    permissions: JSON.parse(row.permissions) as string[],
    previousUntil: row.previous_until ?? undefined,
    expiresAt: row.expires_at ?? undefined,
    lastUsedAt: row.last_used_at ?? undefined,
    createdAt: row.created_at,
    updatedAt: row.updated_at
  }
}
