import { randomBytes } from 'node:crypto'
import type { Database } from '../../database/database.ts'
import { isDuplicate } from '../../database/database-error.ts'
import { isSessionAlive } from '../../database/oauth.ts'
import { beginSession, endSession } from '../../database/sessions.ts'
import { displayName, findUser, type User } from '../../database/users.ts'
import type { Clock } from '../../runtime/clock.ts'
import { uuidOf } from '../../runtime/uuid.ts'
import type { Accounts, Attempt } from '../accounts.ts'

/** How people prove who they are: as they do for `POST /auth/login`. */
export type Logins = Pick<Accounts, 'verifyPassword'>

/** What begins when somebody logs in here. */
export interface Login {
  /** Of oidc-provider's session, or of nothing but this login. */
  readonly uid: string
  readonly userId: string
  /** As it was when the password was looked at. */
  readonly tokenVersion: number
}

/**
 * The session of the accounts that a login here is: one of those of `/auth/login`, so that whatever ends them ends the tokens of
 * OAuth, too. oidc-provider keeps nothing of ours with its own session, so the id follows from that one's.
 */
export function sessionOf(uid: string | undefined): string {
  return uuidOf(String(uid))
}

/** What each scope of OpenID Connect lets through of who somebody is. */
export const CLAIMS_OF: Readonly<Record<string, string[]>> = {
  profile: ['name', 'given_name', 'family_name', 'preferred_username'],
  email: ['email']
}

/** Who a user is, in OpenID Connect's words. @param scope what is let through; everything if not given */
export function userClaims(user: User, scope: readonly string[] = Object.keys(CLAIMS_OF)): { sub: string } {
  const all: Record<string, string | undefined> = {
    name: displayName(user),
    given_name: user.firstName,
    family_name: user.lastName,
    preferred_username: user.username,
    email: user.email
  }
  const wanted = scope.flatMap(word => CLAIMS_OF[word] ?? [])
  const claims = Object.fromEntries(wanted.flatMap(name => (all[name] === undefined ? [] : [[name, all[name]]])))
  return { sub: user.id, ...claims }
}

/** The accounts, as OAuth asks for them. */
export class OAuthUsers {
  readonly #database: Database
  readonly #clock: Clock
  readonly #lifeMs: number

  /** @param lifeMs from a login to the end of its last refresh token, in milliseconds */
  constructor(database: Database, clock: Clock, lifeMs: number) {
    this.#database = database
    this.#clock = clock
    this.#lifeMs = lifeMs
  }

  /** A user, active or not. */
  find(id: string): Promise<User | undefined> {
    return findUser(this.#database.db, id)
  }

  /** Begins the session of a login, unless there is, or was, one; none begins for a user who has changed since the password was looked at. */
  async begin({ uid, userId, tokenVersion }: Login, { clientIp, userAgent }: Attempt): Promise<void> {
    const now = this.#clock.now()
    const session = {
      id: sessionOf(uid),
      user_id: userId,
      // Its refresh tokens are oidc-provider's: these are nobody's.
      family_hash: randomBytes(32).toString('hex'),
      refresh_hash: randomBytes(32).toString('hex'),
      refreshed_at: now,
      expires_at: now + this.#lifeMs,
      client_ip: clientIp,
      user_agent: userAgent?.slice(0, 512) ?? null,
      created_at: now
    }
    try {
      await this.#database.transaction(transaction => beginSession(transaction, session, tokenVersion))
    } catch (error) {
      if (!isDuplicate(error)) throw error
    }
  }

  /** Whether the session of a login has begun and not ended. */
  isAlive(uid: string | undefined): Promise<boolean> {
    return isSessionAlive(this.#database.db, sessionOf(uid), this.#clock.now())
  }

  /** Ends the session of a login, with everything that came of it. */
  async end(uid: string | undefined): Promise<void> {
    await this.#database.transaction(async (transaction, changed) => {
      await endSession(transaction, changed, sessionOf(uid), 'logout', this.#clock.now())
    })
  }
}
