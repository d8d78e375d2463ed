import type { Logger } from 'pino'
import type { GatewayError } from '../errors.ts'
import type { Exchange } from '../proxy/exchange.ts'
import type { Clock } from '../runtime/clock.ts'
import { Gradient } from './gradient.ts'
import { PRIORITIES, type Priority } from './priority.ts'
import { overloaded } from './refusal.ts'
import type { OverloadConfig } from './settings.ts'
import { type Signals, systemSignals } from './signals.ts'
import { Throttle } from './throttle.ts'

/** What there was too little of. */
const SCARCE = ['event_loop', 'memory', 'descriptors', 'concurrency'] as const
type Scarce = (typeof SCARCE)[number]

/** How often it is looked how late timers are, in milliseconds; each time wakes an idle process. */
const SAMPLE_MS = 50
/** What is decided is decided for so long, in milliseconds. */
const INTERVAL_MS = 100
/** Memory and descriptors are asked for in every so many intervals: they do not run out in less. */
const RESOURCES_EVERY = 5
/** Overload is over after so many intervals in which nothing had to be shed. */
const QUIET = 10
/** What each priority may use of the places that there are for requests at once. */
const SHARES = [1, 0.95, 0.9, 0.8] as const
const NOBODY = PRIORITIES.length

/**
 * Keeps the process from taking on more than it can do: looks how late the event loop is and what is left of memory,
 * descriptors and places, and sheds the least important requests first (TRC-01, H-127). One per process; configurations
 * come and go.
 */
export class Overload {
  readonly #clock: Clock
  readonly #random: () => number
  readonly #log: Logger
  readonly #signals: Signals
  #config: OverloadConfig | undefined
  #timer: NodeJS.Timeout | undefined
  #throttle = new Throttle()
  #gradient: Gradient | undefined
  /** Requests at once, for each priority. */
  readonly #places = PRIORITIES.map(() => Number.POSITIVE_INFINITY)
  #inside = 0
  /** Priorities from this one on are shed, whatever there is of them, for want of `#wanting`. */
  #shutFrom: Priority = NOBODY
  #wanting: Scarce = 'memory'
  /** When it was last looked, and when the interval began: monotonic. */
  #lookedAt = 0
  #begunAt = 0
  #lateness = 0
  #looks = 0
  #intervals = 0
  /** Since when there is too much: monotonic. */
  #since: number | undefined
  #reason: Scarce = 'event_loop'
  /** Requests shed in this interval, and since there is too much. */
  #shedNow = 0
  #shedSince = 0
  /** Intervals in a row in which nothing had to be shed. */
  #quiet = 0
  /** How late the event loop was in the last interval, in milliseconds. */
  delayMs = 0
  /** Requests shed, by what there was too little of and priority. */
  readonly shed: Readonly<Record<Scarce, number[]>> = {
    event_loop: PRIORITIES.map(() => 0),
    memory: PRIORITIES.map(() => 0),
    descriptors: PRIORITIES.map(() => 0),
    concurrency: PRIORITIES.map(() => 0)
  }

  constructor(options: { clock: Clock; random: () => number; log: Logger; signals?: Signals | undefined }) {
    this.#clock = options.clock
    this.#random = options.random
    this.#log = options.log
    this.#signals = options.signals ?? systemSignals
  }

  /** From now on this holds; undefined for no shedding at all. */
  configure(config: OverloadConfig | undefined): void {
    const before = this.#config
    this.#config = config
    if (config?.concurrency !== before?.concurrency) this.#limit(config?.concurrency)
    if (config === undefined) this.close()
    else if (this.#timer === undefined) {
      this.#begunAt = this.#lookedAt = this.#signals.time()
      this.#timer = setInterval(() => this.look(), SAMPLE_MS).unref()
    }
  }

