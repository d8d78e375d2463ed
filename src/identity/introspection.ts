import { request } from 'undici'
import type { Clock } from '../runtime/clock.ts'
import { TwoGenerations } from '../runtime/two-generations.ts'
import { readText } from './bounded-body.ts'
import type { Claims } from './token-form.ts'
import { untrusted } from './trouble.ts'

/** Longest answer that is read, in bytes. */
const MOST_BYTES = 1 << 18
/** How long a token that is not active is not asked about again, in milliseconds: an inactive token never becomes active. */
const INACTIVE_MS = 60_000
/** Inactive tokens that are remembered. */
const MOST_INACTIVE = 10_000
/** Questions under way at once; who would have to wait behind them is told to come back. */
const MOST_AT_ONCE = 256
/** After so many failures in a row nobody is asked … */
const FAILURES = 5
/** … for so long, in milliseconds. */
const PAUSE_MS = 5000

/** What a bearer token may be made of (RFC 6750 section 2.1). */
const TOKEN = /^[A-Za-z0-9._~+/-]{1,8192}=*$/

export interface IntrospectionOptions {
  /** Where tokens are asked about (RFC 7662); undefined to ask `userinfoUrl` alone. */
  readonly url: string | undefined
  /** Where the issuer says who a token speaks of (OpenID Connect Core section 5.3). */
  readonly userinfoUrl: string | undefined
  readonly clientId: string | undefined
  readonly clientSecret: string | undefined
  /** How long an answer is waited for, in milliseconds. */
  readonly patienceMs: number
}

/**
 * Asks the issuer about tokens that nobody else can read. Whatever does not say clearly that a token is active lets nobody
 * in (H-65): an issuer that is down, slow, or answers nonsense gets its tokens refused with 503, and after some failures in
 * a row a pause. What is found out is kept by whoever asks; that a token is not active is kept here.
 */
export class Introspection {
  /** Why the last question went unanswered; undefined when it did not. */
  error: string | undefined
  readonly #options: IntrospectionOptions
  readonly #clock: Clock
  readonly #report: (error: string | undefined) => void
  readonly #closing = new AbortController()
  readonly #asking = new Map<string, Promise<Claims>>()
  /** Tokens that are not active, until when that counts; in monotonic milliseconds. */
  readonly #inactive = new TwoGenerations<number>(MOST_INACTIVE)
  #failures = 0
  #pausedUntil = Number.NEGATIVE_INFINITY

  /** @param report told when the issuer stops answering, with the reason, and when it answers again */
  constructor(options: IntrospectionOptions, clock: Clock, report: (error: string | undefined) => void = () => {}) {
    this.#options = options
    this.#clock = clock
    this.#report = report
  }

  /**
   * What the issuer says of an active token; of many who ask at once, one does.
   * @throws {GatewayError} 401 for one that is not, 503 when nobody knows; also as a rejection
   */
  ask(token: string): Promise<Claims> {
    if (!TOKEN.test(token)) throw untrusted('malformed')
    const now = this.#clock.monotonic()
    if ((this.#inactive.get(token) ?? 0) > now) throw untrusted('inactive')
    const asking = this.#asking.get(token)
    if (asking !== undefined) return asking
    if (now < this.#pausedUntil || this.#asking.size >= MOST_AT_ONCE) throw untrusted('introspection_unavailable')
    const asked = this.#ask(token).finally(() => this.#asking.delete(token))
    this.#asking.set(token, asked)
    return asked
  }

  async #ask(token: string): Promise<Claims> {
    let claims: Claims | undefined
    try {
      const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(this.#options.patienceMs)])
      claims = await this.#answer(token, signal)
    } catch (error) {
      this.#failed(error instanceof Error ? error.message : String(error))
      throw untrusted('introspection_unavailable')
    }
    this.#failures = 0
    if (this.error !== undefined) this.#report(undefined)
    this.error = undefined
    if (claims !== undefined) return claims
    this.#inactive.set(token, this.#clock.monotonic() + INACTIVE_MS)
    throw untrusted('inactive')
  }

  /** Undefined for a token that is not active. @throws {Error} for an answer that says nothing */
  async #answer(token: string, signal: AbortSignal): Promise<Claims | undefined> {
    const { url, userinfoUrl } = this.#options
    const found = url === undefined ? {} : await this.#introspect(url, token, signal)
    if (found === undefined || userinfoUrl === undefined) return found
    const user = await this.#userinfo(userinfoUrl, token, signal)
    if (user === undefined) return undefined
    // Who the token speaks of is not to be swapped by the second answer (OpenID Connect Core section 5.3.2).
    if (found.sub !== undefined && user.sub !== found.sub) throw new Error('userinfo speaks of somebody else')
    return { ...user, ...found }
  }

  async #introspect(url: string, token: string, signal: AbortSignal): Promise<Claims | undefined> {
    const { clientId, clientSecret } = this.#options
    const body = new URLSearchParams({ token, token_type_hint: 'access_token' })
    const headers: Record<string, string> = { 'content-type': 'application/x-www-form-urlencoded' }
    if (clientSecret !== undefined) headers.authorization = basic(clientId ?? '', clientSecret)
    else if (clientId !== undefined) body.set('client_id', clientId)
    const { status, answer } = await send(url, { method: 'POST', headers, body: body.toString(), signal })
    if (status !== 200) throw new Error(`answered ${status}`)
    const { active, ...claims } = answer
    if (typeof active !== 'boolean') throw new Error('did not say whether the token is active')
    return active ? claims : undefined
  }

  async #userinfo(url: string, token: string, signal: AbortSignal): Promise<Claims | undefined> {
    const { status, answer } = await send(url, { headers: { authorization: `Bearer ${token}` }, signal })
    if (status === 401 || status === 403) return undefined
    if (status !== 200) throw new Error(`userinfo answered ${status}`)
    if (typeof answer.sub !== 'string' || answer.sub === '') throw new Error('userinfo did not say who it is')
    return answer
  }

  #failed(error: string): void {
    if (this.#closing.signal.aborted) return
    if (this.error === undefined) this.#report(error)
    this.error = error
    this.#failures++
    if (this.#failures >= FAILURES) this.#pausedUntil = this.#clock.monotonic() + PAUSE_MS
  }

  /** Gives up what is under way. */
  close(): void {
    this.#closing.abort()
  }
}

/** RFC 6749 section 2.3.1: both parts are form-encoded first. */
function basic(id: string, secret: string): string {
  const encode = (text: string): string => new URLSearchParams({ x: text }).toString().slice(2)
  return `Basic ${Buffer.from(`${encode(id)}:${encode(secret)}`).toString('base64')}`
}

/** A request whose answer is a JSON object, or of no interest. No redirect is followed: what is there may be somebody else's. */
async function send(
  url: string,
  { headers, ...options }: { method?: 'POST'; headers: Record<string, string>; body?: string; signal: AbortSignal }
): Promise<{ status: number; answer: Claims }> {
  const { statusCode: status, body } = await request(url, {
    ...options,
    headers: { accept: 'application/json', ...headers }
  })
  const text = await readText(body, MOST_BYTES)
  if (status !== 200) return { status, answer: {} }
  const answer: unknown = JSON.parse(text)
  if (typeof answer !== 'object' || answer === null || Array.isArray(answer)) throw new Error('answered no JSON object')
  return { status, answer: answer as Claims }
}
