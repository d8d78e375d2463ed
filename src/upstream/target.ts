import type { ServiceSeries } from '../telemetry/metrics.ts'
import type { Balancer } from './balancers/balancer.ts'
import type { Service } from './service.ts'

/** A service as a route reaches it. */
export interface Target {
  readonly service: Service
  readonly balancer: Balancer
  readonly series: ServiceSeries
  /** `,"service":"…"`: its part of the access log's line. */
  readonly logFields: string
}
