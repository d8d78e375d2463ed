import type { JsonWebKey } from 'node:crypto'
import { KeyError, publicKey, type VerificationKey } from './keys.ts'

/** Further keys of a set are not looked at. */
const MOST_KEYS = 100

/** Members of a JWK that only its owner may know (RFC 7518 section 6). */
const PRIVATE = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']

/**
 * The usable keys of a JWK set (RFC 7517 section 5). Keys for other uses, of other kinds and of too little strength are left
 * out, as are those that give their private half away; a `kid` that two of them share names neither (H-53).
 * @param wanted algorithms that the configuration allows; empty for all that fit
 * @throws {Error} for what is no key set, or holds no usable key
 */
export function parseKeySet(text: string, wanted: readonly string[]): VerificationKey[] {
  const found = jwksOf(text)
    .filter(jwk => isForSignatures(jwk))
    .flatMap(jwk => usable(jwk, wanted))
  const keys = found.filter(key => key.kid === undefined || found.filter(({ kid }) => kid === key.kid).length === 1)
  if (keys.length === 0) throw new Error('holds no usable key')
  return keys
}

function jwksOf(text: string): Record<string, unknown>[] {
  let set: unknown
  try {
    set = JSON.parse(text)
  } catch {
    throw new Error('is no JSON')
  }
  const keys = typeof set === 'object' && set !== null ? (set as { keys?: unknown }).keys : undefined
  if (!Array.isArray(keys)) throw new Error('is no JWK set')
  return keys.slice(0, MOST_KEYS).filter(jwk => typeof jwk === 'object' && jwk !== null)
}

function isForSignatures({ use, key_ops: operations, ...jwk }: Record<string, unknown>): boolean {
  if (use !== undefined && use !== 'sig') return false
  if (Array.isArray(operations) && !operations.includes('verify')) return false
  return !PRIVATE.some(member => Object.hasOwn(jwk, member))
}

function usable(jwk: Record<string, unknown>, wanted: readonly string[]): VerificationKey[] {
  const { kid, alg } = jwk
  const allowed = typeof alg !== 'string' ? wanted : wanted.length === 0 || wanted.includes(alg) ? [alg] : undefined
  if (allowed === undefined) return []
  try {
    return [publicKey({ key: jwk as JsonWebKey, format: 'jwk' }, typeof kid === 'string' ? kid : undefined, allowed)]
  } catch (error) {
    if (error instanceof KeyError) return []
    throw error
  }
}
