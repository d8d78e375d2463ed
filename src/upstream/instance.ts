import type { LookupFunction } from 'node:net'
import { lookupOf } from '../registry/networks.ts'
import type { Clock } from '../runtime/clock.ts'
import type { CheckResult } from './health/checker.ts'
import type { TrafficRecord } from './health/outliers.ts'
import { Pool } from './pool.ts'
import type { ServiceConfig } from './service.ts'

export interface InstanceConfig {
  readonly id: string
  /** Scheme, host, port and a base path that is put before every path. */
  readonly url: string
  /** Its share of the traffic, against the other instances’. */
  readonly weight: number
  /** Where connections go, if that is not for the name in the URL to say: discovery has asked for it already. */
  readonly address?: string
  /** Where it has to be, if not where its service has to. */
  readonly networks?: readonly string[]
  /** Where it is, for those who prefer what is near. */
  readonly zone?: string
}

/** `healthy` is everything against which nothing is known. */
export const STATES = ['healthy', 'unhealthy', 'ejected', 'unreachable', 'draining'] as const
export type InstanceState = (typeof STATES)[number]

/** One address of a service, and what is known of it. Instances come and go without a new configuration. */
export class Instance {
  readonly id: string
  readonly url: URL
  /** What comes before every path, without a trailing slash. */
  readonly basePath: string
  readonly pool: Pool
  weight: number
  /** What is left of its weight while it starts slowly: from nearly 0 up to 1, which it is from then on. */
  ramp = 1
  zone: string | undefined
  /** Where connections go; undefined leaves that to the name. */
  readonly lookup: LookupFunction | undefined
  /** Tries that are under way at it, WebSockets included. */
  active = 0
  /** Monotonic time until which it is left out while there are others, after nobody answered at its address. */
  downUntil = 0
  /** Nobody has answered at its address since somebody last did. */
  unreachable = false
  /** Monotonic time until which it is not asked, since too much of its traffic has failed. */
  ejectedUntil = 0
  /** Health checks say that it is not well. */
  unhealthy = false
  /** It has come while others were there, and its first health check is still to come. */
  untested = false
  /** What the last check found, whoever has made it. */
  lastCheck: CheckResult | undefined
  /** How its traffic does, where that is watched. */
  record: TrafficRecord | undefined
  /** Monotonic time since which it has been part of the traffic; -Infinity for always. */
  startedAt = Number.NEGATIVE_INFINITY
  /** How it is, since when (in milliseconds since 1970), and why. */
  state: InstanceState = 'healthy'
  since: number
  why = ''

  constructor(config: InstanceConfig, service: ServiceConfig, clock: Clock) {
    this.id = config.id
    this.since = clock.now()
    this.weight = config.weight
    this.zone = config.zone
    this.url = new URL(config.url)
    this.basePath = this.url.pathname.replace(/\/+$/, '')
    this.lookup = lookupOf({ address: config.address, networks: config.networks ?? service.networks })
    this.pool = new Pool(this.url.origin, { ...service.pool, tls: service.tls, lookup: this.lookup }, clock)
  }

  /** Its part of the traffic now, against the others’. Of weight 0 there are only some while there are none of more. */
  get share(): number {
    return (this.weight || 1) * this.ramp
  }
}
