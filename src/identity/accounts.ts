import type { Snapshot } from '../config/snapshot.ts'
import { type AuditEntry, writeAudit } from '../database/audit.ts'
import type { Database } from '../database/database.ts'
import { removeSecondFactor } from '../database/mfa.ts'
import { addressesOf } from '../database/sessions.ts'
import {
  findLogin,
  findUser,
  type Login,
  nameKey,
  passwordHashOf,
  type Queries,
  replaceHash,
  setPassword,
  type User
} from '../database/users.ts'
import { GatewayError, refuse } from '../errors.ts'
import { network } from '../limits/plan.ts'
import type { Runtime } from '../runtime/runtime.ts'
import { type Enrolment, SecondFactor } from './second-factor.ts'
import type { Sessions, Tokens } from './sessions.ts'
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
  readonly #secondFactor: SecondFactor

  constructor(runtime: Runtime, snapshot: Pick<Snapshot, 'identity' | 'rateLimits' | 'storage' | 'gateway'>) {
    const { identity, rateLimits } = snapshot
    this.#runtime = runtime
    this.#cost = identity.password
    this.#secondFactor = new SecondFactor(runtime, snapshot)
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
    // What the password was good for is over.
    if (user?.tokenVersion !== login.tokenVersion) throw refused('changed_meanwhile')
    if (await this.#secondFactor.isAsked(user.id)) {
      await this.#audit(user.id, { action: 'login.password', outcome: 'allowed' }, attempt)
      return { kind: 'mfa_required', ...(await this.#secondFactor.challenge(user)) }
    }
    await this.#allowed(user, attempt)
    return { kind: 'user', user }
  }

  /**
   * Whose login a code completes: one of the authenticator, or a recovery code. A challenge looks at five, and is met once.
   * @param challenge of {@link verifyPassword}
   * @throws {GatewayError} 401 `authentication_failed`, 429
   */
  async verifySecondFactor(challenge: string, code: string, attempt: Attempt): Promise<User> {
    const user = await this.#secondFactor.userOf(challenge)
    try {
      if (user === undefined) throw wrongCode('unknown_challenge')
      await this.#countCode(user.id, attempt)
      const met = await this.#database.transaction(async trx => this.#secondFactor.meet(trx, challenge, user.id, code))
      if (!met) throw wrongCode('wrong_code')
    } catch (error) {
      if (error instanceof GatewayError) await this.#refused(error, user?.id, attempt)
      throw error
    }
    await this.#allowed(user, attempt)
    return user
  }

  /** Begins the enrolment of a second factor. @throws {GatewayError} 409 when there is one, 422 for a wrong password, 429 */
  async enrolSecondFactor(user: User, password: string, attempt: Attempt): Promise<Enrolment> {
    await this.#checkPassword(user, { field: 'password', password }, 'mfa.enrol', attempt)
    const enrolment = await this.#secondFactor.enrol(user)
    if (enrolment === undefined) throw refuse('conflict', { details: 'There is a second factor already.' })
    return enrolment
  }

  /** Completes it. @returns recovery codes. @throws {GatewayError} 422 for a wrong code, 429 */
  async confirmSecondFactor(user: User, code: string, attempt: Attempt): Promise<string[]> {
    await this.#countCode(user.id, attempt)
    const codes = await this.#database.transaction(async trx => {
      const codes = await this.#secondFactor.confirm(trx, user.id, code)
      if (codes !== undefined) await this.#audit(user.id, { action: 'mfa.enable', outcome: 'changed' }, attempt, trx)
      return codes
    })
    if (codes === undefined)
      throw wrongField('code', 'is not the one that the authenticator shows, or no enrolment waits for it')
    return codes
  }

  /** Takes the second factor away. @throws {GatewayError} 422 for a wrong password or code, 429 */
  async disableSecondFactor(
    user: User,
    { password, code }: { password: string; code: string },
    attempt: Attempt
  ): Promise<void> {
    await this.#checkPassword(user, { field: 'password', password }, 'mfa.disable', attempt)
    await this.#countCode(user.id, attempt)
    const done = await this.#database.transaction(async trx => {
      if (!(await this.#secondFactor.take(trx, user.id, code))) return false
      await removeSecondFactor(trx, user.id)
      await this.#audit(user.id, { action: 'mfa.disable', outcome: 'changed' }, attempt, trx)
      return true
    })
    if (!done) throw wrongField('code', 'is no code of the second factor')
  }

  async #countCode(userId: string, { clientIp }: Attempt): Promise<void> {
    const known = (await addressesOf(this.#database.db, userId)).some(isIn(clientIp))
    await this.#throttle.code(userId, clientIp, known)
  }

  /** Whoever has stolen a token must not be able to try passwords with it. @returns the hash of the right one */
  async #checkPassword(
    { id }: User,
    { field, password }: { field: string; password: string },
    action: string,
    attempt: Attempt
  ): Promise<string> {
    await this.#throttle.attempt(id, attempt.clientIp, true)
    const hash = await passwordHashOf(this.#database.db, id)
    const { matches } = await this.#runtime.passwords.verify(password, hash, this.#cost)
    if (matches) return hash as string
    await this.#audit(id, { action, outcome: 'denied', details: 'wrong_password' }, attempt)
    throw wrongField(field, 'is not the password')
  }

  /**
   * Gives a user another password. All its other sessions end, and this one goes on with new tokens.
   * @throws {GatewayError} 422 for a wrong or an unacceptable one, 429, 409 when somebody else has changed it meanwhile
   */
  async changePassword(
    user: User,
    { current, next }: { current: string; next: string },
    { sessions, sessionId, attempt }: { sessions: Sessions; sessionId: string; attempt: Attempt }
  ): Promise<Tokens> {
    const { clock, passwords } = this.#runtime
    const action = 'password.change'
    const before = await this.#checkPassword(user, { field: 'current_password', password: current }, action, attempt)
    if (next === current) throw wrongField('new_password', 'is the same as before')
    if ([user.username, user.email].some(name => nameKey(name) === nameKey(next)))
      throw wrongField('new_password', 'is the name of its user')
    const hash = await passwords.hash(next, this.#cost)
    const tokens = await this.#database.transaction(async (trx, changed) => {
      const now = clock.now()
      const changedNow = await setPassword(trx, user.id, { hash, before, mustChange: false, now })
      if (!changedNow) throw refuse('conflict', { details: 'The password has been changed meanwhile.' })
      const tokens = await sessions.endOthers(trx, changed, user.id, sessionId)
      await this.#audit(user.id, { action, outcome: 'changed' }, attempt, trx)
      return tokens
    })
    return tokens()
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
    await this.#audit(user.id, { action: 'login', outcome: 'allowed' }, attempt)
    const { clientIp, requestId } = attempt
    this.#runtime.log.info({ user: user.id, client_ip: clientIp, request_id: requestId }, 'login')
  }

  /** Somebody is not. What the throttle has turned away is for the log alone: nobody may fill the audit by trying. */
  async #refused(error: GatewayError, userId: string | undefined, attempt: Attempt): Promise<void> {
    const { log, metrics } = this.#runtime
    const { reason = error.code } = error
    metrics.authenticationFailures.inc({ reason })
    log.info({ user: userId, reason, client_ip: attempt.clientIp, request_id: attempt.requestId }, 'login refused')
    if (error.statusCode !== 401) return
    await this.#audit(userId ?? 'unknown', { action: 'login', outcome: 'denied', details: reason }, attempt)
  }

  /** Whoever is turned away is somebody of whom nothing is known. */
  #audit(
    userId: string,
    what: Pick<AuditEntry, 'action' | 'outcome' | 'details'>,
    { clientIp, requestId }: Attempt,
    db: Queries = this.#database.db
  ): Promise<void> {
    const target = `user:${userId}`
    const actor = what.outcome === 'denied' ? 'anonymous' : target
    return writeAudit(db, [{ at: this.#runtime.clock.now(), actor, target, ...what, clientIp, requestId }])
  }
}

/** The same words whatever is wrong; the reason is for the log. */
function refused(reason: string): GatewayError {
  return refuse('invalid_credentials', { reason })
}

function wrongCode(reason: string): GatewayError {
  return refuse('authentication_failed', {
    reason,
    details: 'The code is not good or has been used, or its login has expired.'
  })
}

function wrongField(field: string, message: string): GatewayError {
  return refuse('validation_error', {
    reason: `${field}_refused`,
    details: `${field} ${message}`,
    fields: [{ field, message, type: 'password' }]
  })
}

function isIn(clientIp: string): (address: string) => boolean {
  const wanted = network(clientIp)
  return address => network(address) === wanted
}