  close(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#throttle = new Throttle()
    this.#shutFrom = NOBODY
    if (this.#since !== undefined) this.#end(this.#signals.time())
  }

  /** Lets a request in, or says why not. Who has been let in is to `leave`, if it is `counted`. */
  admit(exchange: Exchange): GatewayError | undefined {
    const { priority } = exchange
    if (priority >= this.#shutFrom) return this.#refuse(exchange, this.#wanting)
    if (this.#inside >= (this.#places[priority] as number)) return this.#refuse(exchange, 'concurrency')
    if (!this.#throttle.admits(priority)) return this.#refuse(exchange, 'event_loop')
    // A WebSocket may last for days, and costs little.
    if (exchange.upgrade === undefined) {
      exchange.counted = true
      this.#inside++
    }
    return undefined
  }

  /** Refuses a request already now that would be refused even if it had turned out to be of this priority. */
  admitUnknown(exchange: Exchange, best: Priority): GatewayError | undefined {
    if (best >= this.#shutFrom) return this.#refuse(exchange, this.#wanting)
    if (this.#inside >= (this.#places[best] as number)) return this.#refuse(exchange, 'concurrency')
    return this.#throttle.isShutTo(best) ? this.#refuse(exchange, 'event_loop') : undefined
  }

  leave(exchange: Exchange): void {
    exchange.counted = false
    const inside = this.#inside--
    const answered = exchange.upstreamMs >= 0 && exchange.status < 500
    if (this.#gradient === undefined || !answered) return
    // Not the whole of it: those who read slowly would make the limit smaller for everybody.
    if (this.#gradient.observe(exchange.upstreamMs, inside, this.#clock.monotonic()))
      this.#setPlaces(this.#gradient.limit)
  }

  /** Whether requests are shed now, or have been within the last second. */
  get active(): boolean {
    return this.#since !== undefined
  }

  /** Whether it has been too much for so long that requests had better be sent elsewhere. */
  get lasting(): boolean {
    const { unreadyAfterMs = 0 } = this.#config ?? {}
    return this.#since !== undefined && unreadyAfterMs > 0 && this.#signals.time() - this.#since >= unreadyAfterMs
  }

  /** What is used of memory and descriptors, from 0 to 1. */
  get used(): { memory: number; descriptors: number } {
    const { memoryLimit = 0 } = this.#config ?? {}
    return { memory: this.#signals.memory(memoryLimit), descriptors: this.#signals.descriptors() }
  }

  /** Requests that may be under way at once; undefined for any number. */
  get limit(): number | undefined {
    const [most] = this.#places
    return most === Number.POSITIVE_INFINITY ? undefined : most
  }

  /** Requests under way. */
  get inside(): number {
    return this.#inside
  }

  /** Looks how late it is; called again and again. */
  look(): void {
    const now = this.#signals.time()
    if (now === this.#lookedAt) return
    this.#lateness += Math.max(0, now - this.#lookedAt - SAMPLE_MS)
    this.#looks++
    this.#lookedAt = now
    if (now - this.#begunAt < INTERVAL_MS) return
    this.#begunAt = now
    this.delayMs = this.#lateness / this.#looks
    this.#lateness = this.#looks = 0
    this.#decide(now)
  }

  #decide(now: number): void {
    const { eventLoopDelayMs = 0 } = this.#config ?? {}
    if (eventLoopDelayMs > 0) this.#throttle.next(this.delayMs / eventLoopDelayMs)
    if (this.#intervals++ % RESOURCES_EVERY === 0) this.#lookAtResources()
    const sheds = this.#shedNow > 0 || this.#shutFrom < NOBODY
    this.#quiet = sheds ? 0 : this.#quiet + 1
    if (sheds && this.#since === undefined) this.#begin(now)
    this.#shedSince += this.#shedNow
    this.#shedNow = 0
    if (this.#since !== undefined && this.#quiet >= QUIET) this.#end(now)
  }

  #lookAtResources(): void {
    const { memory = 0, memoryLimit = 0, descriptors = 0 } = this.#config ?? {}
    const byMemory = memory === 0 ? NOBODY : shutFrom(this.#signals.memory(memoryLimit), memory)
    const byDescriptors = descriptors === 0 ? NOBODY : shutFrom(this.#signals.descriptors(), descriptors)
    this.#shutFrom = Math.min(byMemory, byDescriptors)
    this.#wanting = byMemory <= byDescriptors ? 'memory' : 'descriptors'
  }

  #begin(now: number): void {
    this.#since = now
    this.#shedSince = 0
    const reason = this.#shutFrom < NOBODY ? this.#wanting : this.#reason
    this.#log.warn(
      { reason, event_loop_delay_ms: Math.round(this.delayMs), in_flight: this.#inside },
      'overloaded: requests are shed, the least important first'
    )
  }

  #end(now: number): void {
    const lasted = Math.round(now - (this.#since as number))
    this.#log.info({ lasted_ms: lasted, shed: this.#shedSince }, 'no longer overloaded')
    this.#since = undefined
  }

  #refuse(exchange: Exchange, reason: Scarce): GatewayError {
    const counts = this.shed[reason]
    counts[exchange.priority] = (counts[exchange.priority] as number) + 1
    this.#shedNow++
    this.#reason = reason
    // A connection that is kept would keep its descriptor.
    if (reason === 'descriptors' && !exchange.http2) exchange.response.shouldKeepAlive = false
    return overloaded(reason, this.#random)
  }

  #limit(concurrency: OverloadConfig['concurrency']): void {
    this.#gradient = concurrency === 'adaptive' ? new Gradient(ADAPTIVE) : undefined
    this.#setPlaces(this.#gradient?.limit ?? (concurrency as number | undefined) ?? Number.POSITIVE_INFINITY)
  }

  #setPlaces(limit: number): void {
    for (const [priority, share] of SHARES.entries()) this.#places[priority] = Math.max(1, Math.floor(limit * share))
  }
}

/** Between which the process's own limit is looked for. */
const ADAPTIVE = { min: 20, max: 10_000 }

/**
 * The first priority that is shed when so much of something is used: the last from where shedding begins, and one more with
 * each third of the rest. Critical requests are never shed for this: by then it is too late anyway.
 */
export function shutFrom(used: number, from: number): Priority {
  if (used < from) return NOBODY
  const third = (1 - from) / 3
  return Math.max(1, NOBODY - 1 - Math.floor((used - from) / third))
}
