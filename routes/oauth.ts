import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import type { InteractionResults, Provider } from 'oidc-provider'
import { writeAudit } from '../src/database/audit.ts'
import type { Database } from '../src/database/database.ts'
import { isUnreachable } from '../src/database/database-error.ts'
import { GatewayError, refuse } from '../src/errors.ts'
import { Accounts, type Attempt, type PasswordVerdict } from '../src/identity/accounts.ts'
import { ENDPOINTS } from '../src/identity/oauth2/endpoints.ts'
import {
  consentPage,
  loginPage,
  PAGE_FIELDS,
  pagePolicy,
  secondFactorPage,
  targetsOf
} from '../src/identity/oauth2/pages.ts'
import type { LoginResult } from '../src/identity/oauth2/provider.ts'
import {
  type AuthorizationServer,
  acquireAuthorizationServer,
  type OAuthRequestView
} from '../src/identity/oauth2/server.ts'
import { userClaims } from '../src/identity/oauth2/users.ts'
import { challenge } from '../src/identity/trouble.ts'
import { Type } from '../src/schema.ts'
import { attemptOf, auditOf, guardOwnEndpoints } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { type Operation, operation } from './operation.ts'

const FORM = 'application/x-www-form-urlencoded'
/** Largest form that is read, in bytes. */
const FORM_BYTES = 56 * 1024

