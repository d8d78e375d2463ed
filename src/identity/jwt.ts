import type { Clock } from '../runtime/clock.ts'
import { TwoGenerations } from '../runtime/two-generations.ts'
import { type ClaimNames, checkAudience, consumerOf, grantOf, readTimes, type Validity } from './claims.ts'
import type { Consumer } from './consumer.ts'
import type { Introspection } from './introspection.ts'
import { type KeySource, StaticKeys } from './keys.ts'
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
  /** Asked about its tokens that are not signed, or that it publishes no keys for. */
  readonly introspection?: Introspection | undefined
  /** How long what it has said of a token is believed, in milliseconds. */
  readonly introspectionAgeMs?: number
  /** Where its tokens say what, if not where those of all others do. */
  readonly claims?: ClaimNames
}

/** A token whose signature, form and issuer were found good; time and revocation are asked again at every use. */
interface Verified extends Validity {
  readonly consumer: Consumer
  readonly issuer: Issuer
  readonly keyVersion: number
  /** When the issuer is to be asked about it again, in monotonic milliseconds; Infinity for signed tokens. */
  readonly askAt: number
}

/** Verifies tokens, and remembers those that it has verified. */
export class TokenVerifier {
  readonly #issuers: ReadonlyMap<string | undefined, Issuer>
  readonly #claims: ClaimNames
  readonly #revocations: Revocations
  readonly #live: LiveIdentity
  readonly #clock: Clock
  readonly #verified: TwoGenerations<Verified>
  /** Who is asked about tokens that are not signed. */
  readonly #opaque: Issuer | undefined

  constructor(
    options: { issuers: readonly Issuer[]; claims: ClaimNames; cacheSize: number },
    { revocations, live, clock }: { revocations: Revocations; live: LiveIdentity; clock: Clock }
  ) {
    this.#issuers = new Map(options.issuers.map(issuer => [issuer.issuer, issuer]))
    this.#opaque = options.issuers.find(({ introspection }) => introspection !== undefined)
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
    if (known !== undefined && known.keyVersion === known.issuer.keys.version) {
      if (known.askAt === Number.POSITIVE_INFINITY || this.#clock.monotonic() < known.askAt) return this.#admit(known)
    }
    if (this.#opaque !== undefined && !isSigned(token)) return this.#introspect(token, this.#opaque)
    const parsed = parseToken(token)
    const issuer = this.#issuerOf(parsed.payload)
    if (issuer.introspection !== undefined && issuer.keys === NO_KEYS) return this.#introspect(token, issuer)
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
    const consumer = consumerOf(
      payload,
      issuer.claims ?? this.#claims,
      own ? undefined : nameOf(issuer, payload),
      credential
    )
    const verified = { ...validity, consumer, issuer, keyVersion: keys.version, askAt: Number.POSITIVE_INFINITY }
    const admitted = this.#admit(verified)
    this.#verified.set(token, verified)
    return admitted
  }

  /** What its issuer says of a token is held against the configuration like what a signed token says of itself. */
  async #introspect(token: string, issuer: Issuer): Promise<Consumer> {
    const askAt = this.#clock.monotonic() + (issuer.introspectionAgeMs ?? 0)
    const claims = await (issuer.introspection as Introspection).ask(token)
    if (issuer.issuer !== undefined && claims.iss !== undefined && claims.iss !== issuer.issuer)
      throw untrusted('wrong_issuer')
    const bounded = claims.exp === undefined ? { ...claims, exp: Number.MAX_SAFE_INTEGER / 1000 } : claims
    const validity = readTimes(bounded, issuer.clockSkewMs)
    checkAudience(claims.aud, issuer.audience)
    const credential = { expiresAt: validity.expiresAt, revocationKey: revocationKey(token, claims) }
    const consumer = consumerOf(claims, this.#claims, nameOf(issuer, claims), credential)
    const verified = { ...validity, consumer, issuer, keyVersion: issuer.keys.version, askAt }
    const admitted = await this.#admit(verified)
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

/** By which the subjects of an issuer are told from those of others, and from the gateway's own users. */
function nameOf({ issuer }: Issuer, { iss }: Claims): string {
  return issuer ?? (typeof iss === 'string' ? iss : 'external')
}

/** The keys of an issuer that publishes none. */
export const NO_KEYS: KeySource = new StaticKeys([])

/** Whether a token is made of three parts, as a signed one is; others only their issuer can read. */
function isSigned(token: string): boolean {
  const first = token.indexOf('.')
  const second = token.indexOf('.', first + 1)
  return first !== -1 && second !== -1 && token.indexOf('.', second + 1) === -1
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
