import { randomUUID } from 'node:crypto'
import type { Kysely, Selectable, Transaction } from 'kysely'
import type { Change } from './changes.ts'
import type { Tables, UsersTable } from './tables.ts'

/** A user as the rest of the gateway knows it; the hash of its password stays in here, but for {@link findLogin}. */
export interface User {
  readonly id: string
  readonly username: string
  readonly email: string
  readonly firstName: string | undefined
  readonly lastName: string | undefined
  /** Names of its roles, in their order. */
  readonly roles: readonly string[]
  /** What its roles permit, each once. */
  readonly permissions: readonly string[]
  readonly tier: string | undefined
  readonly active: boolean
  readonly mustChangePassword: boolean
  /** The claim `ver` of its tokens. */
  readonly tokenVersion: number
  readonly createdAt: number
  readonly updatedAt: number
}

/** What a new user begins with. */
export interface NewUser {
  readonly username: string
  readonly email: string
  /** PHC string; undefined for users who log in elsewhere. */
  readonly passwordHash?: string | undefined
  readonly firstName?: string | undefined
  readonly lastName?: string | undefined
  readonly tier?: string | undefined
  readonly active?: boolean
  readonly mustChangePassword?: boolean
  /** Ids of its roles. */
  readonly roleIds?: readonly string[]
}

/** The database, or a transaction on it. */
export type Queries = Kysely<Tables> | Transaction<Tables>

/** How a username or an e-mail address is compared: `Alice@Example.com` and `alice@example.com` are one. */
export function nameKey(name: string): string {
  return name.normalize('NFKC').toLowerCase()
}

/**
 * Makes a user. The names of users hold no `@`, so that nobody can be called what another's e-mail address is.
 * @throws {DatabaseError} `duplicate` when the username or the address is taken, `reference` when a role is not there
 */
export async function createUser(trx: Transaction<Tables>, user: NewUser, now: number): Promise<string> {
  const id = randomUUID()
  await trx
    .insertInto('users')
    .values({
      id,
      username: user.username,
      username_key: nameKey(user.username),
      email: user.email,
      email_key: nameKey(user.email),
      password_hash: user.passwordHash ?? null,
      first_name: user.firstName ?? null,
      last_name: user.lastName ?? null,
      tier: user.tier ?? null,
      active: user.active ?? true,
      must_change_password: user.mustChangePassword ?? false,
      created_at: now,
      updated_at: now
    })
    .execute()
  await setRoles(trx, id, user.roleIds ?? [], now)
  return id
}

/** Gives a user these roles and no others; what it may do changes, so {@link raiseTokenVersion} has to follow for old users. */
export async function setRoles(
  trx: Transaction<Tables>,
  userId: string,
  roleIds: readonly string[],
  now: number
): Promise<void> {
  await trx.deleteFrom('user_roles').where('user_id', '=', userId).execute()
  if (roleIds.length === 0) return
  await trx
    .insertInto('user_roles')
    .values(roleIds.map(role_id => ({ id: randomUUID(), user_id: userId, role_id, created_at: now })))
    .execute()
}

/** The id of the role of this name, which is made with `permissions` if it is not there. */
export async function ensureRole(
  trx: Transaction<Tables>,
  { name, description, permissions }: { name: string; description: string; permissions: readonly string[] },
  now: number
): Promise<string> {
  await trx
    .insertInto('roles')
    .values({
      id: randomUUID(),
      name,
      description,
      permissions: JSON.stringify(permissions),
      created_at: now,
      updated_at: now
    })
    .onConflict(conflict => conflict.column('name').doNothing())
    .execute()
  const { id } = await trx.selectFrom('roles').select('id').where('name', '=', name).executeTakeFirstOrThrow()
  return id
}

/** The user of an id, which has to be a UUID; undefined if there is none. */
export async function findUser(db: Queries, id: string): Promise<User | undefined> {
  const row = await db.selectFrom('users').selectAll().where('id', '=', id).executeTakeFirst()
  return row === undefined ? undefined : (await withRoles(db, [row]))[0]
}

