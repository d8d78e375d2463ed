import { hash, timingSafeEqual } from 'node:crypto'
import type { ClientMetadata } from 'oidc-provider'
import { parseKeySet } from '../key-set.ts'
import type { OAuthClientSettings } from '../settings.ts'
import { ALGORITHM } from './signing-keys.ts'

/** What a client is registered with, however it is. */
export type ClientSettings = Omit<OAuthClientSettings, 'id' | 'secret'>

/** A registered client. */
export interface OAuthClient extends ClientSettings {
  readonly id: string
  /** SHA-256 of its secret, in hex; undefined for clients that have none. */
  readonly secretHash: string | undefined
}

/** Scopes that are about who the user is, rather than about what may be done. */
export const OPENID_SCOPES = ['openid', 'offline_access', 'profile', 'email']

/** The scope that stands for all of a user's roles. */
export const ROLES_SCOPE = 'roles'

/** Secrets are long and random, so a fast hash keeps them as well as a slow one. */
export function hashSecret(secret: string): string {
  return hash('sha256', secret)
}

/** Whether `secret` is the one of this hash; takes as long for a wrong one (H-64). */
export function isSecretOf(hash: string, secret: string): boolean {
  return timingSafeEqual(Buffer.from(hashSecret(secret)), Buffer.from(hash))
}

/** Something that a client must not be registered with, and which of its settings is to blame. */
export interface ClientProblem {
  readonly key: string
  readonly message: string
}

/** What is wrong with a client, in the same words for the configuration and the API. */
export function problemsOfClient(client: ClientSettings): ClientProblem[] {
  const problems: ClientProblem[] = []
  const add = (key: string, message: string): void => void problems.push({ key, message })
  const { grant_types, redirect_uris, token_endpoint_auth_method: method, jwks, scopes } = client
  const redirects = grant_types.includes('authorization_code') || grant_types.includes('implicit')
  if (grant_types.length === 0) add('grant_types', 'needs at least one')
  if (redirects && redirect_uris.length === 0) add('redirect_uris', 'needs at least one: users have to be sent back')
  if (method === 'none' && grant_types.includes('client_credentials'))
    add('grant_types', '"client_credentials" is for clients that can prove who they are: not for "none"')
  if (grant_types.includes('implicit') && !scopes.includes('openid'))
    add('scopes', '"implicit" (id_token token) needs "openid"')
  if (grant_types.length === 1 && grant_types[0] === 'refresh_token')
    add('grant_types', '"refresh_token" needs another one, by which the first token is got')
  if ((method === 'private_key_jwt') !== (jwks !== undefined))
    add('jwks', method === 'private_key_jwt' ? 'is needed for "private_key_jwt"' : 'is for "private_key_jwt" only')
  else if (jwks !== undefined && !holdsKeys(jwks)) add('jwks', 'is no JWK set with a usable public key')
  for (const key of ['redirect_uris', 'post_logout_redirect_uris'] as const)
    for (const uri of client[key]) {
      const trouble = troubleOfRedirect(uri, grant_types.includes('implicit'))
      if (trouble !== undefined) add(key, `"${uri}" ${trouble}`)
    }
  return problems
}

/** Without TLS a code is anybody's, but for what never leaves the machine (RFC 8252 section 7.3). */
function troubleOfRedirect(uri: string, implicit: boolean): string | undefined {
  const url = URL.parse(uri)
  if (url === null) return 'is no URL'
  if (url.username !== '' || url.password !== '' || uri.includes('*')) return 'has to be exact: no wildcards, no user'
  const loopback = ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname)
  if (url.protocol === 'http:' && (implicit || !loopback)) return 'has to be https'
  return implicit && url.hostname === 'localhost' ? 'must not be localhost for "implicit"' : undefined
}

function holdsKeys(jwks: unknown): boolean {
  try {
    return parseKeySet(JSON.stringify(jwks), []).length > 0
  } catch {
    return false
  }
}

/** What is allowed, and should be given up (C-36). */
export function advisoriesOn({ grant_types }: Pick<ClientSettings, 'grant_types'>): string[] {
  const advisories: string[] = []
  if (grant_types.includes('implicit'))
    advisories.push(
      '"implicit" leaves tokens in the address of a page (RFC 9700 section 2.1.2): use authorization_code with PKCE'
    )
  if (grant_types.includes('password'))
    advisories.push(
      '"password" shows users’ passwords to the client (RFC 9700 section 2.4): use authorization_code with PKCE'
    )
  return advisories
}

/** Permissions that a client may ask for, and {@link ROLES_SCOPE}. */
function apiScopesOf({ scopes }: Pick<ClientSettings, 'scopes'>): string[] {
  return scopes.filter(scope => !OPENID_SCOPES.includes(scope))
}

/** A client as oidc-provider takes it. What stands for its secret is the hash, which is compared by us. */
export function metadataOf(client: OAuthClient): ClientMetadata {
  const { grant_types } = client
  const response_types = [
    ...(grant_types.includes('authorization_code') ? ['code' as const] : []),
    ...(grant_types.includes('implicit') ? ['id_token token' as const, 'id_token' as const] : [])
  ]
  return {
    client_id: client.id,
    client_name: client.name,
    ...(client.secretHash === undefined ? {} : { client_secret: client.secretHash }),
    token_endpoint_auth_method: client.token_endpoint_auth_method,
    ...(client.jwks === undefined ? {} : { jwks: client.jwks as never }),
    grant_types: [...grant_types],
    response_types,
    redirect_uris: [...client.redirect_uris],
    post_logout_redirect_uris: [...client.post_logout_redirect_uris],
    // An empty list would stand for all of them.
    scope: client.scopes.filter(scope => OPENID_SCOPES.includes(scope)).join(' ') || 'offline_access',
    api_scopes: apiScopesOf(client),
    id_token_signed_response_alg: ALGORITHM
  }
}
