import type { Limit } from '../limits/limit.ts'
import type { Clock } from '../runtime/clock.ts'
import { TwoGenerations } from '../runtime/two-generations.ts'
import { LabelledCounter } from '../telemetry/metrics.ts'
import { byName, MemoryStore } from './memory.ts'
import { RedisConnection, type RedisOptions } from './redis-connection.ts'
import { type Leftover, SharedCounter } from './shared-counter.ts'
import { type Decision, type LimitRequest, nameOf, type Store, type StoreTerms, type Usage } from './store.ts'

/** Most counters of which a node knows how busy they are, per generation. */
const MOST_COUNTERS = 100_000
/** Most requests that are decided by one run of the script: Redis does nothing else meanwhile. */
const MOST_AT_ONCE = 64
/** How often leases that are over are given back, in milliseconds. */
const SWEEP_MS = 100

const ALLOWED: Decision = { allowed: true, tightest: undefined, remaining: 0, resetMs: 0, retryMs: 0 }
const DENIED: Decision = { allowed: false, tightest: undefined, remaining: 0, resetMs: 0, retryMs: 1000 }

/** A request that waits for Redis' answer. */
interface Waiting {
  readonly requests: readonly LimitRequest[]
  readonly terms: StoreTerms
  /** The counters that Redis is asked about, … */
  readonly asked: SharedCounter[]
  /** … those of which a token was at hand, and the periods of these tokens. */
  readonly held: SharedCounter[]
  readonly periods: number[]
  readonly resolve: (decision: Decision) => void
}

