import { createHash } from 'node:crypto'
import { DECIDE } from '../store/redis-scripts.ts'

/** What is needed of a client; ioredis has it. */
export interface ScriptClient {
  evalsha(sha: string, keys: number, ...args: string[]): Promise<unknown>
  eval(script: string, keys: number, ...args: string[]): Promise<unknown>
}

const SHA = createHash('sha1').update(DECIDE).digest('hex')

/**
 * Counts requests per user in a sliding window, in a Redis that others may share (RLM-06, seed 001). Redis' clock is the one
 * that counts, and a request that is denied is not counted.
 *
 * @example
 * const limiter = new RedisRateLimiter(new Redis())
 * const [allowed, remaining, resetTime] = await limiter.checkRateLimit('alice', 100, 60)
 */
export class RedisRateLimiter {
  readonly #client: ScriptClient
  readonly #keyPrefix: string

  /** @param keyPrefix stands before the user in the key, with a colon */
  constructor(client: ScriptClient, keyPrefix = 'rate_limit') {
    this.#client = client
    this.#keyPrefix = keyPrefix
  }

  /**
   * Counts a request, if there have been fewer than `limit` in the last `windowSeconds`.
   *
   * @returns whether there were, how many are left, and when the window that begins now is over, in seconds since 1970
   * @throws whatever the client does when Redis is out of reach
   */
  async checkRateLimit(
    userId: string,
    limit: number,
    windowSeconds: number
  ): Promise<[allowed: boolean, remaining: number, resetTime: number]> {
    const windowMs = windowSeconds * 1000
    const counter = ['s', limit, windowMs, limit, `requests|${windowMs}s`, 0]
    const args = [`${this.#keyPrefix}:${userId}`, '', JSON.stringify([[counter], [[1]]])]
    const [now, [allowed, , remaining]] = (await this.#run(args)) as [number, [number, number, number]]
    return [allowed === 1, remaining, Math.floor(now / 1000) + windowSeconds]
  }

  async #run(args: string[]): Promise<unknown> {
    try {
      return await this.#client.evalsha(SHA, 1, ...args)
    } catch (error) {
      if (!(error as Error).message.startsWith('NOSCRIPT')) throw error
      return this.#client.eval(DECIDE, 1, ...args)
    }
  }
}
