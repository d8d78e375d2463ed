import type { Arm } from '../releases/canary.ts'
import type { ServiceSeries } from '../telemetry/metrics.ts'
import type { Balancer } from './balancers/balancer.ts'
import type { BreakerSet } from './breakers.ts'
import type { Service } from './service.ts'

/** A service as a route reaches it. */
export interface Target {
  readonly service: Service
  readonly balancer: Balancer
  /** What keeps requests from it while it fails; undefined where nothing does. */
  readonly breakers: BreakerSet | undefined
  readonly series: ServiceSeries
  /** Told what tries have come to, where the service is one of two that are held against each other. */
  readonly arm: Arm | undefined
  /** `,"service":"…"`: its part of the access log's line. */
  readonly logFields: string
}
