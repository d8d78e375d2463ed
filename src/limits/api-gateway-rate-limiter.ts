import { type Clock, systemClock } from '../runtime/clock.ts'
import { TwoGenerations } from '../runtime/two-generations.ts'
import { SlidingWindow } from './sliding-window.ts'
import { TokenBucket } from './token-bucket.ts'

const MINUTE_MS = 60_000
const HOUR_MS = 3_600_000
/** Most clients that are counted, per generation; those that have not been seen for longest go first. */
const MOST_CLIENTS = 50_000

/** How much a client may ask for (RLM-12, seed 003). */
export class RateLimitConfig {
  readonly requests_per_minute: number
  readonly requests_per_hour: number
  /** Reported as `burst_tokens`; a minute's worth of requests may come at once (C-06). */
  readonly burst_size: number

  constructor({
    requests_per_minute = 60,
    requests_per_hour = 1000,
    burst_size = 10
  }: { requests_per_minute?: number; requests_per_hour?: number; burst_size?: number } = {}) {
    this.requests_per_minute = requests_per_minute
    this.requests_per_hour = requests_per_hour
    this.burst_size = burst_size
  }
}

/** How a client stands. */
export interface ClientStats {
  readonly requests_this_minute: number
  readonly requests_this_hour: number
  readonly burst_tokens: number
}

interface Client {
  readonly minute: SlidingWindow
  readonly hour: SlidingWindow
  readonly burst: TokenBucket
}

/**
 * Limits clients by the minute and by the hour, in this process (RLM-12 to RLM-15, seed 003).
 *
 * @example
 * const limiter = new ApiGatewayRateLimiter()
 * limiter.setClientConfig('enterprise', new RateLimitConfig({ requests_per_minute: 200, requests_per_hour: 10_000 }))
 * if (!limiter.isAllowed('enterprise', '/api/v1/agents')) throw new Error('too many requests')
 */
export class ApiGatewayRateLimiter {
  readonly #clock: Clock
  readonly #fallback: RateLimitConfig
  readonly #configs = new Map<string, RateLimitConfig>()
  readonly #clients = new TwoGenerations<Client>(MOST_CLIENTS)

  /** @param fallback for clients that have no configuration of their own */
  constructor(fallback = new RateLimitConfig(), clock: Clock = systemClock) {
    this.#fallback = fallback
    this.#clock = clock
  }

  /** Holds at once; what the client has used stays counted. */
  setClientConfig(clientId: string, config: RateLimitConfig): void {
    this.#configs.set(clientId, config)
    const client = this.#clients.peek(clientId)
    if (client === undefined) return
    const { minute, hour, burst } = limitsFor(config)
    client.minute.configure(minute)
    client.hour.configure(hour)
    client.burst.configure(burst)
  }

  /** Counts a request, unless the client has used up its minute or its hour. All endpoints count together. */
  isAllowed(clientId: string, _endpoint: string): boolean {
    const client = this.#client(clientId)
    const now = this.#clock.monotonic()
    if (client.minute.available(now) < 1 || client.hour.available(now) < 1) return false
    client.minute.take(now)
    client.hour.take(now)
    client.burst.consume()
    return true
  }

  getClientStats(clientId: string): ClientStats {
    const now = this.#clock.monotonic()
    const client = this.#clients.peek(clientId)
    if (client === undefined) {
      const { burst_size } = this.#configOf(clientId)
      return { requests_this_minute: 0, requests_this_hour: 0, burst_tokens: burst_size }
    }
    const { minute, hour, burst } = client
    minute.available(now)
    hour.available(now)
    return { requests_this_minute: minute.used(), requests_this_hour: hour.used(), burst_tokens: burst.available(now) }
  }

  /** Forgets what the client has used. */
  resetClient(clientId: string): void {
    this.#clients.delete(clientId)
  }

  #configOf(clientId: string): RateLimitConfig {
    return this.#configs.get(clientId) ?? this.#fallback
  }

  #client(clientId: string): Client {
    let client = this.#clients.get(clientId)
    if (client === undefined) {
      const { requests_per_minute, requests_per_hour, burst_size } = this.#configOf(clientId)
      client = {
        minute: new SlidingWindow(requests_per_minute, MINUTE_MS),
        hour: new SlidingWindow(requests_per_hour, HOUR_MS),
        burst: new TokenBucket(burst_size, requests_per_minute / 60, () => this.#clock.monotonic())
      }
      this.#clients.set(clientId, client)
    }
    return client
  }
}

function limitsFor({ requests_per_minute, requests_per_hour, burst_size }: RateLimitConfig) {
  const limit = { name: 'client', algorithm: 'sliding_window', burst: burst_size } as const
  return {
    minute: { ...limit, limit: requests_per_minute, windowMs: MINUTE_MS },
    hour: { ...limit, limit: requests_per_hour, windowMs: HOUR_MS },
    burst: { ...limit, limit: requests_per_minute, windowMs: MINUTE_MS }
  }
}