/** The store that several gateways share. Redis' clock is the only one that counts. */
export class RedisStore implements Store {
  readonly kind = 'redis'
  readonly errors = new LabelledCounter()
  readonly #connection: RedisConnection
  readonly #clock: Clock
  /** The time that the scripts go by; '' for Redis' own. */
  readonly #time: () => string
  #counters = new TwoGenerations<SharedCounter>(MOST_COUNTERS)
  #prefix = ''
  /** Counts while Redis is away, each node its share. Kept in between, so that a flapping Redis is no way to start anew. */
  readonly #local: MemoryStore
  readonly #shares = new WeakMap<readonly LimitRequest[], { nodes: number; requests: readonly LimitRequest[] }>()
  #waiting: Waiting[] = []
  /** Number of scripts sent. */
  #batch = 0
  readonly #leased = new Set<SharedCounter>()
  readonly #over: Leftover[] = []
  #sweeper: NodeJS.Timeout | undefined
  readonly #flush = () => {
    const waiting = this.#waiting
    this.#waiting = []
    for (let i = 0; i < waiting.length; i += MOST_AT_ONCE) this.#send(waiting.slice(i, i + MOST_AT_ONCE))
  }
  /** The counters of the decision being made; kept between decisions to spare a list for each. */
  readonly #looked: SharedCounter[] = []

  /** @param time for tests: what the scripts take for the time, in milliseconds, instead of asking Redis */
  constructor(options: RedisOptions, time?: () => number) {
    this.#connection = new RedisConnection(options)
    this.#clock = options.clock
    this.#local = new MemoryStore(options.clock)
    this.#time = time === undefined ? () => '' : () => String(time())
  }

  /** Connects. A Redis that is not there keeps nobody waiting for longer than a command may take. */
  open(): Promise<void> {
    return this.#connection.open()
  }

  get clockSkewMs(): number {
    return this.#connection.clockSkewMs
  }

  decide(requests: readonly LimitRequest[], terms: StoreTerms): Decision | Promise<Decision> {
    const now = this.#clock.monotonic()
    let covered = 0
    let stopped: SharedCounter | undefined
    for (let i = 0; i < requests.length; i++) {
      const counter = this.#counter(requests[i] as LimitRequest, terms.prefix)
      this.#looked[i] = counter
      if (!terms.lease) continue
      counter.note(now)
      if (counter.covers(now)) covered++
      else if (counter.denies(now)) stopped = counter
    }
    if (stopped !== undefined) return stopped.stopped(now)
    if (covered === requests.length) return this.#decideHere(requests.length, now)
    if (!this.#connection.reachable) return this.#without(requests, terms)
    return new Promise(resolve => this.#ask(requests, terms, now, resolve))
  }

  #counter(request: LimitRequest, prefix: string): SharedCounter {
    if (prefix !== this.#prefix) {
      this.#counters = new TwoGenerations(MOST_COUNTERS)
      this.#prefix = prefix
    }
    let counter = this.#counters.get(request.key)
    if (counter === undefined) {
      counter = new SharedCounter(request, this.#connection.tagged(prefix))
      this.#counters.set(request.key, counter)
    } else if (counter.limit !== request.limit && counter.differsFrom(request.limit)) {
      // Who is waiting is to be judged by the limit that he came with.
      this.#flush()
      counter.configure(request.limit)
    }
    return counter
  }

  /** All tokens are at hand. */
  #decideHere(count: number, now: number): Decision {
    let tightest = this.#looked[0] as SharedCounter
    for (let i = 0; i < count; i++) {
      const counter = this.#looked[i] as SharedCounter
      counter.spend()
      if (counter.remaining * tightest.capacity < tightest.remaining * counter.capacity) tightest = counter
    }
    return tightest.passed(now)
  }

  /** Puts a request to the others of this turn of the event loop; one run of the script decides them all. */
  #ask(requests: readonly LimitRequest[], terms: StoreTerms, now: number, resolve: (decision: Decision) => void): void {
    const waiting: Waiting = { requests, terms, asked: [], held: [], periods: [], resolve }
    for (let i = 0; i < requests.length; i++) {
      const counter = this.#looked[i] as SharedCounter
      if (terms.lease && counter.covers(now)) {
        waiting.held.push(counter)
        waiting.periods.push(counter.spend())
      } else waiting.asked.push(counter)
    }
    this.#waiting.push(waiting)
    if (this.#waiting.length === 1) setImmediate(this.#flush)
  }

  #send(batch: readonly Waiting[]): void {
    const sentAt = this.#clock.monotonic()
    this.#batch++
    const counters: SharedCounter[] = []
    const keys: string[] = []
    let definitions = ''
    let requests = ''
    for (const { asked, terms } of batch) {
      let indexes = ''
      for (const counter of asked) {
        if (counter.batch !== this.#batch) {
          counter.batch = this.#batch
          counter.index = counters.push(counter)
          keys.push(counter.redisKey)
          definitions += `,${counter.ask(sentAt, terms.lease)}`
        }
        indexes += `,${counter.index}`
      }
      requests += `,[${indexes.slice(1)}]`
    }
    const plan = `[[${definitions.slice(1)}],[${requests.slice(1)}]]`
    this.#connection.client.decideLimits(keys.length, ...keys, this.#time(), plan).then(
      ([, decisions, leases]) => {
        for (let i = 0; i < leases.length; i += 5) this.#grant(counters, leases, i, sentAt)
        for (let i = 0; i < batch.length; i++) this.#answer(batch[i] as Waiting, decisions, i * 5, sentAt)
      },
      error => {
        this.#connection.failed(error)
        for (const counter of counters) counter.unanswered()
        for (const waiting of batch) this.#giveUp(waiting)
      }
    )
  }

  #grant(counters: readonly SharedCounter[], leases: readonly number[], at: number, sentAt: number): void {
    const [index, tokens, left, endsMs, period] = leases.slice(at, at + 5) as [number, number, number, number, number]
    const counter = counters[index - 1] as SharedCounter
    const over = counter.grant(tokens, left, endsMs, period, sentAt)
    if (over !== undefined) this.#over.push(over)
    if (tokens === 0) return
    this.#leased.add(counter)
    this.#sweeper ??= setInterval(() => void this.#sweep(this.#clock.monotonic()), SWEEP_MS).unref()
  }

  #answer(waiting: Waiting, decisions: readonly number[], at: number, sentAt: number): void {
    const { requests, asked, held, resolve } = waiting
    const counter = asked[(decisions[at + 1] as number) - 1] as SharedCounter
    let decision: Decision = {
      allowed: decisions[at] === 1,
      tightest: limitOf(counter, requests),
      remaining: decisions[at + 2] as number,
      resetMs: decisions[at + 3] as number,
      retryMs: decisions[at + 4] as number
    }
    if (decision.allowed) {
      let share = decision.remaining / counter.capacity
      for (const other of held) {
        if (other.remaining / other.capacity >= share) continue
        share = other.remaining / other.capacity
        decision = other.passed(this.#clock.monotonic())
      }
    } else {
      counter.refused(decision, sentAt)
      takeBack(waiting)
    }
    resolve(decision)
  }

  /** Gives back what is left of leases that are over, so that it is missing to nobody for long. */
  async #sweep(now: number): Promise<void> {
    for (const counter of this.#leased) {
      if (!counter.isOver(now)) continue
      this.#leased.delete(counter)
      const over = counter.end()
      if (over !== undefined) this.#over.push(over)
    }
    if (this.#leased.size === 0) {
      clearInterval(this.#sweeper)
      this.#sweeper = undefined
    }
    if (this.#over.length === 0) return
    const over = this.#over.splice(0)
    const keys = over.map(({ redisKey }) => redisKey)
    const args = over.map(({ lease }) => lease)
    // Without an answer they are missing until their window ends; asking again might give them back twice.
    await this.#connection.run(client => client.giveBack(keys.length, ...keys, this.#time(), ...args)).catch(() => {})
  }

  /** Redis has not answered. */
  #giveUp(waiting: Waiting): void {
    takeBack(waiting)
    waiting.resolve(this.#without(waiting.requests, waiting.terms))
  }

  /** Decides without Redis, as the configuration says (C-29). */
  #without(requests: readonly LimitRequest[], { on_store_error }: StoreTerms): Decision {
    this.errors.inc({ outcome: on_store_error })
    if (on_store_error === 'allow') return ALLOWED
    if (on_store_error === 'deny') return DENIED
    return this.#local.decide(this.#share(requests))
  }

  /** The same limits divided by the number of gateways; made once per caller and number. */
  #share(requests: readonly LimitRequest[]): readonly LimitRequest[] {
    const { nodes } = this.#connection
    if (nodes === 1) return requests
    const known = this.#shares.get(requests)
    if (known?.nodes === nodes) return known.requests
    const shares = requests.map(request => ({ ...request, limit: shareOf(request.limit, nodes) }))
    this.#shares.set(requests, { nodes, requests: shares })
    return shares
  }

  async usage(subject: string, { prefix }: StoreTerms): Promise<Usage[]> {
    const counters = await this.#connection.run(client =>
      client.readUsage(1, this.#connection.tagged(prefix) + subject, this.#time())
    )
    const usages = counters.map(([counter, limit, windowMs, used, remaining, resetMs]): Usage => {
      const algorithm = ALGORITHMS[counter.at(-1) as keyof typeof ALGORITHMS]
      const name = nameOf(counter)
      return { name, algorithm, limit: Number(limit), windowMs: Number(windowMs), used, remaining, resetMs }
    })
    return usages.filter(({ used }) => used > 0).sort(byName)
  }

  async reset(subject: string, { prefix }: StoreTerms): Promise<void> {
    for (const counter of this.#counters.values()) if (counter.subject === subject) counter.forget()
    await this.#local.reset(subject)
    await this.#connection.run(client => client.del(this.#connection.tagged(prefix) + subject))
  }

  async get(key: string): Promise<string | undefined> {
    return (await this.#connection.run(client => client.get(key))) ?? undefined
  }

  async add(key: string, value: string, ttlMs: number): Promise<boolean> {
    return (await this.#connection.run(client => client.set(key, value, 'PX', Math.ceil(ttlMs), 'NX'))) === 'OK'
  }

  async set(key: string, value: string, ttlMs: number): Promise<void> {
    await this.#connection.run(client => client.set(key, value, 'PX', Math.ceil(ttlMs)))
  }

  async delete(key: string): Promise<void> {
    await this.#connection.run(client => client.del(key))
  }

  check(): Promise<Record<string, unknown>> {
    return this.#connection.check()
  }

  async close(): Promise<void> {
    await this.#sweep(Number.POSITIVE_INFINITY)
    await this.#connection.close()
  }
}

/** The limit that the request was made under: the counter may have been given another one since. */
function limitOf({ key, limit }: SharedCounter, requests: readonly LimitRequest[]): Limit {
  for (const request of requests) if (request.key === key) return request.limit
  return limit
}

/** Nothing has come of a request: tokens that were set aside for it are there again. */
function takeBack({ held, periods }: Waiting): void {
  for (let i = 0; i < held.length; i++) held[i]?.refund(periods[i] as number)
}

const ALGORITHMS = { t: 'token_bucket', s: 'sliding_window', f: 'fixed_window' } as const

/** At least one request, or else nobody could be served at all. */
function shareOf(limit: Limit, nodes: number): Limit {
  const whole = (number: number) => Math.max(1, Math.floor(number / nodes))
  const requests = limit.algorithm === 'token_bucket' ? limit.limit / nodes : whole(limit.limit)
  return Object.freeze({ ...limit, limit: requests, burst: whole(limit.burst) })
}
