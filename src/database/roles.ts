import { randomUUID } from 'node:crypto'
import type { Selectable, Transaction } from 'kysely'
import { refuse } from '../errors.ts'
import type { Change } from './changes.ts'
import { type Database, takeLock } from './database.ts'
import type { RolesTable, Tables } from './tables.ts'
import type { Queries } from './users.ts'

/** A role (AZN-02). */
export interface Role {
  readonly id: string
  readonly name: string
  readonly description: string | undefined
  readonly permissions: readonly string[]
  readonly createdAt: number
  readonly updatedAt: number
}

/** The role of those who administer the gateway. */
export const ADMIN = 'admin'

/** The role of an id, which has to be a UUID; undefined if there is none. */
export async function findRole(db: Queries, id: string): Promise<Role | undefined> {
  const row = await db.selectFrom('roles').selectAll().where('id', '=', id).executeTakeFirst()
  return row === undefined ? undefined : roleOf(row)
}

/** The roles of these names; what is not there is not among them. */
export async function findRoles(db: Queries, names: readonly string[]): Promise<Role[]> {
  if (names.length === 0) return []
  const rows = await db
    .selectFrom('roles')
    .selectAll()
    .where('name', 'in', [...names])
    .execute()
  return rows.map(roleOf)
}

/** Roles by name, and how many users have each. */
export async function listRoles(
  db: Queries,
  { limit, offset }: { limit: number; offset: number }
): Promise<{ roles: (Role & { users: number })[]; total: number }> {
  const { total } = await db
    .selectFrom('roles')
    .select(({ fn }) => fn.countAll().as('total'))
    .executeTakeFirstOrThrow()
  const rows = await db
    .selectFrom('roles')
    .selectAll()
    .select(({ selectFrom }) =>
      selectFrom('user_roles')
        .whereRef('user_roles.role_id', '=', 'roles.id')
        .select(({ fn }) => fn.countAll().as('users'))
        .as('users')
    )
    .orderBy('name')
    .limit(limit)
    .offset(offset)
    .execute()
  return { roles: rows.map(row => ({ ...roleOf(row), users: Number(row.users) })), total: Number(total) }
}

/** @throws {DatabaseError} `duplicate` when the name is taken */
export async function createRole(
  trx: Transaction<Tables>,
  { name, description, permissions }: Pick<Role, 'name' | 'description' | 'permissions'>,
  now: number
): Promise<string> {
  const id = randomUUID()
  const role = { id, name, description: description ?? null, permissions: JSON.stringify(permissions) }
  await trx
    .insertInto('roles')
    .values({ ...role, created_at: now, updated_at: now })
    .execute()
  return id
}

/** Changes what is given. What its holders may do changes, too. @throws {DatabaseError} `duplicate` when the name is taken */
export async function updateRole(
  trx: Transaction<Tables>,
  id: string,
  change: { readonly name?: string; readonly description?: string | null; readonly permissions?: readonly string[] },
  now: number
): Promise<void> {
  const { name, description, permissions } = change
  await trx
    .updateTable('roles')
    .set({
      ...(name !== undefined && { name }),
      ...(description !== undefined && { description }),
      ...(permissions !== undefined && { permissions: JSON.stringify(permissions) }),
      updated_at: now
    })
    .where('id', '=', id)
    .execute()
}

/** What hangs on it goes with it. */
export async function deleteRole(trx: Transaction<Tables>, id: string): Promise<void> {
  await trx.deleteFrom('roles').where('id', '=', id).execute()
}

/** Ids of the users who have a role. */
export async function holdersOf(db: Queries, roleId: string): Promise<string[]> {
  const rows = await db.selectFrom('user_roles').select('user_id').where('role_id', '=', roleId).execute()
  return rows.map(row => row.user_id)
}

/** Gives a user a role. Whether it did not have it before. @throws {DatabaseError} `reference` when one of them is not there */
export async function assignRole(
  trx: Transaction<Tables>,
  userId: string,
  roleId: string,
  now: number
): Promise<boolean> {
  const { numInsertedOrUpdatedRows } = await trx
    .insertInto('user_roles')
    .values({ id: randomUUID(), user_id: userId, role_id: roleId, created_at: now })
    .onConflict(conflict => conflict.columns(['user_id', 'role_id']).doNothing())
    .executeTakeFirst()
  return (numInsertedOrUpdatedRows ?? 0n) > 0n
}

/** Takes a role away from a user. Whether it had it. */
export async function removeRole(trx: Transaction<Tables>, userId: string, roleId: string): Promise<boolean> {
  const { numDeletedRows } = await trx
    .deleteFrom('user_roles')
    .where('user_id', '=', userId)
    .where('role_id', '=', roleId)
    .executeTakeFirst()
  return numDeletedRows > 0n
}

/**
 * A transaction that changes what users may do. Such changes come one after the other on all nodes, so that two of them cannot
 * each take one of the last two administrators away.
 * @throws {GatewayError} 409 when it would leave nobody to administer the gateway, and there was somebody before
 */
export function changeAccess<T>(
  database: Database,
  work: (trx: Transaction<Tables>, changed: Change[]) => Promise<T>
): Promise<T> {
  return database.transaction(async (trx, changed) => {
    // In SQLite, transactions come one after the other anyway.
    if (database.kind === 'postgres') await takeLock(trx, 'access')
    const before = await countAdministrators(trx)
    const result = await work(trx, changed)
    if (before > 0 && (await countAdministrators(trx)) === 0)
      throw refuse('conflict', { details: `Nobody who is active would have the role ${ADMIN} any more.` })
    return result
  })
}

async function countAdministrators(db: Queries): Promise<number> {
  const { count } = await db
    .selectFrom('users')
    .innerJoin('user_roles', 'user_roles.user_id', 'users.id')
    .innerJoin('roles', 'roles.id', 'user_roles.role_id')
    .select(({ fn }) => fn.count('users.id').as('count'))
    .where('roles.name', '=', ADMIN)
    .where('users.active', '=', true)
    .executeTakeFirstOrThrow()
  return Number(count)
}

function roleOf(row: Selectable<RolesTable>): Role {
  return {
    id: row.id,
    name: row.name,
    description: row.description ?? undefined,
    permissions: JSON.parse(row.permissions) as string[],
    createdAt: row.created_at,
    updatedAt: row.updated_at
  }
}