/** What a login is held against. */
export interface Login {
  readonly id: string
  readonly active: boolean
  /** Undefined for users who log in elsewhere. */
  readonly passwordHash: string | undefined
  readonly tokenVersion: number
}

/**
 * Whom a username or an e-mail address means. Nothing else is read, so that this takes as long for somebody who is there
 * as for somebody who is not.
 */
export async function findLogin(db: Queries, name: string): Promise<Login | undefined> {
  const key = nameKey(name)
  const row = await db
    .selectFrom('users')
    .select(['id', 'active', 'password_hash', 'token_version'])
    .where(key.includes('@') ? 'email_key' : 'username_key', '=', key)
    .executeTakeFirst()
  if (row === undefined) return undefined
  const { id, active, password_hash, token_version: tokenVersion } = row
  return { id, active: Boolean(active), passwordHash: password_hash ?? undefined, tokenVersion }
}

/**
 * Gives a user another password; {@link raiseTokenVersion} and {@link endSessionsOf} have to follow.
 * @param before the hash that it is to replace; undefined for whatever it is
 * @param mustChange whether the user has to choose another one next
 * @returns whether it has been replaced
 */
export async function setPassword(
  trx: Queries,
  userId: string,
  { hash, before, mustChange, now }: { hash: string; before?: string; mustChange: boolean; now: number }
): Promise<boolean> {
  let update = trx
    .updateTable('users')
    .set({ password_hash: hash, must_change_password: mustChange, updated_at: now })
    .where('id', '=', userId)
  if (before !== undefined) update = update.where('password_hash', '=', before)
  const { numUpdatedRows } = await update.executeTakeFirst()
  return numUpdatedRows > 0n
}

/** What there is to change of a user; null for none any more. */
export interface UserChange {
  readonly username?: string | undefined
  readonly email?: string | undefined
  readonly firstName?: string | null | undefined
  readonly lastName?: string | null | undefined
  readonly tier?: string | null | undefined
  readonly active?: boolean | undefined
}

/**
 * Changes what is given; after a change of `tier` or `active`, {@link raiseTokenVersion} has to follow.
 * @returns whether the user is there. @throws {DatabaseError} `duplicate`
 */
export async function updateUser(trx: Queries, userId: string, change: UserChange, now: number): Promise<boolean> {
  const { username, email, firstName, lastName, tier, active } = change
  const { numUpdatedRows } = await trx
    .updateTable('users')
    .set({
      ...(username !== undefined && { username, username_key: nameKey(username) }),
      ...(email !== undefined && { email, email_key: nameKey(email) }),
      ...(firstName !== undefined && { first_name: firstName }),
      ...(lastName !== undefined && { last_name: lastName }),
      ...(tier !== undefined && { tier }),
      ...(active !== undefined && { active }),
      updated_at: now
    })
    .where('id', '=', userId)
    .executeTakeFirst()
  return numUpdatedRows > 0n
}

/** Deletes a user and what hangs on it; of that, what is worth telling is counted. */
export async function deleteUser(
  trx: Transaction<Tables>,
  userId: string
): Promise<{ api_keys: number; sessions: number }> {
  const count = async (table: 'api_keys' | 'sessions'): Promise<number> => {
    const query = trx.selectFrom(table).where('user_id', '=', userId)
    const { total } = await query.select(({ fn }) => fn.countAll().as('total')).executeTakeFirstOrThrow()
    return Number(total)
  }
  const taken = { api_keys: await count('api_keys'), sessions: await count('sessions') }
  await trx.deleteFrom('users').where('id', '=', userId).execute()
  return taken
}

