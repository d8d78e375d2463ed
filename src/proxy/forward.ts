import type { Dispatcher } from 'undici'
import { GatewayError, refuse } from '../errors.ts'
import type { Consumer } from '../identity/consumer.ts'
import type { Revocations } from '../identity/revocation.ts'
import { type Guest, Place } from '../overload/bulkhead.ts'
import { overloaded, serviceBusy } from '../overload/refusal.ts'
import type { Clock } from '../runtime/clock.ts'
import type { RequestMetrics } from '../telemetry/metrics.ts'
import { Deadline, type Deadlines } from '../upstream/deadline.ts'
import type { Instance } from '../upstream/instance.ts'
import { afterFailure, backoff, type Failure, IDEMPOTENT, retryAfterMs } from '../upstream/retry.ts'
import { isShortage } from '../upstream/shortage.ts'
import type { Target } from '../upstream/target.ts'
import { latin1 } from './answer.ts'
import { Attempt } from './attempt.ts'
import { bodyTooLarge, COLLECT_BYTES, collect, RequestBody } from './body.ts'
import type { Exchange } from './exchange.ts'
import { answerWith, type Fallback } from './fallback.ts'
import type { Route } from './route.ts'
import { describe, isUnspeakable, LATE, refusalOf, type Stage } from './stage.ts'
import type { KeptAnswer } from './tap.ts'
import type { Tunnel } from './tunnel.ts'

/** What the forwarder needs of the process. */
export interface ForwardContext {
  readonly clock: Clock
  readonly deadlines: Deadlines
  readonly random: () => number
  /** What this gateway calls itself in `Via`: `1.1 sallyport-x7f3`. */
  readonly pseudonym: string
  readonly metrics: RequestMetrics
  readonly revocations: Revocations
  /** Whether what a credential stands on has ended or changed since its caller was let in. */
  readonly isOver: (consumer: Consumer) => boolean
  /** Open WebSockets of this generation. */
  readonly tunnels: Set<Tunnel>
  /** A WebSocket on which nothing moves is closed after this, in milliseconds. */
  readonly websocketIdleMs: number
}

/** Methods that ask and change nothing. */
const READS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])

/** How long a request without a deadline waits for another try at most, in milliseconds. */
const LONGEST_PAUSE_MS = 30_000

/** Sends a request to its route's service and the answer back. Everything that can go wrong ends in an answer or a cut. */
export function forward(exchange: Exchange, route: Route, context: ForwardContext): void {
  const forwarding = new Forwarding(exchange, route, context)
  exchange.onGone = forwarding
  forwarding.start()
}

/** One request's way to its service: tries, deadlines, and which failure is worth another try. */
export class Forwarding implements Guest {
  readonly exchange: Exchange
  readonly route: Route
  readonly context: ForwardContext
  target: Target
  /** To the head of the answer. */
  readonly #deadline: Deadline
  /** To the head of this try's answer. */
  #tryDeadline: Deadline | undefined
  #writeDeadline: Deadline | undefined
  #totalDeadline: Deadline | undefined
  /** Runs while the client does not take the answer. */
  #stall: Deadline | undefined
  #hasStalled = false
  #path = ''
  #body: Buffer | RequestBody | undefined
  #attempt: Attempt | undefined
  /** A second try beside the first one, of which nobody knows yet which is faster. */
  #rival: Attempt | undefined
  /** Until the second one is made. */
  #hedge: Deadline | undefined
  #instance: Instance | undefined
  #backoff: NodeJS.Timeout | undefined
  /** Among the requests that the service has at once, where that is limited. */
  #place: Place | undefined
  /** Bytes of the body when somebody last looked whether it moves. */
  #moved = 0
  /** Something of the request may have reached a service. */
  reached = false
  /** The request's body has been asked for, if it has one. */
  #taken = false
  /** Why the fallback has been asked for something else, as `Proxy-Status` says it (RFC 9209 section 2). */
  #failure = ''
  /** A stale connection was replaced; once is bad luck. */
  #renewed = false
  /** The head of an answer is on its way to the client; from here on there is one try and no error answer. */
  answered = false
  over = false
  /** The client has gone, and the request goes on without it. */
  alone = false

