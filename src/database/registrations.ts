import type { Kysely, Transaction } from 'kysely'
import type { RegistrationsTable, Tables } from './tables.ts'

/** An instance that has registered itself at a service. */
export type Registration = Readonly<RegistrationsTable>

/** How often an instance has said that it is there. */
export type Beat = Pick<Registration, 'service' | 'id' | 'beats'>

/** Most of one service's. */
export const MOST_REGISTRATIONS = 1000

/** Registrations of these services; of all if not given. */
export async function readRegistrations(db: Kysely<Tables>, services?: readonly string[]): Promise<Registration[]> {
  const all = db.selectFrom('registrations').selectAll()
  return (services === undefined ? all : all.where('service', 'in', [...services])).execute()
}

export function readBeats(db: Kysely<Tables>): Promise<Beat[]> {
  return db.selectFrom('registrations').select(['service', 'id', 'beats']).execute()
}

/** Writes a registration down, in place of the one before. @returns that, or `full` when the service has too many */
export async function putRegistration(
  db: Transaction<Tables>,
  given: Omit<Registration, 'beats' | 'created_at'>
): Promise<{ before: Registration | undefined; after: Registration } | 'full'> {
  const before = await db
    .selectFrom('registrations')
    .selectAll()
    .where('service', '=', given.service)
    .where('id', '=', given.id)
    .executeTakeFirst()
  if (before === undefined) {
    const { there } = await db
      .selectFrom('registrations')
      .select(({ fn }) => fn.countAll().as('there'))
      .where('service', '=', given.service)
      .executeTakeFirstOrThrow()
    if (Number(there) >= MOST_REGISTRATIONS) return 'full'
  }
  const { renewed_at } = given
  const after = { ...given, beats: (before?.beats ?? 0) + 1, created_at: before?.created_at ?? renewed_at }
  const { service, id, created_at, ...news } = after
  await db
    .insertInto('registrations')
    .values(after)
    .onConflict(conflict => conflict.columns(['service', 'id']).doUpdateSet(news))
    .execute()
  return { before, after }
}

/** Says that an instance is still there. @returns its registration; undefined when there is none */
export function renewRegistration(
  db: Kysely<Tables>,
  { service, id }: Pick<Registration, 'service' | 'id'>,
  now: number
): Promise<Registration | undefined> {
  return db
    .updateTable('registrations')
    .set(({ eb }) => ({ beats: eb('beats', '+', 1), renewed_at: now }))
    .where('service', '=', service)
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirst()
}

/** Deletes a registration, if it has not been renewed beyond `beats`. @returns whether it was there */
export async function deleteRegistration(
  db: Transaction<Tables>,
  { service, id }: Pick<Registration, 'service' | 'id'>,
  beats?: number
): Promise<boolean> {
  let row = db.deleteFrom('registrations').where('service', '=', service).where('id', '=', id)
  if (beats !== undefined) row = row.where('beats', '=', beats)
  const { numDeletedRows } = await row.executeTakeFirst()
  return numDeletedRows > 0n
}
