import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import { refuse } from '../src/errors.ts'
import { ENDPOINTS } from '../src/identity/oauth2/endpoints.ts'
import { type AuthorizationServer, acquireAuthorizationServer } from '../src/identity/oauth2/server.ts'
import type { Caller, Logins } from '../src/identity/oauth2/users.ts'
import { Type } from '../src/schema.ts'
import { guardOwnEndpoints } from './guard.ts'
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
  app.addContentTypeParser(FORM, { parseAs: 'string', bodyLimit: FORM_BYTES }, (_request, body, done) =>
    done(null, body)
  )

  const server = (): AuthorizationServer => {
    if (acquired === undefined) throw refuse('service_unavailable', { reason: 'no database' })
    return acquired.server
  }
  const answer = async (request: FastifyRequest, reply: FastifyReply): Promise<void> => {
    const server_ = server()
    // What fails before the first answer is ours to say; from then on it is oidc-provider's.
    await server_.provider()
    const path = request.raw.url?.slice(app.prefix.length) as string
    const form = typeof request.body === 'string' ? request.body : request.method === 'POST' ? '' : undefined
    reply.hijack()
    const { raw } = reply
    raw.setHeader('x-request-id', request.exchange.id)
    raw.setHeader('x-content-type-options', 'nosniff')
    raw.setHeader('referrer-policy', 'no-referrer')
    await server_.handle(request.raw, raw, { path, form, caller: callerOf(request), logins: NO_LOGINS })
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
  const { token, introspection, revocation, jwks } = ENDPOINTS
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
}

/** Who asks, for the throttle, the log and the audit. */
function callerOf({ exchange }: FastifyRequest): Caller {
  const userAgent = exchange.header('user-agent')
  return { clientIp: exchange.client, requestId: exchange.id, ...(userAgent === undefined ? {} : { userAgent }) }
}

const NO_LOGINS: Logins = {
  verifyPassword: async () => {
    throw refuse('invalid_credentials')
  },
  verifySecondFactor: async () => {
    throw refuse('invalid_credentials')
  }
}

export default oauth