  constructor(exchange: Exchange, route: Route, context: ForwardContext) {
    this.exchange = exchange
    this.route = route
    this.context = context
    this.target = route.choose?.(exchange) ?? route.target
    exchange.target = this.target
    this.#deadline = new Deadline(this)
  }

  start(): void {
    const { exchange, route, context } = this
    if (exchange.hasPassed(context.pseudonym)) return this.#give(refuse('loop_detected'))
    this.target.service.budget.deposit(route.retry.budget)
    route.fallback?.cache?.follow(exchange)
    this.#path = route.rewrite === undefined ? exchange.path : route.rewrite(exchange)
    exchange.appendCredentials(exchange.upstreamFields, route.forwardCredentials)
    exchange.appendForwarding(exchange.upstreamFields, context.pseudonym)
    this.#awaitHead()
    if (route.totalMs > 0) {
      this.#totalDeadline = new Deadline(this)
      context.deadlines.set(this.#totalDeadline, route.totalMs)
    }
    const { bulkhead } = this.target.service
    if (bulkhead === undefined) return this.admitted()
    this.#place = new Place(bulkhead, this, exchange.priority)
    this.#place.enter()
  }

  /** The service takes the request: now its body is read. */
  admitted(): void {
    const { exchange, route } = this
    this.#taken = true
    if (exchange.body !== undefined) {
      this.#body = exchange.body
      return this.#send()
    }
    if (!exchange.chunked && exchange.contentLength <= 0) return this.#send()
    if (!exchange.chunked && !exchange.expectContinue && exchange.contentLength <= COLLECT_BYTES) {
      collect(exchange.request, exchange.contentLength, body => {
        this.#body = body
        exchange.bytesIn = body.length
        if (!this.over) this.#send()
      })
      return
    }
    if (!exchange.chunked) exchange.upstreamFields.push('content-length', String(exchange.contentLength))
    // The client is told to go on when there is a service to take what it sends (RFC 9110 section 10.1.1).
    const onWanted = exchange.expectContinue ? () => exchange.response.writeContinue() : undefined
    this.#body = new RequestBody(exchange.request, route.maxBodyBytes, onWanted)
    this.#send()
  }

  /** The first try, and after it the copy for somebody else, if there is one. */
  #send(): void {
    const copy = this.route.mirror?.take(this.exchange)
    this.#try()
    if (copy === undefined) return
    if (this.over || this.#body instanceof RequestBody) copy.drop()
    else copy.send(this.#path, this.#body)
  }

  turnedAway(reason: string): void {
    this.#give(serviceBusy(reason, this.context.random))
  }

  /** @param afresh on a connection that nobody has used before. */
  #try(afresh = false): void {
    const { exchange, route, context } = this
    const attempt = new Attempt(this)
    const refusal = attempt.admit(this.#instance)
    if (refusal !== undefined) return this.#give(refusal)
    this.#instance = attempt.instance
    exchange.instance = attempt.instance.id
    exchange.attempts++
    if (this.#body instanceof RequestBody) {
      if (route.writeMs > 0) {
        this.#writeDeadline ??= new Deadline(this)
        context.deadlines.set(this.#writeDeadline, route.writeMs)
      }
    } else this.#expectHead()
    this.#attempt = attempt
    this.#ask(attempt, afresh)
    if (this.over) return
    if (route.hedgeMs > 0 && this.#hedge === undefined && READS.has(exchange.method) && this.#body === undefined) {
      this.#hedge = new Deadline(this)
      context.deadlines.set(this.#hedge, route.hedgeMs)
    }
  }

  #ask(attempt: Attempt, afresh = false): void {
    try {
      attempt.instance.pool.acquire(attempt, afresh)
    } catch (error) {
      // A bug. Thrown on from a timer or the end of a body it would take every other request along.
      if (!this.over) this.#give(error as Error)
    }
  }

  /** The first instance takes its time, so another one is asked as well, if the budget allows it. */
  #askAnother(): void {
    const { service } = this.target
    const first = this.#attempt
    if (first === undefined || !service.hasOther(first.instance) || !service.budget.withdraw()) return
    const rival = new Attempt(this)
    if (rival.admit(first.instance) !== undefined) return
    this.exchange.attempts++
    this.#rival = rival
    this.#ask(rival)
  }

  /** One of two tries is out of the race. */
  #drop(loser: Attempt): void {
    const winner = (loser === this.#attempt ? this.#rival : this.#attempt) as Attempt
    loser.cancel()
    this.#attempt = winner
    this.#rival = undefined
    this.#instance = winner.instance
    this.exchange.instance = winner.instance.id
  }

  /** The time for the answer's head, all tries included, starts now. */
  #awaitHead(): void {
    const { timeoutMs } = this.route
    if (timeoutMs > 0) this.context.deadlines.set(this.#deadline, timeoutMs)
  }

  #expectHead(): void {
    const { firstByteMs } = this.route
    if (firstByteMs === 0) return
    this.#tryDeadline ??= new Deadline(this)
    this.context.deadlines.set(this.#tryDeadline, firstByteMs)
  }

  /** The request as undici takes it. */
  options(instance: Instance): Dispatcher.DispatchOptions {
    const { exchange } = this
    return {
      path: instance.basePath + this.#path + exchange.search,
      method: exchange.method as Dispatcher.HttpMethod,
      headers: exchange.upstreamFields,
      body: this.#body ?? null
    }
  }

  /** The request has been sent to its last byte. An upload may take its time; the answer's starts now. */
  sent(): void {
    if (!(this.#body instanceof RequestBody) || this.answered) return
    this.#moved = this.#body.bytes
    this.#writeDeadline?.cancel()
    this.#awaitHead()
    this.#expectHead()
  }

  /** The head of an answer is here: whether it goes to the client, rather than being the reason for another try. */
  accepts(attempt: Attempt, status: number, fields: readonly Buffer[]): boolean {
    const { retry, fallback } = this.route
    if (this.#rival !== undefined) {
      const bad = retry.on.has(status) || fallback?.on.has(status) === true
      const other = attempt === this.#attempt ? this.#rival : (this.#attempt as Attempt)
      this.#drop(bad ? attempt : other)
      if (bad) return false
    }
    if (retry.on.has(status) && this.#triesAgain(status, { pauseMs: this.#askedToWait(status, fields) })) return false
    if (fallback === undefined || this.alone) return true
    if (fallback.on.has(status) && this.#replaces(fallback, `received-status=${status}`)) return false
    if (this.#failure !== '') this.#replaced('service')
    return true
  }

  /** The head of the answer is on its way: it is not late any more. */
  begun(): void {
    this.answered = true
    this.#hedge?.cancel()
    this.#deadline.cancel()
    this.#tryDeadline?.cancel()
    this.#writeDeadline?.cancel()
  }

  /** The client does not take the answer as fast as it comes, and may not keep the service waiting for ever. */
  stalled(): void {
    this.#hasStalled = true
    const { idleTimeoutMs } = this.target.service.config.pool
    if (idleTimeoutMs === 0) return
    this.#stall ??= new Deadline(this)
    this.context.deadlines.set(this.#stall, idleTimeoutMs)
  }

  /** The client has taken what there was. */
  drained(): void {
    this.#stall?.cancel()
  }

  completed(): void {
    if (this.#failure === '') this.exchange.reason = ''
    this.#end(true)
  }

  /** A try failed. Before an answer has begun this is the place to decide; after that the client can only be cut off. */
  failed(attempt: Attempt, stage: Stage, error: Error): void {
    if (this.over || (attempt !== this.#attempt && attempt !== this.#rival)) return
    const body = this.#body instanceof RequestBody ? this.#body : undefined
    if (body?.tooLarge && !this.answered) return this.#give(bodyTooLarge(this.route.maxBodyBytes))
    if (body?.clientGone) return this.#end()
    // What cannot even be put into words has not been tried.
    if (isUnspeakable(error)) return this.#give(refuse('bad_request', { reason: describe(error) }))
    if (isShortage(error)) return this.#rival === undefined ? this.#giveForWant(error) : this.#drop(attempt)
    const stale = stage === 'reset' && attempt.reused && !this.#renewed && !this.answered
    // That a kept connection is closed some time says nothing about how the service is.
    attempt.judge(stale ? undefined : false)
    this.#failedAt(attempt, stage, describe(error))
    if (this.answered) return this.#cut()
    if (this.#rival !== undefined) return this.#drop(attempt)

    if (!this.#triesAgain(attempt.sent ? 'reset' : 'connect', { stale })) this.#give(refusalOf(stage, error))
  }

  /** There is no connection to be had, and another instance would make no difference. */
  #giveForWant(error: Error): void {
    this.#give(overloaded(describe(error), this.context.random))
  }

  /** How long a service that cannot answer now wants to be left alone, in milliseconds (RFC 9110 section 10.2.3). */
  #askedToWait(status: number, fields: readonly Buffer[]): number {
    if (status !== 503 && status !== 429) return 0
    for (let i = 0; i < fields.length; i += 2)
      if (latin1(fields[i]).toLowerCase() === 'retry-after')
        return retryAfterMs(latin1(fields[i + 1]), this.context.clock.now())
    return 0
  }

  /** Until the answer's head is due, in milliseconds. */
  get #timeLeft(): number {
    const { queue, at } = this.#deadline
    return queue === undefined ? LONGEST_PAUSE_MS : at - this.context.clock.monotonic()
  }

  /**
   * Tries again if that is of any use after `failure`.
   * @param pauseMs the least that has to be waited
   * @returns whether it does
   */
  #triesAgain(failure: Failure, { stale = false, pauseMs = 0 } = {}): boolean {
    const { service } = this.target
    const { retry } = this.route
    const { method, repeatable, attempts: tries } = this.exchange
    const hasOther = this.#instance !== undefined && service.hasOther(this.#instance)
    switch (afterFailure(retry, { failure, method, repeatable, body: this.#bodyState, tries, hasOther, stale })) {
      case 'give':
        return false
      case 'other':
        this.#try()
        return true
      case 'afresh':
        this.#renewed = true
        this.#try(true)
        return true
      case 'again':
        return this.#again(pauseMs)
    }
  }

  /** A try has come to grief, which its service's health and metrics want to know. */
  #failedAt(attempt: Attempt, stage: Stage, details: string): void {
    attempt.failedAt(stage)
    this.exchange.reason = details === '' ? stage : `${stage}: ${details}`
  }

  /** The request's body is passed on as it comes. */
  get streams(): boolean {
    return this.#body instanceof RequestBody
  }

  get #bodyState(): 'whole' | 'untouched' | 'begun' {
    if (!(this.#body instanceof RequestBody)) return 'whole'
    return this.#body.untouched ? 'untouched' : 'begun'
  }

  /** @returns false if the pause would be too long, or the budget is used up */
  #again(leastMs: number): boolean {
    const { retry } = this.route
    const pause = Math.max(leastMs, backoff(retry, this.exchange.attempts, this.context.random))
    if (pause >= this.#timeLeft || !this.target.service.budget.withdraw()) return false
    this.#attempt?.cancel()
    this.#attempt = undefined
    this.#tryDeadline?.cancel()
    this.#backoff = setTimeout(() => this.#try(), pause)
    return true
  }

  expired(deadline: Deadline): void {
    if (this.over) return
    if (this.answered) {
      const unread = deadline === this.#stall
      this.exchange.reason = unread ? 'the client does not read' : 'total timeout'
      // Where the client has been waited for, nobody can say that the service was slow (H-100).
      if (!this.#hasStalled) this.#attempt?.judge(false)
      return this.#cut()
    }
    if (this.#place?.state === 'waiting') return this.#place.expired()
    if (deadline === this.#hedge) return this.#askAnother()
    if (deadline === this.#deadline && this.#stillUploads()) return
    const attempt = this.#attempt
    const stage = this.#lateStage(attempt)
    // That all connections are in use is no failure; those who have them will say how the service is.
    if (stage !== undefined && stage !== 'pool') attempt?.judge(false)
    if (this.#rival !== undefined && attempt !== undefined && stage !== undefined && deadline === this.#tryDeadline) {
      this.#failedAt(attempt, stage, '')
      this.#drop(attempt)
      return this.#expectHead()
    }
    this.#rival?.judge(false)
    this.#attempt = undefined
    attempt?.cancel()
    if (stage === undefined) {
      this.exchange.reason = 'slow_request'
      return this.#give(refuse('request_timeout'))
    }
    // Between two tries there is a reason already: that of the last one.
    if (attempt !== undefined) this.#failedAt(attempt, stage, '')
    if (deadline === this.#tryDeadline && this.#triesAgain('timeout')) return
    this.#give(refuse('gateway_timeout', { reason: this.exchange.reason, proxyStatus: LATE[stage] }))
  }

  /** An upload may take as long as it moves. If it does, it gets the same time once more. */
  #stillUploads(): boolean {
    if (!(this.#body instanceof RequestBody) || this.#body.bytes === this.#moved) return false
    this.#moved = this.#body.bytes
    this.#awaitHead()
    return true
  }

  /** What the time has gone into; undefined when it was the client's. */
  #lateStage(attempt: Attempt | undefined): Stage | undefined {
    const { exchange } = this
    if (attempt === undefined) return exchange.uploading ? undefined : 'timeout'
    if (!attempt.sent) return attempt.waits ? 'pool' : 'connect_timeout'
    if (!(this.#body instanceof RequestBody) || !exchange.uploading) return 'timeout'
    return this.#body.waitsForClient ? undefined : 'send'
  }

  /** The client has gone, or its answer is complete. */
  gone(): void {
    if (this.over) return
    if (!this.exchange.persists || this.#bodyState !== 'whole') return this.#end()
    this.alone = true
    this.#stall?.cancel()
    this.#attempt?.resume()
  }

  /** The answer is an error of our own, made where all of them are made. */
  #give(error: Error): void {
    const { exchange } = this
    if (this.alone) return this.#end()
    const { fallback } = this.route
    if (fallback !== undefined && error instanceof GatewayError && fallback.on.has(error.statusCode)) {
      exchange.reason = error.reason ?? exchange.reason
      if (this.#replaces(fallback, `error=${error.proxyStatus}`)) return
    }
    this.#end()
    // What is left of the body would have to be read and thrown away before the connection could be used again.
    if (exchange.uploading) exchange.endConnection()
    // A head that could not be written has left its reason phrase behind. HTTP/2 has none.
    if (!exchange.http2) exchange.response.statusMessage = ''
    exchange.reply?.send(error)
  }

  /**
   * Puts something else in place of a failure, as the route's fallback says.
   * @param failure for `Proxy-Status`
   * @returns whether there is anything
   */
  #replaces({ cache, target, answer }: Fallback, failure: string): boolean {
    const first = this.#failure === ''
    if (first) {
      this.#failure = failure
      const last = cache?.find(this.exchange)
      if (last !== undefined) return this.#answerWith(last, 'cached')
      if (target !== undefined && this.#mayGoElsewhere) return this.#goTo(target)
    }
    return answer !== undefined && this.#answerWith(answer, 'static')
  }

  /** Whether the request can be sent to another service, and nothing is done twice by that. */
  get #mayGoElsewhere(): boolean {
    return this.#bodyState !== 'begun' && (!this.reached || IDEMPOTENT.has(this.exchange.method))
  }

  #goTo(target: Target): true {
    this.#attempt?.cancel()
    this.#rival?.cancel()
    this.#attempt = this.#rival = undefined
    this.#instance = undefined
    this.#tryDeadline?.cancel()
    this.target = this.exchange.target = target
    this.#awaitHead()
    if (this.#taken) this.#try()
    else this.admitted()
    return true
  }

  #answerWith(answer: KeptAnswer, kind: 'cached' | 'static'): true {
    this.#end()
    this.#replaced(kind)
    answerWith(this.exchange, answer)
    return true
  }

  /** The answer is none of the service that was meant to give it; whoever is concerned can see that. */
  #replaced(kind: 'cached' | 'service' | 'static'): void {
    this.exchange.fallback = kind
    this.exchange.fields.push('proxy-status', `sallyport; ${this.#failure}`)
  }

  /** The answer has begun and cannot be finished: the client must not take it for complete. */
  #cut(): void {
    this.#end()
    this.exchange.cut()
  }

  #end(complete = false): void {
    this.over = true
    this.exchange.tap?.ended(complete)
    this.#deadline.cancel()
    this.#tryDeadline?.cancel()
    this.#writeDeadline?.cancel()
    this.#totalDeadline?.cancel()
    this.#stall?.cancel()
    clearTimeout(this.#backoff)
    this.#attempt?.cancel()
    this.#rival?.cancel()
    this.#hedge?.cancel()
    this.#place?.leave()
    if (this.#body instanceof RequestBody) {
      this.exchange.bytesIn = this.#body.bytes
      this.#body.destroy()
    }
  }
}
