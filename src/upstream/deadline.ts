import type { Clock } from '../runtime/clock.ts'

/** Something that ends at a given time unless it is cancelled before. Linked into its queue, so both cost nothing. */
export class Deadline {
  readonly #onExpire: { expired(deadline: Deadline): void }
  at = 0
  queue: Queue | undefined
  previous: Deadline | undefined
  next: Deadline | undefined

  constructor(onExpire: { expired(deadline: Deadline): void }) {
    this.#onExpire = onExpire
  }

  cancel(): void {
    this.queue?.remove(this)
  }

  expire(): void {
    this.cancel()
    this.#onExpire.expired(this)
  }
}

/** Deadlines of one duration: the first one set is the first one due. */
class Queue {
  first: Deadline | undefined
  last: Deadline | undefined

  add(deadline: Deadline): void {
    deadline.queue = this
    deadline.previous = this.last
    deadline.next = undefined
    if (this.last === undefined) this.first = deadline
    else this.last.next = deadline
    this.last = deadline
  }

  remove(deadline: Deadline): void {
    if (deadline.previous === undefined) this.first = deadline.next
    else deadline.previous.next = deadline.next
    if (deadline.next === undefined) this.last = deadline.previous
    else deadline.next.previous = deadline.previous
    deadline.queue = deadline.previous = deadline.next = undefined
  }
}

/**
 * All deadlines of the process under one timer. A timer per request would cost more than the request's routing, and
 * undici's own are about a second coarse.
 */
export class Deadlines {
  readonly #clock: Clock
  readonly #tickMs: number
  readonly #queues = new Map<number, Queue>()
  #timer: NodeJS.Timeout | undefined

  /** @param tickMs how late a deadline may be noticed, in milliseconds. */
  constructor(clock: Clock, tickMs = 20) {
    this.#clock = clock
    this.#tickMs = tickMs
  }

  /** Starts `deadline`, `ms` milliseconds from now. */
  set(deadline: Deadline, ms: number): void {
    deadline.cancel()
    let queue = this.#queues.get(ms)
    if (queue === undefined) {
      queue = new Queue()
      this.#queues.set(ms, queue)
    }
    deadline.at = this.#clock.monotonic() + ms
    queue.add(deadline)
    // What has come in is looked at first: when the process has stood still, an answer that is here already is not late.
    this.#timer ??= setInterval(() => setImmediate(() => this.tick()), this.#tickMs).unref()
  }

  /** Expires what is due; the timer stops when nothing is left. */
  tick(): void {
    const now = this.#clock.monotonic()
    let waiting = false
    for (const [ms, queue] of this.#queues) {
      while (queue.first !== undefined && queue.first.at <= now) queue.first.expire()
      if (queue.first !== undefined) waiting = true
      else this.#queues.delete(ms)
    }
    if (!waiting) this.stop()
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}
