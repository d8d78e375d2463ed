import { refuse } from '../src/errors.ts'
import { capacityOf, type Limit } from '../src/limits/limit.ts'
import { addressPlanOf, LimitPlan, type OwnLimit, type Plan } from '../src/limits/plan.ts'
import { LimitQueue } from '../src/limits/queue.ts'
import { type HeaderStyle, limitsOf, QUEUEING, RATE, type RateLimitsSettings } from '../src/limits/settings.ts'
import { definePolicy } from '../src/policy.ts'
import type { Exchange } from '../src/proxy/exchange.ts'
import { OWNS } from '../src/proxy/headers.ts'
import { oncePer } from '../src/runtime/once-per.ts'
import type { Runtime } from '../src/runtime/runtime.ts'
import { oneOf, Type } from '../src/schema.ts'
import type { Decision, LimitRequest } from '../src/store/store.ts'

type Done = (error?: Error) => void

/** How callers are told where they stand, and what becomes of those who have reached a limit. */
interface Manner {
  readonly style: HeaderStyle
  /** Longest wait of those who are about to reach a limit, in milliseconds; 0 for none. */
  readonly slowDownMs: number
  readonly queue: LimitQueue | undefined
  readonly runtime: Runtime
}

/** Holds callers to all limits of a route at once, after it is known who they are (RLM-02). */
export default definePolicy({
  name: 'rate_limit',
  schema: Type.Object(
    {
      ...RATE,
      ...QUEUEING,
      by: oneOf(['consumer', 'ip', 'route'], {
        description: 'Whether to count each caller, each address, or all requests together.',
        default: 'consumer'
      }),
      headers: Type.Optional(
        oneOf(['standard', 'legacy', 'both', 'none'], { description: '`RateLimit-*`, `X-RateLimit-*`, both or none.' })
      )
    },
    {
      description: 'A limit of the route’s own, besides those under `rate_limits`. `false` exempts it from all limits.'
    }
  ),
  /** The limits under `rate_limits` hold for routes that have none of their own. */
  defaultOptions: () => ({}),
  compile(options, { route, scope, snapshot, runtime }) {
    const limits = limitsOf('route', options)
    const own: OwnLimit | undefined =
      limits.length === 0 ? undefined : { limits, by: options.by, scope: `route:${scope}` }
    const terms = snapshot.rateLimits
    const plan = new LimitPlan(terms, route, own)
    if (plan.empty) return undefined
    const { store, suspects } = runtime
    const most = options.max_queue ?? terms.max_queue
    const maxWaitMs = options.max_wait ?? terms.max_wait
    const queues = (options.on_limit ?? terms.on_limit) === 'queue'
    const queue = queues ? new LimitQueue({ most, maxWaitMs }, { ...runtime, terms }) : undefined
    const manner = { style: options.headers ?? headerStyle(terms), slowDownMs: terms.slow_down, queue, runtime }
    const silence: Manner = { style: 'none', slowDownMs: 0, queue, runtime }

    return {
      onRequest(request, _reply, done) {
        const { exchange } = request
        const clientId = exchange.peer.trusted ? exchange.clientId : ''
        const its = plan.for(exchange.consumer, exchange.client, clientId)
        const requests = suspects.limitsFor(its)
        if (requests.length === 0) return done()
        const how = its.silent ? silence : manner
        if (queue?.has(requests)) return decided(undefined, requests, its, exchange, how, done)
        const decision = store.decide(requests, terms)
        if (decision instanceof Promise) decision.then(late => decided(late, requests, its, exchange, how, done), done)
        else decided(decision, requests, its, exchange, how, done)
      }
    }
  }
})

/** A guard by address, before anybody's credentials are looked at: `rate_limits.ip`. */
export const preLimit = definePolicy({
  name: 'pre_limit',
  schema: Type.Object({}, { description: 'Internal: the limit of each address.' }),
  defaultOptions: ({ rateLimits }) => (rateLimits.ip === undefined ? undefined : {}),
  compile(_options, { snapshot, runtime }) {
    const terms = snapshot.rateLimits
    const plan = addressPlanOf(terms)
    const manner: Manner = { style: headerStyle(terms), slowDownMs: 0, queue: undefined, runtime }
    const { store, suspects } = runtime
    return {
      onRequest(request, _reply, done) {
        const { exchange } = request
        const its = plan.for(exchange.client)
        const decision = store.decide(suspects.limitsFor(its), terms)
        if (decision instanceof Promise) decision.then(late => settlePre(late, its, exchange, manner, done), done)
        else settlePre(decision, its, exchange, manner, done)
      }
    }
  }
})

/** The guard is no business of those whom it lets through. */
function settlePre(decision: Decision, plan: Plan, exchange: Exchange, manner: Manner, done: Done): void {
  if (decision.allowed) done()
  else settle(decision, plan, exchange, manner, done)
}

