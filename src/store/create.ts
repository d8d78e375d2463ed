import type { Logger } from 'pino'
import type { Snapshot } from '../config/snapshot.ts'
import { systemClock } from '../runtime/clock.ts'
import { MemoryStore } from './memory.ts'
import type { Store } from './store.ts'

/** The store that the configuration asks for. Comes back even when Redis does not. */
export async function createStore(
  { storage, rateLimits }: Pick<Snapshot, 'storage' | 'rateLimits'>,
  log: Logger,
  clock = systemClock
): Promise<Store> {
  const { redis_url: url, redis_timeout: timeoutMs } = storage
  if (!url) return new MemoryStore(clock)
  // ioredis takes longer to load than the rest of the gateway to start.
  const { RedisStore } = await import('./redis.ts')
  const store = new RedisStore({ url, timeoutMs, prefix: rateLimits.prefix, clock, log })
  await store.open()
  return store
}
