/**
 * Sees a service's answer pass by on its way to the client: what is kept, compared or answered again later begins here. It is
 * told what the client is sent, neither sooner nor later, and can neither change nor delay it.
 */
export interface AnswerTap {
  /**
   * The head of the answer that the client gets, before the gateway's own fields; not that of a try that is made again.
   * @param fields names and values in turn, as the service has sent them
   */
  head(status: number, fields: readonly Buffer[]): void
  /** A piece of its body. Not to be changed. */
  chunk(chunk: Buffer): void
  /**
   * Once, when it is over: with `complete` if all of the answer went to the client; otherwise it was cut, or there was none, and
   * the gateway has answered itself.
   */
  ended(complete: boolean): void
}

/** Two taps where one is expected. */
class Both implements AnswerTap {
  readonly #first: AnswerTap
  readonly #second: AnswerTap

  constructor(first: AnswerTap, second: AnswerTap) {
    this.#first = first
    this.#second = second
  }

  head(status: number, fields: readonly Buffer[]): void {
    this.#first.head(status, fields)
    this.#second.head(status, fields)
  }

  chunk(chunk: Buffer): void {
    this.#first.chunk(chunk)
    this.#second.chunk(chunk)
  }

  ended(complete: boolean): void {
    this.#first.ended(complete)
    this.#second.ended(complete)
  }
}

/** Lets `tap` see the answer to a request that has not been forwarded yet, besides those that see it already. */
export function tapInto(exchange: { tap: AnswerTap | undefined }, tap: AnswerTap): void {
  exchange.tap = exchange.tap === undefined ? tap : new Both(exchange.tap, tap)
}

/** A whole answer of a service. */
export interface KeptAnswer {
  readonly status: number
  /** Names and values in turn, as the service has sent them. */
  readonly fields: readonly Buffer[]
  readonly body: Buffer
}

/** Keeps a copy of an answer, up to a size; beyond that it keeps nothing and only looks on. */
export class AnswerCopy implements AnswerTap {
  readonly #maxBytes: number
  readonly #onEnd: (answer: KeptAnswer | undefined) => void
  readonly #wants: (status: number, fields: readonly Buffer[]) => boolean
  #wanted = true
  #status = 0
  #fields: readonly Buffer[] = []
  #chunks: Buffer[] = []
  #bytes = 0

  /**
   * @param maxBytes of fields and body together
   * @param onEnd gets the answer, or undefined if it was larger, was not wanted, was cut or never came
   * @param wants whether an answer is worth keeping, by its head; all of them unless given
   */
  constructor(
    maxBytes: number,
    onEnd: (answer: KeptAnswer | undefined) => void,
    wants: (status: number, fields: readonly Buffer[]) => boolean = () => true
  ) {
    this.#maxBytes = maxBytes
    this.#onEnd = onEnd
    this.#wants = wants
  }

  head(status: number, fields: readonly Buffer[]): void {
    this.#status = status
    this.#fields = fields
    this.#wanted = this.#wants(status, fields)
    for (const field of fields) this.#count(field)
  }

  chunk(chunk: Buffer): void {
    this.#count(chunk)
    if (this.#wanted && this.#bytes <= this.#maxBytes) this.#chunks.push(chunk)
  }

  ended(complete: boolean): void {
    const whole = complete && this.#wanted && this.#status !== 0 && this.#bytes <= this.#maxBytes
    // Copied: what came in is a piece of what was read from the socket, which would be kept along with it.
    this.#onEnd(
      whole
        ? {
            status: this.#status,
            fields: this.#fields.map(field => Buffer.from(field)),
            body: Buffer.concat(this.#chunks)
          }
        : undefined
    )
  }

  #count({ length }: Buffer): void {
    this.#bytes += length
    if (this.#bytes > this.#maxBytes) this.#chunks = []
  }
}
