import type { Clock } from '../runtime/clock.ts'
import { Pool } from './pool.ts'
import type { ServiceConfig } from './service.ts'

export interface InstanceConfig {
  readonly id: string
  /** Scheme, host, port and a base path that is put before every path. */
  readonly url: string
  /** Its share of the traffic, against the other instances’. */
  readonly weight: number
}

/** One address of a service, and what is known of it. Instances come and go without a new configuration. */
export class Instance {
  readonly id: string
  readonly url: URL
  /** What comes before every path, without a trailing slash. */
  readonly basePath: string
  readonly pool: Pool
  weight: number
  /** Tries that are under way at it, WebSockets included. */
  active = 0
  /** Monotonic time until which it is left out, after nobody answered at its address. */
  downUntil = 0

  constructor(config: InstanceConfig, service: ServiceConfig, clock: Clock) {
    this.id = config.id
    this.weight = config.weight
    this.url = new URL(config.url)
    this.basePath = this.url.pathname.replace(/\/+$/, '')
    this.pool = new Pool(this.url.origin, { ...service.pool, tls: service.tls, networks: service.networks }, clock)
  }
}
