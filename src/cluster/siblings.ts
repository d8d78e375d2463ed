/** By which a worker knows that it is one, and which. */
export const WORKER = 'SALLYPORT_WORKER'

/** What passes between a worker and the process that looks after all of them. */
export type Message =
  /** It listens, and what there is to say of that. */
  | { readonly kind: 'ready'; readonly notice: Record<string, unknown> }
  /** To all other workers; `from` is put in on the way. */
  | {
      readonly kind: 'ask'
      readonly id: number
      readonly what: string
      readonly argument: unknown
      readonly from: number
    }
  /** How many have been asked. */
  | { readonly kind: 'asked'; readonly id: number; readonly others: number }
  | { readonly kind: 'answer'; readonly id: number; readonly to: number; readonly result: unknown }

/** How long other workers have to answer, in milliseconds. */
const ANSWER_MS = 2000

interface Question {
  readonly answers: unknown[]
  others: number
  finish(): void
}

/** Whatever passes messages on: a process that was forked. */
export interface Channel {
  send?(message: unknown): boolean
  on(event: 'message', listener: (message: Message) => void): unknown
  readonly channel?: { unref(): void } | null | undefined
}

/** The other workers of the same gateway, as one of them sees them. */
export class Siblings {
  readonly #channel: Channel
  readonly #handlers = new Map<string, (argument: never) => unknown>()
  readonly #open = new Map<number, Question>()
  #last = 0

  constructor(channel: Channel) {
    this.#channel = channel
    channel.on('message', message => void this.#receive(message))
  }

  /** Says that this worker listens. */
  ready(notice: Record<string, unknown>): void {
    this.#send({ kind: 'ready', notice })
  }

  /** From now on the channel is no reason for this worker to stay. */
  close(): void {
    this.#channel.channel?.unref()
  }

  /** Answers what the others ask. */
  on<T>(what: string, handler: (argument: T) => unknown): void {
    this.#handlers.set(what, handler as (argument: never) => unknown)
  }

  /** What the others answer, in no order; without those that have ended or do not answer in time. */
  ask(what: string, argument: unknown = null): Promise<unknown[]> {
    const id = ++this.#last
    return new Promise(resolve => {
      const answers: unknown[] = []
      const finish = (): void => {
        clearTimeout(timer)
        this.#open.delete(id)
        resolve(answers)
      }
      const timer = setTimeout(finish, ANSWER_MS).unref()
      this.#open.set(id, { answers, others: Number.POSITIVE_INFINITY, finish })
      this.#send({ kind: 'ask', id, what, argument, from: 0 })
    })
  }

  async #receive(message: Message): Promise<void> {
    if (message.kind === 'ask') {
      const result = await this.#answer(message.what, message.argument)
      this.#send({ kind: 'answer', id: message.id, to: message.from, result })
      return
    }
    if (message.kind === 'ready') return
    const question = this.#open.get(message.id)
    if (question === undefined) return
    if (message.kind === 'asked') question.others = message.others
    else question.answers.push(message.result)
    if (question.answers.length >= question.others) question.finish()
  }

  /** One that fails has said so in its own log. */
  async #answer(what: string, argument: unknown): Promise<unknown> {
    try {
      return (await this.#handlers.get(what)?.(argument as never)) ?? null
    } catch {
      return null
    }
  }

  #send(message: Message): void {
    try {
      this.#channel.send?.(message)
    } catch {
      // The channel is closed: this worker is about to end.
    }
  }
}
