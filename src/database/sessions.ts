import type { Queries } from './users.ts'

/** Addresses that are looked at to tell an owner from a stranger. */
const MOST_ADDRESSES = 100

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
