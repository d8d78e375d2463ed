import { createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto'

/** A key that verifies tokens. What it may verify is its own business, never the token's (RFC 8725 section 3.1). */
export interface VerificationKey {
  readonly kid: string | undefined
  readonly algorithms: ReadonlySet<string>
  /** PEM of the public key, or the shared secret. */
  readonly material: string
}

/** Thrown for a key that must not be used; the message says why. */
export class KeyError extends Error {}

const HMAC = ['HS256', 'HS384', 'HS512']
const RSA = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']
const CURVES: Record<string, string> = { prime256v1: 'ES256', secp384r1: 'ES384', secp521r1: 'ES512' }
const SHORTEST_SECRET = 32
const SHORTEST_RSA = 2048
/** Longer ones cost more than they protect: what a token may cost is bounded (H-62). */
const LONGEST_RSA = 8192
const LARGEST_EXPONENT = 2n ** 32n

/** @param wanted algorithms that the configuration allows; empty for all that fit. @throws {KeyError} */
export function secretKey(secret: string, wanted: readonly string[] = []): VerificationKey {
  if (secret === '') throw new KeyError('is empty')
  if (isKeyMaterial(secret)) throw new KeyError('holds a key pair’s key; a public key must never be a shared secret')
  return { kid: undefined, algorithms: narrow(HMAC, wanted), material: secret }
}

/** Whether `text` is an asymmetric key as PEM, JWK or base64 of DER: what everybody may know is no secret (CVE-2026-34950). */
function isKeyMaterial(text: string): boolean {
  return text.includes('-----BEGIN') || /^\s*[{[].*"kty"/s.test(text) || isDer(text)
}

function isDer(text: string): boolean {
  const der = Buffer.from(text, 'base64')
  // Every such key is an ASN.1 sequence; secrets seldom look like one.
  if (der[0] !== 0x30) return false
  return (['spki', 'pkcs1'] as const).some(type => {
    try {
      createPublicKey({ key: der, format: 'der', type })
      return true
    } catch {
      return false
    }
  })
}

/** What examples and demonstrations use, ours and others'. */
const WELL_KNOWN = new Set([
  'a-string-secret-at-least-256-bits-long',
  'a-valid-string-secret-that-is-at-least-384-bits-long',
  'a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long',
  'super-secret-jwt-token-with-at-least-32-characters-long'
])

/** Words that ask to be replaced. In a secret made at random they do not come up. */
const PLACEHOLDER = /change[-_ ]?(?:me|this)|replace[-_ ]?(?:me|this)|your[-_ ].*(?:secret|key)/i

/** Whether a shared secret is good enough for production: 32 bytes (RFC 7518 section 3.2), and not out of an example. */
export function isStrongSecret(secret: string): boolean {
  return Buffer.byteLength(secret) >= SHORTEST_SECRET && !WELL_KNOWN.has(secret) && !PLACEHOLDER.test(secret)
}

/**
 * @param key PEM of a public key or certificate, or a JWK
 * @param wanted algorithms that are allowed; empty for all that fit
 * @throws {KeyError} for what is no public key, or a weak one
 */
export function publicKey(
  key: string | { key: JsonWebKey; format: 'jwk' },
  kid?: string,
  wanted: readonly string[] = []
): VerificationKey {
  let object: KeyObject
  try {
    object = createPublicKey(key)
  } catch {
    throw new KeyError('is no public key')
  }
  return {
    kid,
    algorithms: narrow(algorithmsOf(object), wanted),
    material: object.export({ type: 'spki', format: 'pem' }) as string
  }
}

/** What a key may verify follows from the key (RFC 8725 section 3.1). @throws {KeyError} for one that proves too little */
function algorithmsOf({ asymmetricKeyType: type, asymmetricKeyDetails: details = {} }: KeyObject): readonly string[] {
  switch (type) {
    case 'rsa': {
      const { modulusLength = 0, publicExponent = 0n } = details
      if (modulusLength < SHORTEST_RSA || modulusLength > LONGEST_RSA)
        throw new KeyError(`is an RSA key of ${modulusLength} bits; ${SHORTEST_RSA} to ${LONGEST_RSA} are accepted`)
      if (publicExponent < 3n || publicExponent > LARGEST_EXPONENT)
        throw new KeyError(`is an RSA key with the exponent ${publicExponent}, which nobody should use`)
      return RSA
    }
    case 'ec': {
      const algorithm = CURVES[details.namedCurve ?? '']
      if (algorithm === undefined)
        throw new KeyError(`is on the curve ${details.namedCurve}, which no algorithm here uses`)
      return [algorithm]
    }
    case 'ed25519':
      return ['EdDSA']
    default:
      throw new KeyError(`is of the type ${type}, which no algorithm here uses`)
  }
}

function narrow(fitting: readonly string[], wanted: readonly string[]): ReadonlySet<string> {
  const allowed = wanted.length === 0 ? fitting : fitting.filter(algorithm => wanted.includes(algorithm))
  if (allowed.length === 0) throw new KeyError(`fits ${fitting.join(', ')}, but only ${wanted.join(', ')} is allowed`)
  return new Set(allowed)
}

/** Where the keys of an issuer come from. */
export interface KeySource {
  /** Counts up whenever the keys change, so that tokens verified with the old ones are verified again. */
  readonly version: number
  /** Whether there are keys at all; false until they have been fetched once. */
  readonly available: boolean
  /** When the keys are to be fetched again, in monotonic milliseconds; Infinity for keys that stay. */
  readonly dueAt: number
  /** The keys that may have signed a token with this `kid`, or with none. */
  find(kid: string | undefined): readonly VerificationKey[]
  /** Fetches the keys, if that is allowed by now: a promise until they are there, undefined when it is not allowed. */
  refresh(): Promise<void> | undefined
}

/** Keys that the configuration holds. */
export class StaticKeys implements KeySource {
  readonly version = 0
  readonly available = true
  readonly dueAt = Number.POSITIVE_INFINITY
  readonly #keys: readonly VerificationKey[]

  constructor(keys: readonly VerificationKey[]) {
    this.#keys = keys
  }

  find(kid: string | undefined): readonly VerificationKey[] {
    return keysFor(this.#keys, kid)
  }

  refresh(): undefined {
    return undefined
  }
}

/** Names are compared exactly, and are never more than names: no path, no query (RFC 8725 section 3.10). */
export function keysFor(keys: readonly VerificationKey[], kid: string | undefined): readonly VerificationKey[] {
  return keys.filter(key => key.kid === undefined || kid === undefined || key.kid === kid)
}
