import type { Snapshot } from '../config/snapshot.ts'
import { type AuditEntry, writeAudit } from '../database/audit.ts'
import type { Database } from '../database/database.ts'
import { addressesOf } from '../database/sessions.ts'
import { findLogin, findUser, type Login, nameKey, replaceHash, type User } from '../database/users.ts'
import { GatewayError, refuse } from '../errors.ts'
import { network } from '../limits/plan.ts'
import type { Runtime } from '../runtime/runtime.ts'
import { LoginThrottle, strangersName } from './throttle.ts'

/** Who tries to log in, and from where: for the throttle, the log and the audit. */
export interface Attempt {
  readonly clientIp: string
  readonly requestId: string
  readonly userAgent?: string | undefined
}

/** What a good password leads to. */
export type PasswordVerdict =
  /** The user is in. It may still have to change its password: `user.mustChangePassword`. */
  | { readonly kind: 'user'; readonly user: User }
  /** The password is good, and a second factor is asked for: `verifySecondFactor(challenge, code, attempt)`. */
  | { readonly kind: 'mfa_required'; readonly challenge: string; readonly expiresInMs: number }

/** Nobody's. */
const NOBODY = '00000000-0000-4000-8000-000000000000'

/**
 * How people prove who they are, for everything that asks them: `POST /auth/login`, `POST /token`, OAuth's login page. The
 * throttle, the second factor, the log and the audit are in here, and nowhere else. Holds nothing of its own, so whoever
 * needs one makes one.
 *
 * @example
 * const accounts = new Accounts(runtime, snapshot)
 * const verdict = await accounts.verifyPassword(username, password, { clientIp, requestId })
 * if (verdict.kind === 'mfa_required') … // ask for a code, then accounts.verifySecondFactor(…)
 */
export class Accounts {
  readonly #runtime: Runtime
  readonly #cost: Snapshot['identity']['password']
  readonly #throttle: LoginThrottle

  constructor(runtime: Runtime, { identity, rateLimits }: Pick<Snapshot, 'identity' | 'rateLimits'>) {
    this.#runtime = runtime
    this.#cost = identity.password
    this.#throttle = new LoginThrottle(runtime.store, rateLimits.prefix)
  }

  /**
   * Whose password this is. Takes as long for a user who is not there, or not active, as for a wrong password, and says the
   * same of all three.
   * @param name username or e-mail address
   * @throws {GatewayError} 401 `invalid_credentials`, 429 `rate_limit_exceeded` with `Retry-After`, 503 `overloaded`
   * @throws {DatabaseError} while the database is out of reach
   */
  async verifyPassword(name: string, password: string, attempt: Attempt): Promise<PasswordVerdict> {
    const { db } = this.#database
    const login = await findLogin(db, name)
    try {
      const known = (await addressesOf(db, login?.id ?? NOBODY)).some(isIn(attempt.clientIp))
      await this.#throttle.attempt(login?.id ?? strangersName(nameKey(name)), attempt.clientIp, known)
      const match = await this.#runtime.passwords.verify(password, login?.passwordHash, this.#cost)
      if (login === undefined) throw refused('unknown_user')
      if (!match.matches) throw refused('wrong_password')
      if (!login.active) throw refused('inactive')
      if (match.outdated) await this.#rehash(login, password)
    } catch (error) {
      if (error instanceof GatewayError) await this.#refused(error, login?.id, attempt)
      throw error
    }
    const user = await findUser(db, login.id)
    if (user === undefined) throw refused('unknown_user')
    await this.#allowed(user, attempt)
    return { kind: 'user', user }
  }

  get #database(): Database {
    return this.#runtime.database as Database
  }

  /** The password is known for once, so that it can be hashed as the configuration wants it by now (IDN-09). */
  async #rehash({ id, passwordHash }: Login, password: string): Promise<void> {
    const hash = await this.#runtime.passwords.hash(password, this.#cost)
    await replaceHash(this.#database.db, id, passwordHash as string, hash)
  }

  /** Somebody is in: told to the log and the audit (IDN-19). */
  async #allowed(user: User, attempt: Attempt): Promise<void> {
    await writeAudit(this.#database.db, [
      { ...this.#entry('allowed', user.id, attempt), actor: `user:${user.id}`, details: undefined }
    ])
    const { clientIp, requestId } = attempt
    this.#runtime.log.info({ user: user.id, client_ip: clientIp, request_id: requestId }, 'login')
  }

  /** Somebody is not. What the throttle has turned away is for the log alone: nobody may fill the audit by trying. */
  async #refused(error: GatewayError, userId: string | undefined, attempt: Attempt): Promise<void> {
    const { log, metrics } = this.#runtime
    const { reason = error.code } = error
    metrics.authenticationFailures.inc({ reason })
    log.info({ user: userId, reason, client_ip: attempt.clientIp, request_id: attempt.requestId }, 'login refused')
    if (error.code !== 'invalid_credentials') return
    await writeAudit(this.#database.db, [
      { ...this.#entry('denied', userId ?? 'unknown', attempt), actor: 'anonymous', details: reason }
    ])
  }

  #entry(outcome: AuditEntry['outcome'], userId: string, { clientIp, requestId }: Attempt) {
    return { at: this.#runtime.clock.now(), action: 'login', target: `user:${userId}`, outcome, clientIp, requestId }
  }
}

/** The same words whatever is wrong; the reason is for the log. */
function refused(reason: string): GatewayError {
  return refuse('invalid_credentials', { reason })
}

function isIn(clientIp: string): (address: string) => boolean {
  const wanted = network(clientIp)
  return address => network(address) === wanted
}
