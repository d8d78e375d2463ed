import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import {
  type AccessToken,
  type AuthorizationCode,
  type Client,
  type ClientCredentials,
  type Configuration,
  errors,
  interactionPolicy,
  type JWTStructured,
  type KoaContextWithOIDC,
  Provider,
  type RefreshToken,
  type ResourceServer
} from 'oidc-provider'
import type { Logger } from 'pino'
import type { User } from '../../database/users.ts'
import { displayName } from '../../database/users.ts'
import { GatewayError } from '../../errors.ts'
import type { Attempt } from '../accounts.ts'
import { type AdapterContext, DatabaseAdapter } from './adapter.ts'
import { isSecretOf, OPENID_SCOPES, ROLES_SCOPE } from './clients.ts'
import { ENDPOINTS } from './endpoints.ts'
import { errorPage, loggedOutPage, logoutPage, PAGE_FIELDS, pagePolicy, targetsOf } from './pages.ts'
import { withinScope } from './scope.ts'
import { ALGORITHM, type SigningKeys } from './signing-keys.ts'
import { CLAIMS_OF, type Logins, type OAuthUsers, sessionOf, userClaims } from './users.ts'

/** Life of a code between two requests of one client, in seconds. */
const CODE_SECONDS = 60
/** How long somebody may take to log in and agree, in seconds. */
const INTERACTION_SECONDS = 600
/** How long a browser need not log in again, in seconds. */
const BROWSER_SECONDS = 12 * 3600
const ID_TOKEN_SECONDS = 3600

export interface ProviderOptions {
  readonly issuer: string
  readonly keys: SigningKeys
  readonly adapter: AdapterContext
  readonly users: OAuthUsers
  /** Life of an access token, in seconds. */
  readonly accessSeconds: number
  /** From a login to the end of its last refresh token, in seconds. */
  readonly refreshSeconds: number
  readonly log: Logger
}

/** The requests that oidc-provider gets, with what it cannot know. */
export interface OAuthRequest extends IncomingMessage {
  readonly attempt: Attempt
  readonly logins: Logins
}

/** oidc-provider's own class, which its types leave out. */
interface ResourceServers {
  readonly ResourceServer: new (
    identifier: string,
    resource: ResourceServer
  ) => NonNullable<AccessToken['resourceServer']>
}

/** What our login page tells: who it is, and as of when. */
export interface LoginResult {
  readonly [key: string]: unknown
  readonly accountId: string
  readonly tokenVersion: number
}

type Source = AuthorizationCode | RefreshToken
type Signed = AccessToken | ClientCredentials

