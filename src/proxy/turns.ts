import type { Socket } from 'node:net'
import type { GatewayError } from '../errors.ts'
import type { Exchange } from './exchange.ts'

/** What there is to do when the turn comes; the door knows how. */
export interface Door {
  begin(exchange: Exchange): void
  /** Answers what never became a request. */
  turnAway(socket: Socket, refusal: GatewayError): void
}

/**
 * One request after the other on an HTTP/1 connection. A client may send the next before it has the answer to the last, but
 * a request may rely on the one before it, answers have to come in order, and one connection is not to keep a whole service
 * busy; so what comes early waits, and meanwhile the connection is not read (RFC 9112 section 9.3.2). What stands behind an
 * answer that ends the connection is never begun: it could be anybody's (H-17).
 */
export class Turns {
  readonly #socket: Socket
  readonly #door: Door
  #current: Exchange | undefined
  readonly #waiting: Exchange[] = []
  #trouble: GatewayError | undefined

  constructor(socket: Socket, door: Door) {
    this.#socket = socket
    this.#door = door
  }

  /** Whether an answer is under way. */
  get busy(): boolean {
    return this.#current !== undefined
  }

  /** Begins `exchange`, now or when it is its turn. */
  take(exchange: Exchange): void {
    if (this.#current === undefined) {
      // The connection is on its way out: nobody would get the answer.
      if (!this.#socket.writable) return
      this.#begin(exchange)
    } else {
      this.#waiting.push(exchange)
      if (exchange.upgrade === undefined) this.#socket.pause()
    }
  }

  #begin(exchange: Exchange): void {
    this.#current = exchange
    this.#door.begin(exchange)
  }

  /** The answer to the current one is complete, or given up. */
  ended(): void {
    const next = this.#socket.writable ? this.#waiting.shift() : undefined
    this.#current = undefined
    if (next !== undefined) {
      // From an upgrade on the bytes are not for the parser any more.
      if (this.#waiting.length === 0 && next.upgrade === undefined) this.#socket.resume()
      this.#begin(next)
    } else {
      this.#waiting.length = 0
      if (this.#trouble !== undefined && this.#socket.writable) this.#door.turnAway(this.#socket, this.#trouble)
    }
  }

  /**
   * What came last on the connection is no HTTP: the request whose body it is fails, or nothing comes after those that are
   * complete. Anything further is ignored.
   */
  spoil(refusal: GatewayError): void {
    if (this.#trouble !== undefined) return
    this.#trouble = refusal
    const latest = this.#waiting.at(-1) ?? this.#current
    if (latest === undefined) this.#door.turnAway(this.#socket, refusal)
    else if (!latest.request.complete) latest.fail(refusal)
  }
}
