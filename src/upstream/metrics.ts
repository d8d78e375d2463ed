import { type Family, family, type Sample } from '../telemetry/metrics.ts'
import { STATES } from './instance.ts'
import type { Service } from './service.ts'
import type { Services } from './services.ts'

/** What there is of instances for a registry (OBS-12). */
export function upstreamFamilies({ services }: { readonly services: Services }): Family[] {
  const each = (samples: (service: Service) => Sample[]) => () => [...services.values()].flatMap(samples)
  return [
    family(
      'gateway_service_instances',
      'Instances of services, by how they are',
      'gauge',
      each(service => {
        const counts = service.states()
        return STATES.map(state => ({ labels: { service: service.name, state }, value: counts[state] ?? 0 }))
      })
    ),
    family(
      'gateway_health_checks_total',
      'Health checks of instances, by what they found',
      'counter',
      each(({ checks }) => checks.samples())
    ),
    family(
      'gateway_instance_ejections_total',
      'Instances ejected since too much of their traffic failed',
      'counter',
      each(({ ejections }) => ejections.samples())
    )
  ]
}
