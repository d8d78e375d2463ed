import { randomBytes, verify } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type Provider from 'oidc-provider'
import type { Database } from '../../database/database.ts'
import { deleteExpiredArtifacts } from '../../database/oauth.ts'
import { findClient } from '../../database/oauth-clients.ts'
import type { Runtime } from '../../runtime/runtime.ts'
import type { Attempt } from '../accounts.ts'
import type { IdentitySettings, OAuthSettings } from '../settings.ts'
import { parseToken } from '../token-form.ts'
import { hashSecret, metadataOf, type OAuthClient } from './clients.ts'
import { SigningKeys } from './signing-keys.ts'
import { type Logins, OAuthUsers } from './users.ts'

/** How often keys are looked at and what has expired is swept out, in milliseconds. */
const MAINTENANCE_MS = 60_000
/** The longest that a browser's login, whose cookie is signed, or an ID token may be shown, in milliseconds. */
const LONGEST_SIGNED_MS = 12 * 3600 * 1000

/** What is passed on of a request. */
export interface OAuthRequestView {
  /** Below the prefix, with the query. */
  readonly path: string
  /** The body of a POST. */
  readonly form?: string | undefined
  readonly attempt: Attempt
  readonly logins: Logins
}

/** The authorization server of one configuration (IDN-27 to IDN-31). Lives as long as any generation has that configuration. */
export class AuthorizationServer {
  readonly issuer: string
  readonly keys: SigningKeys
  readonly #settings: OAuthSettings
  readonly #jwt: IdentitySettings['jwt']
  readonly #runtime: Runtime
  readonly #database: Database
  readonly users: OAuthUsers
  readonly #handle = randomBytes(32).toString('base64url')
  readonly #timer: NodeJS.Timeout
  #provider: { of: number; made: Promise<Provider> } | undefined

