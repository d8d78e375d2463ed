import type { Selectable, Transaction } from 'kysely'
import type { Change } from './changes.ts'
import type { SessionsTable, Tables } from './tables.ts'
import type { Queries } from './users.ts'

/** Addresses that are looked at to tell an owner from a stranger. */
const MOST_ADDRESSES = 100

/** Why a session has ended before its time. */
export type SessionEnd = 'logout' | 'reuse' | 'password' | 'administrator'

export type Session = Selectable<SessionsTable>

/** Addresses from which a user has logged in lately, the latest first. */
export async function addressesOf(db: Queries, userId: string): Promise<string[]> {
  const rows = await db
    .selectFrom('sessions')
    .select('client_ip')
    .where('user_id', '=', userId)
    .orderBy('created_at', 'desc')
    .limit(MOST_ADDRESSES)
    .execute()
  return rows.map(row => row.client_ip)
}

/**
 * Begins a session, if its user is still as it was when its password was looked at: a session that begins while the password
 * changes must not outlive that.
 * @returns whether there is one now
 */
export async function beginSession(
  trx: Transaction<Tables>,
  session: Omit<Session, 'revoked_at' | 'revoked_for'>,
  tokenVersion: number
): Promise<boolean> {
  const { numUpdatedRows } = await trx
    .updateTable('users')
    .set({ last_login_at: session.created_at })
    .where('id', '=', session.user_id)
    .where('token_version', '=', tokenVersion)
    .where('active', '=', true)
    .executeTakeFirst()
  if (numUpdatedRows === 0n) return false
  await trx.insertInto('sessions').values(session).execute()
  return true
}

/** The session that a refresh token belongs to, by the part that all of its tokens share. */
export async function findSession(db: Queries, familyHash: string): Promise<Session | undefined> {
  return db.selectFrom('sessions').selectAll().where('family_hash', '=', familyHash).executeTakeFirst()
}

/**
 * Puts another refresh token in the place of one. Of several that try so at once, one does.
 * @returns whether it was the one that was good
 */
export async function rotateSession(
  trx: Transaction<Tables>,
  id: string,
  before: string,
  next: Pick<Session, 'refresh_hash' | 'refreshed_at' | 'expires_at'>
): Promise<boolean> {
  const { numUpdatedRows } = await trx
    .updateTable('sessions')
    .set(next)
    .where('id', '=', id)
    .where('refresh_hash', '=', before)
    .where('revoked_at', 'is', null)
    .executeTakeFirst()
  return numUpdatedRows > 0n
}

/** Ends a session: its tokens are over on every node within a second. @returns whether it had not ended before */
export async function endSession(
  trx: Transaction<Tables>,
  changed: Change[],
  id: string,
  reason: SessionEnd,
  now: number
): Promise<boolean> {
  const { numUpdatedRows } = await trx
    .updateTable('sessions')
    .set({ revoked_at: now, revoked_for: reason })
    .where('id', '=', id)
    .where('revoked_at', 'is', null)
    .executeTakeFirst()
  if (numUpdatedRows === 0n) return false
  changed.push({ kind: 'session', subject: id })
  return true
}

/**
 * Ends all sessions of a user but one: none of their refresh tokens is good any more. For their access tokens
 * {@link raiseTokenVersion} has to follow.
 */
export async function endSessionsOf(
  trx: Transaction<Tables>,
  userId: string,
  reason: SessionEnd,
  now: number,
  except?: string
): Promise<void> {
  let update = trx
    .updateTable('sessions')
    .set({ revoked_at: now, revoked_for: reason })
    .where('user_id', '=', userId)
    .where('revoked_at', 'is', null)
  if (except !== undefined) update = update.where('id', '!=', except)
  await update.execute()
}

/** Forgets sessions that could not be refreshed any more by `before`, in milliseconds since 1970. */
export async function forgetSessions(db: Queries, before: number): Promise<void> {
  await db.deleteFrom('sessions').where('expires_at', '<', before).execute()
}
