import type { Runtime } from '../src/runtime/runtime.ts'
import { oneOf, type TSchema, Type } from '../src/schema.ts'
import { type Instance, STATES } from '../src/upstream/instance.ts'
import type { Service } from '../src/upstream/service.ts'

const orNull = (type: object, description: string, example: unknown) =>
  Type.Union([type as TSchema, Type.Null()], { description, examples: [example] })
const text = (description: string, example: string) => Type.String({ description, examples: [example] })

/** Schema of what {@link publicInstance} says. */
const instanceSchema = Type.Object({
  id: text('Its id.', '0'),
  url: text('Its address.', 'http://orders:8080'),
  weight: Type.Integer({ description: 'Its share of the traffic, against the others’.', examples: [1] }),
  zone: orNull({ type: 'string' }, 'Where it is.', 'eu-1a'),
  status: oneOf(STATES, {
    description:
      'Nothing is known against it; health checks, or its traffic, speak against it; nobody answers there; it has left and something is still under way.'
  }),
  since: Type.String({ description: 'Since when.', format: 'date-time', examples: ['2026-01-01T12:00:00.000Z'] }),
  reason: orNull({ type: 'string' }, 'Why.', 'status 503'),
  ejected_until: orNull({ type: 'string', format: 'date-time' }, 'Until when its traffic keeps it out.', null),
  slow_start: orNull({ type: 'number' }, 'The part of its weight that it has while it starts slowly.', 0.25),
  active_requests: Type.Integer({ description: 'What is under way at it, WebSockets included.', examples: [3] }),
  healthy: orNull({ type: 'boolean' }, 'Whether it is well; null while nobody knows.', true),
  last_health_check: orNull(
    { type: 'string', format: 'date-time' },
    'When it was checked.',
    '2026-01-01T12:00:00.000Z'
  ),
  checked_by: orNull({ type: 'string' }, 'Which gateway has asked.', 'x7f3a1c2'),
  response_time_ms: orNull({ type: 'number' }, 'How long it took to answer, in milliseconds.', 1.4),
  status_code: orNull({ type: 'integer' }, 'What it answered.', 200),
  error: orNull({ type: 'string' }, 'What was wrong with that.', 'ECONNREFUSED')
})

/** Schema of what {@link healthOf} says. */
export const serviceHealth = Type.Object({
  service: text('Its name.', 'orders'),
  status: oneOf(['healthy', 'degraded', 'unhealthy', 'unknown'], {
    description: 'All instances are well, some, none; or nobody has asked.'
  }),
  instances: Type.Array(instanceSchema, { description: 'All of them; none while it is not served here.' })
})

/**
 * How a service is (REG-03, REG-07, HLB-14): as it was when it was asked last, or now.
 * @param now whether to ask; who has never been asked is asked anyway
 */
export async function healthOf(name: string, runtime: Runtime, now: boolean) {
  const service = runtime.services.get(name)
  // It is not served here, so it is not asked either.
  if (service === undefined) return { service: name, status: 'unknown', instances: [] }
  if (now || service.instances.every(({ lastCheck }) => lastCheck === undefined)) await service.checkNow()
  return { service: name, status: statusOf(service), instances: publicInstances(service, runtime) }
}

/** What is known of a service's instances (REG-11), those included that have left and are not done. */
export function publicInstances(service: Service, runtime: Runtime) {
  service.refresh()
  return [...service.instances, ...service.leaving].map(instance => publicInstance(instance, runtime))
}

function publicInstance(instance: Instance, { clock }: Runtime) {
  const { id, url, weight, zone, state, since, why, ramp, active, lastCheck, ejectedUntil } = instance
  const ejectedMs = ejectedUntil - clock.monotonic()
  return {
    id,
    url: url.href.replace(/\/$/, ''),
    weight,
    zone: zone ?? null,
    status: state,
    since: timeOf(since),
    reason: why === '' ? null : why,
    ejected_until: ejectedMs > 0 ? timeOf(clock.now() + ejectedMs) : null,
    slow_start: ramp < 1 ? ramp : null,
    active_requests: active,
    healthy: isWell(instance),
    last_health_check: lastCheck === undefined ? null : timeOf(lastCheck.at),
    checked_by: lastCheck?.by ?? null,
    response_time_ms: lastCheck?.tookMs ?? null,
    status_code: lastCheck?.status ?? null,
    error: lastCheck?.error ?? null
  }
}

function timeOf(ms: number): string {
  return new Date(ms).toISOString()
}

/** The state if anything is the matter, else what has been checked; null when nobody knows. */
function isWell({ state, lastCheck }: Instance): boolean | null {
  if (state !== 'healthy' && state !== 'draining') return false
  return lastCheck?.healthy ?? null
}

/** How a service is, in a word. */
export function statusOf({ instances }: Service): 'healthy' | 'degraded' | 'unhealthy' | 'unknown' {
  const well = instances.filter(instance => isWell(instance)).length
  const unwell = instances.filter(instance => isWell(instance) === false).length
  if (unwell === 0) return well === 0 ? 'unknown' : 'healthy'
  return unwell < instances.length ? 'degraded' : 'unhealthy'
}
