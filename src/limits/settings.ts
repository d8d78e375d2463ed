import { duration, oneOf, type Static, Type } from '../schema.ts'
import type { Limit } from './limit.ts'

const positive = (description: string) => Type.Optional(Type.Number({ description, exclusiveMinimum: 0 }))

/** Requests in time, in every spelling of the seeds (C-05). Every window given has to pass. */
export const RATE = {
  requests_per_second: positive('Requests in a second.'),
  requests_per_minute: positive('Requests in a minute.'),
  requests_per_hour: positive('Requests in an hour.'),
  daily_limit: Type.Optional(
    Type.Union([Type.Null(), Type.Integer({ minimum: 1 })], {
      description: 'Requests in a UTC day; null for no limit.'
    })
  ),
  burst: Type.Optional(
    Type.Integer({ description: 'Size of the token bucket that the shortest window then is.', minimum: 1 })
  ),
  burst_size: Type.Optional(Type.Integer({ description: 'Reported only: counters have no burst.', minimum: 1 })),
  algorithm: Type.Optional(
    oneOf(['token_bucket', 'sliding_window', 'fixed_window'], {
      description:
        'How to count. A token bucket if `burst` is given, else a sliding window; a day is always a fixed one.'
    })
  )
}

export const rate = Type.Object(RATE)
export type RateSettings = Static<typeof rate>

const abuse = Type.Union(
  [
    Type.Literal(false),
    Type.Object({
      refusals: Type.Integer({
        description: 'After so many refusals within `window` the limits are halved.',
        default: 10,
        minimum: 1
      }),
      window: duration({ description: 'How long refusals are counted together.', default: '1m', positive: true }),
      decay: duration({
        description: 'After each such time without a refusal the limits are doubled again.',
        default: '5m',
        positive: true
      }),
      block: duration({
        description:
          'How long an address is blocked from which so many requests are refused even at an eighth of the limits; 0 to block nobody.',
        default: '0s'
      }),
      never_block: Type.Array(Type.String(), {
        description: 'Addresses and CIDR ranges that are never blocked, besides `server.trusted_proxies`.',
        default: []
      })
    })
  ],
  {
    description:
      'Callers who go on when a limit has refused them: theirs are halved, and halved again, down to an eighth.'
  }
)

const ON_LIMIT = ['reject', 'queue'] as const
const ON_LIMIT_NOTE =
  'What becomes of a request that a limit does not let pass: it is refused, or waits until it passes, if that is not too long.'
const MAX_QUEUE = { description: 'Requests of one caller that wait at most.', minimum: 1, maximum: 1000 }
const MAX_WAIT = 'Longest wait for a limit.'

/** What a route may say of waiting, instead of `rate_limits`. */
export const QUEUEING = {
  on_limit: Type.Optional(oneOf(ON_LIMIT, { description: ON_LIMIT_NOTE })),
  max_queue: Type.Optional(Type.Integer(MAX_QUEUE)),
  max_wait: Type.Optional(duration({ description: MAX_WAIT, positive: true }))
}

const HEADERS = ['standard', 'legacy', 'both', 'none'] as const

/** A plain number counts per `windowMs`, as in seed 004. */
const role = Type.Union([Type.Null(), Type.Integer({ minimum: 1 }), rate], {
  description: 'Requests per `windowMs`, a rate of its own, or null for no limit.'
})

function described<T extends object>(schema: T, description: string): T {
  return { ...schema, description }
}

