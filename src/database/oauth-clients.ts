import type { Kysely, Transaction } from 'kysely'
import type { ClientSettings, OAuthClient } from '../identity/oauth2/clients.ts'
import type { OAuthClientsTable, Tables } from './tables.ts'

type Db = Kysely<Tables> | Transaction<Tables>

/** A client that was registered by the API. */
export interface StoredClient extends OAuthClient {
  readonly createdAt: number
  readonly updatedAt: number
}

/** The client of this id. */
export async function findClient(db: Db, id: string): Promise<StoredClient | undefined> {
  const row = await db.selectFrom('oauth_clients').selectAll().where('id', '=', id).executeTakeFirst()
  return row === undefined ? undefined : clientOf(row)
}

/** A page of clients, in the order in which they were made, and how many there are. */
export async function listClients(
  db: Db,
  { limit, offset }: { limit: number; offset: number }
): Promise<{ clients: StoredClient[]; total: number }> {
  const rows = await db
    .selectFrom('oauth_clients')
    .selectAll()
    .orderBy('created_at')
    .orderBy('id')
    .limit(limit)
    .offset(offset)
    .execute()
  const { total } = await db
    .selectFrom('oauth_clients')
    .select(({ fn }) => fn.countAll().as('total'))
    .executeTakeFirstOrThrow()
  return { clients: rows.map(clientOf), total: Number(total) }
}

export async function insertClient(db: Db, client: OAuthClient, now: number): Promise<void> {
  const { id, name, secretHash, ...metadata } = client
  await db
    .insertInto('oauth_clients')
    .values({
      id,
      name,
      secret_hash: secretHash ?? null,
      metadata: JSON.stringify(metadata),
      created_at: now,
      updated_at: now
    })
    .execute()
}

export async function updateClient(db: Db, client: OAuthClient, now: number): Promise<void> {
  const { id, name, secretHash, ...metadata } = client
  await db
    .updateTable('oauth_clients')
    .set({ name, secret_hash: secretHash ?? null, metadata: JSON.stringify(metadata), updated_at: now })
    .where('id', '=', id)
    .execute()
}

export async function deleteClient(db: Db, id: string): Promise<void> {
  await db.deleteFrom('oauth_clients').where('id', '=', id).execute()
}

function clientOf(row: OAuthClientsTable): StoredClient {
  return {
    ...(JSON.parse(row.metadata) as Omit<ClientSettings, 'name'>),
    id: row.id,
    name: row.name,
    secretHash: row.secret_hash ?? undefined,
    createdAt: Number(row.created_at),
    updatedAt: Number(row.updated_at)
  }
}
