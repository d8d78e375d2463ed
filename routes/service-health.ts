import type { Snapshot } from '../src/config/snapshot.ts'
import type { Runtime } from '../src/runtime/runtime.ts'
import { oneOf, type TSchema, Type } from '../src/schema.ts'
import type { InstanceHealth } from '../src/upstream/health.ts'

const orNull = (type: object, description: string, example: unknown) =>
  Type.Union([type as TSchema, Type.Null()], { description, examples: [example] })

/** Schema of what {@link healthOf} says. */
export const serviceHealth = Type.Object({
  service: Type.String({ description: 'Its name.', examples: ['orders'] }),
  status: oneOf(['healthy', 'degraded', 'unhealthy', 'unknown'], {
    description: 'All instances are well, some, none; or nobody has asked.'
  }),
  instances: Type.Array(
    Type.Object({
      id: Type.String({ description: 'Its id.', examples: ['0'] }),
      url: Type.String({ description: 'Its address.', examples: ['http://orders:8080'] }),
      healthy: orNull({ type: 'boolean' }, 'Whether it was well when it was asked last.', true),
      last_health_check: orNull({ type: 'string', format: 'date-time' }, 'When that was.', '2026-01-01T12:00:00.000Z'),
      response_time_ms: orNull({ type: 'number' }, 'How long it took to answer, in milliseconds.', 1.4),
      status_code: orNull({ type: 'integer' }, 'What it answered.', 200),
      error: orNull({ type: 'string' }, 'Why it did not.', 'ECONNREFUSED')
    }),
    { description: 'All of them; none while it is not served here.' }
  )
})

/**
 * How a service is (REG-03, REG-07): as it was when it was asked last, or now.
 * @param now whether to ask; who has never been asked is asked anyway
 */
export async function healthOf(
  name: string,
  { snapshot, runtime }: { snapshot: Snapshot; runtime: Runtime },
  now: boolean
) {
  const [service, how] = [snapshot.services.get(name), snapshot.healthChecks.get(name)]
  // It has no routes here, so it is not asked either.
  if (service === undefined || how === undefined) return { service: name, status: 'unknown', instances: [] }
  const known = runtime.health.known(service)
  const ask = now || known.every(({ healthy }) => healthy === null)
  const instances = ask ? await runtime.health.check(service, how) : known
  runtime.health.keep(snapshot.services)
  return { service: name, status: statusOf(instances), instances: instances.map(publicHealth) }
}

/** What is known of an instance (REG-11). */
export function publicHealth({ checkedAt, tookMs, status, ...health }: InstanceHealth) {
  return {
    ...health,
    last_health_check: checkedAt === null ? null : new Date(checkedAt).toISOString(),
    response_time_ms: tookMs,
    status_code: status
  }
}

function statusOf(instances: readonly InstanceHealth[]): string {
  const well = instances.filter(({ healthy }) => healthy).length
  if (well === instances.length) return 'healthy'
  if (well > 0) return 'degraded'
  return instances.some(({ healthy }) => healthy === false) ? 'unhealthy' : 'unknown'
}
