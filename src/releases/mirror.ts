import { createHash, type Hash } from 'node:crypto'
import type { Logger } from 'pino'
import type { Dispatcher } from 'undici'
import { COLLECT_BYTES } from '../proxy/body.ts'
import type { Exchange } from '../proxy/exchange.ts'
import type { Stage } from '../proxy/stage.ts'
import { type AnswerTap, tapInto } from '../proxy/tap.ts'
import type { Clock } from '../runtime/clock.ts'
import type { MirrorResult, MirrorSeries } from '../telemetry/metrics.ts'
import { Deadline, type Deadlines } from '../upstream/deadline.ts'
import type { Instance } from '../upstream/instance.ts'
import type { Connection } from '../upstream/pool.ts'
import { isShortage } from '../upstream/shortage.ts'
import type { Target } from '../upstream/target.ts'
import type { MirrorConfig } from './settings.ts'

/** Copies of one route that are under way at once; while there are as many, no further ones are made. */
const MOST_AT_ONCE = 100
/** How long a copy may take, its answer included, in milliseconds. */
const LONGEST_MS = 10_000
/** Differences are logged once in so long for each route, in milliseconds. */
const LOG_MS = 1000
/** What tells a copy from what somebody waits for; nobody else may send it ({@link import('../proxy/headers.ts')}). */
const MARK: readonly string[] = ['x-mirrored', '1']

interface Context {
  readonly route: string
  readonly target: Target
  readonly series: MirrorSeries
  readonly clock: Clock
  readonly deadlines: Deadlines
  readonly random: () => number
  readonly log: Logger
}

/** Sends copies of a route's requests to another service, which are nobody's concern but its own. */
export class Mirror {
  readonly config: MirrorConfig
  readonly context: Context
  #active = 0
  #loggedAt = Number.NEGATIVE_INFINITY

  constructor(config: MirrorConfig, context: Context) {
    this.config = config
    this.context = context
  }

  /** A copy of the request, which is yet to be sent; undefined if this one is not copied. Its answer has not begun. */
  take(exchange: Exchange): Copy | undefined {
    const { random, series } = this.context
    if (random() * 100 >= this.config.percent) return undefined
    if (this.#active >= MOST_AT_ONCE || exchange.chunked || exchange.contentLength > COLLECT_BYTES) {
      series.skipped++
      return undefined
    }
    this.#active++
    return new Copy(this, exchange)
  }

  /** A copy is no longer under way. */
  left(): void {
    this.#active--
  }

  /** @param other how the two answers differ, for the log; without anything that either of them holds */
  ended(copy: Copy, result: MirrorResult, other?: object): void {
    const { series, clock, log, route, target } = this.context
    series[result]++
    const now = clock.monotonic()
    if (other === undefined || now - this.#loggedAt < LOG_MS) return
    this.#loggedAt = now
    log.warn({ route, service: target.service.name, request_id: copy.id, ...other }, 'mirrored answer differs')
  }
}

/** What is known of an answer without keeping it. */
class Digest {
  status = 0
  bytes = 0
  readonly #hash: Hash = createHash('sha256')

  add(chunk: Buffer): void {
    this.bytes += chunk.length
    this.#hash.update(chunk)
  }

  get hex(): string {
    return this.#hash.digest('hex')
  }
}

/** One copy: on its way, then its answer against the one that the client gets, if they are compared. */
class Copy implements AnswerTap {
  readonly id: string
  readonly #mirror: Mirror
  readonly #deadline = new Deadline(this)
  readonly #exchange: Exchange
  readonly #real: Digest | undefined
  readonly #own: Digest | undefined
  #options: Dispatcher.DispatchOptions | undefined
  #instance: Instance | undefined
  #connection: Connection | undefined
  #startedAt = 0
  #status = 0
  #over = false
  #sent = false
  /** Undefined while that answer is not at its end. */
  #realComplete: boolean | undefined
  #complete: boolean | undefined

  constructor(mirror: Mirror, exchange: Exchange) {
    this.#mirror = mirror
    this.#exchange = exchange
    this.id = exchange.id
    if (!mirror.config.compare) return
    this.#real = new Digest()
    this.#own = new Digest()
    tapInto(exchange, this)
  }

