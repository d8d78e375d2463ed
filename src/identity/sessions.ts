import { hash, randomBytes, randomUUID } from 'node:crypto'
import type { Transaction } from 'kysely'
import type { Snapshot } from '../config/snapshot.ts'
import { writeAudit } from '../database/audit.ts'
import type { Change } from '../database/changes.ts'
import type { Database } from '../database/database.ts'
import {
  beginSession,
  endSession,
  endSessionsOf,
  findSession,
  forgetSessions,
  rotateSession,
  type Session
} from '../database/sessions.ts'
import type { Tables } from '../database/tables.ts'
import { displayName, findUser, raiseTokenVersion, type User } from '../database/users.ts'
import { type GatewayError, refuse } from '../errors.ts'
import type { Runtime } from '../runtime/runtime.ts'
import type { Attempt } from './accounts.ts'
import type { IdentitySettings } from './settings.ts'
import { LONGEST } from './token-form.ts'

/** Signs claims with the gateway's own key. */
export type Sign = (claims: Readonly<Record<string, unknown>>) => string

/** What a login, or a refresh, gives. */
export interface Tokens {
  readonly accessToken: string
  readonly refreshToken: string
  /** Life of the access token, in seconds. */
  readonly expiresIn: number
  readonly user: User
}

const DAY_MS = 86_400_000
/** How often sessions that are over are looked for, and for how long after that they still tell an owner from a stranger. */
const FORGET_EVERY_MS = 3_600_000
const FORGET_AFTER_MS = 30 * DAY_MS
const FAMILY_BYTES = 16
const TOKEN_BYTES = 32
const REFRESH_TOKEN = /^srt_([A-Za-z0-9_-]{64})$/

/**
 * Sessions: each begins with a login, and lives on as its refresh token is exchanged for the next (RFC 9700 section 4.14).
 * The access tokens are signed, so that no request asks the database; what ends a session ends them through
 * {@link LiveIdentity}.
 */
export class Sessions {
  readonly #runtime: Runtime
  readonly #settings: IdentitySettings['jwt']
  readonly #sign: Sign
  #forgetAt = 0

  constructor(runtime: Runtime, { identity }: Pick<Snapshot, 'identity'>, sign: Sign) {
    this.#runtime = runtime
    this.#settings = identity.jwt
    this.#sign = sign
  }

  /**
   * Begins a session for a user who has just proved who it is.
   * @throws {GatewayError} 401 when its password has changed meanwhile, or it is no longer active
   */
  async begin(user: User, attempt: Attempt): Promise<Tokens> {
    const now = this.#runtime.clock.now()
    const { token, family_hash, refresh_hash } = newToken(randomBytes(FAMILY_BYTES))
    const session = {
      id: randomUUID(),
      user_id: user.id,
      family_hash,
      refresh_hash,
      refreshed_at: now,
      expires_at: now + this.#refreshMs,
      client_ip: attempt.clientIp,
      user_agent: attempt.userAgent?.slice(0, 512) ?? null,
      created_at: now
    }
    await this.#forget(now)
    const begun = await this.#database.transaction(trx => beginSession(trx, session, user.tokenVersion))
    if (!begun) throw refuse('invalid_credentials', { reason: 'changed_meanwhile' })
    return this.#tokens(user, session.id, token)
  }

  /**
   * The next tokens of a session, with what its user may do by now. A refresh token is good once: one that has been used ends
   * the session, since nobody can tell its owner from a thief.
   * @throws {GatewayError} 401
   */
  async refresh(refreshToken: string, attempt: Attempt): Promise<Tokens> {
    const shown = readToken(refreshToken)
    if (shown === undefined) throw this.#refused('unknown_refresh_token', undefined, attempt)
    const outcome = await this.#database.transaction((trx, changed) => this.#exchange(trx, changed, shown, attempt))
    if ('reason' in outcome) throw this.#refused(outcome.reason, outcome.session, attempt)
    return this.#tokens(outcome.user, outcome.session.id, outcome.token)
  }

