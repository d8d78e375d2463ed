import { type GatewayError, refuse } from '../errors.ts'
import type { Exchange } from '../proxy/exchange.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Breaker, Permit } from './breaker.ts'
import type { BreakerSet } from './breakers.ts'
import type { Instance } from './instance.ts'
import type { Target } from './target.ts'

/** Where a try goes, and the breaker that has let it through; or has not, if the permit is 0. */
export interface Admission {
  readonly instance: Instance
  readonly breaker: Breaker
  readonly permit: Permit
}

/** How long an instance is left out whose breaker has a probe under way, in milliseconds. */
const PROBING_MS = 100

/**
 * Picks an instance whose breaker lets a try through: with breakers of their own the others are asked where one is open.
 * @param after where the request has been already
 * @returns undefined if there is no instance at all
 */
export function admit(
  target: Target,
  breakers: BreakerSet,
  exchange: Exchange,
  clock: Clock,
  after?: Instance
): Admission | undefined {
  const { service, balancer } = target
  let instance = service.pick(balancer, exchange, after)
  if (instance === undefined) return undefined
  let breaker = breakers.of(exchange, instance, service)
  let permit = breaker.enter()
  if (!breakers.perInstance) return { instance, breaker, permit }
  for (let left = service.instances.length; permit === 0 && left > 1; left--) {
    instance.downUntil = clock.monotonic() + Math.max(breaker.retryAfterMs, PROBING_MS)
    service.reconsider()
    instance = service.pick(balancer, exchange, instance) ?? instance
    breaker = breakers.of(exchange, instance, service)
    permit = breaker.enter()
  }
  return { instance, breaker, permit }
}

/** The refusal of a breaker that has not let a call through (RES-07). */
export function breakerOpen(breaker: Breaker): GatewayError {
  const seconds = Math.max(1, Math.ceil(breaker.retryAfterMs / 1000))
  return refuse('service_unavailable', { reason: reasonOf(breaker), headers: ['retry-after', String(seconds)] })
}

function reasonOf({ state, reason, recoveringPercent }: Breaker): string {
  if (state === 'half_open') return 'breaker half-open: a probe is under way'
  if (recoveringPercent !== undefined) return `breaker recovering: ${recoveringPercent} % pass`
  return `breaker open: ${reason}`
}
