import type { FastifyPluginAsync } from 'fastify'
import type { Configuration } from 'openid-client'
import { refuse } from '../src/errors.ts'
import { type ProviderSettings, userOfClaims } from '../src/identity/external.ts'
import { Sessions } from '../src/identity/sessions.ts'
import { LOGIN, showLogin } from '../src/identity/user-view.ts'
import { Type } from '../src/schema.ts'
import { attemptOf, guardOwnEndpoints } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { operation } from './operation.ts'

/** How long somebody may take to log in at the provider, in seconds. */
const PATIENCE_SECONDS = 600
/** How long a provider may take to answer, in seconds. */
const ANSWER_SECONDS = 5
/** How long what a provider says of itself is believed, in milliseconds. */
const DISCOVERY_MS = 3_600_000
const COOKIE = 'sallyport_external'

/** What is remembered of a login under way: in a cookie of this browser, signed with the gateway's own key. */
interface Pending {
  readonly provider: string
  readonly state: string
  readonly nonce: string
  readonly verifier: string
}

/** Logins at other OpenID providers (IDN-32): authorization code with PKCE, state and nonce, all of it checked. */
const external: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })
  const sessions = new Sessions(runtime, snapshot, claims => app.jwt.sign(claims))
  const { clock, log } = runtime
  const discovered = new Map<string, { at: number; config: Promise<Configuration> }>()

  /** What the provider says of itself; asked again after an hour, and at once when it could not be had. @throws {GatewayError} 503 */
  const configurationOf = async (settings: ProviderSettings): Promise<Configuration> => {
    const now = clock.monotonic()
    let known = discovered.get(settings.name)
    if (known === undefined || now - known.at > DISCOVERY_MS) {
      known = { at: now, config: discover(settings) }
      discovered.set(settings.name, known)
    }
    try {
      return await known.config
    } catch (error) {
      if (discovered.get(settings.name) === known) discovered.delete(settings.name)
      throw unavailable(settings, error)
    }
  }

  const unavailable = ({ name }: ProviderSettings, error: unknown) => {
    log.warn({ err: error, provider: name }, 'an identity provider cannot be asked')
    return refuse('service_unavailable', { reason: 'provider', headers: ['retry-after', '5'] })
  }

  const providerOf = (name: string): ProviderSettings => {
    const settings = snapshot.identity.providers.find(provider => provider.name === name)
    if (settings === undefined) throw refuse('not_found', { details: `There is no provider "${name}".` })
    return settings
  }

  app.get<{ Params: { name: string } }>(
    '/:name',
    operation({
      summary: 'Sends a browser to another identity provider to log in',
      tag: 'Authentication',
      access: 'anyone',
      params: NAME,
      refuses: ['not_found', 'service_unavailable'],
      answers: { 302: null }
    }),
    async ({ params }, reply) => {
      const settings = providerOf(params.name)
      const config = await configurationOf(settings)
      const openid = await import('openid-client')
      const pending: Pending = {
        provider: settings.name,
        state: openid.randomState(),
        nonce: openid.randomNonce(),
        verifier: openid.randomPKCECodeVerifier()
      }
      const to = openid.buildAuthorizationUrl(config, {
        redirect_uri: settings.redirect_uri,
        scope: settings.scopes.join(' '),
        state: pending.state,
        nonce: pending.nonce,
        code_challenge: await openid.calculatePKCECodeChallenge(pending.verifier),
        code_challenge_method: 'S256'
      })
      const exp = Math.floor(clock.now() / 1000) + PATIENCE_SECONDS
      return reply
        .header('cache-control', 'no-store')
        .header('set-cookie', cookie(settings, app.jwt.sign({ ...pending, exp }), PATIENCE_SECONDS))
        .redirect(to.href, 302)
    }
  )

  app.get<{ Params: { name: string } }>(
    '/:name/callback',
    operation({
      summary: 'Logs in who comes back from another identity provider',
      description: 'The provider sends the browser here. The answer is that of `POST /auth/login`.',
      tag: 'Authentication',
      access: 'anyone',
      params: NAME,
      refuses: ['invalid_credentials', 'not_found', 'conflict', 'service_unavailable'],
      answers: { 200: LOGIN }
    }),
    async (request, reply) => {
      const settings = providerOf(request.params.name)
      reply.header('cache-control', 'no-store').header('set-cookie', cookie(settings, '', 0))
      const pending = pendingOf(request.exchange.header('cookie') ?? '')
      if (pending === undefined || pending.provider !== settings.name) throw denied('no_login_under_way')
      const config = await configurationOf(settings)
      const openid = await import('openid-client')
      const url = new URL(settings.redirect_uri)
      url.search = request.url.includes('?') ? request.url.slice(request.url.indexOf('?')) : ''
      const tokens = await openid
        .authorizationCodeGrant(config, url, {
          pkceCodeVerifier: pending.verifier,
          expectedState: pending.state,
          expectedNonce: pending.nonce,
          idTokenExpected: true
        })
        .catch((error: Error & { code?: string }) => {
          const lost = error.code === 'OAUTH_TIMEOUT' || (error.cause instanceof Error && 'syscall' in error.cause)
          if (lost || error instanceof TypeError) throw unavailable(settings, error)
          log.info({ err: error, provider: settings.name }, 'a login at another provider is refused')
          throw denied('external_login')
        })
      const attempt = attemptOf(request)
      const claims = tokens.claims()
      if (claims === undefined) throw denied('external_login')
      return showLogin(await sessions.begin(await userOfClaims(settings, claims, runtime, attempt), attempt))
    }
  )

  /** Undefined for a cookie that is not there, not ours, too old, or of another make. */
  const pendingOf = (cookies: string): Pending | undefined => {
    const value = new RegExp(`(?:^|;\\s*)${COOKIE}=([^;]+)`).exec(cookies)?.[1]
    if (value === undefined) return undefined
    try {
      const { provider, state, nonce, verifier } = app.jwt.verify<Pending>(value)
      return [provider, state, nonce, verifier].every(part => typeof part === 'string')
        ? { provider, state, nonce, verifier }
        : undefined
    } catch {
      return undefined
    }
  }
}

const NAME = Type.Object({ name: Type.String({ description: 'Name of the provider.', minLength: 1, maxLength: 100 }) })

function denied(reason: string) {
  return refuse('invalid_credentials', { reason, details: 'The login cannot be completed. Begin again.' })
}

/** Sent to the callback of this provider alone, and never to a service. */
function cookie({ redirect_uri }: ProviderSettings, value: string, seconds: number): string {
  const { pathname, protocol } = new URL(redirect_uri)
  const secure = protocol === 'https:' ? '; Secure' : ''
  return `${COOKIE}=${value}; Path=${pathname}; Max-Age=${seconds}; HttpOnly; SameSite=Lax${secure}`
}

async function discover(settings: ProviderSettings): Promise<Configuration> {
  const openid = await import('openid-client')
  const { issuer, client_id, client_secret } = settings
  const authentication = client_secret === undefined ? openid.None() : openid.ClientSecretBasic(client_secret)
  const insecure = new URL(issuer).protocol === 'http:' ? [openid.allowInsecureRequests] : []
  return openid.discovery(new URL(issuer), client_id, {}, authentication, {
    timeout: ANSWER_SECONDS,
    // The ID token is checked with the provider’s keys, too, rather than for having come by TLS.
    execute: [...insecure, openid.enableNonRepudiationChecks]
  })
}

export default external