/** oidc-provider as we run it: everything kept in our database, users and sessions those of the accounts, tokens as the gateway reads them. */
export function createProvider(options: ProviderOptions): Provider {
  const { issuer, keys, adapter, users, accessSeconds, refreshSeconds, log } = options
  const { pathname: mount, protocol } = new URL(issuer)
  const secure = protocol === 'https:'
  const cookie = { httpOnly: true, sameSite: 'lax', signed: true, secure } as const

  const configuration: Configuration = {
    adapter: name => new DatabaseAdapter(name, adapter),
    jwks: { keys: keys.signing.map(({ jwk }) => jwk) as never },
    cookies: {
      keys: [...keys.cookies],
      names: { session: 'sallyport_login', interaction: 'sallyport_interaction', resume: 'sallyport_resume' },
      // They are nobody else's: no service behind the gateway gets to see them.
      long: { ...cookie, path: mount },
      short: cookie
    },
    routes: {
      authorization: ENDPOINTS.authorization,
      token: ENDPOINTS.token,
      introspection: ENDPOINTS.introspection,
      revocation: ENDPOINTS.revocation,
      jwks: ENDPOINTS.jwks,
      userinfo: ENDPOINTS.userinfo,
      end_session: ENDPOINTS.end_session
    },
    discovery: { userinfo_endpoint: `${issuer}${ENDPOINTS.userinfo}` } as never,
    scopes: ['openid', 'offline_access'],
    claims: { openid: ['sub'], ...CLAIMS_OF },
    conformIdTokenClaims: false,
    responseTypes: ['code', 'id_token token', 'id_token'],
    pkce: { required: () => true },
    allowOmittingSingleRegisteredRedirectUri: false,
    clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none'],
    clientDefaults: { id_token_signed_response_alg: ALGORITHM },
    enabledJWA: {
      idTokenSigningAlgValues: [ALGORITHM],
      clientAuthSigningAlgValues: ['ES256', 'RS256', 'PS256', 'EdDSA']
    },
    extraClientMetadata: { properties: ['api_scopes'] },
    features: {
      devInteractions: { enabled: false },
      dPoP: { enabled: false },
      pushedAuthorizationRequests: { enabled: false },
      // Ours, behind the gateway's own authentication; see routes/oauth.ts.
      userinfo: { enabled: false },
      clientCredentials: { enabled: true },
      // Services ask about tokens that others have shown them; clients that can prove nothing, about their own.
      introspection: {
        enabled: true,
        allowedPolicy: (_ctx, client, token) =>
          client.clientAuthMethod !== 'none' || (token as Signed).clientId === client.clientId
      },
      revocation: { enabled: true, allowedPolicy: (_ctx, client, token) => token.clientId === client.clientId },
      resourceIndicators: {
        enabled: true,
        defaultResource: ctx => {
          askForAll(ctx)
          return issuer
        },
        useGrantedResource: () => true,
        getResourceServerInfo: (ctx, resource, client) => {
          if (resource !== issuer) throw new errors.InvalidTarget()
          checkScopes(client, ctx.oidc.requestParamScopes)
          return gatewayAsResource(client, options)
        }
      },
      rpInitiatedLogout: {
        enabled: true,
        logoutSource: (ctx, form) => page(ctx, logoutPage(form), targetsOf(ctx.oidc.params?.post_logout_redirect_uri)),
        postLogoutSuccessSource: ctx => page(ctx, loggedOutPage())
      }
    },
    interactions: {
      policy: policyOf(users),
      url: (_ctx, { uid }) => `${mount}${ENDPOINTS.interaction}/${uid}`
    },
    findAccount: async (_ctx, sub, token) => {
      const user = await users.find(sub)
      if (user === undefined || !user.active) return undefined
      // Codes and refresh tokens are worth nothing without the session that they came of.
      if (isSource(token) && !(await users.isAlive(token.sessionUid))) return undefined
      return { accountId: sub, claims: () => userClaims(user) }
    },
    issueRefreshToken: (_ctx, client) => client.grantTypeAllowed('refresh_token'),
    rotateRefreshToken: true,
    // Tokens end with the session that they came of, which is asked at every use.
    expiresWithSession: () => false,
    formats: { customizers: { jwt: (ctx, token, jwt) => complete(ctx, token, jwt, options) } },
    ttl: {
      AccessToken: accessSeconds,
      ClientCredentials: accessSeconds,
      AuthorizationCode: CODE_SECONDS,
      IdToken: ID_TOKEN_SECONDS,
      Interaction: INTERACTION_SECONDS,
      Session: BROWSER_SECONDS,
      Grant: refreshSeconds,
      // Rotation does not make a login last longer.
      RefreshToken: (_ctx, { iiat }) => Math.max(1, (iiat ?? epoch()) + refreshSeconds - epoch())
    },
    renderError: (ctx, out) => page(ctx, errorPage(out.error, out.error_description))
  }

  const provider = new Provider(issuer, configuration)
  // The scheme and host that it sees are those of the issuer, whatever is in front; see `src/identity/oauth2/server.ts`.
  provider.proxy = true
  provider.silent = true
  provider.Client.prototype.compareClientSecret = function (this: Client, actual: string) {
    return this.clientSecret !== undefined && isSecretOf(this.clientSecret, actual)
  }
  registerPasswordGrant(provider, options)
  reportTo(provider, log)
  return provider
}

function epoch(): number {
  return Math.floor(Date.now() / 1000)
}

function page(ctx: KoaContextWithOIDC, html: string, formTargets: readonly string[] = []): void {
  ctx.set({ ...PAGE_FIELDS, 'content-security-policy': pagePolicy(formTargets) })
  ctx.type = 'html'
  ctx.body = html
}

function isSource(token: unknown): token is Source {
  return typeof token === 'object' && token !== null && 'sessionUid' in token
}