  constructor(settings: OAuthSettings, jwt: IdentitySettings['jwt'], runtime: Runtime) {
    const { database, clock, log } = runtime
    this.issuer = settings.issuer
    this.#database = database as Database
    this.#settings = settings
    this.#jwt = jwt
    this.users = new OAuthUsers(this.#database, clock, jwt.refresh_days * 86_400_000)
    this.#runtime = runtime
    const lifeMs = Math.max(jwt.access_minutes * 60_000, LONGEST_SIGNED_MS)
    this.keys = new SigningKeys({ database: this.#database, clock, log, maxAgeMs: settings.key_age, lifeMs })
    this.#timer = setInterval(() => void this.maintain(), MAINTENANCE_MS).unref()
    this.keys.open().catch(error => log.warn({ err: error }, 'the keys of OAuth cannot be read yet'))
  }

  /** Replaces old keys and forgets what has expired. Never rejects: there is always a next time. */
  async maintain(): Promise<void> {
    const { clock, log } = this.#runtime
    try {
      await deleteExpiredArtifacts(this.#database.db, clock.now())
      await this.keys.maintain()
    } catch (error) {
      log.warn({ err: error }, 'what OAuth keeps has not been swept; it will be')
    }
  }

  /** A client, of the configuration or of the database. */
  async findClient(id: string): Promise<OAuthClient | undefined> {
    // PostgreSQL takes no such text, not even to find nothing.
    if (id.includes('\0')) return undefined
    return this.configuredClient(id) ?? (await findClient(this.#database.db, id))
  }

  configuredClient(id: string): OAuthClient | undefined {
    return this.configuredClients().find(client => client.id === id)
  }

  configuredClients(): OAuthClient[] {
    return this.#settings.clients.map(({ secret, ...client }) => ({
      ...client,
      secretHash: secret === undefined ? undefined : hashSecret(secret)
    }))
  }

  /** Loaded when first needed, and made again whenever keys change. @throws {DatabaseError} before there are any */
  async provider(): Promise<Provider> {
    if (!this.keys.available) await this.keys.open()
    const { version } = this.keys
    if (this.#provider?.of !== version) this.#provider = { of: version, made: this.#createProvider() }
    return this.#provider.made
  }

  async #createProvider(): Promise<Provider> {
    const { createProvider } = await import('./provider.ts')
    const { clock, revocations, log } = this.#runtime
    const { access_minutes, refresh_days } = this.#jwt
    return createProvider({
      issuer: this.issuer,
      keys: this.keys,
      users: this.users,
      adapter: {
        database: this.#database,
        clock,
        revocations,
        handle: this.#handle,
        endLogin: uid => this.users.end(uid),
        findClient: async id => {
          const client = await this.findClient(id)
          return client === undefined ? undefined : metadataOf(client)
        }
      },
      accessSeconds: Math.ceil(access_minutes * 60),
      refreshSeconds: Math.ceil(refresh_days * 86_400),
      log
    })
  }

  /**
   * Has oidc-provider answer a request. It sees the scheme and host of the issuer, whatever proxies are in front.
   * @throws {DatabaseError} before there are keys
   */
  async handle(request: IncomingMessage, response: ServerResponse, seen: OAuthRequestView): Promise<void> {
    const provider = await this.provider()
    await provider.callback()(this.requestFor(request, seen), response)
  }

  /** The request as oidc-provider is to see it; for its functions that take one, too. */
  requestFor(request: IncomingMessage, { path, form, attempt, logins }: OAuthRequestView): IncomingMessage {
    const { host, protocol, pathname } = new URL(this.issuer)
    const { 'x-forwarded-host': _, 'x-forwarded-for': __, ...fields } = request.headers
    const headers: IncomingMessage['headers'] = { ...fields, host, 'x-forwarded-proto': protocol.slice(0, -1) }
    const body = form === undefined ? undefined : Buffer.from(this.#withHandle(form))
    if (body !== undefined) headers['content-length'] = String(body.length)
    return Object.create(request, {
      url: { value: path, writable: true },
      originalUrl: { value: pathname + path },
      headers: { value: headers },
      attempt: { value: attempt },
      logins: { value: logins },
      readable: { value: body !== undefined },
      iterator: {
        value: async function* () {
          if (body !== undefined) yield body
        }
      }
    }) as IncomingMessage
  }

  /**
   * Signed tokens are unknown to oidc-provider once they are given out. One that is shown to be taken back, or asked about,
   * is found good here, and goes on as what it is kept under.
   */
  #withHandle(form: string): string {
    const fields = new URLSearchParams(form)
    const token = fields.get('token')
    if (token === null || !token.includes('.')) return form
    fields.set('token', this.#handle + (this.#verifiedId(token) ?? 'unknown'))
    return fields.toString()
  }

  #verifiedId(token: string): string | undefined {
    try {
      const { payload, kid } = parseToken(token)
      const end = token.lastIndexOf('.')
      const signature = Buffer.from(token.slice(end + 1), 'base64url')
      const input = Buffer.from(token.slice(0, end))
      const good = this.keys
        .find(kid)
        .some(({ material: key }) => verify('sha256', input, { key, dsaEncoding: 'ieee-p1363' }, signature))
      return good && payload.iss === this.issuer && typeof payload.jti === 'string' ? payload.jti : undefined
    } catch {
      return undefined
    }
  }

  close(): void {
    clearInterval(this.#timer)
    this.keys.close()
  }
}

/** The authorization server of these settings, shared by everybody who needs it; `release(key)` gives it back. */
export function acquireAuthorizationServer(
  { oauth, jwt }: IdentitySettings,
  runtime: Runtime
): { server: AuthorizationServer; key: string } | undefined {
  if (oauth === undefined || runtime.database === undefined) return undefined
  const key = `oauth:${JSON.stringify([oauth, jwt.access_minutes, jwt.refresh_days])}`
  const server = runtime.leases.acquire(
    key,
    () => new AuthorizationServer(oauth, jwt, runtime),
    server => server.close()
  )
  return { server, key }
}
