import { randomUUID } from 'node:crypto'
import type { Database } from '../../src/database/database.ts'
import { createUser, ensureRole, type NewUser } from '../../src/database/users.ts'
import { Passwords } from '../../src/identity/password.ts'

/** What the passwords of the tests cost, which is next to nothing; `startGateway` says the same. */
export const CHEAP = { memory_kib: 64, passes: 1 }

const passwords = new Passwords({ waiting: 10_000 })

/** Puts a user into a database, with roles by name and the permissions that these are to have. Returns its id. */
export async function addUser(
  database: Database,
  {
    username = `user-${randomUUID()}`,
    password = 'correct horse',
    roles = {},
    ...more
  }: Partial<NewUser> & { password?: string; roles?: Record<string, readonly string[]> } = {}
): Promise<string> {
  const passwordHash = await passwords.hash(password, CHEAP)
  return database.transaction(async trx => {
    const roleIds: string[] = []
    for (const [name, permissions] of Object.entries(roles))
      roleIds.push(await ensureRole(trx, { name, description: name, permissions }, 1))
    const user = { username, email: `${username}@example.com`, passwordHash, roleIds, ...more }
    return createUser(trx, user, 1_700_000_000_000)
  })
}
