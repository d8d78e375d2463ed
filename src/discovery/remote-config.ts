import type { Logger } from 'pino'
import { ConfigError, formatProblem } from '../config/problem.ts'
import type { Dependency } from '../runtime/runtime.ts'
import { codeOf, type DiscoveryTerms, pauseAfter, whyOf } from './discovery.ts'
import { HttpClient, jsonOf } from './http-client.ts'

/** How often it is asked, in milliseconds. */
const INTERVAL_MS = 10_000

/**
 * A server that knows services and their routes, as a file would have them (REG-20): asked again and again, with `ETag`. What
 * it said last stays while it does not answer, and while what it says cannot be served.
 */
export class RemoteConfig implements Dependency {
  readonly name = 'service_config'
  /** Fulfilled when it has been asked for the first time, whatever came of it. */
  readonly asked: Promise<void>
  readonly #url: string
  readonly #terms: DiscoveryTerms
  readonly #log: Logger
  readonly #apply: (document: unknown) => Promise<void>
  readonly #client: HttpClient
  readonly #stop = new AbortController()
  readonly #wasAsked: () => void
  #etag: string | undefined
  #heardAt: number | undefined
  /** Why it does not answer, as a code. */
  #error: string | undefined
  /** What it said last cannot be served. */
  #isRefused = false

  /** @param apply serves a document, or rejects with a {@link ConfigError}; is told nothing twice */
  constructor(url: string, terms: DiscoveryTerms, apply: (document: unknown) => Promise<void>) {
    this.#url = url
    this.#terms = terms
    this.#log = terms.log
    this.#apply = apply
    this.#client = new HttpClient(undefined, terms.leases)
    const { promise, resolve } = Promise.withResolvers<void>()
    this.asked = promise
    this.#wasAsked = resolve
  }

  start(): void {
    void this.#run(this.#stop.signal)
  }

  stop(): void {
    this.#stop.abort()
  }

  check = async (): Promise<Record<string, unknown>> => {
    const error = this.#error ?? (this.#isRefused ? 'REFUSED' : undefined)
    const since = this.#heardAt === undefined ? null : new Date(this.#heardAt).toISOString()
    return { ...(error !== undefined && { status: 'down', error }), since }
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { pause, random } = this.#terms
    let failures = 0
    let known = ''
    while (!signal.aborted) {
      let wait = INTERVAL_MS * (0.9 + random() / 5)
      try {
        const document = await this.#ask(signal)
        failures = 0
        this.#error = undefined
        const text = JSON.stringify(document)
        if (document !== undefined && text !== known) {
          await this.#take(document)
          known = text
        }
      } catch (error) {
        if (signal.aborted) break
        wait = pauseAfter(failures++, random)
        this.#fail(error)
      }
      this.#wasAsked()
      await pause(wait, signal).catch(() => {})
    }
    this.#client.close()
  }

  /** The document; undefined when it is the one that was there before. */
  async #ask(signal: AbortSignal): Promise<unknown> {
    const headers = this.#etag === undefined ? {} : { 'if-none-match': this.#etag }
    const reply = await this.#client.ask(this.#url, { signal, headers })
    if (reply.status === 304 && this.#etag !== undefined) {
      for await (const _ of reply.body);
      this.#heardAt = this.#terms.clock.now()
      return undefined
    }
    const document = await jsonOf(reply)
    this.#heardAt = this.#terms.clock.now()
    this.#etag = typeof reply.headers.etag === 'string' ? reply.headers.etag : undefined
    return document
  }

  async #take(document: unknown): Promise<void> {
    try {
      await this.#apply(document)
      this.#isRefused = false
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      this.#isRefused = true
      this.#log.error(
        { problems: error.problems.map(formatProblem) },
        'the service configuration is refused; the last one stays'
      )
    }
  }

  #fail(error: unknown): void {
    // Whatever it was, it is to be asked for in full.
    this.#etag = undefined
    const code = codeOf(error)
    if (code !== this.#error)
      this.#log.warn(whyOf(error), 'the service configuration cannot be had; the last one stays')
    this.#error = code
  }
}
