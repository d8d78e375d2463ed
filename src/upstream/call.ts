import { type GatewayError, refuse } from '../errors.ts'
import type { Exchange } from '../proxy/exchange.ts'
import type { Stage } from '../proxy/stage.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Breaker, Permit } from './breaker.ts'
import type { BreakerSet } from './breakers.ts'
import type { Instance } from './instance.ts'
import type { Service } from './service.ts'
import type { Target } from './target.ts'

/** How long an instance is left out whose breaker has a probe under way, in milliseconds. */
const PROBING_MS = 100

/**
 * One call of one instance, and what is told of it: to the service, which knows its instances by that, to the breaker that has
 * let it through, and to who compares two services.
 */
export class Call {
  readonly target: Target
  /** Where it goes; from {@link admit} on. */
  instance!: Instance
  readonly #exchange: Exchange
  readonly #clock: Clock
  #startedAt: number
  #breaker: Breaker | undefined
  /** What the breaker has not been told the end of; 0 if nothing. */
  #permit: Permit = 0
  /** To the head of its answer, in milliseconds; -1 while there is none. */
  #headMs = -1
  over = false

  constructor(exchange: Exchange, target: Target, clock: Clock) {
    this.#exchange = exchange
    this.target = target
    this.#clock = clock
    this.#startedAt = clock.monotonic()
  }

  /** For how long its answer could be waited for, in milliseconds. */
  get elapsedMs(): number {
    return this.#clock.monotonic() - this.#startedAt
  }

  /** All of a body that is passed on as it comes has been sent: until now its client was waited for. */
  sentAll(): void {
    this.#startedAt = this.#clock.monotonic()
  }

  /**
   * Picks the instance. What has been admitted has to be ended, once.
   * @param after where the request has been already
   * @returns the refusal if there is no instance, or its breaker is open
   */
  admit(after?: Instance): GatewayError | undefined {
    const { service, balancer, breakers } = this.target
    const instance = service.pick(balancer, this.#exchange, after)
    if (instance === undefined) return nobodyThere(service)
    this.instance = instance
    const refusal = breakers === undefined ? undefined : this.#pass(breakers)
    if (refusal === undefined) this.instance.active++
    return refusal
  }

  /** Where each instance has a breaker of its own, the others are asked while one is open. */
  #pass(breakers: BreakerSet): GatewayError | undefined {
    const { service, balancer } = this.target
    const exchange = this.#exchange
    let breaker = breakers.of(exchange, this.instance, service)
    let permit = breaker.enter()
    for (let left = breakers.perInstance ? service.instances.length : 1; permit === 0 && left > 1; left--) {
      this.instance.downUntil = this.#clock.monotonic() + Math.max(breaker.retryAfterMs, PROBING_MS)
      service.reconsider()
      this.instance = service.pick(balancer, exchange, this.instance) ?? this.instance
      breaker = breakers.of(exchange, this.instance, service)
      permit = breaker.enter()
    }
    this.#breaker = breaker
    this.#permit = permit
    return permit === 0 ? breakerOpen(breaker) : undefined
  }

  /** The head of an answer has come. @returns how long that took, in milliseconds */
  answered(status: number): number {
    const { service, arm } = this.target
    const ms = this.elapsedMs
    this.#headMs = this.#exchange.uploading ? 0 : ms
    service.tried(this.instance, status, undefined, ms)
    arm?.tried(status, undefined, ms)
    if (this.#breaker?.isFailure(status)) this.judge(false)
    else this.#breaker?.answering(this.#permit)
    return ms
  }

  /** It has come to grief in `stage`. What its breaker makes of that is another matter: see {@link judge}. */
  failedAt(stage: Stage): void {
    const { service, series, arm } = this.target
    const ms = this.elapsedMs
    series.failed(stage)
    service.tried(this.instance, 0, stage, ms)
    arm?.tried(0, stage, ms)
  }

  /**
   * Tells the breaker, if there is one, what it has come to; only the first word counts.
   * @param well undefined if nobody can say: its client has gone, or nothing was sent
   */
  judge(well: boolean | undefined): void {
    const permit = this.#permit
    const breaker = this.#breaker
    if (breaker === undefined || permit === 0) return
    this.#permit = 0
    // How long a client takes to send its body, or to read its answer, says nothing about the service (H-100).
    const waitedMs = this.#exchange.uploading ? 0 : this.elapsedMs
    const ms = this.#headMs >= 0 ? this.#headMs : waitedMs
    if (well === undefined) breaker.left(permit, ms)
    else if (well) breaker.succeeded(permit, ms)
    else breaker.failed(permit, ms)
  }

  /** It is under way no longer. */
  end(): void {
    this.over = true
    this.instance.active--
  }
}

function nobodyThere({ retryAfter }: Service): GatewayError {
  return refuse('service_unavailable', { reason: 'no_target', headers: ['retry-after', String(retryAfter)] })
}

/** The refusal of a breaker that has not let a call through (RES-07). */
function breakerOpen(breaker: Breaker): GatewayError {
  const seconds = Math.max(1, Math.ceil(breaker.retryAfterMs / 1000))
  return refuse('service_unavailable', { reason: reasonOf(breaker), headers: ['retry-after', String(seconds)] })
}

function reasonOf({ state, reason, recoveringPercent }: Breaker): string {
  if (state === 'half_open') return 'breaker half-open: a probe is under way'
  if (recoveringPercent !== undefined) return `breaker recovering: ${recoveringPercent} % pass`
  return `breaker open: ${reason}`
}
