import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { type GatewayError, refuse } from '../errors.ts'

/** Bodies up to this size are collected before they are sent, so that they can be sent again. Bytes. */
export const COLLECT_BYTES = 65536

/** The refusal of a body that is larger than a route allows. @param limit most bytes */
export function bodyTooLarge(limit: number): GatewayError {
  return refuse('payload_too_large', { details: `At most ${limit} bytes are accepted.`, reason: 'body_limit' })
}

/**
 * A request body on its way to a service. undici destroys what it sends, and destroying the request itself would take the
 * client's socket with it, so the request stays behind this.
 */
export class RequestBody extends Readable {
  readonly #source: IncomingMessage
  readonly #limit: number
  #onWanted: (() => void) | undefined
  /** Bytes seen so far. */
  bytes = 0
  /** The body went over its limit and was cut there. */
  tooLarge = false
  /** The client went away before its body was complete. */
  clientGone = false

  /**
   * @param limit most bytes let through; 0 for no limit.
   * @param onWanted called once, when a service is about to get the body.
   */
  constructor(source: IncomingMessage, limit: number, onWanted?: () => void) {
    super({ highWaterMark: 65536 })
    this.#source = source
    this.#limit = limit
    this.#onWanted = onWanted
    source.on('data', this.#onData)
    source.on('end', this.#onEnd)
    source.on('error', this.#onError)
    source.pause()
  }

  /** Whether the next bytes have to come from the client; else it is the service that does not take them. */
  get waitsForClient(): boolean {
    return this.readableLength === 0 && !this.#source.complete
  }

  /** Whether not a byte has been taken from it, so that another service may have it. */
  get untouched(): boolean {
    return this.bytes === 0 && !this.destroyed
  }

  override _read(): void {
    this.#onWanted?.()
    this.#onWanted = undefined
    this.#source.resume()
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#source.off('data', this.#onData)
    this.#source.off('end', this.#onEnd)
    this.#source.pause()
    callback(error)
  }

  #onData = (chunk: Buffer): void => {
    this.bytes += chunk.length
    if (this.#limit > 0 && this.bytes > this.#limit) {
      this.tooLarge = true
      this.destroy(new Error('request body too large'))
    } else if (!this.push(chunk)) {
      this.#source.pause()
    }
  }

  #onEnd = (): void => {
    this.push(null)
  }

  #onError = (error: Error): void => {
    this.clientGone = true
    this.destroy(error)
  }
}

/** Collects a body of known, small length, then calls `done` with it; never calls it if the client goes away first. */
export function collect(source: IncomingMessage, length: number, done: (body: Buffer) => void): void {
  let first: Buffer | undefined
  let more: Buffer[] | undefined
  source.on('data', (chunk: Buffer) => {
    if (first === undefined) first = chunk
    else if (more === undefined) more = [first, chunk]
    else more.push(chunk)
  })
  source.on('end', () => done(more === undefined ? (first ?? Buffer.alloc(0)) : Buffer.concat(more, length)))
}

interface Uploading {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  expectContinue: boolean
  bytesIn: number
}

/**
 * Collects a body of any kind for a policy that has to see it before the service does.
 * @param limit most bytes
 * @param done gets undefined for one that is larger; never called if the client goes away first
 */
export function collectUpTo(exchange: Uploading, limit: number, done: (body: Buffer | undefined) => void): void {
  const { request, response } = exchange
  if (exchange.expectContinue) {
    exchange.expectContinue = false
    response.writeContinue()
  }
  const chunks: Buffer[] = []
  const onData = (chunk: Buffer): void => {
    exchange.bytesIn += chunk.length
    if (exchange.bytesIn <= limit) {
      chunks.push(chunk)
      return
    }
    request.off('data', onData).off('end', onEnd).pause()
    done(undefined)
  }
  const onEnd = (): void => done(Buffer.concat(chunks))
  request
    .on('data', onData)
    .on('end', onEnd)
    .on('error', () => {})
}
