import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import type { ConnectionOptions } from 'node:tls'
import type { BatchSettings } from '../batch/settings.ts'
import { obstacles } from '../cluster/shared.ts'
import {
  type DiscoveryConfig,
  type DiscoverySettings,
  defaultDiscovery,
  discoveryConfig,
  discoverySchema
} from '../discovery/settings.ts'
import { advisoriesOn, problemsOfClient } from '../identity/oauth2/clients.ts'
import type { RateLimitsSettings } from '../limits/settings.ts'
import {
  type ConcurrencyConfig,
  type ConcurrencySettings,
  concurrencyOf,
  type OverloadSettings,
  overloadOf
} from '../overload/settings.ts'
import { rangeFault } from '../proxy/peer.ts'
import { addressOf, isNetwork, NETWORK_WORDS, type Networks, networksOf } from '../registry/networks.ts'
import { fingerprintOf, type GeoConfig, type GeoSettings } from '../releases/geo.ts'
import {
  type CanaryRelease,
  canaryRelease,
  type MirrorConfig,
  type Release,
  servicesOf,
  troubleWith,
  troubleWithNames,
  type Variant,
  type VariantSettings
} from '../releases/settings.ts'
import { apiVersion, successorOf, type VersionForm, versionForms } from '../releases/versions.ts'
import { compileCondition, compileRegex, RegexError } from '../routing/conditions.ts'
import { covers, type Pattern, PatternError, parsePattern } from '../routing/pattern.ts'
import { matchKey, type RouteMatch } from '../routing/table.ts'
import { systemClock } from '../runtime/clock.ts'
import { http, tls } from '../runtime/node.ts'
import { Stretches } from '../runtime/stretches.ts'
import { type TObject, Type } from '../schema.ts'
import { parseRedisUrl } from '../store/redis-url.ts'
import {
  type BalancerConfig,
  type BalancerKeys,
  balancerOf,
  balancerTrouble,
  OF_THE_SERVICE,
  selectionOf
} from '../upstream/balancing-settings.ts'
import { type BreakerSettings, type BreakerUse, breakerTrouble, breakerUse } from '../upstream/breaker-settings.ts'
import {
  type FallbackConfig,
  type FallbackSettings,
  fallbackConfig,
  fallbackTrouble,
  LARGEST_FILE
} from '../upstream/fallback-settings.ts'

