import { duration, oneOf, type Static, Type } from '../schema.ts'
import type { BreakerConfig } from './breaker.ts'

/** What shares a breaker (RES-03, RES-09). */
const SCOPES = ['service', 'route', 'endpoint', 'instance'] as const
export type BreakerScope = (typeof SCOPES)[number]

const share = (description: string, more: object) =>
  Type.Number({ description, exclusiveMinimum: 0, maximum: 1, ...more })

/** `circuit_breaker:`, under `defaults`, a service or a route (RES-02, RES-08, C-17). */
export const circuitBreaker = Type.Union(
  [
    Type.Literal(false),
    Type.Object({
      failure_threshold: Type.Integer({
        description: 'Failures in a row that open it; 0 for none.',
        default: 5,
        minimum: 0
      }),
      recovery_timeout: duration({
        description: 'How long it stays open before it lets single requests try.',
        default: '60s',
        positive: true
      }),
      success_threshold: Type.Integer({
        description: 'Of those, successes in a row that close it again.',
        default: 3,
        minimum: 1
      }),
      per: Type.Optional(
        oneOf(SCOPES, {
          description:
            'What has a breaker of its own: each service, route, endpoint (a route’s method) or instance. The route, where it stands on one; else the service.'
        })
      ),
      failure_statuses: Type.Array(Type.Integer({ minimum: 500, maximum: 599 }), {
        description: 'Answers that count as failures.',
        default: [500, 502, 503, 504]
      }),
      window: duration({
        description: 'How far back the next four look.',
        default: '10s',
        positive: true
      }),
      minimum_calls: Type.Integer({
        description: 'Requests in the window from which their shares say something.',
        default: 20,
        minimum: 1
      }),
      error_rate: Type.Optional(share('Share of failures in the window that opens it, up to 1.', {})),
      slow_call: Type.Optional(
        duration({ description: 'A request that waits so long for the head of its answer is slow.', positive: true })
      ),
      slow_rate: share('Share of slow requests in the window that opens it, up to 1.', { default: 0.5 }),
      gradual_recovery: Type.Boolean({
        description: 'Once closed again, let 10, 25 and 50 % of the requests through before all.',
        default: false
      }),
      adaptive: Type.Boolean({
        description: 'Open when far more requests fail than is usual here; `error_rate` counts until that is known.',
        default: false
      }),
      predictive: Type.Boolean({
        description: 'Open early when waiting times or failures rise towards `slow_call` or `error_rate`.',
        default: false
      }),
      depends_on: Type.Array(Type.String(), {
        description: 'Services without which this one is of no use: it is open for as long as the breaker of one is.',
        default: []
      }),
      shared: Type.Boolean({
        description: 'Open it on all gateways of one Redis when it opens on one.',
        default: false
      })
    })
  ],
  { description: 'Keeps requests from what fails. Off unless given.' }
)

type Settings = Static<typeof circuitBreaker>

/** A breaker as a route asks for it. */
export interface BreakerUse extends BreakerConfig {
  readonly per: BreakerScope
  readonly dependsOn: readonly string[]
  readonly shared: boolean
}

/** @param own whether they stand on the route itself */
export function breakerUse(settings: Settings | undefined, own: boolean): BreakerUse | undefined {
  if (settings === undefined || settings === false) return undefined
  return {
    failureThreshold: settings.failure_threshold,
    recoveryMs: settings.recovery_timeout,
    successThreshold: settings.success_threshold,
    failureStatuses: settings.failure_statuses,
    windowMs: settings.window,
    minimumCalls: settings.minimum_calls,
    errorRate: settings.error_rate ?? 0,
    slowMs: settings.slow_call ?? 0,
    slowRate: settings.slow_rate,
    gradual: settings.gradual_recovery,
    adaptive: settings.adaptive,
    predictive: settings.predictive,
    per: settings.per ?? (own ? 'route' : 'service'),
    dependsOn: settings.depends_on,
    shared: settings.shared
  }
}

/** What of a breaker contradicts itself: the key, and what is wrong with it. */
export function breakerTrouble(settings: Settings | undefined): [key: string, message: string][] {
  if (settings === undefined || settings === false) return []
  const { failure_threshold, error_rate, slow_call, adaptive, predictive } = settings
  const measured = error_rate !== undefined || slow_call !== undefined
  const trouble: [string, string][] = []
  if (failure_threshold === 0 && !measured && !adaptive)
    trouble.push(['failure_threshold', 'is 0 and nothing else opens the breaker: give "error_rate" or "slow_call"'])
  if (predictive && !measured) trouble.push(['predictive', 'needs "error_rate" or "slow_call" to look towards'])
  return trouble
}

export type BreakerSettings = Settings