function attemptOf(ctx: KoaContextWithOIDC): Attempt {
  return (ctx.req as OAuthRequest).attempt
}

function registeredScopes(client: Client): string[] {
  return (client as Client & { api_scopes?: string[] }).api_scopes ?? []
}

/** Whoever asks for nothing in particular gets all that its client may have (RFC 6749 section 3.3); users are asked by name. */
function askForAll({ oidc }: KoaContextWithOIDC): void {
  const { params, client } = oidc
  if (params === undefined || client === undefined || params.scope !== undefined) return
  if (params.grant_type === 'client_credentials' || params.grant_type === 'password')
    params.scope = registeredScopes(client).join(' ') || undefined
}

/** @throws {errors.InvalidScope} for what the client was not registered with: it is told, rather than given less */
function checkScopes(client: Client, scopes: Iterable<string>): void {
  const registered = registeredScopes(client)
  for (const scope of scopes)
    if (!OPENID_SCOPES.includes(scope) && !registered.includes(scope))
      throw new errors.InvalidScope('requested scope is not allowed', scope)
}

/** All APIs behind the gateway are one resource (RFC 8707), whose name is the issuer's. */
function gatewayAsResource(client: Client, { issuer, keys, accessSeconds }: ProviderOptions): ResourceServer {
  return {
    scope: registeredScopes(client).join(' '),
    audience: issuer,
    accessTokenTTL: accessSeconds,
    accessTokenFormat: 'jwt',
    jwt: { sign: { alg: ALGORITHM, kid: keys.signing[0]?.kid as string } }
  }
}

/** Besides what oidc-provider asks: a login counts for as long as its session is not ended, by whomever. */
function policyOf(users: OAuthUsers): interactionPolicy.DefaultPolicy {
  const policy = interactionPolicy.base()
  const { Check } = interactionPolicy
  policy.get('login')?.checks.add(
    new Check('session_ended', 'the session has ended', async ctx => {
      const { session, account } = ctx.oidc
      if (session?.accountId === undefined) return Check.NO_NEED_TO_PROMPT
      const login = ctx.oidc.result?.login as LoginResult | undefined
      if (login !== undefined)
        await users.begin({ ...login, uid: session.uid, userId: login.accountId }, attemptOf(ctx))
      if (account !== undefined && (await users.isAlive(session.uid))) return Check.NO_NEED_TO_PROMPT
      // What has ended does not begin again: the next login is another session.
      session.uid = randomUUID()
      return Check.REQUEST_PROMPT
    })
  )
  return policy
}

/**
 * Makes a signed token one that the gateway reads like those of `/auth/login`: who, with which roles and permissions of what
 * the scope lets through, in which session. It is written down by its `jti`, so that it can be taken back.
 */
async function complete(
  ctx: KoaContextWithOIDC,
  token: Signed,
  { payload }: JWTStructured,
  { users, adapter, accessSeconds }: ProviderOptions
): Promise<void> {
  const scope = [...token.scopes]
  const more = token.kind === 'AccessToken' ? await ofUser(token as AccessToken, scope, users) : ofClient(ctx, scope)
  Object.assign(payload, more, { scope: [...openidScopes(ctx), ...scope].join(' ') || undefined })
  const { jti, clientId, kind } = token
  const { accountId, grantId, sessionUid, gty } = token as AccessToken
  const kept = { kind, clientId, accountId, grantId, sessionUid, gty, aud: token.aud, scope: token.scope, extra: more }
  const times = { iat: payload.iat as number, exp: payload.exp as number }
  await new DatabaseAdapter(kind, adapter).upsert(jti, { ...kept, ...times } as never, accessSeconds)
}

/** What the user has let the client know: not the resource's, and yet what the user's own endpoint goes by. */
function openidScopes({ oidc }: KoaContextWithOIDC): string[] {
  const { params, grant, entities } = oidc
  const granted = grant?.getOIDCScopeFiltered(oidc.requestParamScopes).split(' ') ?? []
  const source = (entities.RefreshToken ?? entities.AuthorizationCode)?.scope?.split(' ')
  const asked = typeof params?.scope === 'string' ? params.scope.split(' ') : undefined
  return (source ?? granted).filter(word => OPENID_SCOPES.includes(word) && (asked?.includes(word) ?? true))
}

