import { type ErrorCode, type GatewayError, refuse } from '../errors.ts'

interface Entry {
  readonly code: ErrorCode
  /** What the caller is told. */
  readonly details: string
  /** What whoever runs the gateway is told, by `sallyport explain`: where to look. */
  readonly advice: string
}

const token = (details: string, advice: string): Entry => ({ code: 'authentication_failed', details, advice })

/**
 * Everything that can be wrong with a credential (IDN-39), under the reason that the log and the metric
 * `authentication_failures` name.
 */
export const TROUBLE = {
  no_credentials: {
    code: 'authentication_required',
    details: 'The request holds no credentials.',
    advice: 'send "Authorization: Bearer …" or "X-API-Key: …", or let everybody in with "authentication: none"'
  },
  two_credentials: {
    code: 'bad_request',
    details: 'There are two credentials in the request.',
    advice: 'a token and a key, or tokens in two places; which of them counts would be a guess'
  },
  unknown_scheme: token(
    'Authorization has to be "Bearer <token>" or "ApiKey <key>".',
    'another scheme, or nothing behind this one, as from a variable that is empty; a service that does its own authentication wants "authentication: none"'
  ),
  malformed: token(
    'The token is malformed.',
    'it is no signed JWT in compact form: cut or quoted on its way, encrypted, longer than 8192 characters, or of another "typ"'
  ),
  critical_extension: token(
    'The token asks for an extension that is not supported.',
    'its header has "crit" or "b64"; have the issuer leave them out'
  ),
  wrong_issuer: token(
    'The issuer of the token is not accepted.',
    'its "iss" is none of identity.issuers[].issuer and not identity.jwt.issuer, character by character'
  ),
  unknown_key: token(
    'The key of the token is not known.',
    'its "kid" is not among the keys of its issuer; they are fetched again at most once per jwks_interval'
  ),
  wrong_algorithm: token(
    'The algorithm of the token is not accepted.',
    'its "alg" does not fit the key of its issuer, or is not among its "algorithms"; the key is that of identity.jwt if no identity.issuers[].issuer is its "iss"'
  ),
  wrong_signature: token(
    'The signature is not valid.',
    'it was signed with another key than the configured one (compare identity.jwt.secret, or JWT_SECRET_KEY), or changed since'
  ),
  expired: {
    code: 'expired_token',
    details: 'The token has expired.',
    advice: 'its "exp" has passed; if it should not have, compare clocks, or set "clock_skew"'
  },
  not_yet_valid: token(
    'The token is not valid yet.',
    'its "nbf" is still to come; compare clocks, or set "clock_skew"'
  ),
  no_expiry: token('The token has no expiry.', 'tokens that never end are not accepted: have the issuer set "exp"'),
  wrong_time: token('A time in the token is no number.', '"exp", "nbf" and "iat" are seconds since 1970'),
  wrong_audience: token(
    'The token is for another audience.',
    'its "aud" names none of the configured audiences, character by character'
  ),
  no_subject: token('The token names no subject.', 'it needs "sub", or "client_id" for a client of its own'),
  revoked: token(
    'The token has been revoked.',
    'it was taken back with POST /admin/revocations, or is in "blacklist:…"'
  ),
  session_over: token(
    'The session has ended.',
    'its user has logged out, is not active any more, or has got another password, role or permission since; log in or refresh again'
  ),
  keys_unavailable: {
    code: 'service_unavailable',
    details: 'The token cannot be checked at the moment.',
    advice: 'the keys of its issuer have never been fetched: look at jwks_url, and at /health/dependencies'
  },
  inactive: token(
    'The token is not active.',
    'its issuer says so: it has expired, was taken back, or is none of its tokens (introspection_url, userinfo_url)'
  ),
  introspection_unavailable: {
    code: 'service_unavailable',
    details: 'The token cannot be checked at the moment.',
    advice: 'its issuer does not answer, or not to the point: look at introspection_url, and at /health/dependencies'
  },
  unknown_api_key: token(
    'The provided API key is not valid.',
    'no identity.api_keys[] has it (compare `sallyport token --api-key` hashes), and none of the database: it may have been rotated or deleted'
  ),
  expired_api_key: token(
    'The API key has expired.',
    'the expires_at of this key has passed, or the time for which a rotated one was still good'
  ),
  inactive_owner: token('The provided API key is not valid.', 'the user to whom this key belongs is not active'),
  api_keys_unavailable: {
    code: 'service_unavailable',
    details: 'The API key cannot be checked at the moment.',
    advice: 'the key has not been seen before, and the database is out of reach: look at /health/dependencies'
  }
} as const satisfies Record<string, Entry>

export type Trouble = keyof typeof TROUBLE

/** What is to be done about a refusal's reason, if it is one of {@link TROUBLE}. */
export function adviceOn(reason: string): string | undefined {
  return Object.hasOwn(TROUBLE, reason) ? TROUBLE[reason as Trouble].advice : undefined
}

const refusals = new Map<Trouble, GatewayError>()

/**
 * The refusal for a reason: the same object every time, since a flood of bad credentials has to be cheap.
 * It carries the challenge of RFC 6750 section 3, which names an error only when a token was there to have one.
 */
export function untrusted(reason: Trouble): GatewayError {
  let refusal = refusals.get(reason)
  if (refusal === undefined) {
    const { code, details } = TROUBLE[reason]
    refusal = refuse(code, { reason, details, ...fieldsOf(reason, details) })
    refusals.set(reason, refusal)
  }
  return refusal
}

function fieldsOf(reason: Trouble, details: string): { headers: readonly string[]; proxyStatus?: string } {
  switch (reason) {
    case 'no_credentials':
    case 'unknown_scheme':
      return { headers: challenge() }
    case 'two_credentials':
      return { headers: challenge('invalid_request', details) }
    case 'unknown_api_key':
    case 'expired_api_key':
    case 'inactive_owner':
      return { headers: ['www-authenticate', `ApiKey realm="${REALM}"`] }
    case 'keys_unavailable':
    case 'introspection_unavailable':
    case 'api_keys_unavailable':
      return { headers: ['retry-after', '5'], proxyStatus: 'proxy_internal_response' }
    default:
      return { headers: challenge('invalid_token', details) }
  }
}

const REALM = 'sallyport'

/**
 * `WWW-Authenticate` for bearer tokens, flat (RFC 6750 section 3).
 * @param description a sentence; its full stop is left out, and what the field cannot hold is replaced
 */
export function challenge(error?: string, description?: string, scope?: string): readonly string[] {
  let value = `Bearer realm="${REALM}"`
  if (error !== undefined) value += `, error="${error}"`
  if (description !== undefined) value += `, error_description="${sayable(description)}"`
  if (scope !== undefined && scope !== '') value += `, scope="${scope}"`
  return ['www-authenticate', value]
}

function sayable(description: string): string {
  return description.replace(/\.$/, '').replace(/[^\x20-\x7e]|["\\]/g, '?')
}
