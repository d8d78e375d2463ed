import { readFileSync } from 'node:fs'
import { advisoriesOn, problemsOfClient } from '../identity/oauth2/clients.ts'
import type { IdentitySettings, OAuthClientSettings, OAuthSettings } from '../identity/settings.ts'
import type { Draft } from './draft.ts'
import type { Path } from './located.ts'
import type { GatewaySettings } from './schema.ts'

/** Keys that are named by their files, as what is in these: a key that is replaced is another configuration. */
export function identityOf(draft: Draft): IdentitySettings {
  const { identity } = draft.settled
  const { jwt, issuers } = identity
  const { public_key, secret } = jwt
  return {
    ...identity,
    local: draft.local,
    jwt: {
      ...jwt,
      // Where anybody may be an issuer, the gateway’s own tokens have to be told from theirs.
      ...(jwt.issuer === undefined && issuers.some(({ issuer }) => issuer === undefined) && { issuer: 'sallyport' }),
      ...(public_key && { public_key: pemOf(draft, public_key, ['identity', 'jwt', 'public_key']) }),
      ...(secret && !jwt.algorithm.startsWith('HS') && { secret: pemOf(draft, secret, ['identity', 'jwt', 'secret']) })
    },
    issuers: issuers.map((issuer, i) => ({
      ...issuer,
      ...(issuer.public_key && {
        public_key: pemOf(draft, issuer.public_key, ['identity', 'issuers', i, 'public_key'])
      })
    }))
  }
}

/** Whether there are accounts; to ask for them where they cannot be is an error, and not to ask is to go without. */
export function hasAccounts(draft: Draft): boolean {
  const { identity, storage, gateway } = draft.settled
  if (!identity.local) return false
  const trouble = storage.database ? signingTrouble(identity, gateway) : 'needs "storage.database"'
  if (trouble === undefined) return true
  const asked = (draft.document.identity as Record<string, unknown> | undefined)?.local === true
  if (asked) draft.problems.add(['identity', 'local'], trouble)
  return false
}

/** What of OAuth no schema can say. */
export function checkOAuth(draft: Draft): void {
  const { identity, paths, storage } = draft.settled
  const { oauth } = identity
  if (oauth === undefined) return
  const path: Path = ['identity', 'oauth']
  if (!storage.database) draft.problems.add(path, 'needs "storage.database"')
  if (paths.oauth === false) draft.problems.add(['paths', 'oauth'], 'is needed for "identity.oauth"')
  const { protocol, hostname, pathname } = URL.parse(oauth.issuer) ?? { protocol: '', hostname: '', pathname: '' }
  if (protocol !== 'https:' && !['localhost', '127.0.0.1', '[::1]'].includes(hostname))
    draft.problems.add([...path, 'issuer'], 'has to be https')
  if (paths.oauth !== false && pathname !== paths.oauth)
    draft.problems.add(
      [...path, 'issuer'],
      `has the path "${pathname}", but paths.oauth is "${paths.oauth}": they have to be the same`
    )
  for (const [i, client] of oauth.clients.entries()) checkClient(draft, client, [...path, 'clients', i], oauth)
}

function checkClient(draft: Draft, client: OAuthClientSettings, path: Path, { clients }: OAuthSettings): void {
  if (clients.find(({ id }) => id === client.id) !== client)
    draft.problems.add([...path, 'id'], `"${client.id}" is the id of another client`)
  const needsSecret = client.token_endpoint_auth_method === 'client_secret_basic'
  if (needsSecret !== Boolean(client.secret))
    draft.problems.add(
      needsSecret ? path : [...path, 'secret'],
      needsSecret ? 'needs "secret"' : `is not for "${client.token_endpoint_auth_method}"`
    )
  for (const { key, message } of problemsOfClient(client)) draft.problems.add([...path, key], message)
  for (const advisory of advisoriesOn(client)) draft.problems.warn([...path, 'grant_types'], advisory)
}

/** The PEM itself, or that in the file of this name. What is neither is found where keys are made of it. */
function pemOf(draft: Draft, text: string, path: Path): string {
  if (text.includes('-----BEGIN')) return text
  try {
    return readFileSync(draft.file(text, path), 'utf8')
  } catch {
    return text
  }
}

/** Why this configuration cannot sign tokens of its own, if so; see `src/identity/local-key.ts`. */
function signingTrouble({ jwt, issuers }: IdentitySettings, { environment }: GatewaySettings): string | undefined {
  if (!jwt.algorithm.startsWith('HS')) return jwt.secret ? undefined : 'needs a private key as "identity.jwt.secret"'
  const none = !jwt.secret && /^prod(?:uction)?$/i.test(environment) && issuers.length > 0
  return none ? 'needs "identity.jwt.secret" in production' : undefined
}