/** The limits that are not a single route's (`rate_limits:`). */
export const rateLimitsSchema = Type.Object(
  {
    global: Type.Optional(described(rate, 'Limit of all requests together.')),
    services: Type.Record(Type.String(), rate, {
      description: 'Limits of services, all their callers together.',
      default: {}
    }),
    endpoints: Type.Record(Type.String(), rate, {
      description: 'Limits of endpoints (`service.endpoint`) and of routes (by their id), all their callers together.',
      default: {}
    }),
    user_tiers: Type.Record(Type.String(), rate, { description: 'Limits of each caller, by tier.', default: {} }),
    roles: Type.Record(Type.String(), role, {
      description:
        'Limits of each caller, by role; the most generous of several roles counts. `default` is for roles not named.',
      default: {}
    }),
    clients: Type.Record(Type.String(), rate, {
      description: 'Limits of single callers by id, else by tier, else by role.',
      default: {}
    }),
    guest: Type.Optional(described(role, 'Limit of each address without credentials; `roles.guest` if not given.')),
    default: Type.Optional(described(role, 'Limit of each caller whom nothing else names.')),
    ip: Type.Optional(described(rate, 'Limit of each address, before credentials are looked at.')),
    windowMs: Type.Integer({
      description: 'The window of plain numbers, in milliseconds.',
      default: 60000,
      minimum: 1
    }),
    algorithm: oneOf(['token_bucket', 'sliding_window', 'fixed_window'], {
      description: 'How plain numbers are counted.',
      default: 'sliding_window'
    }),
    prefix: Type.String({ description: 'What all keys in the store begin with.', default: 'rl:' }),
    headers: oneOf(HEADERS, { description: '`RateLimit-*`, `X-RateLimit-*`, both or none.', default: 'standard' }),
    standardHeaders: Type.Optional(Type.Boolean({ description: 'Another word for `headers: standard`.' })),
    legacyHeaders: Type.Optional(Type.Boolean({ description: 'Another word for `headers: legacy`.' })),
    message: Type.Optional(
      Type.Object(
        {
          code: Type.Optional(
            Type.String({ description: 'Code of the refusal, in the formats that have codes of their own.' })
          ),
          message: Type.Optional(Type.String({ description: 'Message of the refusal.' }))
        },
        { description: 'What a refused caller is told.' }
      )
    ),
    slow_down: duration({
      description: 'Makes callers who have used 90 % of a limit wait, for this long at the end; 0 for no wait.',
      default: '0s'
    }),
    abuse: Type.Optional(abuse),
    on_limit: oneOf(ON_LIMIT, { description: ON_LIMIT_NOTE, default: 'reject' }),
    max_queue: Type.Integer({ ...MAX_QUEUE, default: 10 }),
    max_wait: duration({ description: MAX_WAIT, default: '1s', positive: true }),
    on_store_error: oneOf(['local', 'allow', 'deny'], {
      description:
        'While the store is out of reach: count here against this gateway’s share, let everything through, or nothing.',
      default: 'local'
    }),
    lease: Type.Boolean({
      description:
        'Take tokens of busy limits from the store in batches. Spares round trips; the limit is never exceeded, and may be reached a little early.',
      default: true
    })
  },
  { description: 'Limits on how much may be asked.', default: {} }
)

export type RateLimitsSettings = Static<typeof rateLimitsSchema>
export type HeaderStyle = (typeof HEADERS)[number]

const SECOND = 1000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

/**
 * The limits that a rate means, the shortest window first. Counters count whole requests: one in two seconds is what half a
 * request in a second means. @param name what they are called.
 */
export function limitsOf(name: string, settings: RateSettings): Limit[] {
  const windows: [number | null | undefined, number][] = [
    [settings.requests_per_second, SECOND],
    [settings.requests_per_minute, MINUTE],
    [settings.requests_per_hour, HOUR]
  ]
  const limits: Limit[] = []
  for (const [requests, windowMs] of windows) {
    if (requests === undefined || requests === null) continue
    const first = limits.length === 0
    const algorithm = settings.algorithm ?? (first && settings.burst !== undefined ? 'token_bucket' : 'sliding_window')
    if (algorithm === 'token_bucket') {
      const burst = settings.burst ?? Math.max(1, Math.ceil(requests))
      limits.push(freeze({ name, algorithm, limit: requests, windowMs, burst }))
      continue
    }
    const limit = Math.max(1, Math.floor(requests))
    const burst = settings.burst_size ?? settings.burst ?? limit
    limits.push(freeze({ name, algorithm, limit, windowMs: requests < 1 ? windowMs / requests : windowMs, burst }))
  }
  if (settings.daily_limit)
    limits.push(
      freeze({
        name,
        algorithm: 'fixed_window',
        limit: settings.daily_limit,
        windowMs: DAY,
        burst: settings.daily_limit
      })
    )
  return limits
}

function freeze(limit: Limit): Limit {
  return Object.freeze(limit)
}

/** How callers are treated who do not keep to their limits. */
export interface AbuseConfig {
  readonly refusals: number
  readonly windowMs: number
  readonly decayMs: number
  /** 0 for never. */
  readonly blockMs: number
  /** Addresses and ranges. */
  readonly neverBlock: readonly string[]
}

/** Undefined for no such thing. */
export function abuseOf({ abuse: settings }: Pick<RateLimitsSettings, 'abuse'>): AbuseConfig | undefined {
  if (settings === undefined || settings === false) return undefined
  const { refusals, window: windowMs, decay: decayMs, block: blockMs, never_block: neverBlock } = settings
  return { refusals, windowMs, decayMs, blockMs, neverBlock }
}
