import { request } from 'undici'
import type { Clock } from '../runtime/clock.ts'
import { readText } from './bounded-body.ts'
import { parseKeySet } from './key-set.ts'
import { type KeySource, keysFor, type VerificationKey } from './keys.ts'

const MOST_BYTES = 1 << 20

export interface PublishedKeysOptions {
  readonly url: string
  /** Shortest time between two fetches, in milliseconds, whatever asks for them. */
  readonly intervalMs: number
  /** How long keys are used before they are fetched again, in milliseconds. */
  readonly maxAgeMs: number
  /** Algorithms that are allowed; empty for all that fit. */
  readonly algorithms: readonly string[]
  /** How long a fetch may take, in milliseconds. */
  readonly patienceMs: number
}

/** Told how each fetch went: why it failed, or that the keys are others now. */
export type FetchReport = (outcome: { error: string } | { keys: number; changed: boolean }) => void

/**
 * The keys an issuer publishes (RFC 7517). They are fetched again when they are old, and when a token names one that is not
 * among them, but never more than once per interval, whatever tokens are thrown at us. When the issuer does not answer, or
 * answers nonsense, the last good keys stay (H-66).
 */
export class PublishedKeys implements KeySource {
  version = 0
  dueAt = Number.NEGATIVE_INFINITY
  /** Why the last fetch failed; undefined when it did not. */
  error: string | undefined
  /** When keys were last fetched, in milliseconds since 1970; 0 for never. */
  fetchedAt = 0
  readonly #options: PublishedKeysOptions
  readonly #clock: Clock
  readonly #report: FetchReport
  readonly #closing = new AbortController()
  #keys: readonly VerificationKey[] = []
  #fingerprint = ''
  #triedAt = Number.NEGATIVE_INFINITY
  #fetching: Promise<void> | undefined

  constructor(options: PublishedKeysOptions, clock: Clock, report: FetchReport = () => {}) {
    this.#options = options
    this.#clock = clock
    this.#report = report
  }

  get available(): boolean {
    return this.#keys.length > 0
  }

  find(kid: string | undefined): readonly VerificationKey[] {
    return keysFor(this.#keys, kid)
  }

  refresh(): Promise<void> | undefined {
    if (this.#fetching !== undefined) return this.#fetching
    const now = this.#clock.monotonic()
    if (now - this.#triedAt < this.#options.intervalMs) return undefined
    this.#triedAt = now
    this.#fetching = this.#fetch().finally(() => {
      this.#fetching = undefined
    })
    return this.#fetching
  }

  /** Never rejects: whoever waits looks at the keys, and finds the last good ones. */
  async #fetch(): Promise<void> {
    const { url, algorithms, maxAgeMs, patienceMs } = this.#options
    const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(patienceMs)])
    try {
      const keys = parseKeySet(await fetchText(url, signal), algorithms)
      this.dueAt = this.#clock.monotonic() + maxAgeMs
      this.fetchedAt = this.#clock.now()
      this.error = undefined
      this.#report({ keys: keys.length, changed: this.#replace(keys) })
    } catch (error) {
      if (this.#closing.signal.aborted) return
      this.error = error instanceof Error ? error.message : String(error)
      this.#report({ error: this.error })
    }
  }

  #replace(keys: readonly VerificationKey[]): boolean {
    const fingerprint = JSON.stringify(keys.map(({ kid, algorithms, material }) => [kid, [...algorithms], material]))
    if (fingerprint === this.#fingerprint) return false
    this.#keys = keys
    this.#fingerprint = fingerprint
    this.version++
    return true
  }

  /** Gives up a fetch under way. */
  close(): void {
    this.#closing.abort()
  }
}

/** A GET that follows no redirect and takes no more than a megabyte: what is there may be somebody else's. */
async function fetchText(url: string, signal: AbortSignal): Promise<string> {
  const { statusCode, body } = await request(url, { headers: { accept: 'application/json' }, signal })
  if (statusCode !== 200) {
    body.dump().catch(() => {})
    throw new Error(`answered ${statusCode}`)
  }
  return readText(body, MOST_BYTES)
}
