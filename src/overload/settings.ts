import { duration, oneOf, type Static, size, Type } from '../schema.ts'
import { PRIORITIES, type Priority, priorityOf } from './priority.ts'

/** `concurrency:` of a service, or of all of them under `defaults`. */
export const concurrency = Type.Union(
  [
    Type.Literal(false),
    Type.Integer({ minimum: 1 }),
    Type.Object({
      limit: Type.Union([Type.Integer({ minimum: 1 }), Type.Literal('adaptive')], {
        description: 'Most requests at once; `adaptive` finds out how many the service takes without becoming slower.'
      }),
      min: Type.Integer({ description: 'Adaptive: never fewer.', default: 10, minimum: 1 }),
      max: Type.Integer({ description: 'Adaptive: never more.', default: 1000, minimum: 1 }),
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
  /** Undefined to find it out, between the two that follow. */
  readonly limit: number | undefined
  readonly min: number
  readonly max: number
  readonly queue: number
  readonly maxWaitMs: number
}

/** Undefined for no limit. */
export function concurrencyOf(settings: ConcurrencySettings | undefined): ConcurrencyConfig | undefined {
  if (settings === undefined || settings === false) return undefined
  if (typeof settings === 'number') return { limit: settings, min: 1, max: settings, queue: 100, maxWaitMs: 1000 }
  const { limit, min, max, queue, max_wait: maxWaitMs } = settings
  return { limit: limit === 'adaptive' ? undefined : limit, min, max, queue, maxWaitMs }
}

/** How important requests are when not all of them can be served. */
export const requestPriority = (description: string) => oneOf(PRIORITIES, { description })

const share = (description: string) => Type.Number({ description, default: 0.9, minimum: 0, maximum: 0.99 })
const byName = (description: string) =>
  Type.Record(Type.String(), requestPriority('Their priority.'), { description, default: {} })

/** `overload:`, of the process. */
export const overload = Type.Union(
  [
    Type.Literal(false),
    Type.Object({
      event_loop_delay: duration({
        description:
          'How late the event loop may be, on average over a tenth of a second, before requests are shed; 0 for any.',
        default: '1s'
      }),
      memory: share('Share of the heap, or of the container’s memory, from which requests are shed; 0 for never.'),
      memory_limit: Type.Optional(
        size({ description: 'Memory that the process may have, instead of what the container says.', positive: true })
      ),
      descriptors: share('Share of the file descriptors from which requests are shed; 0 for never.'),
      concurrency: Type.Optional(
        Type.Union([Type.Integer({ minimum: 1 }), Type.Literal('adaptive')], {
          description:
            'Most requests under way at once, over all services; `adaptive` finds out how many there may be without all of them becoming slower.'
        })
      ),
      unready_after: duration({
        description: 'Overload that has lasted for so long makes readiness fail, until it is over; 0 for never.',
        default: '10s'
      }),
      roles: byName('Priority of callers by role, the most important of several; instead of the route’s.'),
      tiers: byName('Priority of callers by tier, before that by role.'),
      clients: byName('Priority of single callers by id, before all others.')
    })
  ],
  { description: 'When the gateway itself has too much to do: what is shed, and in favour of whom.', default: {} }
)

export type OverloadSettings = Static<typeof overload>

/** When the process has too much to do. Shares are from 0 to 1, and 0 stands for never. */
export interface OverloadConfig {
  readonly eventLoopDelayMs: number
  readonly memory: number
  /** Bytes; 0 for what the container says. */
  readonly memoryLimit: number
  readonly descriptors: number
  readonly concurrency: number | 'adaptive' | undefined
  readonly unreadyAfterMs: number
  /** Whose priority is not the route's; undefined if nobody's. */
  readonly callers: CallerPriorities | undefined
}

export interface CallerPriorities {
  readonly clients: Readonly<Record<string, Priority>>
  readonly tiers: Readonly<Record<string, Priority>>
  readonly roles: Readonly<Record<string, Priority>>
  /** The most important that anybody may turn out to be. */
  readonly best: Priority
}

/** Undefined for no shedding. */
export function overloadOf(settings: OverloadSettings): OverloadConfig | undefined {
  if (settings === false) return undefined
  const callers = {
    clients: ranked(settings.clients),
    tiers: ranked(settings.tiers),
    roles: ranked(settings.roles)
  }
  const all = Object.values(callers).flatMap(map => Object.values(map))
  return {
    eventLoopDelayMs: settings.event_loop_delay,
    memory: settings.memory,
    memoryLimit: settings.memory_limit ?? 0,
    descriptors: settings.descriptors,
    concurrency: settings.concurrency,
    unreadyAfterMs: settings.unready_after,
    callers: all.length === 0 ? undefined : { ...callers, best: Math.min(...all) }
  }
}

function ranked(names: Readonly<Record<string, (typeof PRIORITIES)[number]>>): Record<string, Priority> {
  return Object.fromEntries(Object.entries(names).map(([name, priority]) => [name, priorityOf(priority)]))
}
