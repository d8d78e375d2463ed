import type { Runtime } from '../runtime/runtime.ts'
import { type Family, family, type Sample } from '../telemetry/metrics.ts'
import type { Service } from '../upstream/service.ts'
import type { Bulkhead } from './bulkhead.ts'
import { PRIORITIES, type Priority } from './priority.ts'

/** What there is of all this for a registry. */
export function overloadFamilies({ services, overload, suspects, ipBlocks }: Runtime): Family[] {
  const limited = () => [...services.values()].filter(hasBulkhead)
  const gauge = (name: string, help: string, value: (bulkhead: Bulkhead) => number): Family =>
    family(name, help, 'gauge', () =>
      limited().map(({ name: service, bulkhead }) => ({ labels: { service }, value: value(bulkhead) }))
    )
  const own = (name: string, help: string, value: () => number | undefined): Family =>
    family(name, help, 'gauge', () =>
      [value()].flatMap(known => (known === undefined ? [] : { labels: {}, value: known }))
    )
  return [
    gauge('gateway_concurrency_limit', 'Requests that a service may have at once', ({ limit }) => limit),
    gauge('gateway_concurrency_in_use', 'Requests that a service has, where they are limited', ({ inside }) => inside),
    gauge(
      'gateway_queue_length',
      'Requests that wait for a service to have a place for them',
      ({ waiting }) => waiting
    ),
    family(
      'gateway_queue_wait_seconds',
      'How long requests have waited for a service to have a place for them',
      'histogram',
      () =>
        limited().flatMap(({ name: service, bulkhead }) =>
          bulkhead.waits.samples('gateway_queue_wait_seconds', { service })
        )
    ),
    family('gateway_shed_requests_total', 'Requests refused for want of capacity', 'counter', () =>
      [
        ...Object.entries(overload.shed).flatMap(([reason, counts]) => shed(counts, reason, '')),
        ...limited().flatMap(({ name: service, bulkhead }) =>
          Object.entries(bulkhead.refused).flatMap(([reason, counts]) => shed(counts, reason, service))
        )
      ].filter(({ value }) => value > 0)
    ),
    own('gateway_overloaded', 'Whether requests are shed', () => Number(overload.active)),
    own('gateway_memory_used_ratio', 'Share of the heap, or of the container’s memory', () => overload.used.memory),
    own('gateway_descriptors_used_ratio', 'Share of the file descriptors', () => overload.used.descriptors),
    own(
      'gateway_requests_in_flight',
      'Requests under way that the gateway’s own limit is about',
      () => overload.inside
    ),
    own('gateway_requests_limit', 'Requests that may be under way at once', () => overload.limit),
    own(
      'gateway_event_loop_delay_seconds',
      'How late the event loop was in the last tenth of a second',
      () => overload.delayMs / 1000
    ),
    own(
      'gateway_narrowed_callers',
      'Callers whose limits are halved since they do not keep to them',
      () => suspects.size
    ),
    own('gateway_ip_blocks', 'Addresses that are blocked for a while', () => ipBlocks.list().length),
    family('gateway_ip_block_refusals_total', 'Requests refused since their address is blocked', 'counter', () => [
      { labels: {}, value: ipBlocks.refusals }
    ])
  ]
}

function hasBulkhead(service: Service): service is Service & { readonly bulkhead: Bulkhead } {
  return service.bulkhead !== undefined
}

function shed(counts: readonly number[], reason: string, service: string): Sample[] {
  return counts.map((value, priority: Priority) => ({
    labels: { priority: PRIORITIES[priority] as string, reason, service },
    value
  }))
}
