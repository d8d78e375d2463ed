import type { Consumer } from './consumer.ts'
import { identityFields } from './identity-fields.ts'
import type { Claims } from './token-form.ts'
import { untrusted } from './trouble.ts'

/** Which claims say what; dots lead into objects. */
export interface ClaimNames {
  readonly roles: readonly string[]
  readonly permissions: readonly string[]
  readonly name: readonly string[]
  readonly tier: readonly string[]
  readonly tenant: readonly string[]
}

/** When a token holds, in milliseconds since 1970, the clocks' difference included. */
export interface Validity {
  readonly notBefore: number
  readonly expiresAt: number
}

/**
 * Reads `exp`, `nbf` and `iat` (RFC 7519 section 4.1), of which the first has to be there. Fractions are allowed.
 * @throws {GatewayError} 401 for what is no number
 */
export function readTimes({ exp, nbf, iat }: Claims, skewMs: number): Validity {
  if (exp === undefined) throw untrusted('no_expiry')
  if (!isTime(exp) || !(nbf === undefined || isTime(nbf)) || !(iat === undefined || isTime(iat)))
    throw untrusted('wrong_time')
  return {
    expiresAt: exp * 1000 + skewMs,
    notBefore: nbf === undefined ? Number.NEGATIVE_INFINITY : nbf * 1000 - skewMs
  }
}

/** `1e999` is valid JSON and infinite here. */
function isTime(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value)
}

/** Whether `aud` names one of `wanted`, exactly; anything goes if none is wanted. @throws {GatewayError} 401 */
export function checkAudience(aud: unknown, wanted: readonly string[]): void {
  if (wanted.length === 0) return
  const named = Array.isArray(aud) ? aud : [aud]
  if (!named.every(name => typeof name === 'string') || !named.some(name => wanted.includes(name)))
    throw untrusted('wrong_audience')
}

/**
 * Who a token speaks of.
 * @param issuer `iss` by which its subject is told from others of the same name; undefined for the gateway's own
 * @throws {GatewayError} 401 for a token that names nobody
 */
export function consumerOf(
  payload: Claims,
  names: ClaimNames,
  issuer: string | undefined,
  credential: Pick<Consumer, 'expiresAt' | 'revocationKey' | 'userId' | 'grant'>
): Consumer {
  // A client that acts for itself is its own subject (RFC 9068 section 2.2).
  const ofUser = payload.sub !== undefined && payload.sub !== payload.client_id
  const subject = ofUser ? payload.sub : (payload.client_id ?? payload.azp)
  if (typeof subject !== 'string' || subject === '') throw untrusted('no_subject')
  const kind = ofUser ? ('user' as const) : ('client' as const)
  const consumer = {
    key: `${kind}:${issuer === undefined ? '' : `${keyPart(issuer)}|`}${keyPart(subject)}`,
    kind,
    id: subject,
    name: readStrings(payload, names.name)[0] ?? '',
    roles: Object.freeze(readStrings(payload, names.roles)),
    permissions: Object.freeze(readStrings(payload, names.permissions)),
    tier: readStrings(payload, names.tier)[0],
    tenant: readStrings(payload, names.tenant)[0],
    credential: 'jwt' as const,
    claims: Object.freeze(payload),
    ...credential
  }
  return Object.freeze({ ...consumer, identityFields: identityFields(consumer) })
}

/** Whether it can be an id of the database: PostgreSQL takes no other text for one. */
export function isUuid(value: unknown): value is string {
  return typeof value === 'string' && /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(value)
}

/** What a token of the gateway's own stands on; nothing for those that name no user. */
export function grantOf({
  sub,
  sid,
  ver,
  iat,
  must_change_password,
  client_id
}: Claims): Pick<Consumer, 'userId' | 'grant'> {
  if (typeof sub !== 'string') return {}
  const grant = {
    sessionId: isUuid(sid) ? sid : undefined,
    version: typeof ver === 'number' ? ver : undefined,
    issuedAt: isTime(iat) ? iat * 1000 : 0,
    mustChangePassword: must_change_password === true,
    // Every token of OAuth names its client (RFC 9068 section 2.2), and no other does.
    delegated: client_id !== undefined
  }
  return { userId: sub, grant: Object.freeze(grant) }
}

/** Somebody who may choose his name must not be able to choose another's key. */
function keyPart(text: string): string {
  return text.replace(/[%|\x00-\x1f\x7f]/g, encodeURIComponent)
}

/** The strings found under any of `names`; a list of words, as OAuth's scopes are (RFC 6749 section 3.3), counts as several. */
function readStrings(payload: Claims, names: readonly string[]): string[] {
  const found = new Set<string>()
  for (const name of names) {
    const value = readClaim(payload, name)
    if (typeof value === 'string') for (const word of isScope(name) ? value.split(' ') : [value]) found.add(word)
    else if (Array.isArray(value)) for (const item of value) if (typeof item === 'string') found.add(item)
  }
  found.delete('')
  return [...found]
}

function isScope(name: string): boolean {
  return /(?:^|\.)(?:scope|scp)$/.test(name)
}

/** The claim of this name; dots lead into objects unless one is in the name itself. */
export function readClaim(payload: Claims, name: string): unknown {
  return Object.hasOwn(payload, name) ? payload[name] : readPath(payload, name.split('.'))
}

function readPath(value: unknown, path: readonly string[]): unknown {
  let current = value
  for (const key of path) {
    if (typeof current !== 'object' || current === null || !Object.hasOwn(current, key)) return undefined
    current = (current as Claims)[key]
  }
  return current
}