/** Settles what the limits have said, unless the request may wait. @param decision undefined if others wait already */
function decided(
  decision: Decision | undefined,
  requests: readonly LimitRequest[],
  plan: Plan,
  exchange: Exchange,
  manner: Manner,
  done: Done
): void {
  const { queue } = manner
  if (decision?.allowed || queue === undefined) return settle(decision as Decision, plan, exchange, manner, done)
  const leave = queue.join(requests, decision, {
    settled: late => {
      exchange.onGone = undefined
      settle(late, plan, exchange, manner, done)
    },
    failed: done
  })
  if (leave !== undefined) exchange.onGone = { gone: leave }
  else settle(decision ?? (queue.refusalFor(requests) as Decision), plan, exchange, manner, done)
}

function settle(decision: Decision, plan: Plan, exchange: Exchange, manner: Manner, done: Done): void {
  const { allowed, tightest } = decision
  if (tightest === undefined) return done(allowed ? undefined : STORE_LOST)
  if (manner.style !== 'none') describe(decision, tightest, exchange, manner.style)
  if (allowed) {
    const used = 1 - decision.remaining / capacityOf(tightest)
    if (used < WARN_FROM || manner.style === 'none') return done()
    exchange.fields.push('x-ratelimit-warning', `${Math.floor(used * 100)}% used`)
    if (used <= WAIT_FROM || manner.slowDownMs === 0) done()
    else slowDown(used, exchange, manner.slowDownMs, done)
    return
  }
  const { metrics, suspects } = manner.runtime
  metrics.rateLimitHits.inc({ limit: tightest.name, endpoint: exchange.route?.label ?? '' })
  suspects.refused(plan, exchange.client)
  const seconds = Math.max(1, Math.ceil(decision.retryMs / 1000))
  done(
    refuse('rate_limit_exceeded', {
      details: `The limit is ${tightest.limit} requests per ${inWords(tightest.windowMs)}; try again in ${seconds} s.`,
      reason: `rate limit ${tightest.name} ${tightest.limit}/${inWords(tightest.windowMs)}`,
      headers: ['retry-after', String(seconds)]
    })
  )
}

/** Shares of a limit from which a caller is warned, and from which he has to wait (RLM-18). */
const WARN_FROM = 0.8
const WAIT_FROM = 0.9

/** Makes the caller wait, for longer and longer. @param used share of the limit, up to 1 */
function slowDown(used: number, exchange: Exchange, mostMs: number, done: Done): void {
  const timer = setTimeout(done, (mostMs * (used - WAIT_FROM)) / (1 - WAIT_FROM))
  exchange.onGone = { gone: () => clearTimeout(timer) }
}

/** The caller has done nothing wrong, and the gateway has been told to let nobody through unseen: `on_store_error: deny`. */
const STORE_LOST = refuse('service_unavailable', { reason: 'store lost', headers: ['retry-after', '1'] })

/** Fields of draft-ietf-httpapi-ratelimit-headers (all of them structured, RFC 9651), or their predecessors (C-08). */
function describe(decision: Decision, tightest: Limit, exchange: Exchange, style: HeaderStyle): void {
  const remaining = String(decision.remaining)
  const reset = String(Math.ceil(decision.resetMs / 1000))
  exchange.owns |= OWNS.RATE_LIMIT
  if (style !== 'legacy') {
    exchange.fields.push(
      'ratelimit-limit',
      String(capacityOf(tightest)),
      'ratelimit-remaining',
      remaining,
      'ratelimit-reset',
      reset,
      'ratelimit-policy',
      policyOf(tightest)
    )
  }
  if (style !== 'standard')
    exchange.fields.push(
      'x-ratelimit-limit',
      String(capacityOf(tightest)),
      'x-ratelimit-remaining',
      remaining,
      'x-ratelimit-reset',
      reset
    )
}

/** `60;w=60`, with the burst of a bucket behind it; the same string for as long as the limit is. */
const policyOf = oncePer(({ algorithm, limit, windowMs, burst }: Limit): string => {
  const requests = Math.max(1, Math.round(limit))
  const seconds = Math.max(1, Math.round((windowMs * Math.max(1, 1 / limit)) / 1000))
  return `${requests};w=${seconds}${algorithm === 'token_bucket' ? `;burst=${burst}` : ''}`
})

function inWords(windowMs: number): string {
  return { 1000: 'second', 60000: 'minute', 3600000: 'hour', 86400000: 'day' }[windowMs] ?? `${windowMs / 1000} s`
}

function headerStyle(settings: RateLimitsSettings): HeaderStyle {
  if (settings.standardHeaders === undefined && settings.legacyHeaders === undefined) return settings.headers
  const standard = settings.standardHeaders ?? true
  const legacy = settings.legacyHeaders ?? false
  return standard ? (legacy ? 'both' : 'standard') : legacy ? 'legacy' : 'none'
}
