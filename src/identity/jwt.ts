import type { Clock } from '../runtime/clock.ts'
import { TwoGenerations } from '../runtime/two-generations.ts'
import { type ClaimNames, checkAudience, consumerOf, grantOf, readTimes, type Validity } from './claims.ts'
import type { Consumer } from './consumer.ts'
import type { KeySource } from './keys.ts'
import type { LiveIdentity } from './live.ts'
import { type Revocations, revocationKey } from './revocation.ts'
import { type Claims, type ParsedToken, parseToken } from './token-form.ts'
import { untrusted } from './trouble.ts'

/**
 * Checks the signature of a token with one key and one algorithm, and throws if it does not fit. The gateway passes
 * `@fastify/jwt`'s verify in; everything else about a token is decided here.
 */
export type CheckSignature = (token: string, material: string, algorithm: string) => void

/** Whose tokens are accepted, and under which conditions. */
export interface Issuer {
  /** `iss` of its tokens, exactly; undefined for tokens of any other issuer, or of none. */
  readonly issuer: string | undefined
  /** Whether it is the gateway itself: its tokens speak of the users in the database, and end with what they stand on. */
  readonly own?: boolean
  readonly keys: KeySource
  /** Audiences of which a token names one; empty for any. */
  readonly audience: readonly string[]
  readonly clockSkewMs: number
  /** Where its tokens say what, if not where those of all others do. */
  readonly claims?: ClaimNames
}

/** A token whose signature, form and issuer were found good; time and revocation are asked again at every use. */
interface Verified extends Validity {
  readonly consumer: Consumer
  readonly issuer: Issuer
  readonly keyVersion: number
}

/** Verifies tokens, and remembers those that it has verified. */
export class TokenVerifier {
  readonly #issuers: ReadonlyMap<string | undefined, Issuer>
  readonly #claims: ClaimNames
  readonly #revocations: Revocations
  readonly #live: LiveIdentity
  readonly #clock: Clock
  readonly #verified: TwoGenerations<Verified>

  constructor(
    options: { issuers: readonly Issuer[]; claims: ClaimNames; cacheSize: number },
    { revocations, live, clock }: { revocations: Revocations; live: LiveIdentity; clock: Clock }
  ) {
    this.#issuers = new Map(options.issuers.map(issuer => [issuer.issuer, issuer]))
    this.#claims = options.claims
    this.#revocations = revocations
    this.#live = live
    this.#clock = clock
    this.#verified = new TwoGenerations(options.cacheSize)
  }

  /** Tokens remembered. */
  get size(): number {
    return this.#verified.size
  }

  /**
   * Whose token this is. The key of what is remembered is the whole token, so nothing but the very same token is ever
   * taken for it (CVE-2026-35039). A promise only when keys or the revocation list have to be asked for.
   * @throws {GatewayError} 401, or 503 while the keys of its issuer are not to be had; also as a rejection
   */
  verify(token: string, check: CheckSignature): Consumer | Promise<Consumer> {
    const known = this.#verified.get(token)
    if (known !== undefined && known.keyVersion === known.issuer.keys.version) return this.#admit(known)
    const parsed = parseToken(token)
    const issuer = this.#issuerOf(parsed.payload)
    if (issuer.keys.find(parsed.kid).length === 0) {
      const refreshed = issuer.keys.refresh()
      if (refreshed !== undefined) return refreshed.then(() => this.#verifyNew(token, parsed, issuer, check))
    }
    return this.#verifyNew(token, parsed, issuer, check)
  }

  #verifyNew(token: string, parsed: ParsedToken, issuer: Issuer, check: CheckSignature): Consumer | Promise<Consumer> {
    const { algorithm, kid, payload } = parsed
    const { keys } = issuer
    const candidates = keys.find(kid)
    if (candidates.length === 0) throw untrusted(keys.available ? 'unknown_key' : 'keys_unavailable')
    const fitting = candidates.filter(key => key.algorithms.has(algorithm))
    if (fitting.length === 0) throw untrusted('wrong_algorithm')
    if (!fitting.slice(0, MOST_TRIES).some(key => passes(check, token, key.material, algorithm)))
      throw untrusted('wrong_signature')

    const validity = readTimes(payload, issuer.clockSkewMs)
    checkAudience(payload.aud, issuer.audience)
    const { expiresAt } = validity
    const own = issuer.own === true
    const credential = { expiresAt, revocationKey: revocationKey(token, payload), ...(own && grantOf(payload)) }
    const consumer = consumerOf(payload, issuer.claims ?? this.#claims, own ? undefined : issuer.issuer, credential)
    const verified = { ...validity, consumer, issuer, keyVersion: keys.version }
    const admitted = this.#admit(verified)
    this.#verified.set(token, verified)
    return admitted
  }

  /** What has to be asked at every use. */
  #admit(token: Verified): Consumer | Promise<Consumer> {
    const { keys } = token.issuer
    // Tokens that are remembered never look for their key, so this is where old keys are noticed.
    if (keys.dueAt !== Number.POSITIVE_INFINITY && this.#clock.monotonic() >= keys.dueAt) void keys.refresh()
    const now = this.#clock.now()
    if (now >= token.expiresAt) throw untrusted('expired')
    if (now < token.notBefore) throw untrusted('not_yet_valid')
    if (this.#live.isOver(token.consumer)) throw untrusted('session_over')
    const revoked = this.#revocations.isRevoked(token.consumer.revocationKey as string)
    if (typeof revoked !== 'boolean') return revoked.then(yes => unlessRevoked(token.consumer, yes))
    return unlessRevoked(token.consumer, revoked)
  }

  #issuerOf({ iss }: Claims): Issuer {
    if (iss !== undefined && typeof iss !== 'string') throw untrusted('wrong_issuer')
    const issuer = this.#issuers.get(iss) ?? this.#issuers.get(undefined)
    if (issuer === undefined) throw untrusted('wrong_issuer')
    return issuer
  }
}

/** Keys that a token is tried with if it does not name its own: each costs a signature check (H-62). */
const MOST_TRIES = 4

function passes(check: CheckSignature, token: string, material: string, algorithm: string): boolean {
  try {
    check(token, material, algorithm)
    return true
  } catch {
    return false
  }
}

function unlessRevoked(consumer: Consumer, revoked: boolean): Consumer {
  if (revoked) throw untrusted('revoked')
  return consumer
}
