import { dirname, resolve } from 'node:path'
import type { BatchSettings } from '../batch/settings.ts'
import type { IdentitySettings } from '../identity/settings.ts'
import type { RateLimitsSettings } from '../limits/settings.ts'
import type { ConcurrencySettings, OverloadSettings } from '../overload/settings.ts'
import { type Networks, networksOf } from '../registry/networks.ts'
import type { GeoSettings } from '../releases/geo.ts'
import { RegexError } from '../routing/conditions.ts'
import { PatternError } from '../routing/pattern.ts'
import type { TObject } from '../schema.ts'
import type { BalancerKeys } from '../upstream/balancing-settings.ts'
import type { BreakerSettings } from '../upstream/breaker-settings.ts'
import type { FallbackConfig, FallbackSettings } from '../upstream/fallback-settings.ts'
import type { HealthCheckSettings, OutlierSettings } from '../upstream/health/settings.ts'
import type { ServiceConfig } from '../upstream/service.ts'
import type { SourceDocument } from './document.ts'
import { locate, type Path, type Position, placeOf } from './located.ts'
import type { Problems } from './problem.ts'
import type {
  GatewaySettings,
  LoggingSettings,
  MetricsSettings,
  PathSettings,
  PluginSettings,
  RecordingSettings,
  RegistrySettings,
  RetrySettings,
  RouteSettings,
  ServerSettings,
  ServiceSettings,
  StorageSettings,
  VersioningSettings
} from './schema.ts'
import type { RouteConfig } from './snapshot.ts'
import { printOf } from './watch.ts'

/** What the rest of the gateway brings to the configuration's language. */
export interface Dialect {
  readonly schema: TObject
  /** The keys of concerns, which may stand under `defaults`, a service or a route. */
  readonly concerns: readonly string[]
}

/** A document with all of its defaults. */
export interface Settled {
  gateway: GatewaySettings
  server: ServerSettings
  storage: StorageSettings
  identity: IdentitySettings
  logging: LoggingSettings
  recording: RecordingSettings
  metrics: MetricsSettings
  paths: PathSettings
  admin: { listen?: string }
  enabled: boolean
  catch_all: boolean
  registry: RegistrySettings
  batch: BatchSettings
  versioning: VersioningSettings
  geo: GeoSettings
  defaults: Block
  services: Record<string, ServiceSettings & Block>
  routes: (RouteSettings & Block)[]
  rate_limits: RateLimitsSettings
  overload: OverloadSettings
  plugins: PluginSettings[]
  service_discovery_url?: string
  service_config_url?: string
  consul_url?: string
}

/** The keys that may stand at every level. */
export type Block = Record<string, unknown> &
  BalancerKeys & {
    timeout?: number
    timeouts?: false | { connect?: number; first_byte?: number; write?: number; idle?: number; total?: number }
    retry?: RetrySettings
    circuit_breaker?: BreakerSettings
    fallback?: FallbackSettings
    hedge?: false | number
    concurrency?: ConcurrencySettings
    health_check?: HealthCheckSettings
    health_check_interval?: number
    outlier_detection?: OutlierSettings
    plugins?: Record<string, unknown>
  }

/** From the most specific level to the least: its settings, its name, and where it stands. */
export type Levels = readonly (readonly [settings: Block, scope: string, path: Path])[]

/**
 * A configuration in the making: what its documents say, checked and completed, and what has been made of it so far. The files
 * beside this one each make their part of the snapshot of it.
 */
export class Draft {
  readonly source: SourceDocument
  readonly document: Record<string, unknown>
  readonly settled: Settled
  readonly dialect: Dialect
  readonly problems: Problems
  readonly services = new Map<string, ServiceConfig>()
  readonly routes: { route: RouteConfig; path: Path }[] = []
  /** By the settings that they are made of, whose file is read but once. */
  readonly fallbacks = new Map<FallbackSettings, FallbackConfig>()
  /** Where registered services may be. */
  networks: Networks = networksOf([])
  /** Whether there are accounts. */
  local = false

  constructor(source: SourceDocument, settled: Settled, dialect: Dialect, problems: Problems) {
    this.source = source
    this.document = source.document
    this.settled = settled
    this.dialect = dialect
    this.problems = problems
  }

  /**
   * Where a file is that a setting names, watched from now on: meant from the file that the setting stands in, or from the
   * working folder if a variable or the command line says it.
   */
  file(name: string, path: Path): string {
    const { place } = locate(this.document, path)
    const written = place !== undefined && place.value.line > 0 && place.env === undefined
    const file = written ? resolve(dirname(place.value.file), name) : resolve(name)
    this.source.seen.set(file, printOf(file))
    return file
  }

  /** What `make` makes; undefined, and a problem at `path`, for a pattern or an expression that is none. */
  attempt<T>(make: () => T, path: Path): T | undefined {
    try {
      return make()
    } catch (error) {
      if (!(error instanceof PatternError || error instanceof RegexError)) throw error
      this.problems.add(path, error.message)
      return undefined
    }
  }

  /** The path to an entry of what may be a list or a lone value. */
  item(path: Path, i: number): Path {
    const value = path.reduce<unknown>((container, key) => (container as Record<string, unknown>)?.[key], this.document)
    return Array.isArray(value) ? [...path, i] : path
  }

  /** Where `path` stands in its file, as nearly as that is known. */
  positionOf(path: Path): Position | undefined {
    let container: unknown = this.document
    let position: Position | undefined
    for (const key of path) {
      position = placeOf(container, key)?.key ?? position
      container =
        typeof container === 'object' && container !== null
          ? (container as Record<string | number, unknown>)[key]
          : undefined
    }
    return position
  }
}
