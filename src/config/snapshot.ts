import type { BatchSettings } from '../batch/settings.ts'
import type { IdentitySettings } from '../identity/settings.ts'
import type { RateLimitsSettings } from '../limits/settings.ts'
import type { OverloadConfig } from '../overload/settings.ts'
import type { GeoConfig } from '../releases/geo.ts'
import type { MirrorConfig, Release } from '../releases/settings.ts'
import type { VersionSegment } from '../releases/versions.ts'
import type { Pattern } from '../routing/pattern.ts'
import type { RouteMatch } from '../routing/table.ts'
import type { BalancerConfig } from '../upstream/balancing-settings.ts'
import type { BreakerUse } from '../upstream/breaker-settings.ts'
import type { FallbackConfig } from '../upstream/fallback-settings.ts'
import type { RetryPolicy } from '../upstream/retry.ts'
import type { ServiceConfig } from '../upstream/service.ts'
import type { Position } from './located.ts'
import type { Problem } from './problem.ts'
import type {
  GatewaySettings,
  LoggingSettings,
  MetricsSettings,
  PathSettings,
  PluginSettings,
  RecordingSettings,
  RegistrySettings,
  ServerSettings,
  StorageSettings,
  VersioningSettings
} from './schema.ts'

/** Options of one concern of a route, and where they come from. */
export interface ConcernConfig {
  readonly options: unknown
  /** `defaults`, `services.orders` or the route's id: what a limit written there counts together. */
  readonly scope: string
  readonly at: Position | undefined
}

/** A route as the configuration has it, with everything decided that can be decided without a running gateway. */
export interface RouteConfig extends RouteMatch {
  /** The path as written; the label of metrics. */
  readonly label: string
  /** The service that it belongs to; with a `release`, the first of those that get its requests. */
  readonly service: string
  /** How it is decided where each request goes; undefined when there is nothing to decide. */
  readonly release: Release | undefined
  /** Who gets copies of its requests. */
  readonly mirror: MirrorConfig | undefined
  /** `service.endpoint`, for routes made from a service's endpoints. */
  readonly endpoint: string | undefined
  readonly enabled: boolean
  readonly rewrite: RewriteConfig | undefined
  /** Where requests say their version elsewhere: the segment that their path has left out, and is sent with. */
  readonly segment: (VersionSegment & { readonly whole: Pattern }) | undefined
  /** For a deprecated version: the segment that leads to the next one, in place of another or put in. */
  readonly successor: (VersionSegment & { readonly replaces: boolean }) | undefined
  readonly encodedSlash: boolean
  readonly websocket: boolean
  readonly timeoutMs: number
  readonly firstByteMs: number
  readonly writeMs: number
  readonly totalMs: number
  readonly retry: RetryPolicy
  readonly hedgeMs: number
  /** Which instance is asked, if it says so itself. */
  readonly balancer: BalancerConfig | undefined
  /** What it says itself of circuit breakers, which goes before what its service says; false for none. */
  readonly breaker: BreakerUse | false | undefined
  /** What is answered in place of a failure. */
  readonly fallback: FallbackConfig | undefined
  readonly concerns: Readonly<Record<string, ConcernConfig>>
  /** Concerns that somebody has switched off with `false`. */
  readonly off: readonly string[]
  readonly at: Position | undefined
}

/** How the path that is sent is made from the one that came. */
export type RewriteConfig =
  | { readonly kind: 'strip'; readonly segments: number }
  | { readonly kind: 'replace'; readonly template: string; readonly segments: number; readonly keepRest: boolean }

/** One valid configuration, frozen. Everything that a generation is built from. */
export interface Snapshot {
  /** Of the configuration's content: equal configurations have equal versions. */
  readonly version: string
  readonly gateway: GatewaySettings
  readonly server: ServerSettings
  readonly storage: StorageSettings
  readonly identity: IdentitySettings
  readonly logging: LoggingSettings
  readonly recording: RecordingSettings
  readonly metrics: MetricsSettings
  readonly paths: PathSettings
  readonly adminListen: string | undefined
  /** Who knows further services and routes. */
  readonly serviceConfigUrl: string | undefined
  readonly rateLimits: RateLimitsSettings
  /** When the process has too much to do; undefined for no shedding. */
  readonly overload: OverloadConfig | undefined
  readonly registry: RegistrySettings
  readonly batch: BatchSettings
  readonly versioning: VersioningSettings
  readonly geo: GeoConfig
  readonly services: ReadonlyMap<string, ServiceConfig>
  /** Circuit breakers of services, for routes that say nothing themselves, by the service's name. */
  readonly breakers: ReadonlyMap<string, BreakerUse>
  readonly routes: readonly RouteConfig[]
  /** Concerns under `defaults`, for requests that belong to no route. */
  readonly defaults: Readonly<Record<string, ConcernConfig>>
  readonly plugins: readonly PluginSettings[]
  /** The document in its canonical spelling, places and all; secrets included. */
  readonly document: Readonly<Record<string, unknown>>
  readonly warnings: readonly Problem[]
  /** The files it was read from. */
  readonly files: readonly string[]
}
