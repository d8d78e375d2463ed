import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import { writeAudit } from '../src/database/audit.ts'
import type { Database } from '../src/database/database.ts'
import { isDuplicate } from '../src/database/database-error.ts'
import { findUser, type User, updateUser } from '../src/database/users.ts'
import { refuse } from '../src/errors.ts'
import { Accounts } from '../src/identity/accounts.ts'
import { Sessions, type Tokens } from '../src/identity/sessions.ts'
import {
  EMAIL,
  HUMAN_NAME,
  LOGIN,
  MFA_REQUIRED,
  NEW_PASSWORD,
  PASSWORD,
  showLogin,
  showUser,
  USER
} from '../src/identity/user-view.ts'
import { Type } from '../src/schema.ts'
import { attemptOf, auditOf, checkOwn, fromStore, guardOwnEndpoints, userOf } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { operation } from './operation.ts'

const TAG = 'Authentication'
const refreshToken = Type.String({
  description: 'From a login, or from the refresh before.',
  maxLength: 200,
  writeOnly: true,
  examples: ['srt_…']
})

const CODE = Type.String({
  description: 'Six digits of the authenticator, or a recovery code.',
  minLength: 6,
  maxLength: 40,
  writeOnly: true,
  examples: ['123456']
})

/** Logins and sessions (IDN-01 to IDN-05, IDN-10). */
const auth: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })
  const accounts = new Accounts(runtime, snapshot)
  const sessions = new Sessions(runtime, snapshot, claims => app.jwt.sign(claims))

  app.post<{ Body: { username: string; password: string } }>(
    '/login',
    operation({
      summary: 'Logs a user in',
      tag: TAG,
      access: 'anyone',
      body: Type.Object({
        username: Type.String({
          description: 'Username, or e-mail address.',
          minLength: 1,
          maxLength: 254,
          examples: ['alice']
        }),
        password: PASSWORD
      }),
      refuses: ['invalid_credentials', 'overloaded'],
      answers: { 200: Type.Union([LOGIN, MFA_REQUIRED]) }
    }),
    async (request, reply) => {
      const attempt = attemptOf(request)
      const verdict = await accounts.verifyPassword(request.body.username, request.body.password, attempt)
      if (verdict.kind === 'mfa_required') {
        reply.header('cache-control', 'no-store')
        return { mfa_required: true, mfa_token: verdict.challenge, expires_in: verdict.expiresInMs / 1000 }
      }
      return answer(reply, await sessions.begin(verdict.user, attempt))
    }
  )

  app.post<{ Body: { refresh_token: string } }>(
    '/refresh',
    operation({
      summary: 'Exchanges a refresh token for the next tokens of its session',
      description: 'A refresh token is good once. One that is shown again ends its session.',
      tag: TAG,
      access: 'anyone',
      body: Type.Object({ refresh_token: refreshToken }),
      refuses: ['authentication_failed'],
      answers: { 200: LOGIN }
    }),
    async (request, reply) => answer(reply, await sessions.refresh(request.body.refresh_token, attemptOf(request)))
  )

  app.post<{ Body: { refresh_token?: string } | undefined }>(
    '/logout',
    operation({
      summary: 'Ends a session',
      description: 'That of the access token, or of the refresh token for those whose access token has expired.',
      tag: TAG,
      access: 'optional',
      body: Type.Union([Type.Object({ refresh_token: Type.Optional(refreshToken) }), Type.Null()]),
      answers: { 204: null }
    }),
    async (request, reply) => {
      const { body, consumer } = request
      if (consumer === undefined && body?.refresh_token === undefined)
        throw refuse('authentication_required', { reason: 'no_credentials' })
      if (consumer !== undefined) await end(request)
      if (body?.refresh_token !== undefined) await sessions.endByToken(body.refresh_token, attemptOf(request))
      return reply.code(204).send()
    }
  )

  /** Tokens that are of no session are taken back one by one; keys are nobody's session. */
  async function end(request: FastifyRequest): Promise<void> {
    const { grant, userId, revocationKey: key, expiresAt } = request.consumer as NonNullable<typeof request.consumer>
    if (grant?.sessionId !== undefined) return sessions.end(grant.sessionId, userId as string, attemptOf(request))
    if (key !== undefined)
      await fromStore(runtime.revocations.revoke([{ key, ttlMs: expiresAt - runtime.clock.now() }]))
  }

  app.get(
    '/profile',
    operation({
      summary: 'Who is logged in',
      tag: TAG,
      access: 'newcomer',
      refuses: ['insufficient_permissions', 'not_found'],
      answers: { 200: USER }
    }),
    async request => {
      checkOwn(request)
      return showUser(await userOf(request, runtime))
    }
  )

  app.put<{ Body: { email?: string; first_name?: string | null; last_name?: string | null } }>(
    '/profile',
    operation({
      summary: 'Changes the profile of who is logged in; what is not named stays',
      tag: TAG,
      access: 'user',
      body: Type.Object({
        email: Type.Optional(EMAIL),
        first_name: Type.Optional(HUMAN_NAME),
        last_name: Type.Optional(HUMAN_NAME)
      }),
      refuses: ['authentication_failed', 'insufficient_permissions', 'not_found', 'conflict'],
      answers: { 200: USER }
    }),
    async request => {
      const { email, first_name: firstName, last_name: lastName } = request.body
      sessionOf(request)
      const before = showUser(await userOf(request, runtime))
      try {
        return await database().transaction(async trx => {
          await updateUser(trx, before.id, { email, firstName, lastName }, runtime.clock.now())
          const after = showUser((await findUser(trx, before.id)) as User)
          await writeAudit(trx, [
            {
              ...auditOf(request, runtime),
              action: 'user.update',
              target: `user:${before.id}`,
              outcome: 'changed',
              before,
              after
            }
          ])
          return after
        })
      } catch (error) {
        if (isDuplicate(error)) throw refuse('conflict', { details: 'Another user has this e-mail address.' })
        throw error
      }
    }
  )

  app.post<{ Body: { current_password: string; new_password: string } }>(
    '/change-password',
    operation({
      summary: 'Gives who is logged in another password',
      description: 'All other sessions end; this one goes on with the tokens of the answer.',
      tag: TAG,
      access: 'newcomer',
      body: Type.Object({ current_password: PASSWORD, new_password: NEW_PASSWORD }),
      refuses: ['authentication_failed', 'insufficient_permissions', 'not_found', 'conflict', 'overloaded'],
      answers: { 200: LOGIN }
    }),
    async (request, reply) => {
      const sessionId = sessionOf(request)
      const { current_password: current, new_password: next } = request.body
      const user = await userOf(request, runtime)
      const context = { sessions, sessionId, attempt: attemptOf(request) }
      return answer(reply, await accounts.changePassword(user, { current, next }, context))
    }
  )

  app.post<{ Body: { password: string } }>(
    '/mfa/enroll',
    operation({
      summary: 'Begins the enrolment of a second factor',
      description: 'It counts once a code of it has been shown to `POST /auth/mfa/verify`.',
      tag: TAG,
      access: 'user',
      body: Type.Object({ password: PASSWORD }),
      refuses: ['authentication_failed', 'insufficient_permissions', 'not_found', 'conflict', 'overloaded'],
      answers: {
        200: Type.Object({
          secret: Type.String({ description: 'For authenticators that are typed into: base32.' }),
          otpauth_uri: Type.String({ description: 'For those that scan: make a QR code of it.' })
        })
      }
    }),
    async (request, reply) => {
      sessionOf(request)
      const user = await userOf(request, runtime)
      const { secret, uri } = await accounts.enrolSecondFactor(user, request.body.password, attemptOf(request))
      reply.header('cache-control', 'no-store')
      return { secret, otpauth_uri: uri }
    }
  )

  app.post<{ Body: { mfa_token?: string; code: string } }>(
    '/mfa/verify',
    operation({
      summary: 'Completes a login, or the enrolment of a second factor',
      description: 'With `mfa_token` of a login it answers tokens; without, for who is logged in, recovery codes.',
      tag: TAG,
      access: 'optional',
      body: Type.Object({
        mfa_token: Type.Optional(
          Type.String({ description: 'From the login.', maxLength: 200, writeOnly: true, examples: ['mfa_…'] })
        ),
        code: CODE
      }),
      refuses: ['authentication_failed', 'insufficient_permissions', 'not_found'],
      answers: {
        200: Type.Union([
          LOGIN,
          Type.Object({
            recovery_codes: Type.Array(Type.String(), {
              description: 'Each good once, instead of a code; kept nowhere.'
            })
          })
        ])
      }
    }),
    async (request, reply) => {
      const { mfa_token, code } = request.body
      const attempt = attemptOf(request)
      if (mfa_token !== undefined)
        return answer(reply, await sessions.begin(await accounts.verifySecondFactor(mfa_token, code, attempt), attempt))
      if (request.consumer === undefined) throw refuse('authentication_required', { reason: 'no_credentials' })
      sessionOf(request)
      reply.header('cache-control', 'no-store')
      return { recovery_codes: await accounts.confirmSecondFactor(await userOf(request, runtime), code, attempt) }
    }
  )

  app.post<{ Body: { password: string; code: string } }>(
    '/mfa/disable',
    operation({
      summary: 'Takes the second factor of who is logged in away',
      tag: TAG,
      access: 'user',
      body: Type.Object({ password: PASSWORD, code: CODE }),
      refuses: ['authentication_failed', 'insufficient_permissions', 'not_found', 'overloaded'],
      answers: { 204: null }
    }),
    async (request, reply) => {
      sessionOf(request)
      await accounts.disableSecondFactor(await userOf(request, runtime), request.body, attemptOf(request))
      return reply.code(204).send()
    }
  )

  const database = (): Database => runtime.database as Database
}

/** The session of who is logged in. @throws {GatewayError} 401 for other credentials: a key is not its owner, 403 for OAuth's */
function sessionOf(request: FastifyRequest): string {
  const { sessionId } = request.consumer?.grant ?? {}
  checkOwn(request)
  if (sessionId === undefined)
    throw refuse('authentication_failed', { reason: 'no_session', details: 'This needs a token of a login.' })
  return sessionId
}

/** Tokens are for nobody's cache (RFC 6749 section 5.1). */
function answer(reply: FastifyReply, tokens: Tokens) {
  reply.header('cache-control', 'no-store')
  return showLogin(tokens)
}

export default auth
