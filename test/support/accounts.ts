import { randomUUID } from 'node:crypto'
import type { Database } from '../../src/database/database.ts'
import { createUser, ensureRole } from '../../src/database/users.ts'

/** A user with these roles, which are made if they are not there. @returns its id */
export function makeUser(
  database: Database,
  roles: Readonly<Record<string, readonly string[]>> = {},
  more: { username?: string; tier?: string; active?: boolean } = {}
): Promise<string> {
  const { username = `u${randomUUID().slice(0, 8)}` } = more
  return database.transaction(async trx => {
    const roleIds: string[] = []
    for (const [name, permissions] of Object.entries(roles))
      roleIds.push(await ensureRole(trx, { name, description: '', permissions }, 1))
    return createUser(trx, { username, email: `${username}@example.com`, ...more, roleIds }, 1)
  })
}
