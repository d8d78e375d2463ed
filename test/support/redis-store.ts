import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Redis } from 'ioredis'
import { type Logger, pino } from 'pino'
import type { Test } from 'tap'
import type { Clock } from '../../src/runtime/clock.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { RedisStore } from '../../src/store/redis.ts'
import type { StoreTerms } from '../../src/store/store.ts'
import { freePort } from './free-port.ts'
import { startRedisServer } from './redis-server.ts'

/** Why the tests that need a Redis are skipped, for tap; false when there is one. */
export const noRedis =
  process.env.TEST_REDIS_URL === undefined && 'no Redis: set TEST_REDIS_URL, or apt install redis-server'
/** The same for tests that start, pause and kill one of their own. */
export const noRedisServer =
  process.env.REDIS_SERVER === undefined && 'no redis-server to start: apt install redis-server'

const redisUrl = process.env.TEST_REDIS_URL as string

/** Terms under which a test is alone on a Redis that others use too. */
export function ownTerms(terms: Partial<StoreTerms> = {}): StoreTerms {
  return { prefix: `test:${randomBytes(6).toString('hex')}:`, lease: false, on_store_error: 'local', ...terms }
}

export interface ConnectOptions {
  readonly url?: string
  readonly terms: StoreTerms
  readonly clock?: Clock
  /** What the scripts take for the time. */
  readonly time?: () => number
  readonly timeoutMs?: number
  readonly log?: Logger
}

/** A store on Redis, for as long as the test runs. */
export async function connectStore(t: Test, options: ConnectOptions): Promise<RedisStore> {
  const { url = redisUrl, terms, clock = systemClock, time, timeoutMs = 5000 } = options
  const { log = pino({ level: 'silent' }) } = options
  const store = new RedisStore({ url, timeoutMs, prefix: terms.prefix, clock, log }, time)
  await store.open()
  t.teardown(() => store.close())
  return store
}

/** A bare client, for looking at what is really there. */
export function connectClient(t: Test, url = redisUrl): Redis {
  const client = new Redis(url)
  t.teardown(() => client.disconnect())
  return client
}

/** A redis-server of the test's own, to be killed, paused and started again. */
export interface OwnRedis {
  readonly url: string
  readonly port: number
  start(): Promise<void>
  kill(): Promise<void>
  /** Connections stay open, and nothing is answered on them. */
  pause(): void
  resume(): void
}

/** Starts one for as long as the test runs; `start: false` leaves that to the test. */
export async function ownRedis(
  t: Test,
  { settings = [], start = true }: { settings?: readonly string[]; start?: boolean } = {}
): Promise<OwnRedis> {
  const port = await freePort()
  let server: Awaited<ReturnType<typeof startRedisServer>> | undefined
  const redis: OwnRedis = {
    url: `redis://127.0.0.1:${port}`,
    port,
    async start() {
      server = await startRedisServer(process.env.REDIS_SERVER as string, port, settings)
    },
    async kill() {
      if (server === undefined) return
      const gone = once(server.process, 'exit')
      server.process.kill('SIGKILL')
      server = undefined
      await gone
    },
    pause: () => void server?.process.kill('SIGSTOP'),
    resume: () => void server?.process.kill('SIGCONT')
  }
  t.teardown(() => redis.kill())
  if (start) await redis.start()
  return redis
}
