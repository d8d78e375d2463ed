import type { SelectionConfig } from './balancing-settings.ts'
import type { Instance } from './instance.ts'

/** While instances start slowly their weights are worked out so many times on the way. */
const RAMP_STEPS = 20
/** The least part of its weight that an instance has while it starts: somebody has to find out how it does. */
const LEAST_RAMP = 0.05

export interface Selection {
  /** Those that may be asked; none when all are out. */
  readonly instances: readonly Instance[]
  /** Monotonic time from which on the answer may be another one, if nothing happens before. */
  readonly until: number
}

/**
 * Who of a service's instances may be asked at `now`.
 *
 * Out are those that health checks or their own traffic speak against. With too few others the judgement is not trusted: all are
 * asked (panic). Those at whose address nobody has answered just now, whose breaker is open, or that
 * have never been checked, are asked when there is nobody else. So are, last of all, those that are ejected: their traffic has made
 * them suspects, and a suspect is better than nobody. Of what is left the gateway's own zone goes first, if enough of it is left;
 * weight 0 goes last.
 */
export function selectCandidates(
  instances: readonly Instance[],
  { panicPercent, zone, zonePercent, slowStartMs }: SelectionConfig,
  now: number
): Selection {
  let until = Number.POSITIVE_INFINITY
  for (const instance of instances) {
    if (instance.downUntil > now) until = Math.min(until, instance.downUntil)
    if (instance.ejectedUntil > now) until = Math.min(until, instance.ejectedUntil)
    if (slowStartMs > 0) until = Math.min(until, ramp(instance, slowStartMs, now))
  }
  const fit = instances.filter(instance => !isOut(instance, now))
  if (fit.length * 100 < instances.length * panicPercent) return { instances: weighty(instances), until }
  if (fit.length === 0) return { instances: weighty(instances.filter(({ unhealthy }) => !unhealthy)), until }
  const ready = fit.filter(({ downUntil, untested }) => downUntil <= now && !untested)
  return { instances: weighty(ready.length === 0 ? fit : near(ready, instances, zone, zonePercent)), until }
}

/** Whether something speaks against an instance that is more than a connection that has failed just now. */
export function isOut({ unhealthy, ejectedUntil }: Instance, now: number): boolean {
  return unhealthy || ejectedUntil > now
}

/** Sets what part of its weight an instance has by now. @returns when that is another one */
function ramp(instance: Instance, slowStartMs: number, now: number): number {
  const progress = (now - instance.startedAt) / slowStartMs
  instance.ramp = Math.min(1, Math.max(LEAST_RAMP, progress))
  return instance.ramp === 1 ? Number.POSITIVE_INFINITY : now + slowStartMs / RAMP_STEPS
}

/** Those of `zone`, if as much of what the zone has may be asked as is wanted; else all of `ready`. */
function near(
  ready: readonly Instance[],
  all: readonly Instance[],
  zone: string | undefined,
  percent: number | undefined
): readonly Instance[] {
  if (zone === undefined || percent === undefined) return ready
  const here = ready.filter(instance => instance.zone === zone)
  const capacity = weightOf(here)
  const whole = weightOf(all.filter(instance => instance.zone === zone))
  return capacity > 0 && capacity * 100 >= whole * percent ? here : ready
}

function weightOf(instances: readonly Instance[]): number {
  return instances.reduce((sum, { weight }) => sum + weight, 0)
}

/** Those of weight 0 get nothing, unless there is nobody else. Always another list: balancers tell by that. */
function weighty(instances: readonly Instance[]): readonly Instance[] {
  const some = instances.filter(({ weight }) => weight > 0)
  return some.length === 0 ? [...instances] : some
}
