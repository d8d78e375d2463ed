import { duration, type Static, Type } from '../schema.ts'

/** `concurrency:` of a service, or of all of them under `defaults`. */
export const concurrency = Type.Union(
  [
    Type.Literal(false),
    Type.Integer({ minimum: 1 }),
    Type.Object({
      limit: Type.Integer({ description: 'Most requests at once.', minimum: 1 }),
      queue: Type.Integer({ description: 'Most requests that wait for a place.', default: 100, minimum: 0 }),
      max_wait: duration({ description: 'Longest wait for a place.', default: '1s', positive: true })
    })
  ],
  {
    description:
      'Most requests that the service has at once (its bulkhead); further ones wait, the most important first, or are refused. A number is that many, with the rest as is.'
  }
)

export type ConcurrencySettings = Static<typeof concurrency>

/** How many requests something takes at once, and who may wait. */
export interface ConcurrencyConfig {
  readonly limit: number
  readonly queue: number
  readonly maxWaitMs: number
}

/** Undefined for no limit. */
export function concurrencyOf(settings: ConcurrencySettings | undefined): ConcurrencyConfig | undefined {
  if (settings === undefined || settings === false) return undefined
  if (typeof settings === 'number') return { limit: settings, queue: 100, maxWaitMs: 1000 }
  return { limit: settings.limit, queue: settings.queue, maxWaitMs: settings.max_wait }
}
