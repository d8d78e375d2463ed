import { createHash } from 'node:crypto'
import type { Snapshot } from '../config/snapshot.ts'
import type { Runtime } from '../runtime/runtime.ts'
import { ApiKeyError, ApiKeys } from './api-key.ts'
import type { ClaimNames } from './claims.ts'
import { IdentityError, namely } from './identity-error.ts'
import { Introspection, type IntrospectionOptions } from './introspection.ts'
import { type Issuer, NO_KEYS, TokenVerifier } from './jwt.ts'
import { type KeySource, publicKey, StaticKeys, secretKey } from './keys.ts'
import { checkStrength, isProduction, type LocalKey, localKey } from './local-key.ts'
import { acquireAuthorizationServer } from './oauth2/server.ts'
import { type FetchReport, PublishedKeys } from './published-keys.ts'
import type { IdentitySettings } from './settings.ts'
import type { StoredKeys } from './stored-keys.ts'

export { IdentityError } from './identity-error.ts'
export { type LocalKey, localKey } from './local-key.ts'

type IssuerSettings = IdentitySettings['issuers'][number]

/** Where OAuth's tokens say what: `scope` is what a client was allowed to ask for, not what its user may do. */
const OAUTH_CLAIMS: ClaimNames = {
  roles: ['roles'],
  permissions: ['permissions'],
  name: ['name'],
  tier: ['tier'],
  tenant: []
}

/** Everything that tells who somebody is. Lives as long as any generation has this identity configuration. */
export class Authenticator {
  readonly tokens: TokenVerifier
  readonly apiKeys: ApiKeys
  readonly #runtime: Runtime
  readonly #leases: string[] = []

