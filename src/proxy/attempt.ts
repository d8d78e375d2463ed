import type { Dispatcher } from 'undici'
import { Call } from '../upstream/call.ts'
import type { Connection } from '../upstream/pool.ts'
import { addTrailers, latin1, writeHead } from './answer.ts'
import type { Forwarding } from './forward.ts'
import { stageOf } from './stage.ts'

/** One try at one instance, from the connection to the last byte of its answer. */
export class Attempt extends Call {
  readonly #forwarding: Forwarding
  #connection: Connection | undefined
  #resume: (() => void) | undefined
  /** The connection has carried a request before, so the service may have closed it meanwhile. */
  reused = false
  /** The request may have reached the service. */
  sent = false
  /** The whole body, when it came in one piece. */
  #whole: Buffer | undefined
  #flushed = false
  #listensForDrain = false

  constructor(forwarding: Forwarding) {
    super(forwarding.exchange, forwarding.target, forwarding.context.clock)
    this.#forwarding = forwarding
  }

  /** It has no connection yet, since all are in use. */
  get waits(): boolean {
    return this.#connection === undefined
  }

  connected(connection: Connection): void {
    this.#connection = connection
    this.reused = connection.uses++ > 0
    connection.client.dispatch(this.#forwarding.options(this.instance), this as unknown as Dispatcher.DispatchHandler)
  }

  /** Ends the try without a word to anybody but the breaker. */
  cancel(): void {
    if (this.over) return
    this.judge(undefined)
    this.end()
    if (this.#connection === undefined) this.instance.pool.forget(this)
    // Not undici's own `abort`, which opens another connection for the request that it has just given up.
    else this.instance.pool.discard(this.#connection)
  }

  onConnect(): void {
    this.sent = true
    this.#forwarding.reached = true
  }

  onRequestSent(): void {
    if (this.#forwarding.streams) this.sentAll()
    this.#forwarding.sent()
  }

  onHeaders(status: number, raw: Buffer[], resume: () => void): boolean {
    if (status < 200 || this.over) return true
    const forwarding = this.#forwarding
    const { exchange } = forwarding
    exchange.upstreamMs = this.answered(status)
    if (!forwarding.accepts(this, status, raw)) return true
    if (forwarding.alone) {
      forwarding.begun()
      exchange.tap?.head(status, raw)
      return true
    }
    // An early answer: the rest of the upload is of no use to anybody (RFC 9112 section 9.5).
    if (exchange.uploading) exchange.endConnection()
    writeHead(exchange, status, raw)
    // Only now: what cannot be written as a head is the service's failure still, and may be answered with a 502.
    forwarding.begun()
    this.#resume = resume
    exchange.tap?.head(status, raw)
    exchange.reply?.hijack()
    process.nextTick(flush, this)
    return true
  }

  onData(chunk: Buffer): boolean {
    if (this.over) return true
    const { exchange } = this.#forwarding
    exchange.bytesOut += chunk.length
    exchange.tap?.chunk(chunk)
    if (this.#forwarding.alone) return true
    if (chunk.length === exchange.answeredLength && !this.#flushed) {
      this.#whole = chunk
      return true
    }
    this.#flushed = true
    if (exchange.response.write(chunk)) return true
    this.#forwarding.stalled()
    if (!this.#listensForDrain) {
      this.#listensForDrain = true
      exchange.response.on('drain', () => this.#drained())
    }
    return false
  }

  #drained(): void {
    if (this.over) return
    this.#forwarding.drained()
    this.resume()
  }

  /** Lets the answer go on that had to wait. */
  resume(): void {
    this.#resume?.()
  }

  onComplete(trailers: Buffer[]): void {
    if (this.over) return
    const connection = this.#connection as Connection
    if (connection.broken) return this.onError(new Error('the connection was reset within the answer'))
    this.end()
    this.instance.pool.release(connection)
    const { exchange } = this.#forwarding
    this.judge(true)
    if (this.#forwarding.alone) return this.#forwarding.completed()
    if (trailers.length > 0 && exchange.acceptsTrailers) addTrailers(exchange, trailers)
    if (this.#whole === undefined) exchange.response.end()
    else if (this.#whole.length > ONE_STRING_BYTES) exchange.response.end(this.#whole)
    else exchange.response.end(latin1(this.#whole), 'latin1')
    this.#flushed = true
    this.#forwarding.completed()
  }

  onError(error: Error): void {
    if (this.over) return
    this.end()
    if (this.#connection !== undefined) this.instance.pool.discard(this.#connection)
    this.#forwarding.failed(this, stageOf(error, this.sent), error)
    // Whoever was to blame, if nobody has said so by now.
    this.judge(undefined)
  }

  /** Sends the head if no body came along with it: the first byte may be a long time coming. */
  flush(): void {
    if (this.#flushed || this.over) return
    this.#flushed = true
    this.#forwarding.exchange.response.flushHeaders()
  }
}

/** A body up to this size goes out as one string with its head, in one plain write, which is cheaper than two pieces. */
const ONE_STRING_BYTES = 16_384

function flush(attempt: Attempt): void {
  attempt.flush()
}