async function ofUser(token: AccessToken, scope: string[], users: OAuthUsers) {
  const user = await users.find(token.accountId)
  if (user === undefined) throw new errors.InvalidGrant('the user is gone')
  return {
    name: displayName(user),
    ...withinScope(user, scope),
    ...(user.tier === undefined ? {} : { tier: user.tier }),
    sid: sessionOf(token.sessionUid),
    ver: user.tokenVersion
  }
}

/** A client of its own has what it was registered with, of what it asks for. Roles are for users. */
function ofClient({ oidc }: KoaContextWithOIDC, scope: string[]) {
  return { name: oidc.client?.clientName ?? '', permissions: scope.filter(word => word !== ROLES_SCOPE) }
}

/** RFC 6749 section 4.3, for clients that list `password` (IDN-30, C-36). Who has a second factor cannot use it. */
function registerPasswordGrant(provider: Provider, options: ProviderOptions): void {
  const { users, issuer } = options
  const handler = async (ctx: KoaContextWithOIDC): Promise<void> => {
    const { params, client } = ctx.oidc as { params: Record<string, string>; client: Client }
    const { username, password } = params
    if (typeof username !== 'string' || typeof password !== 'string')
      throw new errors.InvalidRequest('username and password are needed')
    const { attempt, logins } = ctx.req as OAuthRequest
    const user = await passwordsUser(logins, username, password, attempt)
    askForAll(ctx)
    const scope = params.scope ?? ''
    checkScopes(client, scope.split(' '))
    const sessionUid = randomUUID()
    await users.begin({ uid: sessionUid, userId: user.id, tokenVersion: user.tokenVersion }, attempt)
    const grant = new provider.Grant({ accountId: user.id, clientId: client.clientId })
    grant.addResourceScope(issuer, scope)
    const grantId = await grant.save()
    const common = { accountId: user.id, client, grantId, gty: 'password', sessionUid, scope }
    const refresh = new provider.RefreshToken({ ...common, resource: issuer } as never)
    const access = new provider.AccessToken(common as never)
    const { ResourceServer } = provider as unknown as ResourceServers
    access.resourceServer = new ResourceServer(issuer, gatewayAsResource(client, options))
    ctx.body = {
      access_token: await access.save(),
      expires_in: access.expiration,
      token_type: access.tokenType,
      scope: scope || undefined,
      ...(client.grantTypeAllowed('refresh_token') ? { refresh_token: await refresh.save() } : {})
    }
  }
  provider.registerGrantType('password', handler as never, ['username', 'password', 'scope'])
}

async function passwordsUser(logins: Logins, username: string, password: string, attempt: Attempt): Promise<User> {
  let trouble = 'the password has to be changed first'
  try {
    const verdict = await logins.verifyPassword(username, password, attempt)
    if (verdict.kind === 'user' && !verdict.user.mustChangePassword) return verdict.user
    if (verdict.kind === 'mfa_required') trouble = 'a second factor is needed: use the authorization code flow'
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error
    if (error.statusCode !== 401)
      throw Object.assign(new errors.CustomOIDCProviderError('temporarily_unavailable', error.message), {
        status: error.statusCode,
        statusCode: error.statusCode
      })
    trouble = 'wrong username or password'
  }
  throw new errors.InvalidGrant(trouble)
}

/** What goes wrong shows in the log: refusals by the way, bugs and lost databases as what they are. */
function reportTo(provider: Provider, log: Logger): void {
  const refused = (
    ctx: KoaContextWithOIDC,
    error: Error & { error_description?: string; error_detail?: string }
  ): void =>
    log.info(
      {
        client: ctx.oidc?.client?.clientId,
        error: error.message,
        details: error.error_detail ?? error.error_description,
        request_id: attemptOf(ctx)?.requestId
      },
      'oauth request refused'
    )
  const events = provider as unknown as NodeJS.EventEmitter
  for (const event of ['authorization.error', 'grant.error', 'introspection.error', 'revocation.error'])
    events.on(event, refused)
  provider.on('server_error', (ctx, error) => {
    log.error({ err: error, request_id: attemptOf(ctx)?.requestId }, 'oauth request failed')
  })
}
