import type { Queries } from './users.ts'

/** Who somebody is at another identity provider: its issuer, and what that calls its subject. */
export interface ExternalIdentity {
  readonly issuer: string
  readonly subject: string
}

/** The id of the user who this is here; undefined for somebody who has never come. */
export async function findExternal(db: Queries, { issuer, subject }: ExternalIdentity): Promise<string | undefined> {
  const row = await db
    .selectFrom('external_identities')
    .select('user_id')
    .where('issuer', '=', issuer)
    .where('subject', '=', subject)
    .executeTakeFirst()
  return row?.user_id
}

/** @throws {DatabaseError} `duplicate` when somebody else has just done the same */
export async function linkExternal(
  db: Queries,
  { issuer, subject }: ExternalIdentity,
  userId: string,
  now: number
): Promise<void> {
  await db.insertInto('external_identities').values({ issuer, subject, user_id: userId, created_at: now }).execute()
}
