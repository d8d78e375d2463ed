import { randomUUID } from 'node:crypto'
import type { Transaction } from 'kysely'
import type { IDToken } from 'openid-client'
import { writeAudit } from '../database/audit.ts'
import type { Change } from '../database/changes.ts'
import type { Database } from '../database/database.ts'
import { isDuplicate } from '../database/database-error.ts'
import { findExternal, linkExternal } from '../database/external-identities.ts'
import { changeAccess, findRoles } from '../database/roles.ts'
import type { Tables } from '../database/tables.ts'
import { createUser, findUser, raiseTokenVersion, setRoles, type User } from '../database/users.ts'
import { refuse } from '../errors.ts'
import type { Runtime } from '../runtime/runtime.ts'
import type { Attempt } from './accounts.ts'
import type { IdentitySettings } from './settings.ts'

export type ProviderSettings = IdentitySettings['providers'][number]

/**
 * The user who an ID token speaks of, as of now: made at the first login, with the roles that the provider's claims map to at
 * each. People are told apart by issuer and subject, and by nothing else: an e-mail address, verified or not, links nobody to
 * an account that is there already.
 * @throws {GatewayError} 401 for a user who is not active, 409 when the e-mail address is another account's
 */
export async function userOfClaims(
  settings: ProviderSettings,
  claims: IDToken,
  { database, clock, log }: Runtime,
  attempt: Attempt
): Promise<User> {
  const now = clock.now()
  const identity = { issuer: claims.iss, subject: claims.sub }
  const roles = rolesOf(settings, claims)
  const takeIn = () =>
    changeAccess(database as Database, async (transaction, changed) => {
      const known = await findExternal(transaction, identity)
      const id = known ?? (await newUser(transaction, claims, now))
      if (known === undefined) await linkExternal(transaction, identity, id, now)
      if (roles !== undefined) await assign(transaction, changed, id, roles, now)
      const user = (await findUser(transaction, id)) as User
      const { clientIp, requestId } = attempt
      const target = `user:${id}`
      const outcome = user.active ? ('allowed' as const) : ('denied' as const)
      const actor = user.active ? target : 'anonymous'
      const details = `external: ${settings.name}`
      await writeAudit(transaction, [
        { at: now, actor, action: 'login', target, outcome, details, clientIp, requestId }
      ])
      return user
    })
  // Of two first logins at once, the second one finds the user that the first has made.
  const user = await takeIn().catch((error: unknown) => {
    if (!isDuplicate(error)) throw error
    return takeIn().catch((again: unknown) => {
      if (isDuplicate(again)) throw refuse('conflict', { reason: 'email_taken', details: TAKEN })
      throw again
    })
  })
  if (!user.active) throw refuse('invalid_credentials', { reason: 'inactive' })
  log.info({ user: user.id, provider: settings.name, request_id: attempt.requestId }, 'login')
  return user
}

const TAKEN = 'There is an account with this e-mail address, which is not linked to this provider.'

/** Roles by name, of what the claim says; undefined when the provider has no say in them. */
function rolesOf({ roles_claim, roles }: ProviderSettings, claims: IDToken): string[] | undefined {
  if (Object.keys(roles).length === 0) return undefined
  const value = claims[roles_claim]
  const said = (Array.isArray(value) ? value : [value]).filter(item => typeof item === 'string')
  return [...new Set(said.flatMap(item => (Object.hasOwn(roles, item) ? (roles[item] as string[]) : [])))]
}

/** What the provider has not verified is left out, rather than kept as somebody's address. */
async function newUser(transaction: Transaction<Tables>, claims: IDToken, now: number): Promise<string> {
  const id = randomUUID()
  const { email, email_verified, given_name, family_name } = claims
  const verified = email_verified === true && typeof email === 'string' && email.length <= 254
  return createUser(
    transaction,
    {
      username: `external-${id}`,
      email: verified ? email : `${id}@external.invalid`,
      firstName: shortText(given_name) ?? shortText(claims.name),
      lastName: shortText(family_name)
    },
    now
  )
}

function shortText(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value.slice(0, 100) : undefined
}

/** Roles that nobody has made here count for nothing. Tokens from before end if something has changed. */
async function assign(
  transaction: Transaction<Tables>,
  changed: Change[],
  userId: string,
  names: readonly string[],
  now: number
): Promise<void> {
  const before = (await findUser(transaction, userId))?.roles ?? []
  const wanted = names.length === 0 ? [] : await findRoles(transaction, names)
  const after = wanted.map(({ name }) => name)
  if (before.length === after.length && after.every(name => before.includes(name))) return
  const ids = wanted.map(({ id }) => id)
  await setRoles(transaction, userId, ids, now)
  await raiseTokenVersion(transaction, changed, [userId], now)
}
