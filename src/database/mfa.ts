import type { Selectable, Transaction } from 'kysely'
import type { MfaChallengesTable, MfaTable, Tables } from './tables.ts'
import type { Queries } from './users.ts'

/** The second factor of a user, if there is one, be it enabled or not. */
export function findSecondFactor(db: Queries, userId: string): Promise<Selectable<MfaTable> | undefined> {
  return db.selectFrom('mfa').selectAll().where('user_id', '=', userId).executeTakeFirst()
}

/** Puts a second factor down that is still to be confirmed; nothing happens when there is one that counts already. @returns whether it is there now */
export async function proposeSecondFactor(
  trx: Transaction<Tables>,
  { userId, secret, now }: { userId: string; secret: string; now: number }
): Promise<boolean> {
  await trx.deleteFrom('mfa').where('user_id', '=', userId).where('enabled_at', 'is', null).execute()
  const { numInsertedOrUpdatedRows } = await trx
    .insertInto('mfa')
    .values({ user_id: userId, secret, enabled_at: null, last_step: 0, created_at: now })
    .onConflict(conflict => conflict.column('user_id').doNothing())
    .executeTakeFirst()
  return numInsertedOrUpdatedRows === 1n
}

/** Makes a proposed second factor count, with these recovery codes. @returns whether there was one that did not */
export async function enableSecondFactor(
  trx: Transaction<Tables>,
  { userId, step, codeHashes, now }: { userId: string; step: number; codeHashes: readonly string[]; now: number }
): Promise<boolean> {
  const { numUpdatedRows } = await trx
    .updateTable('mfa')
    .set({ enabled_at: now, last_step: step })
    .where('user_id', '=', userId)
    .where('enabled_at', 'is', null)
    .executeTakeFirst()
  if (numUpdatedRows === 0n) return false
  await trx
    .insertInto('mfa_recovery_codes')
    .values(codeHashes.map(hash => ({ hash, user_id: userId })))
    .execute()
  return true
}

/** Takes a user's second factor away, recovery codes and all: for itself, and for administrators whose users have lost theirs. */
export async function removeSecondFactor(trx: Transaction<Tables>, userId: string): Promise<boolean> {
  await trx.deleteFrom('mfa_challenges').where('user_id', '=', userId).execute()
  await trx.deleteFrom('mfa_recovery_codes').where('user_id', '=', userId).execute()
  const { numDeletedRows } = await trx.deleteFrom('mfa').where('user_id', '=', userId).executeTakeFirst()
  return numDeletedRows > 0n
}

/** Takes the code of a time step; each is taken once, on whichever node, and none after a later one. @returns whether it was */
export async function takeStep(trx: Transaction<Tables>, userId: string, step: number): Promise<boolean> {
  const { numUpdatedRows } = await trx
    .updateTable('mfa')
    .set({ last_step: step })
    .where('user_id', '=', userId)
    .where('last_step', '<', step)
    .where('enabled_at', 'is not', null)
    .executeTakeFirst()
  return numUpdatedRows > 0n
}

/** Takes a recovery code; it is gone then. @returns whether it was there */
export async function takeRecoveryCode(trx: Transaction<Tables>, userId: string, hash: string): Promise<boolean> {
  const { numDeletedRows } = await trx
    .deleteFrom('mfa_recovery_codes')
    .where('user_id', '=', userId)
    .where('hash', '=', hash)
    .executeTakeFirst()
  return numDeletedRows > 0n
}

export type Challenge = Selectable<MfaChallengesTable>

/** Puts a challenge down, and forgets those that are over. */
export async function addChallenge(trx: Transaction<Tables>, challenge: Challenge, now: number): Promise<void> {
  await trx.deleteFrom('mfa_challenges').where('expires_at', '<=', now).execute()
  await trx.insertInto('mfa_challenges').values(challenge).execute()
}

export function findChallenge(db: Queries, hash: string): Promise<Challenge | undefined> {
  return db.selectFrom('mfa_challenges').selectAll().where('hash', '=', hash).executeTakeFirst()
}

/** Counts a try at a challenge. @returns whether there was one left */
export async function tryChallenge(
  trx: Transaction<Tables>,
  hash: string,
  { most, now }: { most: number; now: number }
): Promise<boolean> {
  const { numUpdatedRows } = await trx
    .updateTable('mfa_challenges')
    .set(({ eb }) => ({ attempts: eb('attempts', '+', 1) }))
    .where('hash', '=', hash)
    .where('attempts', '<', most)
    .where('expires_at', '>', now)
    .executeTakeFirst()
  return numUpdatedRows > 0n
}

export async function endChallenge(trx: Transaction<Tables>, hash: string): Promise<void> {
  await trx.deleteFrom('mfa_challenges').where('hash', '=', hash).execute()
}
