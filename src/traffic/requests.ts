import type { Kysely, Selectable } from 'kysely'
import type { ApiRequestsTable, Tables } from '../database/tables.ts'
import { type Question, statusRange } from './question.ts'

/** Which requests are asked for. */
export type RequestFilter = Pick<Question, 'from' | 'to'> & { readonly only: Question['only'] }

/** Requests that were written down (OBS-21), the newest first, and how many there are of them. @throws {DatabaseError} */
export async function readRequests(
  db: Kysely<Tables>,
  { from, to, only }: RequestFilter,
  { limit, offset }: { limit: number; offset: number }
): Promise<{ requests: Selectable<ApiRequestsTable>[]; total: number }> {
  const { endpoint, user, key, status } = only
  let matching = db.selectFrom('api_requests').where('created_at', '>=', from).where('created_at', '<', to)
  for (const [column, value] of Object.entries({ endpoint_id: endpoint, user_id: user, api_key_id: key }))
    if (value !== undefined) matching = matching.where(column as 'user_id', '=', value)
  if (status !== undefined) {
    const [least, end] = statusRange(status)
    matching = matching.where('status_code', '>=', least).where('status_code', '<', end)
  }
  const [requests, { total }] = await Promise.all([
    matching.selectAll().orderBy('created_at', 'desc').orderBy('id').limit(limit).offset(offset).execute(),
    matching.select(({ fn }) => fn.countAll<number>().as('total')).executeTakeFirstOrThrow()
  ])
  return { requests, total }
}