  /** Sends it, after the request itself. @param path as it is sent, before the instance's own */
  send(path: string, body: Buffer | undefined): void {
    const { target, clock, deadlines } = this.#mirror.context
    const exchange = this.#exchange
    const instance = target.service.pick(target.balancer, exchange)
    if (instance === undefined) return this.#end(false)
    this.#instance = instance
    this.#options = {
      path: instance.basePath + path + exchange.search,
      method: exchange.method as Dispatcher.HttpMethod,
      headers: [...exchange.upstreamFields, ...MARK],
      body: body ?? null
    }
    this.#startedAt = clock.monotonic()
    instance.active++
    deadlines.set(this.#deadline, LONGEST_MS)
    try {
      instance.pool.acquire(this)
    } catch {
      this.#fail('connect')
    }
  }

  /** Nothing has become of the request itself, so nothing is to become of its copy. */
  drop(): void {
    this.#over = true
    this.#mirror.left()
    this.#mirror.ended(this, 'skipped')
  }

  connected(connection: Connection): void {
    this.#connection = connection
    connection.uses++
    connection.client.dispatch(
      this.#options as Dispatcher.DispatchOptions,
      this as unknown as Dispatcher.DispatchHandler
    )
  }

  onConnect(): void {
    this.#sent = true
  }

  onHeaders(status: number): boolean {
    if (status < 200 || this.#over) return true
    const { target, clock } = this.#mirror.context
    const ms = clock.monotonic() - this.#startedAt
    this.#status = status
    if (this.#own !== undefined) this.#own.status = status
    target.series.answered(status, ms / 1000)
    target.service.tried(this.#instance as Instance, status, undefined, ms)
    return true
  }

  onData(chunk: Buffer): boolean {
    this.#own?.add(chunk)
    return true
  }

  onComplete(): void {
    if (this.#over) return
    const connection = this.#connection as Connection
    if (connection.broken) return this.#fail('reset')
    this.#instance?.pool.release(connection)
    this.#end(true)
  }

  onError(error: Error): void {
    this.#fail(this.#sent ? 'reset' : 'connect', isShortage(error))
  }

  expired(): void {
    this.#fail('timeout')
  }

  /** @param here for want of something of ours */
  #fail(stage: Stage, here = false): void {
    if (this.#over) return
    const { target, clock } = this.#mirror.context
    const instance = this.#instance as Instance
    if (this.#connection === undefined) instance.pool.forget(this)
    else instance.pool.discard(this.#connection)
    target.series.failed(stage)
    if (this.#status === 0 && !here) target.service.tried(instance, 0, stage, clock.monotonic() - this.#startedAt)
    this.#end(false)
  }

  #end(complete: boolean): void {
    if (this.#over) return
    this.#over = true
    this.#mirror.left()
    this.#deadline.cancel()
    if (this.#instance !== undefined) this.#instance.active--
    this.#complete = complete
    this.#settle()
  }

  head(status: number): void {
    ;(this.#real as Digest).status = status
  }

  chunk(chunk: Buffer): void {
    ;(this.#real as Digest).add(chunk)
  }

  ended(complete: boolean): void {
    this.#realComplete = complete
    this.#settle()
  }

  /** Once both are at their ends, or there is nothing to wait for, it is known what it came to. */
  #settle(): void {
    if (this.#complete === undefined) return
    const [real, own] = [this.#real, this.#own]
    if (real === undefined || own === undefined) return this.#mirror.ended(this, this.#complete ? 'sent' : 'failed')
    if (this.#realComplete === undefined) return
    if (!this.#complete) return this.#mirror.ended(this, 'failed')
    if (!this.#realComplete) return this.#mirror.ended(this, 'sent')
    const sizes = { status: real.status, mirrored_status: own.status, bytes: real.bytes, mirrored_bytes: own.bytes }
    if (real.status !== own.status) this.#mirror.ended(this, 'different_status', sizes)
    else if (real.bytes !== own.bytes || real.hex !== own.hex) this.#mirror.ended(this, 'different_body', sizes)
    else this.#mirror.ended(this, 'equal')
  }
}
