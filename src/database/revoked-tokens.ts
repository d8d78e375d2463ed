import type { Database } from './database.ts'

/** Under which kind it is known that a token was taken back; the subject is its key. */
export const TOKEN_REVOKED = 'token'

/** Tokens of one statement: databases count its parameters. */
const PAGE = 1000

export interface RevokedToken {
  readonly key: string
  /** Milliseconds since 1970. */
  readonly expires_at: number
}

/** Tokens that were taken back and would still be good: all, or of these keys. */
export function readRevokedTokens({ db }: Database, now: number, keys?: readonly string[]): Promise<RevokedToken[]> {
  const query = db.selectFrom('revoked_tokens').selectAll().where('expires_at', '>', now)
  return (keys === undefined ? query : query.where('key', 'in', keys)).execute()
}

/** Takes tokens back on every node, and forgets those whose time is over. */
export async function writeRevokedTokens(
  database: Database,
  tokens: readonly RevokedToken[],
  now: number
): Promise<void> {
  await database.transaction(async (transaction, changed) => {
    await transaction.deleteFrom('revoked_tokens').where('expires_at', '<=', now).execute()
    for (let i = 0; i < tokens.length; i += PAGE)
      await transaction
        .insertInto('revoked_tokens')
        .values(tokens.slice(i, i + PAGE))
        .onConflict(conflict =>
          conflict.column('key').doUpdateSet(({ ref }) => ({ expires_at: ref('excluded.expires_at') }))
        )
        .execute()
    changed.push(...tokens.map(({ key }) => ({ kind: TOKEN_REVOKED, subject: key })))
  })
}
