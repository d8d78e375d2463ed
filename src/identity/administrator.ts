import { randomBytes } from 'node:crypto'
import type { Snapshot } from '../config/snapshot.ts'
import { writeAudit } from '../database/audit.ts'
import type { Database } from '../database/database.ts'
import { isDuplicate } from '../database/database-error.ts'
import { createUser, ensureRole, type NewUser } from '../database/users.ts'
import type { Runtime } from '../runtime/runtime.ts'

/** The role that may do everything. */
const ROLE = { name: 'admin', description: 'May do everything.', permissions: ['*'] }

/** Whom the first start has made. */
export interface FirstAdministrator {
  readonly username: string
  /** Made up, and to be replaced at the first login; undefined when the configuration has given one. */
  readonly password: string | undefined
}

/**
 * Makes an administrator where there are no users at all. Of several gateways that start at once one does.
 * @returns undefined when there was somebody
 */
export async function ensureAdministrator(
  { database, passwords, clock }: Pick<Runtime, 'database' | 'passwords' | 'clock'>,
  { identity }: Pick<Snapshot, 'identity'>
): Promise<FirstAdministrator | undefined> {
  if (!identity.local || database === undefined || (await hasUsers(database))) return undefined
  const password = identity.admin_password ? undefined : madeUpPassword()
  const user = {
    username: 'admin',
    email: 'admin@localhost',
    passwordHash: await passwords.hash(password ?? (identity.admin_password as string), identity.password),
    mustChangePassword: password !== undefined
  }
  try {
    await createAdministrator(database, user, 'gateway', clock.now())
  } catch (error) {
    // Another gateway was faster: its administrator is ours, too.
    if (isDuplicate(error)) return undefined
    throw error
  }
  return { username: user.username, password }
}

async function hasUsers({ db }: Database): Promise<boolean> {
  return (await db.selectFrom('users').select('id').limit(1).executeTakeFirst()) !== undefined
}

/**
 * Makes a user with the role `admin`. @param actor for the audit
 * @throws {DatabaseError} `duplicate` when the name or the address is taken
 */
export function createAdministrator(
  database: Database,
  user: Omit<NewUser, 'roleIds'>,
  actor: 'gateway' | 'command',
  now: number
): Promise<string> {
  return database.transaction(async trx => {
    const id = await createUser(trx, { ...user, roleIds: [await ensureRole(trx, ROLE, now)] }, now)
    const after = { username: user.username, email: user.email, roles: [ROLE.name] }
    await writeAudit(trx, [{ at: now, actor, action: 'user.create', target: `user:${id}`, outcome: 'changed', after }])
    return id
  })
}

/** A password for one login: 120 bits, without letters that look like others. */
export function madeUpPassword(): string {
  const letters = 'abcdefghijkmnpqrstuvwxyz23456789'
  return [...randomBytes(24)].map(byte => letters[byte & 31]).join('')
}