import {
  type HealthCheckSettings,
  healthCheckOf,
  type OutlierSettings,
  outliersOf
} from '../upstream/health/settings.ts'
import type { InstanceConfig } from '../upstream/instance.ts'
import { BUDGET, type Failure, IDEMPOTENT, type RetryPolicy } from '../upstream/retry.ts'
import type { ServiceConfig } from '../upstream/service.ts'
import { canonicalKeys, merge, outsideFiles, setAt } from './aliases.ts'
import { certificateTrouble } from './certificate.ts'
import { conflictInWords, conflictsAmong } from './conflicts.ts'
import { copyPlace, locate, type Path, type Position, placeOf } from './located.ts'
import { withoutCredentials } from './mask.ts'
import { ConfigError, inWords, type Problem, Problems, slipOf, suggestion, whereIs } from './problem.ts'
import type {
  GatewaySettings,
  IdentitySettings,
  LoggingSettings,
  MetricsSettings,
  OAuthClientSettings,
  OAuthSettings,
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
import type { ConcernConfig, RewriteConfig, RouteConfig, Snapshot } from './snapshot.ts'
import { applyEnvironment, doubtfulVariables, readVariables } from './sources/env.ts'
import { type Environment, readConfigFiles } from './sources/file.ts'
import { readVariablesAs, settle, validate } from './validate.ts'
import { printOf, type Seen } from './watch.ts'

/** Where a configuration comes from: files, then the environment over them, then the command line. */
export interface ConfigSources {
  readonly files: readonly string[]
  readonly env: Environment
  /** A file of further variables, which those of `env` win over. */
  readonly envFile?: string | undefined
  /** `['server.port', 9000, '--port']` */
  readonly overrides: readonly (readonly [path: string, value: unknown, source: string])[]
  /** What a program says itself, over the files. */
  readonly document?: Readonly<Record<string, unknown>> | undefined
}

/** What the rest of the gateway brings to the configuration's language. */
export interface Dialect {
  readonly schema: TObject
  /** The keys of concerns, which may stand under `defaults`, a service or a route. */
  readonly concerns: readonly string[]
}

/** A document in canonical spelling, and what it was read from. */
export interface SourceDocument {
  readonly document: Record<string, unknown>
  readonly files: readonly string[]
  /** Gets what is looked at beyond the document, as certificates are. */
  readonly seen: Seen
  /** What is wrong with, or doubtful about, the sources themselves. */
  readonly problems: readonly Problem[]
  /** The services that come from the registry: `registry.allow` is about these. */
  readonly registered?: ReadonlySet<string>
}

/**
 * Reads the files and the environment into one document.
 * @param seen gets what was looked at, whether it could be read or not
 * @throws {ConfigError}
 */
export async function readDocument(sources: ConfigSources, seen: Seen = new Map()): Promise<SourceDocument> {
  if (sources.envFile !== undefined) seen.set(resolve(sources.envFile), printOf(sources.envFile))
  const variables = readVariables(sources.env, sources.envFile)
  const { files, problems } = await readConfigFiles(sources.files, variables.values, seen)
  const document: Record<string, unknown> = {}
  for (const file of files) merge(document, canonicalKeys(file.data))
  if (sources.document !== undefined) merge(document, canonicalKeys(structuredClone(sources.document)))
  applyEnvironment(document, variables)
  for (const [path, value, source] of sources.overrides) setAt(document, path, value, outsideFiles(source))
  return {
    document,
    files: files.map(file => file.path),
    seen,
    problems: [...problems, ...doubtfulVariables(variables)]
  }
}

/** Checks and completes a document in canonical spelling. @throws {ConfigError} with every problem found */
export async function createSnapshot(source: SourceDocument, dialect: Dialect): Promise<Snapshot> {
  const { document } = source
  const stretches = new Stretches(systemClock)
  readVariablesAs(dialect.schema, document)
  const problems = new Problems(document)
  await stretches.next()
  validate(dialect.schema, document, problems)
  if (problems.failed)
    throw allOf(source, [...problems.list, ...(await furtherProblems(source, problems.paths, dialect))])
  await stretches.next()
  const settled = settle(dialect.schema, document) as unknown as Settled
  await stretches.next()
  const snapshot = await new Normaliser(source, settled, dialect, problems).snapshot()
  if (problems.failed || source.problems.some(isError)) throw allOf(source, problems.list)
  return snapshot
}

/** What was found, in the order of the files; without what follows from a variable that is not set. */
function allOf({ problems }: SourceDocument, found: readonly Problem[]): ConfigError {
  const errors = problems.filter(isError)
  const taken = new Set(errors.map(whereIs))
  const further = found.filter(problem => isError(problem) && !taken.has(whereIs(problem)))
  return new ConfigError([...errors, ...further].sort(byPlace))
}

function isError({ severity }: Problem): boolean {
  return severity === 'error'
}

/** What else is wrong, once the values that the schema refuses are left out: nobody wants to learn of it in a second round. */
async function furtherProblems(source: SourceDocument, refused: readonly Path[], dialect: Dialect): Promise<Problem[]> {
  const rest = without(source.document, refused) as Record<string, unknown>
  const problems = new Problems(rest)
  validate(dialect.schema, rest, problems)
  if (problems.failed) return []
  await new Normaliser(
    { ...source, document: rest },
    settle(dialect.schema, rest) as unknown as Settled,
    dialect,
    problems
  ).snapshot()
  // That something is missing where a value was left out says nothing new.
  const echoes = problems.paths.map(path => refused.some(other => path.every((key, i) => key === other[i])))
  return problems.list.filter(isError).filter((_, i) => !echoes[i])
}

/** A copy of `data` without the values at `paths`. Items of lists stay, so that the others keep their places. */
function without(data: unknown, paths: readonly Path[]): unknown {
  if (paths.length === 0 || typeof data !== 'object' || data === null) return data
  const copy: Record<string | number, unknown> = Array.isArray(data) ? ([] as never) : {}
  for (const [key, value] of Object.entries(data)) {
    const inside = paths.filter(([first]) => String(first) === key)
    if (!Array.isArray(data) && inside.some(path => path.length === 1)) continue
    copy[key] = without(
      value,
      inside.map(path => path.slice(1)).filter(path => path.length > 0)
    )
    copyPlace(data, key, copy, key)
  }
  return copy
}

function byPlace(a: Problem, b: Problem): number {
  return (
    (a.file ?? '').localeCompare(b.file ?? '') || (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0)
  )
}

interface Settled {
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
type Block = Record<string, unknown> &
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
type Levels = readonly (readonly [settings: Block, scope: string, path: Path])[]

/** One of the ways in which requests come to a route with versions. */
interface RouteForm extends VersionForm<VersionSettings> {
  readonly label: string
  /** The path with a segment for the version in it. */
  readonly whole: string
  readonly versions: Readonly<Record<string, VersionSettings>> | undefined
}

type VersionSettings = NonNullable<RouteSettings['versions']>[string] & { readonly deprecated?: unknown }
/** What most routes do without. */
type Absent = 'endpoint' | 'mirror' | 'release' | 'segment' | 'successor'

const CONNECT_MS = 5000
const IDLE_MS = 60_000
const TIMEOUT_MS = 30_000
/** What of a route says where its requests go. */
const DESTINATIONS = ['service', 'target', 'split', 'experiment'] as const
/** Concerns that `enabled: false` switches off (CFG-04): what is left is a plain proxy. */
const OPTIONAL_CONCERNS = new Set(['rate_limit', 'cache', 'transform'])

class Normaliser {
  readonly #source: SourceDocument
  readonly #document: Record<string, unknown>
  readonly #settled: Settled
  readonly #dialect: Dialect
  readonly #problems: Problems
  readonly #services = new Map<string, ServiceConfig>()
  readonly #routes: { route: RouteConfig; path: Path }[] = []
  readonly #fallbacks = new Map<FallbackSettings, FallbackConfig>()
  #networks: Networks = networksOf([])
  #local = false

  constructor(source: SourceDocument, settled: Settled, dialect: Dialect, problems: Problems) {
    this.#source = source
    this.#document = source.document
    this.#settled = settled
    this.#dialect = dialect
    this.#problems = problems
  }

  /** The snapshot; worth nothing when problems have been found on the way. */
  async snapshot(): Promise<Snapshot> {
    const { services, routes, catch_all } = this.#settled
    this.#checkNetworks()
    this.#local = this.#hasAccounts()
    const stretches = new Stretches(systemClock)
    for (const [name, service] of Object.entries(services)) {
      this.#addService(name, service)
      if (stretches.isOver) await stretches.next()
    }
    for (const [i, route] of routes.entries()) {
      this.#addRoute(route, ['routes', i])
      if (stretches.isOver) await stretches.next()
    }
    for (const [name, service] of Object.entries(services)) {
      for (const [i, endpoint] of service.endpoints.entries())
        this.#addEndpoint(name, endpoint, ['services', name, 'endpoints', i])
      if (catch_all) this.#addCatchAll(name)
    }
    await stretches.next()
    this.#checkIds()
    this.#checkReserved()
    this.#checkOAuth()
    await stretches.next()
    this.#checkConflicts()
    this.#checkBalancing()
    this.#checkRecording()
    this.#checkAbuse()
    this.#checkRedis()
    this.#checkWorkers()
    this.#warnAboutUnused()
    await stretches.next()
    const server = this.#server()
    const geo = this.#geo()
    const { gateway, storage, logging, recording, metrics, paths, admin, plugins, rate_limits, registry } =
      this.#settled
    const { versioning, batch } = this.#settled
    const identity = this.#identity()
    const content = JSON.stringify([
      // Gateways with one configuration in several regions serve the same.
      {
        ...this.#settled,
        server,
        identity,
        gateway: { ...gateway, region: '' },
        geo: [geo.header, geo.database?.print]
      },
      [...this.#services.values()].map(({ tls, discovery }) => [tls, discovery])
    ])
    return deepFreeze({
      version: createHash('sha256').update(content).digest('hex').slice(0, 12),
      gateway,
      server,
      storage,
      identity,
      logging,
      recording,
      metrics,
      paths,
      adminListen: admin.listen,
      serviceConfigUrl: this.#settled.service_config_url,
      rateLimits: rate_limits,
      overload: this.#settled.enabled ? overloadOf(this.#settled.overload) : undefined,
      registry,
      batch,
      versioning,
      geo,
      services: this.#services,
      breakers: this.#breakers(),
      routes: this.#routes.map(({ route }) => route),
      defaults: this.#concerns([[this.#settled.defaults, 'defaults', ['defaults']]]),
      plugins,
      document: this.#document,
      warnings: [...this.#source.problems, ...this.#problems.list].filter(problem => !isError(problem)).sort(byPlace),
      files: this.#source.files
    })
  }

  /** What the database would not let go of sooner anyway, and what hours are made of. */
  #checkRecording(): void {
    const { keep } = this.#settled.recording
    const path: Path = ['recording', 'keep']
    if (keep.audit < LEAST_KEPT.audit) this.#problems.add([...path, 'audit'], 'must be at least 30d')
    if (keep.minutes < LEAST_KEPT.minutes) this.#problems.add([...path, 'minutes'], 'must be at least 6h')
  }

  #checkRedis(): void {
    const { redis_url: url } = this.#settled.storage
    try {
      if (url) parseRedisUrl(url)
    } catch (error) {
      this.#problems.add(['storage', 'redis_url'], (error as Error).message)
    }
  }

  /** What one process keeps to itself several would have to share. */
  #checkWorkers(): void {
    const { server, storage, paths, rate_limits: rateLimits } = this.#settled
    if (server.workers === 1) return
    const concerns = new Set(this.#routes.flatMap(({ route }) => Object.keys(route.concerns)))
    for (const obstacle of obstacles({ storage, paths, local: this.#local, rateLimits, concerns }))
      this.#problems.add(['server', 'workers'], obstacle)
  }

  /** What is said of balancers where nobody in particular means it, and weights that nobody looks at. */
  #checkBalancing(): void {
    this.#balancer(this.#settled.defaults, ['defaults'])
    for (const [name, { balancer, instances }] of this.#services) {
      const weights = new Set(instances.map(({ weight }) => weight).filter(weight => weight > 0))
      if (balancer?.type === 'round_robin' && weights.size > 1 && name in this.#settled.services)
        this.#problems.warn(
          ['services', name, 'instances'],
          'have weights that "round_robin" does not look at: write "load_balancer_type: weighted_round_robin"'
        )
    }
  }

  #checkAbuse(): void {
    const { abuse } = this.#settled.rate_limits
    if (!abuse) return
    for (const [i, entry] of abuse.never_block.entries()) {
      const fault = rangeFault(entry)
      if (fault !== undefined) this.#problems.add(['rate_limits', 'abuse', 'never_block', i], fault)
    }
  }

  #checkNetworks(): void {
    for (const [i, entry] of this.#settled.registry.allow.entries()) {
      if (!isNetwork(entry)) this.#problems.add(['registry', 'allow', i], noNetwork(entry))
    }
    const good = this.#settled.registry.allow.filter(isNetwork)
    this.#networks = networksOf(good)
  }

  /** With the files of the gateway's own certificate: one that is mended is a reason to read the configuration again. */
  #server(): ServerSettings {
    const { server } = this.#settled
    if (server.tls === undefined) return server
    const { cert, key, client_ca } = server.tls
    const path: Path = ['server', 'tls']
    const files = {
      cert: this.#file(cert, [...path, 'cert']),
      key: this.#file(key, [...path, 'key']),
      ...(client_ca !== undefined && { client_ca: this.#file(client_ca, [...path, 'client_ca']) })
    }
    for (const { key, message, severity } of certificateTrouble(files, systemClock.now()))
      this.#problems.add([...path, key], message, 'value', severity)
    return { ...server, tls: files }
  }

  /**
   * Where a file is that a setting names, watched from now on: meant from the file that the setting stands in, or from the
   * working folder if a variable or the command line says it.
   */
  #file(name: string, path: Path): string {
    const { place } = locate(this.#document, path)
    const written = place !== undefined && place.value.line > 0 && place.env === undefined
    const file = written ? resolve(dirname(place.value.file), name) : resolve(name)
    this.#source.seen.set(file, printOf(file))
    return file
  }

  /** Keys that are named by their files, as what is in these: a key that is replaced is another configuration. */
  #identity(): IdentitySettings {
    const { identity } = this.#settled
    const { jwt, issuers } = identity
    const { public_key, secret } = jwt
    return {
      ...identity,
      local: this.#local,
      jwt: {
        ...jwt,
        // Where anybody may be an issuer, the gateway’s own tokens have to be told from theirs.
        ...(jwt.issuer === undefined && issuers.some(({ issuer }) => issuer === undefined) && { issuer: 'sallyport' }),
        ...(public_key && { public_key: this.#pem(public_key, ['identity', 'jwt', 'public_key']) }),
        ...(secret && !jwt.algorithm.startsWith('HS') && { secret: this.#pem(secret, ['identity', 'jwt', 'secret']) })
      },
      issuers: issuers.map((issuer, i) => ({
        ...issuer,
        ...(issuer.public_key && { public_key: this.#pem(issuer.public_key, ['identity', 'issuers', i, 'public_key']) })
      }))
    }
  }

  /** Whether there are accounts; to ask for them where they cannot be is an error, and not to ask is to go without. */
  #hasAccounts(): boolean {
    const { identity, storage, gateway } = this.#settled
    if (!identity.local) return false
    const trouble = storage.database ? signingTrouble(identity, gateway) : 'needs "storage.database"'
    if (trouble === undefined) return true
    const asked = (this.#document.identity as Record<string, unknown> | undefined)?.local === true
    if (asked) this.#problems.add(['identity', 'local'], trouble)
    return false
  }

  /** What of OAuth no schema can say. */
  #checkOAuth(): void {
    const { identity, paths, storage } = this.#settled
    const { oauth } = identity
    if (oauth === undefined) return
    const path: Path = ['identity', 'oauth']
    if (!storage.database) this.#problems.add(path, 'needs "storage.database"')
    if (paths.oauth === false) this.#problems.add(['paths', 'oauth'], 'is needed for "identity.oauth"')
    const { protocol, hostname, pathname } = URL.parse(oauth.issuer) ?? { protocol: '', hostname: '', pathname: '' }
    if (protocol !== 'https:' && !['localhost', '127.0.0.1', '[::1]'].includes(hostname))
      this.#problems.add([...path, 'issuer'], 'has to be https')
    if (paths.oauth !== false && pathname !== paths.oauth)
      this.#problems.add(
        [...path, 'issuer'],
        `has the path "${pathname}", but paths.oauth is "${paths.oauth}": they have to be the same`
      )
    for (const [i, client] of oauth.clients.entries()) this.#checkClient(client, [...path, 'clients', i], oauth)
  }

  #checkClient(client: OAuthClientSettings, path: Path, { clients }: OAuthSettings): void {
    if (clients.find(({ id }) => id === client.id) !== client)
      this.#problems.add([...path, 'id'], `"${client.id}" is the id of another client`)
    const needsSecret = client.token_endpoint_auth_method === 'client_secret_basic'
    if (needsSecret !== Boolean(client.secret))
      this.#problems.add(
        needsSecret ? path : [...path, 'secret'],
        needsSecret ? 'needs "secret"' : `is not for "${client.token_endpoint_auth_method}"`
      )
    for (const { key, message } of problemsOfClient(client)) this.#problems.add([...path, key], message)
    for (const advisory of advisoriesOn(client)) this.#problems.warn([...path, 'grant_types'], advisory)
  }

  /** The PEM itself, or that in the file of this name. What is neither is found where keys are made of it. */
  #pem(text: string, path: Path): string {
    if (text.includes('-----BEGIN')) return text
    try {
      return readFileSync(this.#file(text, path), 'utf8')
    } catch {
      return text
    }
  }

  #addService(name: string, settings: ServiceSettings & Block): void {
    const path: Path = ['services', name]
    if (settings.url !== undefined && settings.instances !== undefined)
      this.#problems.add([...path, 'url'], 'stands beside "instances"; keep one of them', 'key')
    const listed = settings.instances ?? (settings.url === undefined ? [] : [{ url: settings.url, weight: 1 }])
    if (settings.instances?.length === 0 && !this.#settled.storage.database)
      this.#problems.add(
        [...path, 'instances'],
        'needs at least one entry: without "storage.database" none can register'
      )
    const discovery = this.#discovery(name, settings, path)
    if (listed.length > 0 && settings.discovery !== undefined)
      this.#problems.add([...path, 'discovery'], 'stands beside "url" or "instances"; keep one of them', 'key')
    const instances = listed.map((instance, i): InstanceConfig => {
      const at = settings.instances === undefined ? [...path, 'url'] : [...path, 'instances', i, 'url']
      this.#checkUrl(instance.url, at)
      this.#checkNetwork(name, instance.url, at)
      return {
        id: ('id' in instance ? instance.id : undefined) ?? String(i),
        url: instance.url,
        weight: instance.weight,
        ...('zone' in instance && { zone: instance.zone })
      }
    })
    const twice = instances.findIndex((instance, i) => instances.findIndex(other => other.id === instance.id) !== i)
    if (twice !== -1)
      this.#problems.add([...path, 'instances', twice], `the id "${instances[twice]?.id}" is taken already`)
    this.#services.set(name, {
      ...this.#serviceConfig(name, instances, settings, path),
      ...(discovery && { discovery, networks: discovery.networks })
    })
  }

  /** Who says where the instances are of a service that does not; undefined if it does. */
  #discovery(name: string, settings: ServiceSettings, path: Path): DiscoveryConfig | undefined {
    const { discovery: given, url, instances } = settings
    const fallback = url === undefined && instances === undefined ? defaultDiscovery(this.#settled) : undefined
    if (given === undefined && fallback === undefined) {
      if (url === undefined && instances === undefined)
        this.#problems.add(path, 'needs "url", "instances" or "discovery"', 'key')
      return undefined
    }
    const at: Path = [...path, 'discovery']
    const schema = discoverySchema(Type.Unknown())
    const asked = given ?? (settle(schema, { [fallback as string]: {} }) as DiscoverySettings)
    for (const [i, entry] of (asked.allow ?? []).entries())
      if (!isNetwork(entry)) this.#problems.add([...at, 'allow', i], noNetwork(entry))
    return discoveryConfig(asked, {
      name,
      defaults: this.#settled,
      networks: this.#source.registered?.has(name) ? this.#settled.registry.allow : undefined,
      tls: kind => this.#tls(asked[kind]?.tls as ServiceSettings['tls'], [...at, kind, 'tls']),
      fault: (keys, message) => this.#problems.add([...at, ...keys], message, keys.length < 3 ? 'key' : 'value')
    })
  }

  /** Of services, which take what the defaults say unless they say otherwise. */
  #breakers(): Map<string, BreakerUse> {
    const { services, defaults, enabled } = this.#settled
    this.#checkBreaker(defaults, ['defaults'])
    const found = new Map<string, BreakerUse>()
    for (const [name, service] of Object.entries(services)) {
      this.#checkBreaker(service, ['services', name])
      const use = enabled ? breakerUse(service.circuit_breaker ?? defaults.circuit_breaker, false) : undefined
      if (use !== undefined) found.set(name, use)
    }
    return found
  }

  #routeBreaker(settings: Block, path: Path): BreakerUse | false | undefined {
    if (settings.circuit_breaker === undefined || !this.#settled.enabled) return undefined
    this.#checkBreaker(settings, path)
    return breakerUse(settings.circuit_breaker, true) ?? false
  }

  /** What the most specific level says, whose file is read but once. */
  #fallback(levels: Levels): FallbackConfig | undefined {
    const level = levels.find(([block]) => block.fallback !== undefined)
    if (level === undefined || !level[0].fallback) return undefined
    const [{ fallback: settings }, , path] = level
    const known = this.#fallbacks.get(settings)
    if (known !== undefined) return known
    const at: Path = [...path, 'fallback']
    for (const [key, message] of fallbackTrouble(settings)) this.#problems.add([...at, ...key.split('.')], message)
    if (settings.service !== undefined && !(settings.service in this.#settled.services))
      this.#problems.add(
        [...at, 'service'],
        `there is no service "${settings.service}"${suggestion(settings.service, Object.keys(this.#settled.services))}`
      )
    const config = fallbackConfig(settings, this.#content(settings.file, [...at, 'file'])) as FallbackConfig
    this.#fallbacks.set(settings, config)
    return config
  }

  #content(name: string | undefined, path: Path): Buffer | undefined {
    if (name === undefined) return undefined
    try {
      const content = readFileSync(this.#file(name, path))
      if (content.length <= LARGEST_FILE) return content
      this.#problems.add(path, `"${name}" is larger than 1 MB`)
    } catch (error) {
      this.#problems.add(path, `"${name}" cannot be read: ${(error as NodeJS.ErrnoException).code}`)
    }
    return undefined
  }

  #checkBreaker({ circuit_breaker: settings }: Block, path: Path): void {
    const at: Path = [...path, 'circuit_breaker']
    for (const [key, message] of breakerTrouble(settings)) this.#problems.add([...at, key], message)
    const { services, defaults } = this.#settled
    for (const [i, name] of (settings || undefined)?.depends_on.entries() ?? []) {
      const place: Path = [...at, 'depends_on', i]
      const service = services[name]
      if (service === undefined)
        this.#problems.add(place, `there is no service "${name}"${suggestion(name, Object.keys(services))}`)
      else if (path[0] === 'services' && path[1] === name) this.#problems.add(place, 'is this service itself')
      else if (breakerUse(service.circuit_breaker ?? defaults.circuit_breaker, false)?.per !== 'service')
        this.#problems.warn(place, `changes nothing: "${name}" has no breaker of its own ("per: service")`, 'value')
    }
  }

  #serviceConfig(
    name: string,
    instances: readonly InstanceConfig[],
    settings: Partial<ServiceSettings> & Block,
    path: Path
  ): ServiceConfig {
    const { defaults } = this.#settled
    const timeouts = (settings.timeouts ?? defaults.timeouts) || {}
    // What is no more than an address has said nothing of how it could be checked.
    const checked = name in this.#settled.services ? defaults : {}
    return {
      name,
      instances,
      pool: {
        connections: settings.pool?.connections ?? 1024,
        connectTimeoutMs: timeouts.connect ?? CONNECT_MS,
        keepAliveMs: settings.pool?.keep_alive ?? 4000,
        idleTimeoutMs: timeouts.idle ?? IDLE_MS,
        maxHeaderBytes: settings.pool?.header_bytes ?? 32768
      },
      tls: this.#tls(settings.tls, [...path, 'tls']),
      balancer: this.#balancer(settings, path) ?? balancerOf(defaults),
      selection: selectionOf(balancerOf(settings) === undefined ? defaults : settings, this.#settled.gateway.zone),
      healthCheck: healthCheckOf(settings.health_check ?? checked.health_check, {
        path: settings.health_check_path,
        intervalSeconds: checked.health_check_interval
      }),
      outliers: this.#settled.enabled
        ? outliersOf(settings.outlier_detection ?? defaults.outlier_detection)
        : undefined,
      concurrency: this.#settled.enabled ? this.#concurrency(settings.concurrency, path) : undefined,
      ...(this.#source.registered?.has(name) && { networks: this.#settled.registry.allow })
    }
  }

  #concurrency(own: ConcurrencySettings | undefined, path: Path): ConcurrencyConfig | undefined {
    const config = concurrencyOf(own ?? this.#settled.defaults.concurrency)
    if (config !== undefined && config.min > config.max) {
      const place = own === undefined ? ['defaults'] : path
      const message = `${config.min} is more than "max", which is ${config.max}`
      // What stands under the defaults is wrong but once, however many services take it from there.
      if (!this.#problems.list.some(known => known.message === message))
        this.#problems.add([...place, 'concurrency', 'min'], message)
    }
    return config
  }

  #tls(settings: ServiceSettings['tls'], path: Path): ConnectionOptions | undefined {
    if (settings === undefined) return undefined
    const read = (key: 'ca' | 'cert' | 'key'): string | undefined => {
      const name = settings[key]
      if (name === undefined) return undefined
      const file = this.#file(name, [...path, key])
      try {
        return readFileSync(file, 'utf8')
      } catch (error) {
        this.#problems.add([...path, key], `"${file}" cannot be read: ${(error as NodeJS.ErrnoException).code}`)
        return undefined
      }
    }
    const options: ConnectionOptions = {}
    const [ca, cert, key] = [read('ca'), read('cert'), read('key')]
    if (ca !== undefined) options.ca = ca
    if (cert !== undefined) options.cert = cert
    if (key !== undefined) options.key = key
    if (settings.server_name !== undefined) options.servername = settings.server_name
    if ((settings.cert === undefined) !== (settings.key === undefined)) {
      const [given, missing] = settings.key === undefined ? ['cert', 'key'] : ['key', 'cert']
      this.#problems.add([...path, given], `"${given}" needs "${missing}" beside it`)
    }
    try {
      tls().createSecureContext(options)
    } catch (error) {
      this.#problems.add(path, `cannot be used: ${(error as Error).message}`)
    }
    return options
  }

  #checkUrl(url: string, path: Path): void {
    if (!URL.canParse(url)) {
      this.#problems.add(path, `"${withoutCredentials(url)}" is no URL: write http://host:port`)
      return
    }
    const { search, hash, username } = new URL(url)
    if (search !== '' || hash !== '') this.#problems.add(path, 'must not hold a query or a fragment')
    if (username !== '') this.#problems.add(path, 'must not hold credentials')
  }

  /** Addresses of registered services; what a name stands for is seen when it is asked for. */
  #checkNetwork(name: string, url: string, path: Path): void {
    if (!this.#source.registered?.has(name) || !URL.canParse(url)) return
    const address = addressOf(new URL(url))
    if (address !== undefined && !this.#networks.allows(address))
      this.#problems.add(path, `leads to ${address}, which "registry.allow" does not allow`)
  }

  #addRoute(settings: RouteSettings & Block, path: Path): void {
    const { version, versions, id } = settings
    if (version === undefined && versions === undefined) return this.#addForm(settings, path)
    if (version !== undefined && versions !== undefined)
      return this.#problems.add([...path, 'version'], 'stands beside "versions"; keep one of them', 'key')
    const forms = versionForms(settings, this.#asksForVersions)
    if (forms.some(({ segment }) => segment === undefined) && !this.#asksForVersions)
      return this.#problems.add(
        [...path, version === undefined ? 'versions' : 'version'],
        'can be asked for by nobody: put "{version}" into the path, or set "versioning.vendor" or "versioning.query"'
      )
    for (const form of forms) {
      const { path: source = settings.path, own, name, asked } = form
      const label = `${source ?? settings.regex}${asked === undefined ? '' : ` (${name})`}`
      this.#addForm(
        {
          ...settings,
          ...(own?.service !== undefined && { target: undefined }),
          ...(own?.target !== undefined && { service: undefined }),
          ...own,
          path: source,
          ...(id !== undefined && forms.length > 1 && { id: `${id} ${label}` })
        } as RouteSettings & Block,
        path,
        { ...form, label, whole: settings.path ?? '', versions }
      )
    }
  }

  /** Whether requests may say in a field or in their query which version they want. */
  get #asksForVersions(): boolean {
    const { vendor, query } = this.#settled.versioning
    return vendor !== undefined || query !== undefined
  }

  /** What a form of a route with versions has beyond its match. */
  #versionParts(form: RouteForm | undefined): Pick<RouteConfig, 'segment' | 'successor'> {
    const { segment, asked, name = '', versions = {}, own } = form ?? {}
    if (segment === undefined) return { segment: undefined, successor: undefined }
    const next = own?.deprecated ? successorOf(versions, name, version => !version.deprecated) : undefined
    return {
      segment: asked === undefined ? undefined : { ...segment, whole: parsePattern(form?.whole as string) },
      successor: next === undefined ? undefined : { at: segment.at, text: next, replaces: asked === undefined }
    }
  }

  #addForm(settings: RouteSettings & Block, path: Path, form?: RouteForm): void {
    const own: Path = form?.own === undefined ? path : [...path, 'versions', form.name]
    const destination = this.#destinationOf(settings, own)
    const pattern = this.#pattern(settings, path)
    const regex =
      settings.regex === undefined
        ? undefined
        : this.#attempt(() => compileRegex(settings.regex as string, true), [...path, 'regex'])
    if ((settings.path === undefined) === (settings.regex === undefined)) {
      this.#problems.add(
        path,
        settings.path === undefined ? 'needs "path" or "regex"' : 'has both "path" and "regex"; keep one of them',
        'key'
      )
      return
    }
    if (destination === undefined || (pattern === undefined && regex === undefined)) return
    const methods = this.#methods(settings.methods, [...path, 'methods'])
    const conditions = (key: 'headers' | 'query') =>
      Object.entries(settings[key]).flatMap(([name, wanted]) => {
        const compiled = this.#attempt(
          () => compileCondition(key === 'headers' ? name.toLowerCase() : name, wanted as string),
          [...path, key, name]
        )
        return compiled === undefined ? [] : [compiled]
      })
    const label = form?.label ?? settings.path ?? (settings.regex as string)
    const match: Omit<RouteMatch, 'id'> = {
      pattern,
      regex,
      methods,
      hosts: this.#hosts(settings.hosts, [...path, 'hosts']),
      headers: conditions('headers'),
      query: conditions('query'),
      countries: this.#countries(settings.countries, path),
      version: form?.asked,
      priority: Number(settings.priority),
      catchAll: false
    }
    const id = settings.id ?? describeMatch(label, match)
    const parts = this.#versionParts(form)
    this.#push(
      {
        ...match,
        ...this.#forwarding(settings, destination.service, id, path),
        service: destination.service,
        release: destination.release ?? this.#canary(settings, destination.service, id, path),
        mirror: this.#mirror(settings, destination.service, path),
        ...parts,
        id,
        label,
        rewrite: this.#rewrite(settings, parts.segment?.whole ?? pattern, own)
      },
      settings,
      path
    )
  }

  #push(
    route: Omit<RouteConfig, 'enabled' | 'encodedSlash' | 'websocket' | 'at' | Absent> &
      Partial<Pick<RouteConfig, Absent>>,
    settings: Partial<RouteSettings>,
    path: Path
  ): void {
    this.#routes.push({
      path,
      route: {
        endpoint: undefined,
        release: undefined,
        mirror: undefined,
        segment: undefined,
        successor: undefined,
        ...route,
        enabled: settings.enabled ?? true,
        encodedSlash: settings.encoded_slash ?? false,
        websocket: settings.websocket ?? false,
        at: this.#positionOf(path)
      }
    })
  }

  /** Deadlines, retries and concerns: what a route takes from its service and the defaults when it does not say otherwise. */
  #forwarding(
    settings: Block,
    serviceName: string,
    id: string,
    path: Path
  ): Pick<
    RouteConfig,
    | 'timeoutMs'
    | 'firstByteMs'
    | 'writeMs'
    | 'totalMs'
    | 'retry'
    | 'hedgeMs'
    | 'breaker'
    | 'fallback'
    | 'balancer'
    | 'concerns'
    | 'off'
  > {
    const service: Block = this.#settled.services[serviceName] ?? {}
    const { defaults } = this.#settled
    for (const stage of ['connect', 'idle'] as const) {
      if (settings.timeouts && settings.timeouts[stage] !== undefined)
        this.#problems.add(
          [...path, 'timeouts', stage],
          `is of the service’s connections, which other routes use as well: put it under "services.${serviceName}.timeouts"`
        )
    }
    for (const key of OF_THE_SERVICE) {
      if (settings.load_balancer?.[key] !== undefined)
        this.#problems.add(
          [...path, 'load_balancer', key],
          `is of the service’s instances, which other routes use as well: put it under "services.${serviceName}.load_balancer"`
        )
    }
    if (settings.fallback && settings.fallback.service === serviceName)
      this.#problems.add([...path, 'fallback', 'service'], 'is the service that it would stand in for')
    const timeouts = (settings.timeouts ?? service.timeouts ?? defaults.timeouts) || {}
    const levels: Levels = [
      [settings, id, path],
      [service, `services.${serviceName}`, ['services', serviceName]],
      [defaults, 'defaults', ['defaults']]
    ]
    return {
      timeoutMs: settings.timeout ?? service.timeout ?? defaults.timeout ?? TIMEOUT_MS,
      firstByteMs: timeouts.first_byte ?? 0,
      writeMs: timeouts.write ?? 0,
      totalMs: timeouts.total ?? 0,
      retry: retryPolicy(settings.retry ?? service.retry ?? defaults.retry),
      balancer: this.#balancer(settings, path),
      hedgeMs: (settings.hedge ?? service.hedge ?? defaults.hedge) || 0,
      breaker: this.#routeBreaker(settings, path),
      fallback: this.#fallback(levels),
      concerns: this.#concerns(levels),
      off: this.#switchedOff(levels)
    }
  }

  /** Which instance is asked, as one level says it. */
  #balancer(settings: Block, path: Path): BalancerConfig | undefined {
    for (const [keys, message] of balancerTrouble(settings)) this.#problems.add([...path, ...keys], message, 'key')
    return balancerOf(settings)
  }

  /** For each concern the most specific level that says something, as a whole. */
  #concerns(levels: Levels): Record<string, ConcernConfig> {
    const concerns: Record<string, ConcernConfig> = {}
    const take = (name: string, pick: (block: Block) => unknown, keys: Path): void => {
      for (const [block, scope, path] of levels) {
        const options = pick(block)
        if (options === undefined) continue
        if (options !== false) concerns[name] = { options, scope, at: this.#positionOf([...path, ...keys]) }
        return
      }
    }
    for (const name of this.#dialect.concerns) {
      if (!this.#settled.enabled && OPTIONAL_CONCERNS.has(name)) continue
      take(name, block => block[name], [name])
    }
    const plugins = new Set(levels.flatMap(([block]) => Object.keys(block.plugins ?? {})))
    for (const name of plugins) take(name, block => block.plugins?.[name], ['plugins', name])
    return concerns
  }

  #switchedOff(levels: Levels): string[] {
    const off = this.#dialect.concerns.filter(
      name => levels.map(([block]) => block[name]).find(options => options !== undefined) === false
    )
    return this.#settled.enabled ? off : [...off, ...OPTIONAL_CONCERNS]
  }

  /** `/api/v1/…` for an endpoint, and `/api/…` where requests may say their version elsewhere (VER-01 to VER-03). */
  #addEndpoint(name: string, endpoint: ServiceSettings['endpoints'][number], path: Path): void {
    const version = apiVersion(endpoint.version) ?? apiVersion(this.#settled.services[name]?.version) ?? 'v1'
    const source = `/api/{version}${endpoint.path}`
    for (const form of versionForms<never>({ path: source, version }, this.#asksForVersions))
      this.#addEndpointForm(name, endpoint, form, path)
  }

  #addEndpointForm(
    name: string,
    endpoint: ServiceSettings['endpoints'][number],
    form: VersionForm<never>,
    path: Path
  ): void {
    const source = form.path as string
    const label = form.asked === undefined ? source : `${source} (${form.name})`
    const pattern = this.#attempt(() => parsePattern(source), [...path, 'path'])
    if (pattern === undefined) return
    const methods = this.#methods([endpoint.method], [...path, 'method'])
    const match = {
      pattern,
      regex: undefined,
      methods,
      hosts: undefined,
      headers: [],
      query: [],
      version: form.asked,
      priority: 0,
      catchAll: false
    }
    const id = describeMatch(label, match)
    const settings: Block = endpoint.public
      ? { authentication: 'none', required_roles: false, permissions: false }
      : { authentication: 'required' }
    if (!endpoint.public && endpoint.required_roles.length > 0) settings.required_roles = endpoint.required_roles
    if (endpoint.deprecated) settings.deprecated = true
    const whole = `/api/{version}${endpoint.path}`
    this.#push(
      {
        ...match,
        ...this.#forwarding(settings, name, id, path),
        ...this.#versionParts({ ...form, label, whole, versions: undefined }),
        id,
        label,
        service: name,
        rewrite: { kind: 'strip', segments: 2 },
        ...(endpoint.name === undefined ? {} : { endpoint: `${name}.${endpoint.name}` })
      },
      {},
      path
    )
  }

  /** `/{service}/**` for every service (RTE-01). */
  #addCatchAll(name: string): void {
    const path: Path = ['services', name]
    const label = `/${name}/**`
    const pattern = this.#attempt(() => parsePattern(label), path)
    if (pattern === undefined) return
    const match = {
      pattern,
      regex: undefined,
      methods: undefined,
      hosts: undefined,
      headers: [],
      query: [],
      priority: 0,
      catchAll: true
    }
    this.#push(
      {
        ...match,
        ...this.#forwarding({}, name, label, path),
        id: label,
        label,
        service: name,
        rewrite: { kind: 'strip', segments: 1 }
      },
      {},
      path
    )
  }

  #pattern(settings: RouteSettings, path: Path): Pattern | undefined {
    const { path: source } = settings
    return source === undefined ? undefined : this.#attempt(() => parsePattern(source), [...path, 'path'])
  }

  #attempt<T>(make: () => T, path: Path): T | undefined {
    try {
      return make()
    } catch (error) {
      if (!(error instanceof PatternError || error instanceof RegexError)) throw error
      this.#problems.add(path, error.message)
      return undefined
    }
  }

  #methods(names: readonly string[], path: Path): ReadonlySet<string> | undefined {
    if (names.length === 0) return undefined
    const methods = names.map(name => name.toUpperCase())
    for (const [i, method] of methods.entries()) {
      if (!http.METHODS.includes(method))
        this.#problems.add(this.#item(path, i), `"${names[i]}" is no method${suggestion(method, http.METHODS)}`)
      else if (method === 'CONNECT' || method === 'TRACE')
        this.#problems.add(this.#item(path, i), `${method} is never passed on`)
    }
    if (methods.includes('GET') && !methods.includes('HEAD')) methods.push('HEAD')
    return new Set(methods)
  }

  #countries(codes: readonly string[], path: Path): ReadonlySet<string> | undefined {
    if (codes.length === 0) return undefined
    const { header, database } = this.#settled.geo
    if (header === undefined && database === undefined)
      this.#problems.add([...path, 'countries'], 'are known to nobody: set "geo.header" or "geo.database"')
    for (const [i, code] of codes.entries()) {
      // The United Kingdom is GB, and some countries are called otherwise by now: with these nobody would ever match.
      const { region } = new Intl.Locale(`und-${code}`)
      if (region !== code.toUpperCase())
        this.#problems.add([...path, 'countries', i], `"${code}" is called ${region} in ISO 3166-1`)
    }
    return new Set(codes.map(code => code.toUpperCase()))
  }

  #geo(): GeoConfig {
    const { header, database } = this.#settled.geo
    if (header !== undefined && this.#settled.server.trusted_proxies.length === 0)
      this.#problems.warn(['geo', 'header'], 'counts from nobody, since there are no "server.trusted_proxies"')
    if (database === undefined) return { header, database: undefined }
    const file = this.#file(database, ['geo', 'database'])
    return { header, database: { file, print: fingerprintOf(file) } }
  }

  #hosts(names: readonly string[], path: Path): readonly string[] | undefined {
    if (names.length === 0) return undefined
    return names.map((name, i) => {
      const host = name.toLowerCase()
      if (!/^(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*$|^\[[0-9a-f:.]+\]$/.test(host)) {
        this.#problems.add(
          this.#item(path, i),
          `"${name}" is no host name: write api.example.com or *.example.com, without scheme and port`
        )
      }
      return host
    })
  }

  /** The path to an entry of what may be a list or a lone value. */
  #item(path: Path, i: number): Path {
    const value = path.reduce<unknown>(
      (container, key) => (container as Record<string, unknown>)?.[key],
      this.#document
    )
    return Array.isArray(value) ? [...path, i] : path
  }

  #rewrite(settings: RouteSettings, pattern: Pattern | undefined, path: Path): RewriteConfig | undefined {
    const { rewrite, strip_prefix: strip } = settings
    if (rewrite !== undefined && strip !== false) {
      this.#problems.add([...path, 'rewrite'], 'stands beside "strip_prefix"; keep one of them', 'key')
      return undefined
    }
    if (rewrite !== undefined) {
      for (const [, name] of rewrite.matchAll(/\{([^}]*)\}/g)) {
        const parameters = pattern?.segments.flatMap(({ parameter }) => parameter ?? []) ?? []
        if (!parameters.includes(name as string))
          this.#problems.add(
            [...path, 'rewrite'],
            `the path has no parameter "${name}"${suggestion(name as string, parameters)}`
          )
      }
      return {
        kind: 'replace',
        template: rewrite,
        segments: pattern?.segments.length ?? 0,
        keepRest: pattern?.kind === 'prefix'
      }
    }
    if (strip === false) return undefined
    if (pattern === undefined) {
      this.#problems.add([...path, 'strip_prefix'], 'needs "path"; a regular expression has no prefix', 'key')
      return undefined
    }
    if (strip === true) return { kind: 'strip', segments: pattern.segments.length }
    const prefix = this.#attempt(() => parsePattern(strip), [...path, 'strip_prefix'])
    if (prefix === undefined) return undefined
    if (!covers({ ...prefix, kind: 'prefix' }, pattern))
      this.#problems.add([...path, 'strip_prefix'], `is no prefix of ${pattern.source}`)
    return { kind: 'strip', segments: prefix.segments.length }
  }

  /** Where a route's requests go: to its service, or to one of several. */
  #destinationOf(settings: RouteSettings & Block, path: Path): Pick<RouteConfig, 'service' | 'release'> | undefined {
    const { split, experiment } = settings
    const given = DESTINATIONS.filter(key => settings[key] !== undefined)
    if (given.length !== 1) {
      const [one, other] = given
      const message =
        one === undefined ? 'needs "service" or "target"' : `has both "${one}" and "${other}"; keep one of them`
      this.#problems.add(path, message, 'key')
      return undefined
    }
    const shared = experiment?.variants ?? split
    if (shared !== undefined && settings.canary !== undefined) {
      this.#problems.add([...path, 'canary'], 'needs "service" or "target" beside it: its control', 'key')
      return undefined
    }
    if (shared === undefined) {
      const service = this.#serviceOf(settings, path)
      return service === undefined ? undefined : { service, release: undefined }
    }
    const at: Path = experiment === undefined ? [...path, 'split'] : [...path, 'experiment', 'variants']
    const variants = this.#variants(shared, at)
    const trouble = troubleWith(variants) ?? (experiment && troubleWithNames(variants))
    if (trouble !== undefined && variants.length > 0) this.#problems.add([...at, ...trouble.at], trouble.message)
    const [first] = variants.filter(({ weight }) => weight > 0)
    if (first === undefined) return undefined
    const release: Release =
      experiment === undefined
        ? { kind: 'split', variants }
        : { kind: 'experiment', variants, name: experiment.name, header: experiment.header, cookie: experiment.cookie }
    return { service: first.service, release }
  }

  /** The service that is to take a route over, by and by. */
  #canary({ canary }: RouteSettings, control: string, route: string, path: Path): CanaryRelease | undefined {
    if (canary === undefined) return undefined
    const at: Path = [...path, 'canary']
    const name = this.#serviceOf(canary, at)
    if (name === undefined) return undefined
    if (name === control) this.#problems.add(at, `"${name}" is its own control; name another service`)
    if (canary.steps.every(({ weight }) => weight === 0))
      this.#problems.add(
        [...at, 'steps'],
        'has no weight above 0, so nothing would be learnt before all requests go there'
      )
    const { database, redis_url } = this.#settled.storage
    if (!database && !redis_url)
      this.#problems.warn(
        at,
        'begins anew at each start, since there is neither "storage.database" nor "storage.redis_url"'
      )
    return canaryRelease(canary, { route, control, canary: name })
  }

  #mirror({ mirror }: RouteSettings, own: string, path: Path): MirrorConfig | undefined {
    if (mirror === undefined) return undefined
    const at: Path = [...path, 'mirror']
    const service = this.#serviceOf(mirror, at)
    if (service === undefined) return undefined
    if (service === own) this.#problems.add(at, `"${service}" has the requests already; name another service`)
    return { service, percent: mirror.percent, compare: mirror.compare }
  }

  /** The services that share a route's requests; none if one of them is none. */
  #variants(settings: readonly VariantSettings[], path: Path): Variant[] {
    const variants = settings.flatMap((variant, i): Variant[] => {
      const service = this.#serviceOf(variant, [...path, i])
      return service === undefined ? [] : [{ name: variant.name ?? service, service, weight: variant.weight }]
    })
    return variants.length < settings.length ? [] : variants
  }

  /** The name of a service that something leads to; one that nobody defined is taken for a host name (contract section 21). */
  #serviceOf({ service, target }: { service?: string; target?: string }, path: Path): string | undefined {
    if ((service === undefined) === (target === undefined)) {
      this.#problems.add(
        path,
        service === undefined ? 'needs "service" or "target"' : 'has both "service" and "target"; keep one of them',
        'key'
      )
      return undefined
    }
    if (target !== undefined) {
      this.#checkUrl(target, [...path, 'target'])
      if (!this.#services.has(target))
        this.#services.set(target, this.#serviceConfig(target, [{ id: '0', url: target, weight: 1 }], {}, path))
      return target
    }
    const name = service as string
    if (this.#services.has(name)) return name
    const known = Object.keys(this.#settled.services)
    const meant = slipOf(name, known)
    if (meant !== undefined || !/^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$/i.test(name)) {
      this.#problems.add(
        [...path, 'service'],
        `"${name}" is not a service${meant === undefined ? '; there' : `, did you mean "${meant}"? There`} ${listed(known)}`
      )
      return undefined
    }
    this.#problems.warn(
      [...path, 'service'],
      `"${name}" is not defined, so it is taken for the host http://${name}`,
      'value'
    )
    this.#services.set(name, this.#serviceConfig(name, [{ id: '0', url: `http://${name}`, weight: 1 }], {}, path))
    return name
  }

  #checkIds(): void {
    const seen = new Map<string, RouteConfig>()
    for (const { route, path } of this.#routes) {
      const other = seen.get(route.id)
      if (other === undefined) seen.set(route.id, route)
      else if (matchKey(other) !== matchKey(route))
        this.#problems.conflict([...path, 'id'], `"${route.id}" is the id of another route${inWords(other.at)}`)
      else if (!other.enabled || !route.enabled)
        this.#problems.conflict(
          path,
          `is told from the route${inWords(other.at)} by nothing; give one of them an "id"`,
          'key'
        )
    }
  }

  /** The gateway's own paths always win, so a route below them would never be asked (C-11). */
  #checkReserved(): void {
    const own = this.#ownPatterns()
    for (const { route, path } of this.#routes) {
      const { pattern } = route
      if (pattern === undefined) continue
      const by = own.find(entry => covers(entry.pattern, pattern))
      if (by !== undefined) {
        this.#problems.conflict(
          [...path, 'path'],
          `is never reached: ${by.pattern.source} is the gateway's own; move that with paths.${by.key}, or this`
        )
      }
    }
  }

  #ownPatterns(): { key: keyof PathSettings; pattern: Pattern }[] {
    const own: { key: keyof PathSettings; pattern: Pattern }[] = []
    const settled = { ...this.#settled, identity: { ...this.#settled.identity, local: this.#local } }
    for (const [key, source] of reservedPatterns(settled)) {
      const path: Path = ['paths', key]
      const plain = this.#attempt(() => parsePattern(source.replace(/\/\*\*$/, '')), path)
      if (plain === undefined) continue
      if (plain.kind !== 'exact' || plain.segments.length === 0) {
        this.#problems.add(path, 'should be a plain path, such as /health, without wildcards and parameters')
        continue
      }
      const pattern = parsePattern(source)
      const other = own.find(entry => covers(entry.pattern, pattern) || covers(pattern, entry.pattern))
      if (other !== undefined) {
        const [first, second] =
          key in ((this.#document.paths as object | undefined) ?? {}) ? [key, other.key] : [other.key, key]
        this.#problems.add(['paths', first], `is in the way of paths.${second}`)
      }
      own.push({ key, pattern })
    }
    return own
  }

  /** Two routes of which one would never be asked: an error that names both (C-16). */
  #checkConflicts(): void {
    const paths = new Map(this.#routes.map(({ route, path }) => [route, path]))
    for (const { route, by, host } of conflictsAmong(this.#routes.map(({ route }) => route)))
      this.#problems.conflict(
        [...(paths.get(route) as Path), route.pattern ? 'path' : 'regex'],
        conflictInWords(route, by, host)
      )
  }

  #warnAboutUnused(): void {
    const used = new Set(
      this.#routes.flatMap(({ route }) => [...servicesOf(route), route.fallback?.service, route.mirror?.service])
    )
    for (const name of Object.keys(this.#settled.services)) {
      if (!used.has(name)) this.#problems.warn(['services', name], 'no route leads to this service')
    }
    if ('cache' in this.#document) this.#problems.warn(['cache'], 'is understood but has no effect in this version')
  }

  #positionOf(path: Path): Position | undefined {
    let container: unknown = this.#document
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

function noNetwork(entry: string): string {
  return `"${entry}" is no network: write ${NETWORK_WORDS.join(', ')}, 10.0.0.0/8 or fd00::/8`
}

/** In milliseconds. */
const LEAST_KEPT = { audit: 30 * 86_400_000, minutes: 6 * 3_600_000 }

/** The paths that the gateway keeps for itself, with the setting that moves them. */
export function reservedPatterns({
  paths,
  storage,
  identity
}: Pick<Snapshot, 'paths' | 'storage'> & { readonly identity: Pick<IdentitySettings, 'local' | 'oauth'> }): [
  key: keyof PathSettings,
  source: string
][] {
  const list: [key: keyof PathSettings, below: string][] = [
    ['health', '/**'],
    ['metrics', ''],
    ['api_metrics', '/**'],
    ['gateway', '/**'],
    ['admin', '/**'],
    ['batch', '']
  ]
  if (storage.database) list.push(['services', '/**'], ['traffic', ''], ['usage', '/**'], ['errors', ''])
  if (identity.oauth !== undefined) list.push(['oauth', '/**'])
  if (identity.local) list.push(['auth', '/**'], ['users', '/me'], ['token', ''], ['api_keys', '/**'])
  const own = list.flatMap(([key, below]): [keyof PathSettings, string][] =>
    paths[key] === false ? [] : [[key, `${paths[key]}${below}`]]
  )
  for (const prefix of paths.documentation || []) {
    const base = prefix.replace(/\/$/, '')
    own.push(['documentation', `${base}/docs/**`], ['documentation', `${base}/redoc/**`])
    own.push(['documentation', `${base}/openapi.json`])
  }
  return own
}

/** Why this configuration cannot sign tokens of its own, if so; see `src/identity/local-key.ts`. */
function signingTrouble({ jwt, issuers }: IdentitySettings, { environment }: GatewaySettings): string | undefined {
  if (!jwt.algorithm.startsWith('HS')) return jwt.secret ? undefined : 'needs a private key as "identity.jwt.secret"'
  const none = !jwt.secret && /^prod(?:uction)?$/i.test(environment) && issuers.length > 0
  return none ? 'needs "identity.jwt.secret" in production' : undefined
}

function retryPolicy(settings: RetrySettings | undefined): RetryPolicy {
  const none: RetryPolicy = {
    attempts: 0,
    backoffMs: 25,
    maxBackoffMs: 1000,
    methods: IDEMPOTENT,
    on: new Set(),
    budget: BUDGET
  }
  if (settings === undefined || settings === false) return none
  if (typeof settings === 'number') return { ...none, attempts: settings, on: new Set(['connect', 'reset']) }
  return {
    attempts: settings.attempts,
    backoffMs: settings.backoff,
    maxBackoffMs: settings.max_backoff,
    methods: new Set(settings.methods.map(method => method.toUpperCase())),
    on: new Set(settings.retry_on as Failure[]),
    budget: settings.budget
  }
}

/** `GET|HEAD api.example.com/users/**`: what a route is called when nobody named it. */
function describeMatch(label: string, match: Omit<RouteMatch, 'id'>): string {
  const methods =
    match.methods === undefined
      ? ''
      : `${[...match.methods].filter(method => method !== 'HEAD' || match.methods?.size === 1).join('|')} `
  const hosts = match.hosts === undefined ? '' : match.hosts.join('|')
  const conditions = [...match.headers, ...match.query].map(condition => ` ${condition.name} ${condition.wanted}`)
  if (match.countries !== undefined) conditions.push(` from ${[...match.countries].join('|')}`)
  return `${methods}${hosts}${match.pattern === undefined ? '~' : ''}${label}${conditions.join('')}`
}

/** `are: orders, chat`, but not a thousand of them. */
function listed(names: readonly string[]): string {
  if (names.length === 0) return 'are none'
  const shown = names.slice(0, 10).join(', ')
  return `are: ${shown}${names.length > 10 ? ` and ${names.length - 10} more` : ''}`
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value) && !ArrayBuffer.isView(value)) {
    Object.freeze(value)
    for (const inner of Object.values(value)) deepFreeze(inner)
  }
  return value
}
