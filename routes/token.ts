import formbody from '@fastify/formbody'
import type { FastifyPluginAsync, FastifyReply } from 'fastify'
import { GatewayError } from '../src/errors.ts'
import { Accounts } from '../src/identity/accounts.ts'
import { Sessions } from '../src/identity/sessions.ts'
import { showTokens, TOKENS } from '../src/identity/user-view.ts'
import { Type } from '../src/schema.ts'
import { attemptOf, guardOwnEndpoints } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { operation } from './operation.ts'

/** What the form of OAuth's password grant may hold (RFC 6749 sections 4.3.2 and 6). */
interface TokenForm {
  readonly grant_type: string
  readonly username?: string
  readonly password?: string
  readonly refresh_token?: string
}

/** Errors of RFC 6749 section 5.2. */
type TokenError = 'invalid_request' | 'invalid_grant' | 'unsupported_grant_type'

/** OAuth 2.0 logins with a password, for programs that bring a form along (IDN-07, IDN-30). */
const token: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })
  app.removeAllContentTypeParsers()
  await app.register(formbody, { bodyLimit: 16_384 })
  const accounts = new Accounts(runtime, snapshot)
  const sessions = new Sessions(runtime, snapshot, claims => app.jwt.sign(claims))
  const text = (description: string, options: object = {}) =>
    Type.Optional(Type.String({ description, maxLength: 1024, ...options }))

  app.post<{ Body: TokenForm }>(
    '',
    {
      ...operation({
        summary: 'OAuth 2.0 password login',
        tag: 'Authentication',
        consumes: 'application/x-www-form-urlencoded',
        refuses: ['bad_request', 'overloaded'],
        access: 'anyone',
        body: Type.Object(
          {
            grant_type: Type.String({
              description: '`password`, or `refresh_token`.',
              default: 'password',
              maxLength: 100
            }),
            username: text('Username, or e-mail address.'),
            password: text('The password.', { writeOnly: true }),
            refresh_token: text('From the answer before.', { writeOnly: true }),
            scope: text('Without effect: tokens hold what the roles of the user permit.'),
            client_id: text('Without effect.'),
            client_secret: text('Without effect.', { writeOnly: true })
          },
          // Parameters that nobody knows are to be ignored (RFC 6749 section 4.3.2).
          { patternProperties: { '^.*$': {} }, additionalProperties: true }
        ),
        answers: { 200: TOKENS }
      }),
      attachValidation: true
    },
    async (request, reply) => {
      const { body, validationError } = request
      reply.header('cache-control', 'no-store')
      if (validationError !== undefined) return refusal(reply, 'invalid_request', detailsOf(validationError))
      const attempt = attemptOf(request)
      try {
        if (body.grant_type === 'refresh_token') {
          if (body.refresh_token === undefined) return refusal(reply, 'invalid_request', 'refresh_token is missing')
          return showTokens(await sessions.refresh(body.refresh_token, attempt))
        }
        if (body.grant_type !== 'password')
          return refusal(reply, 'unsupported_grant_type', 'there are "password" and "refresh_token"')
        if (body.username === undefined || body.password === undefined)
          return refusal(reply, 'invalid_request', 'username or password is missing')
        const verdict = await accounts.verifyPassword(body.username, body.password, attempt)
        if (verdict.kind === 'mfa_required')
          return refusal(reply, 'invalid_grant', 'this user has a second factor, and logs in elsewhere')
        return showTokens(await sessions.begin(verdict.user, attempt))
      } catch (error) {
        if (!(error instanceof GatewayError) || error.statusCode !== 401) throw error
        return refusal(reply, 'invalid_grant', error.details ?? error.message)
      }
    }
  )
}

function refusal(reply: FastifyReply, error: TokenError, error_description: string) {
  return reply.code(400).send({ error, error_description })
}

function detailsOf(error: unknown): string {
  return (error instanceof GatewayError && error.details) || 'the form is not understood'
}

export default token