/** Users by name. @param filter `name` is what the username or the e-mail address begins with */
export async function listUsers(
  db: Queries,
  filter: { readonly name?: string; readonly role?: string; readonly active?: boolean },
  { limit, offset }: { limit: number; offset: number }
): Promise<{ users: User[]; total: number }> {
  let query = db.selectFrom('users')
  if (filter.active !== undefined) query = query.where('active', '=', filter.active)
  if (filter.name !== undefined) {
    const beginning = nameKey(filter.name)
    query = query.where(eb =>
      eb.or(
        (['username_key', 'email_key'] as const).map(key =>
          eb(eb.fn<string>('substr', [key, eb.lit(1), eb.lit([...beginning].length)]), '=', beginning)
        )
      )
    )
  }
  if (filter.role !== undefined) {
    const { role } = filter
    query = query.where('id', 'in', ({ selectFrom }) =>
      selectFrom('user_roles')
        .innerJoin('roles', 'roles.id', 'user_roles.role_id')
        .select('user_roles.user_id')
        .where('roles.name', '=', role)
    )
  }
  const { total } = await query.select(({ fn }) => fn.countAll().as('total')).executeTakeFirstOrThrow()
  const rows = await query.selectAll().orderBy('username_key').limit(limit).offset(offset).execute()
  return { users: await withRoles(db, rows), total: Number(total) }
}

/** The same password hashed anew; nothing happens if it is another by now. */
export async function replaceHash(db: Queries, userId: string, before: string, after: string): Promise<void> {
  await db
    .updateTable('users')
    .set({ password_hash: after })
    .where('id', '=', userId)
    .where('password_hash', '=', before)
    .execute()
}

/** The hash of a user's password, if it has one. */
export async function passwordHashOf(db: Queries, userId: string): Promise<string | undefined> {
  const row = await db.selectFrom('users').select('password_hash').where('id', '=', userId).executeTakeFirst()
  return row?.password_hash ?? undefined
}

async function withRoles(db: Queries, rows: readonly Selectable<UsersTable>[]): Promise<User[]> {
  if (rows.length === 0) return []
  const ids = rows.map(({ id }) => id)
  const roles = await db
    .selectFrom('user_roles')
    .innerJoin('roles', 'roles.id', 'user_roles.role_id')
    .select(['user_roles.user_id', 'roles.name', 'roles.permissions'])
    .where('user_roles.user_id', 'in', ids)
    .orderBy('roles.name')
    .execute()
  const byUser = Map.groupBy(roles, role => role.user_id)
  return rows.map(row => userOf(row, byUser.get(row.id) ?? []))
}

/** What people call a user. */
export function displayName({ firstName, lastName, username }: User): string {
  return [firstName, lastName].filter(part => part !== undefined && part !== '').join(' ') || username
}

function userOf(row: Selectable<UsersTable>, roles: readonly { name: string; permissions: string }[]): User {
  return {
    id: row.id,
    username: row.username,
    email: row.email,
    firstName: row.first_name ?? undefined,
    lastName: row.last_name ?? undefined,
    roles: roles.map(({ name }) => name),
    permissions: [...new Set(roles.flatMap(({ permissions }) => JSON.parse(permissions) as string[]))],
    tier: row.tier ?? undefined,
    active: Boolean(row.active),
    mustChangePassword: Boolean(row.must_change_password),
    tokenVersion: row.token_version,
    createdAt: row.created_at,
    updatedAt: row.updated_at
  }
}

/**
 * Ends all access tokens that these users have by now, on every node within a second: after a change of roles, permissions,
 * tier or password, and when a user is deactivated.
 */
export async function raiseTokenVersion(
  trx: Transaction<Tables>,
  changed: Change[],
  userIds: readonly string[],
  now: number
): Promise<void> {
  // Databases count the parameters of a statement.
  for (let i = 0; i < userIds.length; i += USERS_AT_ONCE)
    await trx
      .updateTable('users')
      .set(({ eb }) => ({ token_version: eb('token_version', '+', 1), token_version_at: now }))
      .where('id', 'in', userIds.slice(i, i + USERS_AT_ONCE))
      .execute()
  changed.push(...userIds.map(subject => ({ kind: 'user', subject })))
}

const USERS_AT_ONCE = 500