/** OAuth 2.0 and OpenID Connect (IDN-27 to IDN-32): oidc-provider over our database, behind the gateway's own door. */
const oauth: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })
  const acquired = acquireAuthorizationServer(snapshot.identity, runtime)
  if (acquired !== undefined) app.addHook('onClose', async () => runtime.leases.release(acquired.key))
  const server = acquired?.server as AuthorizationServer
  const accounts = new Accounts(runtime, snapshot)
  app.addContentTypeParser(FORM, { parseAs: 'string', bodyLimit: FORM_BYTES }, (_request, body, done) =>
    done(null, body)
  )

  // Where oidc-provider does not answer itself, a database that is away is what it is everywhere.
  app.setErrorHandler<Error>(error => {
    throw isUnreachable(error.cause) ? error.cause : error
  })

  const seenAs = (request: FastifyRequest): OAuthRequestView => {
    const path = request.url.slice(app.prefix.length)
    const form = request.method === 'POST' ? formOf(request) : undefined
    checkText(path)
    checkText(form)
    return { path, form, attempt: attemptOf(request), logins: accounts }
  }

  /** oidc-provider answers, and no hook of ours after it. */
  const answer = async (request: FastifyRequest, reply: FastifyReply): Promise<void> => {
    // What fails before it is ours to say.
    await server.provider()
    const seen = seenAs(request)
    reply.hijack()
    const { raw } = reply
    raw.setHeader('x-request-id', request.exchange.id)
    raw.setHeader('x-content-type-options', 'nosniff')
    raw.setHeader('referrer-policy', 'no-referrer')
    await server.handle(request.raw, raw, seen)
  }

  /** @param said what the answer is; nothing for an empty one */
  const anyone = (summary: string, said?: string, parts: Partial<Operation> = {}) =>
    operation({
      summary,
      tag: 'OAuth',
      access: 'anyone',
      answers: { 200: said === undefined ? null : Type.Record(Type.String(), Type.Unknown(), { description: said }) },
      ...parts
    })
  const form = { consumes: FORM }
  const { token, introspection, revocation, jwks, authorization, end_session, userinfo, interaction } = ENDPOINTS
  app.post(
    token,
    anyone('Gives out tokens (RFC 6749 section 3.2)', 'Tokens, and how long they are good.', form),
    answer
  )
  app.post(introspection, anyone('Tells about a token (RFC 7662)', 'Whether it is `active`, and whose.', form), answer)
  app.post(revocation, anyone('Takes a token back (RFC 7009)', undefined, form), answer)
  app.get(jwks, anyone('Keys of the tokens (RFC 7517)', 'A JWK set.'), answer)
  const metadata = 'What there is, and where.'
  app.get('/.well-known/openid-configuration', anyone('OpenID Connect Discovery', metadata), answer)
  app.get('/.well-known/oauth-authorization-server', anyone('OAuth discovery (RFC 8414)', metadata), answer)
  // Pages of other origins ask first.
  for (const path of [token, introspection, revocation, jwks])
    app.options(path, { ...anyone('Whether a page may ask'), schema: { hide: true } }, answer)

  const redirects = { answers: { 303: null } }
  app.get(authorization, anyone('Asks a user for access (RFC 6749 section 3.1)', undefined, redirects), answer)
  app.get(
    `${authorization}/:uid`,
    anyone('Goes on when a user has agreed', undefined, { ...redirects, params: UID }),
    answer
  )
  app.get(end_session, anyone('Asks a user whether to log out', undefined, PAGE), answer)
  app.post(`${end_session}/confirm`, anyone('Logs a user out', undefined, { ...form, ...redirects }), answer)
  app.get(`${end_session}/success`, anyone('Says that it is done', undefined, PAGE), answer)

  app.get(
    userinfo,
    operation({
      summary: 'Who a token of OAuth speaks of (OpenID Connect Core section 5.3)',
      tag: 'OAuth',
      access: 'user',
      answers: {
        200: Type.Record(Type.String(), Type.Unknown(), { description: '`sub`, and what its scope lets through.' })
      }
    }),
    async ({ consumer }) => {
      const scope = String(consumer?.claims.scope ?? '').split(' ')
      const user =
        consumer?.kind === 'user' && scope.includes('openid') ? await server.users.find(consumer.id) : undefined
      if (user === undefined)
        throw refuse('insufficient_permissions', {
          details: 'This is for tokens of OAuth with the scope openid.',
          headers: challenge('insufficient_scope', undefined, 'openid')
        })
      return userClaims(user, scope)
    }
  )

  app.get<Interaction>(
    `${interaction}/:uid`,
    anyone('Asks a user to log in, or to agree', undefined, { ...PAGE, params: UID }),
    async (request, reply) => {
      const { details } = await interactionOf(request, reply)
      return sendPage(reply, details, 200, await pageFor(details, actionOf(request)))
    }
  )

  app.post<Interaction>(
    `${interaction}/:uid`,
    anyone('Takes what the user has answered', undefined, { ...form, ...redirects, params: UID }),
    async (request, reply) => {
      const { details, finish } = await interactionOf(request, reply)
      const fields = new URLSearchParams(formOf(request))
      if (fields.get('do') === 'cancel')
        return finish({ error: 'access_denied', error_description: 'the user has refused' }, false)
      if (details.prompt.name === 'consent')
        return finish({ consent: { grantId: await grant(details, request) } }, true)
      return logIn({ request, reply, details, fields, finish })
    }
  )

  /** The question that this browser is asked, by its cookie, and how to answer it. */
  const interactionOf = async (request: FastifyRequest<Interaction>, reply: FastifyReply) => {
    const provider = await server.provider()
    const raw = server.requestFor(request.raw, seenAs(request))
    const details = await provider
      .interactionDetails(raw, reply.raw)
      .catch((error: Error & { statusCode?: number }) => {
        if (error.name !== 'SessionNotFound') throw error
        return undefined
      })
    if (details === undefined || details.uid !== request.params.uid) throw refuse('not_found', GONE)
    const finish = async (result: InteractionResults, mergeWithLastSubmission: boolean) =>
      reply.redirect(await provider.interactionResult(raw, reply.raw, result, { mergeWithLastSubmission }), 303)
    return { details, finish }
  }

  const pageFor = async (details: Details, action: string): Promise<string> => {
    const { params, prompt, session } = details
    const client = (await server.findClient(String(params.client_id)))?.name ?? String(params.client_id)
    if (prompt.name !== 'consent') return loginPage({ action, client, username: String(params.login_hint ?? '') })
    const user = await server.users.find(session?.accountId as string)
    return consentPage({
      action,
      client,
      user: user?.username ?? '',
      scopes: askedFor(details),
      redirect: targetsOf(params.redirect_uri)[0] ?? ''
    })
  }

  /** With a password, and with a code after that for those who have a second factor. */
  const logIn = async ({ request, reply, details, fields, finish }: Step): Promise<FastifyReply> => {
    const action = actionOf(request)
    const client = (await server.findClient(String(details.params.client_id)))?.name ?? ''
    const username = fields.get('username') ?? ''
    const challenge = fields.get('challenge') ?? undefined
    const attempt = attemptOf(request)
    try {
      const verdict =
        challenge === undefined
          ? await accounts.verifyPassword(username, fields.get('password') ?? '', attempt)
          : await byCode(accounts, challenge, fields.get('code') ?? '', attempt)
      if (verdict.kind === 'mfa_required')
        return sendPage(reply, details, 200, secondFactorPage({ action, client, challenge: verdict.challenge }))
      const { id, tokenVersion, mustChangePassword } = verdict.user
      if (!mustChangePassword) return finish({ login: { accountId: id, tokenVersion } satisfies LoginResult }, false)
      const alert = 'Your password has to be changed first, where you otherwise log in.'
      return sendPage(reply, details, 403, loginPage({ action, client, username, alert }))
    } catch (error) {
      if (!(error instanceof GatewayError)) throw error
      for (const [name, value] of pairs(error.headers)) if (name === 'retry-after') reply.header(name, value)
      const alert = error.statusCode === 401 ? 'That is not right. Please try again.' : error.message
      const again =
        challenge === undefined || error.reason === 'unknown_challenge'
          ? loginPage({ action, client, username, alert })
          : secondFactorPage({ action, client, challenge, alert })
      // 401 would have the browser itself ask for a password.
      return sendPage(reply, details, error.statusCode === 401 ? 403 : error.statusCode, again)
    }
  }

  /** What the user has agreed to, as oidc-provider keeps it. */
  const grant = async ({ grantId, session, params, prompt }: Details, request: FastifyRequest): Promise<string> => {
    const provider = await server.provider()
    const accountId = session?.accountId as string
    const clientId = params.client_id as string
    const known = grantId === undefined ? undefined : await provider.Grant.find(grantId)
    const grant = known ?? new provider.Grant({ accountId, clientId })
    const { missingOIDCScope, missingOIDCClaims, missingResourceScopes } = prompt.details as Missing
    if (missingOIDCScope !== undefined) grant.addOIDCScope(missingOIDCScope.join(' '))
    if (missingOIDCClaims !== undefined) grant.addOIDCClaims(missingOIDCClaims)
    for (const [resource, scopes] of Object.entries(missingResourceScopes ?? {}))
      grant.addResourceScope(resource, scopes.join(' '))
    await writeAudit((runtime.database as Database).db, [
      {
        ...auditOf(request, runtime),
        actor: `user:${accountId}`,
        action: 'oauth.consent',
        target: `client:${clientId}`,
        outcome: 'allowed',
        after: { scope: params.scope }
      }
    ])
    return grant.save()
  }
}

