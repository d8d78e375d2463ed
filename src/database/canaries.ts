import type { Kysely, Transaction } from 'kysely'
import type { CanaryRecord } from '../releases/canary.ts'
import type { Tables } from './tables.ts'

/** How the canary of this name stands; undefined if it has not begun. */
export async function readCanary(db: Kysely<Tables>, name: string): Promise<CanaryRecord | undefined> {
  const row = await db.selectFrom('canaries').select('record').where('name', '=', name).executeTakeFirst()
  return row === undefined ? undefined : (JSON.parse(row.record) as CanaryRecord)
}

/** Writes down that it has begun, unless another gateway has done so. */
export async function beginCanary(db: Kysely<Tables>, name: string, record: CanaryRecord): Promise<void> {
  await db
    .insertInto('canaries')
    .values({ name, record: JSON.stringify(record) })
    .onConflict(conflict => conflict.column('name').doNothing())
    .execute()
}

export async function writeCanary(db: Transaction<Tables>, name: string, record: CanaryRecord): Promise<void> {
  const json = JSON.stringify(record)
  await db
    .insertInto('canaries')
    .values({ name, record: json })
    .onConflict(conflict => conflict.column('name').doUpdateSet({ record: json }))
    .execute()
}