  /** @throws {IdentityError} */
  constructor(identity: IdentitySettings, local: LocalKey | undefined, production: boolean, runtime: Runtime) {
    this.#runtime = runtime
    this.apiKeys = apiKeysOf(identity, production, identity.local ? runtime.storedKeys : undefined)
    checkIssuers(identity)
    const given = identity.issuers.map((settings, i) => givenKeys(settings, production, ['identity', 'issuers', i]))
    // From here on nothing can go wrong: what is acquired will be released.
    const issuers = identity.issuers.map((settings, i): Issuer => {
      const {
        issuer,
        audience,
        clock_skew: clockSkewMs,
        jwks_url,
        introspection_max_age: introspectionAgeMs
      } = settings
      const keys = given[i] ?? (jwks_url === undefined ? NO_KEYS : this.#publishedKeys(settings, jwks_url))
      const introspection = asksIssuer(settings) ? this.#introspection(settings) : undefined
      return { issuer, keys, audience, clockSkewMs, introspection, introspectionAgeMs }
    })
    if (local !== undefined) {
      const { issuer, audience, clock_skew } = identity.jwt
      issuers.push({ issuer, own: true, keys: new StaticKeys([local.verification]), audience, clockSkewMs: clock_skew })
    }
    const oauth = acquireAuthorizationServer(identity, runtime)
    if (oauth !== undefined) {
      this.#leases.push(oauth.key)
      const { issuer, keys } = oauth.server
      const clockSkewMs = identity.jwt.clock_skew
      issuers.push({ issuer, own: true, keys, audience: [issuer], clockSkewMs, claims: OAUTH_CLAIMS })
    }
    this.tokens = new TokenVerifier({ issuers, claims: identity.claims, cacheSize: identity.token_cache }, runtime)
  }

  /** Keys once fetched outlive the configuration that asked for them: another may come while the issuer is down. */
  #publishedKeys(settings: IssuerSettings, url: string): PublishedKeys {
    const { leases } = this.#runtime
    const { issuer = url, jwks_interval, jwks_max_age, algorithms, timeout } = settings
    const options = { url, intervalMs: jwks_interval, maxAgeMs: jwks_max_age, algorithms, patienceMs: timeout }
    const key = `keys:${JSON.stringify([issuer, options])}`
    this.#leases.push(key)
    return leases.acquire(
      key,
      () => startFetching(issuer, options, this.#runtime),
      ({ stop }) => stop()
    ).keys
  }

  #introspection(settings: IssuerSettings): Introspection {
    const { leases } = this.#runtime
    const {
      introspection_url: url,
      userinfo_url: userinfoUrl,
      client_id: clientId,
      client_secret: clientSecret
    } = settings
    const options = { url, userinfoUrl, clientId, clientSecret, patienceMs: settings.timeout }
    const key = `introspection:${JSON.stringify([settings.issuer, options])}`
    this.#leases.push(key)
    return leases.acquire(
      key,
      () => startIntrospection(settings.issuer ?? url ?? (userinfoUrl as string), options, this.#runtime),
      ({ stop }) => stop()
    ).introspection
  }

  close(): void {
    for (const key of this.#leases) this.#runtime.leases.release(key)
  }
}

function startFetching(
  issuer: string,
  options: ConstructorParameters<typeof PublishedKeys>[0],
  { clock, log, dependencies }: Runtime
): { keys: PublishedKeys; stop: () => void } {
  const report: FetchReport = outcome => {
    if ('error' in outcome)
      log.warn(
        { issuer, url: options.url, error: outcome.error },
        keys.available
          ? 'keys of an issuer cannot be fetched; the last good ones stay'
          : 'keys of an issuer cannot be fetched; its tokens are refused until they can'
      )
    else if (outcome.changed) log.info({ issuer, keys: outcome.keys }, 'keys of an issuer have been fetched')
  }
  const keys = new PublishedKeys(options, clock, report)
  const dependency = {
    name: `keys of ${issuer}`,
    check: async () => {
      if (keys.error !== undefined) throw new Error(keys.error)
      return { fetched_at: keys.available ? new Date(keys.fetchedAt).toISOString() : null }
    }
  }
  dependencies.add(dependency)
  void keys.refresh()
  return {
    keys,
    stop: () => {
      dependencies.delete(dependency)
      keys.close()
    }
  }
}

function startIntrospection(
  issuer: string,
  options: IntrospectionOptions,
  { clock, log, dependencies }: Runtime
): { introspection: Introspection; stop: () => void } {
  const introspection = new Introspection(options, clock, error => {
    if (error === undefined) log.info({ issuer }, 'an issuer answers again')
    else log.warn({ issuer, error }, 'an issuer cannot be asked about its tokens; they are refused until it can')
  })
  const dependency = {
    name: `introspection by ${issuer}`,
    check: async () => {
      if (introspection.error !== undefined) throw new Error(introspection.error)
      return undefined
    }
  }
  dependencies.add(dependency)
  return {
    introspection,
    stop: () => {
      dependencies.delete(dependency)
      introspection.close()
    }
  }
}

/** Whether tokens of this issuer may have to be shown to it. */
function asksIssuer({ introspection_url, userinfo_url }: IssuerSettings): boolean {
  return introspection_url !== undefined || userinfo_url !== undefined
}

/** The authenticator of a snapshot, shared by all generations with the same identity settings. @throws {IdentityError} */
export function acquireAuthenticator(
  snapshot: Snapshot,
  runtime: Runtime
): { authenticator: Authenticator; local: LocalKey | undefined; key: string } {
  const local = localKey(snapshot)
  const { identity } = snapshot
  const production = isProduction(snapshot)
  const configured = JSON.stringify([identity, production, local?.signing, local?.verification.material])
  const key = `identity:${createHash('sha256').update(configured).digest('hex')}`
  const authenticator = runtime.leases.acquire(
    key,
    () => new Authenticator(identity, local, production, runtime),
    old => old.close()
  )
  return { authenticator, local, key }
}

/** Of two issuers with one name, one would never be asked. @throws {IdentityError} */
function checkIssuers({ issuers, jwt }: IdentitySettings): void {
  for (const [i, settings] of issuers.entries()) {
    const { issuer } = settings
    const at = ['identity', 'issuers', i]
    const path = [...at, 'issuer']
    if (issuer !== undefined && issuer === jwt.issuer)
      throw new IdentityError(path, `"${issuer}" is identity.jwt.issuer, too; keep one of them`)
    if (issuers.findIndex(other => other.issuer === issuer) !== i)
      throw new IdentityError(
        issuer === undefined ? at : path,
        issuer === undefined
          ? 'is the second one without "issuer"; of several, each needs one'
          : `"${issuer}" is there twice; keep one of them`
      )
    if (asksIssuer(settings) && issuers.findIndex(asksIssuer) !== i)
      throw new IdentityError(
        at,
        'is the second one that is asked about its tokens; which of them an opaque token belongs to, nobody could tell'
      )
    const given = (['secret', 'public_key', 'jwks_url'] as const).filter(key => settings[key] !== undefined)
    if (given.length > 1)
      throw new IdentityError(at, 'has several of "secret", "public_key", "jwks_url"; keep one of them')
    if (given.length === 0 && !asksIssuer(settings))
      throw new IdentityError(at, 'needs "secret", "public_key", "jwks_url", "introspection_url" or "userinfo_url"')
  }
}

/** The keys that the configuration holds; undefined for those that the issuer publishes. @throws {IdentityError} */
function givenKeys(settings: IssuerSettings, production: boolean, path: (string | number)[]): KeySource | undefined {
  const { secret, public_key, algorithms } = settings
  if (secret !== undefined) {
    const key = namely([...path, 'secret'], () => secretKey(secret, algorithms))
    checkStrength(secret, production, [...path, 'secret'])
    return new StaticKeys([key])
  }
  if (public_key === undefined) return undefined
  return new StaticKeys([namely([...path, 'public_key'], () => publicKey(public_key, undefined, algorithms))])
}

/** @throws {IdentityError} */
function apiKeysOf({ api_keys }: IdentitySettings, production: boolean, stored: StoredKeys | undefined): ApiKeys {
  for (const [i, { key }] of api_keys.entries())
    if (key !== undefined) checkStrength(key, production, ['identity', 'api_keys', i, 'key'])
  try {
    return new ApiKeys(api_keys, stored)
  } catch (error) {
    if (error instanceof ApiKeyError) throw new IdentityError(['identity', 'api_keys', ...error.path], error.message)
    throw error
  }
}
