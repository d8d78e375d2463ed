import { type Clock, systemClock } from '../runtime/clock.ts'
import { TwoGenerations } from '../runtime/two-generations.ts'
import { Breaker, type BreakerConfig, type BreakerStats } from './breaker.ts'

/** Most endpoints that have a breaker, per generation; those that have not been called for longest go first. */
const MOST_ENDPOINTS = 10_000

/** When a breaker opens and how it closes again (RES-02, seed 003). */
export class CircuitBreakerConfig {
  /** Failures in a row that open it. */
  readonly failure_threshold: number
  /** Seconds that it stays open. */
  readonly recovery_timeout: number
  /** Successes in a row that close it again. */
  readonly success_threshold: number

  constructor({
    failure_threshold = 5,
    recovery_timeout = 60,
    success_threshold = 3
  }: { failure_threshold?: number; recovery_timeout?: number; success_threshold?: number } = {}) {
    this.failure_threshold = failure_threshold
    this.recovery_timeout = recovery_timeout
    this.success_threshold = success_threshold
  }
}

/** Nothing was called: the breaker is open (RES-04). */
export class CircuitBreakerOpenError extends Error {
  readonly endpoint: string
  /** Seconds until it is worth another try. */
  readonly retryAfter: number

  constructor(endpoint: string, retryAfter: number) {
    super(`the circuit breaker of ${endpoint} is open`)
    this.name = 'CircuitBreakerOpenError'
    this.endpoint = endpoint
    this.retryAfter = retryAfter
  }
}

/** A breaker around functions (RES-04). What they throw, or reject with, is a failure. */
export class ApiCircuitBreaker {
  readonly endpoint: string
  readonly #breaker: Breaker
  readonly #clock: Clock

  constructor(endpoint: string, config = new CircuitBreakerConfig(), clock: Clock = systemClock) {
    this.endpoint = endpoint
    this.#clock = clock
    this.#breaker = new Breaker(plain(config), clock)
  }

  /**
   * Calls `fn` with `args`, be it synchronous or not.
   * @throws {CircuitBreakerOpenError} without calling it, while the breaker is open
   */
  call<A extends unknown[], R>(fn: (...args: A) => R, ...args: A): R {
    const breaker = this.#breaker
    const permit = breaker.enter()
    if (permit === 0) throw new CircuitBreakerOpenError(this.endpoint, breaker.retryAfterMs / 1000)
    const since = this.#clock.monotonic()
    const elapsed = (): number => this.#clock.monotonic() - since
    let result: R
    try {
      result = fn(...args)
    } catch (error) {
      breaker.failed(permit, elapsed())
      throw error
    }
    if (typeof (result as PromiseLike<unknown> | undefined)?.then !== 'function') {
      breaker.succeeded(permit, elapsed())
      return result
    }
    return Promise.resolve(result).then(
      value => {
        breaker.succeeded(permit, elapsed())
        return value
      },
      error => {
        breaker.failed(permit, elapsed())
        throw error
      }
    ) as R
  }

  /** `{ state: 'closed', failure_count: 2, success_count: 98 }` (RES-05). */
  getStats(): BreakerStats {
    return this.#breaker.getStats()
  }

  get_stats(): BreakerStats {
    return this.getStats()
  }
}

/** What is answered where a breaker is open, by endpoint (RES-06). */
export class ApiFallbackService {
  readonly #fallbacks = new Map<string, unknown>()
  readonly #standard: unknown

  /** @param standard for endpoints that have none of their own */
  constructor(standard: unknown = { error: 'Service unavailable' }) {
    this.#standard = standard
  }

  /** @param fallback the answer, or a function that makes it */
  setFallback(endpoint: string, fallback: unknown): void {
    this.#fallbacks.set(endpoint, fallback)
  }

  getFallback(endpoint: string): unknown {
    const fallback = this.#fallbacks.has(endpoint) ? this.#fallbacks.get(endpoint) : this.#standard
    return typeof fallback === 'function' ? fallback(endpoint) : fallback
  }

  set_fallback(endpoint: string, fallback: unknown): void {
    this.setFallback(endpoint, fallback)
  }

  get_fallback(endpoint: string): unknown {
    return this.getFallback(endpoint)
  }
}

/**
 * A breaker for each endpoint, for other programs (RES-03, seed 003).
 *
 * @example
 * const manager = new CircuitBreakerManager()
 * const breaker = manager.getCircuitBreaker('/api/v1/agents', new CircuitBreakerConfig({ failure_threshold: 5 }))
 * try {
 *   return await breaker.call(fetchAgents, 'all')
 * } catch (error) {
 *   if (error instanceof CircuitBreakerOpenError) return manager.fallbackService.getFallback('/api/v1/agents')
 *   throw error
 * }
 */
export class CircuitBreakerManager {
  readonly fallbackService: ApiFallbackService
  readonly #clock: Clock
  readonly #breakers = new TwoGenerations<ApiCircuitBreaker>(MOST_ENDPOINTS)

  constructor(fallbackService = new ApiFallbackService(), clock: Clock = systemClock) {
    this.fallbackService = fallbackService
    this.#clock = clock
  }

  /** The breaker of an endpoint; the same every time. @param config counts when the endpoint is named first */
  getCircuitBreaker(endpoint: string, config?: CircuitBreakerConfig): ApiCircuitBreaker {
    let breaker = this.#breakers.get(endpoint)
    if (breaker === undefined) {
      breaker = new ApiCircuitBreaker(endpoint, config, this.#clock)
      this.#breakers.set(endpoint, breaker)
    }
    return breaker
  }

  get_circuit_breaker(endpoint: string, config?: CircuitBreakerConfig): ApiCircuitBreaker {
    return this.getCircuitBreaker(endpoint, config)
  }

  get fallback_service(): ApiFallbackService {
    return this.fallbackService
  }
}

function plain({ failure_threshold, recovery_timeout, success_threshold }: CircuitBreakerConfig): BreakerConfig {
  return {
    failureThreshold: failure_threshold,
    recoveryMs: recovery_timeout * 1000,
    successThreshold: success_threshold,
    failureStatuses: [],
    windowMs: 10_000,
    minimumCalls: 1,
    errorRate: 0,
    slowMs: 0,
    slowRate: 1,
    gradual: false,
    adaptive: false,
    predictive: false
  }
}