interface Interaction {
  Params: { uid: string }
}

type Details = Awaited<ReturnType<Provider['interactionDetails']>>

interface Missing {
  readonly missingOIDCScope?: string[]
  readonly missingOIDCClaims?: string[]
  readonly missingResourceScopes?: Record<string, string[]>
}

/** A user's answer to the question who it is. */
interface Step {
  readonly request: FastifyRequest<Interaction>
  readonly reply: FastifyReply
  readonly details: Details
  readonly fields: URLSearchParams
  readonly finish: (result: InteractionResults, merge: boolean) => Promise<FastifyReply>
}

const UID = Type.Object({
  uid: Type.String({ description: 'Which question this is about.', minLength: 1, maxLength: 100 })
})

const PAGE = { produces: 'text/html', answers: { 200: Type.String({ description: 'A page.' }) } }

const GONE = { details: 'There is nothing to answer here any more. Go back to where you came from, and begin again.' }

/** Whatever is asked for is kept, and no database keeps U+0000. @throws {GatewayError} 400 */
function checkText(encoded = ''): void {
  if (/%00|\0/.test(encoded)) throw refuse('bad_request', { details: 'A parameter holds U+0000.' })
}

function formOf({ body }: FastifyRequest): string {
  return typeof body === 'string' ? body : ''
}

function actionOf({ url }: FastifyRequest): string {
  return url.split('?', 1)[0] as string
}

/** What is asked for that has not been agreed to before. */
function askedFor({ prompt }: Details): string[] {
  const { missingOIDCScope = [], missingResourceScopes = {} } = prompt.details as Missing
  return [...missingOIDCScope, ...Object.values(missingResourceScopes).flat()]
}

function sendPage(reply: FastifyReply, { params }: Details, status: number, html: string): FastifyReply {
  return reply
    .headers({ ...PAGE_FIELDS, 'content-security-policy': pagePolicy(targetsOf(params.redirect_uri)) })
    .type('text/html; charset=utf-8')
    .code(status)
    .send(html)
}

/** The second half of a login, in the shape of the first. */
async function byCode(accounts: Accounts, challenge: string, code: string, attempt: Attempt): Promise<PasswordVerdict> {
  return { kind: 'user', user: await accounts.verifySecondFactor(challenge, code, attempt) }
}

function* pairs(flat: readonly string[]): Generator<[string, string]> {
  for (let i = 0; i < flat.length; i += 2) yield [flat[i] as string, flat[i + 1] as string]
}

export default oauth