  async #exchange(
    trx: Transaction<Tables>,
    changed: Change[],
    shown: ShownToken,
    attempt: Attempt
  ): Promise<{ user: User; session: Session; token: string } | { reason: string; session?: Session }> {
    const now = this.#runtime.clock.now()
    const session = await findSession(trx, shown.family_hash)
    if (session === undefined) return { reason: 'unknown_refresh_token' }
    if (session.revoked_at !== null) return { reason: 'session_over', session }
    if (session.expires_at <= now) return { reason: 'expired_refresh_token', session }
    const { token, refresh_hash } = newToken(shown.family)
    const next = { refresh_hash, refreshed_at: now, expires_at: now + this.#refreshMs }
    if (!(await rotateSession(trx, session.id, shown.refresh_hash, next))) {
      if (!(await endSession(trx, changed, session.id, 'reuse', now))) return { reason: 'session_over', session }
      await this.#audit(trx, 'session.reuse', 'denied', session.user_id, attempt)
      return { reason: 'refresh_token_reuse', session }
    }
    const user = await findUser(trx, session.user_id)
    if (user?.active !== true) return { reason: 'inactive', session }
    return { user, session, token }
  }

  /** Ends a session of a user. Nothing happens when it has ended before. */
  async end(sessionId: string, userId: string, attempt: Attempt): Promise<void> {
    const now = this.#runtime.clock.now()
    await this.#database.transaction(async (trx, changed) => {
      if (await endSession(trx, changed, sessionId, 'logout', now))
        await this.#audit(trx, 'logout', 'allowed', userId, attempt)
    })
  }

  /** Ends the session that a refresh token belongs to, whichever of its tokens it is; unknown ones do nothing (RFC 7009). */
  async endByToken(refreshToken: string, attempt: Attempt): Promise<void> {
    const shown = readToken(refreshToken)
    const session = shown && (await findSession(this.#database.db, shown.family_hash))
    if (session !== undefined) await this.end(session.id, session.user_id, attempt)
  }

  /**
   * After a change of the password, in its transaction: all sessions end but one, which goes on with new tokens.
   * @returns what makes these tokens, once the transaction stands
   */
  async endOthers(
    trx: Transaction<Tables>,
    changed: Change[],
    userId: string,
    sessionId: string
  ): Promise<() => Tokens> {
    const now = this.#runtime.clock.now()
    await raiseTokenVersion(trx, changed, [userId], now)
    await endSessionsOf(trx, userId, 'password', now, sessionId)
    const { token, family_hash, refresh_hash } = newToken(randomBytes(FAMILY_BYTES))
    const { numUpdatedRows } = await trx
      .updateTable('sessions')
      .set({ family_hash, refresh_hash, refreshed_at: now, expires_at: now + this.#refreshMs })
      .where('id', '=', sessionId)
      .where('revoked_at', 'is', null)
      .executeTakeFirst()
    const user = await findUser(trx, userId)
    if (numUpdatedRows === 0n || user === undefined) throw refuse('authentication_failed', { reason: 'session_over' })
    return () => this.#tokens(user, sessionId, token)
  }

  #tokens(user: User, sessionId: string, refreshToken: string): Tokens {
    const { issuer, audience, access_minutes } = this.#settings
    const iat = Math.floor(this.#runtime.clock.now() / 1000)
    const expiresIn = Math.max(1, Math.round(access_minutes * 60))
    // Whoever has to change its password first may do nothing else.
    const powers = user.mustChangePassword
      ? { must_change_password: true }
      : { roles: user.roles, permissions: user.permissions, ...(user.tier !== undefined && { tier: user.tier }) }
    const accessToken = this.#sign({
      sub: user.id,
      name: displayName(user),
      ...powers,
      ...(issuer !== undefined && { iss: issuer }),
      ...(audience[0] !== undefined && { aud: audience[0] }),
      iat,
      exp: iat + expiresIn,
      jti: randomUUID(),
      sid: sessionId,
      ver: user.tokenVersion
    })
    if (accessToken.length > LONGEST) {
      this.#runtime.log.error({ user: user.id }, 'the roles and permissions of a user do not fit into a token')
      throw refuse('internal_error', { reason: 'token_too_long' })
    }
    return { accessToken, refreshToken, expiresIn, user }
  }

  get #database(): Database {
    return this.#runtime.database as Database
  }

  get #refreshMs(): number {
    return this.#settings.refresh_days * DAY_MS
  }

  #audit(
    trx: Transaction<Tables>,
    action: string,
    outcome: 'allowed' | 'denied',
    userId: string,
    { clientIp, requestId }: Attempt
  ): Promise<void> {
    const user = `user:${userId}`
    const actor = outcome === 'allowed' ? user : 'anonymous'
    return writeAudit(trx, [
      { at: this.#runtime.clock.now(), actor, action, target: user, outcome, clientIp, requestId }
    ])
  }

  #refused(reason: string, session: Session | undefined, { clientIp, requestId }: Attempt): GatewayError {
    const { log, metrics } = this.#runtime
    metrics.authenticationFailures.inc({ reason })
    const fields = { user: session?.user_id, session: session?.id, reason, client_ip: clientIp, request_id: requestId }
    if (reason === 'refresh_token_reuse') log.warn(fields, 'a used refresh token was shown: its session has ended')
    else log.info(fields, 'refresh refused')
    return refuse('authentication_failed', { reason, details: 'The refresh token is not valid.' })
  }

  async #forget(now: number): Promise<void> {
    if (now < this.#forgetAt) return
    this.#forgetAt = now + FORGET_EVERY_MS
    await forgetSessions(this.#database.db, now - FORGET_AFTER_MS)
  }
}

/** What services show people. */
interface ShownToken {
  readonly family: Buffer
  readonly family_hash: string
  readonly refresh_hash: string
}

/**
 * A refresh token is `srt_` and 48 random bytes, of which the first 16 are the same for all tokens of a session: by these
 * even the oldest of them is known when it is shown again, and nobody can make one up. Only hashes are kept; what is so long
 * and random needs no slow ones.
 */
function newToken(family: Buffer): { token: string; family_hash: string; refresh_hash: string } {
  const bytes = Buffer.concat([family, randomBytes(TOKEN_BYTES)])
  return {
    token: `srt_${bytes.toString('base64url')}`,
    family_hash: hash('sha256', family),
    refresh_hash: hash('sha256', bytes)
  }
}

function readToken(token: string): ShownToken | undefined {
  const [, text] = REFRESH_TOKEN.exec(token) ?? []
  if (text === undefined) return undefined
  const bytes = Buffer.from(text, 'base64url')
  const family = bytes.subarray(0, FAMILY_BYTES)
  return { family, family_hash: hash('sha256', family), refresh_hash: hash('sha256', bytes) }
}
