import type { Duplex } from 'node:stream'
import Fastify, { type FastifyInstance, type FastifyPluginCallback } from 'fastify'
import type { Concern } from '../plugins/index.ts'
import ownRoutes from '../routes/index.ts'
import { ANY_METHOD, type Mounted, mountRoutes } from '../routes/proxy.ts'
import type { Siblings } from './cluster/siblings.ts'
import { ConfigError, type Problem } from './config/problem.ts'
import type { Snapshot } from './config/snapshot.ts'
import type { NodesTable } from './database/tables.ts'
import { type GatewayError, refuse } from './errors.ts'
import { acquireAuthenticator, IdentityError } from './identity/authenticator.ts'
import type { PolicyUse } from './policy.ts'
import { pluginFailure, policyPlugin, replyFields } from './policy-hooks.ts'
import { type Exchange, exchangeOf } from './proxy/exchange.ts'
import type { Route } from './proxy/route.ts'
import { CLOSE, type Tunnel } from './proxy/tunnel.ts'
import type { Registry } from './registry/registry.ts'
import type { Canary } from './releases/canary.ts'
import { type Countries, compileCountry, openCountries } from './releases/geo.ts'
import { parsePattern } from './routing/pattern.ts'
import { type RouteMatch, RouteTable } from './routing/table.ts'
import { type Versioning, versionName } from './routing/version.ts'
import { http } from './runtime/node.ts'
import type { Runtime } from './runtime/runtime.ts'
import { within } from './runtime/within.ts'
import { lazyCompilers } from './schema-compilers.ts'
import type { SeriesKind } from './telemetry/metrics.ts'
import type { ServiceConfig } from './upstream/service.ts'
import type { Target } from './upstream/target.ts'

/** Where requests go that the door has refused: to the same hooks, log and error format as all others. */
const REFUSED = '/ refused'

/** How long plugins have to close what they hold, in milliseconds. */
const CLOSE_MS = 3000

/** What the door finds for a request: a route of the configuration, or an endpoint of the gateway's own. */
type Destination = Route | OwnEndpoint

interface OwnEndpoint extends RouteMatch {
  readonly own: true
  /** Belongs to the administration, and to its listener if it has one. */
  readonly administrative: boolean
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** The route of refusals, which is no endpoint. */
    refused?: boolean
    /** Belongs to the administration. */
    administrative?: boolean
  }
}

/** What every generation is built from, besides the snapshot. */
export interface Build {
  readonly runtime: Runtime
  /** The concerns in order, third parties' included. */
  readonly concerns: readonly Concern[]
  /** What the gateway's own endpoints need to act on it. */
  readonly control: Control
}

/** The gateway as its own endpoints see it. */
export interface Control {
  /** Reads the configuration again; rejects with a {@link ConfigError} and changes nothing when it is not good. */
  reload(): Promise<{ version: string; changed: boolean }>
  /** The other workers on the same port, if there are any. */
  readonly siblings: Siblings | undefined
  /** This gateway and, on a PostgreSQL, all others there; the oldest first. */
  nodes(): Promise<readonly NodesTable[]>
  /** A connection to the door that `exchange` came through, as from its client. */
  connect(exchange: Exchange): Duplex
  /** Whether requests may be sent here. */
  ready(): boolean
  status(): { version: string; appliedAt: number; error: string | undefined }
  setRouteEnabled(id: string, enabled: boolean): Promise<boolean>
  /** Services that are registered by the API; undefined without a database. */
  readonly registry: Registry | undefined
  /** Where it listens. */
  readonly ports: readonly number[]
}

/**
 * One configuration at work: a Fastify app with everything compiled, and what it holds of the runtime. Requests that it has
 * taken in stay with it to their end, whatever comes after it.
 */
export class Generation {
  readonly snapshot: Snapshot
  readonly app: FastifyInstance
  readonly table: RouteTable<Destination>
  /** From which country a request comes; undefined where no route asks for that. */
  readonly countryOf: ((exchange: Exchange) => string) | undefined
  readonly #runtime: Runtime
  readonly #tunnels: Set<Tunnel>
  readonly #targets: readonly Target[]
  readonly #canaries: readonly Canary[]
  readonly #leases: readonly string[]
  readonly #unfollow: readonly ((() => void) | undefined)[]
  #inFlight = 0
  /** The youngest of the requests in flight; the others follow by `next`. */
  #youngest: Exchange | undefined
  /** Told when nothing is in flight any more. */
  readonly #whenIdle: (() => void)[] = []

  constructor(
    snapshot: Snapshot,
    app: FastifyInstance,
    { table, countryOf }: Pick<Generation, 'table' | 'countryOf'>,
    runtime: Runtime,
    tunnels: Set<Tunnel>,
    { targets, canaries }: Pick<Mounted, 'targets' | 'canaries'>,
    leases: readonly string[]
  ) {
    this.snapshot = snapshot
    this.app = app
    this.table = table
    this.countryOf = countryOf
    this.#runtime = runtime
    this.#tunnels = tunnels
    this.#targets = targets
    this.#canaries = canaries
    this.#leases = leases
    const reconsider = (): void => {
      for (const tunnel of tunnels) tunnel.reconsider()
    }
    this.#unfollow = [runtime.live.onEnd(reconsider), runtime.storedKeys?.onChange(reconsider)]
  }

  /** Requests and WebSockets that are not at their end yet. */
  get inFlight(): number {
    return this.#inFlight
  }

  /** From now on this is what is served: services learn what it says of their instances. */
  takeOver(): void {
    const { services, registry } = this.snapshot
    for (const { service } of this.#targets)
      this.#runtime.services.enter(service, services.get(service.name) as ServiceConfig, registry.allow)
    this.#runtime.breakers.follow()
    void this.#runtime.canaries.enter(this.#canaries)
  }

  /** Decides where a request belongs and hands it to Fastify. */
  enter(exchange: Exchange): void {
    this.#add(exchange)
    const { request, response } = exchange
    if (exchange.refusal === undefined) this.direct(exchange)
    if (exchange.refusal !== undefined) {
      request.url = REFUSED
      // There are more methods than Fastify knows, and nobody is going to look at a body.
      request.method = 'GET'
    } else if (exchange.route === undefined) request.url = exchange.path + exchange.search
    else request.url = exchange.search === '' ? exchange.route.slot : exchange.route.slot + exchange.search
    this.app.routing(request, response)
  }

  /**
   * Finds where a request belongs, and sets its route. It may be refused there all the same: then `exchange.refusal` says why.
   */
  direct(exchange: Exchange): Destination | undefined {
    if (this.countryOf !== undefined) exchange.country = this.countryOf(exchange)
    const found = this.#find(exchange)
    if (found === undefined) exchange.refusal = this.#refusalOf(exchange)
    else if (!this.#isAtTheRightDoor(found, exchange))
      exchange.refusal = refuse('not_found', { reason: 'another_door' })
    else if ('own' in found) {
      // A service whose address is ours must not lead to the administration (H-122).
      if (exchange.hasPassed(this.#runtime.pseudonym)) exchange.refusal = refuse('loop_detected')
    } else {
      exchange.refusal = faultOf(exchange, found)
      if (exchange.refusal === undefined) exchange.route = found
    }
    return found
  }

  #refusalOf(exchange: Exchange): GatewayError {
    const versions = this.table.versionsFor(exchange)
    if (versions.length > 0)
      return refuse('unsupported_version', {
        details: `Versions that there are: ${versions.join(', ')}.`,
        ...(this.snapshot.versioning.vendor !== undefined && { headers: ['vary', 'accept'] })
      })
    const allowed = this.table.allowedMethods(exchange)
    if (allowed.length === 0) return refuse('not_found', { reason: 'no_route' })
    return refuse('method_not_allowed', { headers: ['allow', allowed.join(', ')] })
  }

  /** A preflight belongs to the route it asks about, if that route answers such questions. */
  #find(exchange: Exchange): Destination | undefined {
    if (exchange.isPreflight) {
      const asked = this.table.match(exchange.asPreflighted())
      if (asked !== undefined && ('own' in asked || asked.answersPreflights)) return asked
    }
    return this.table.match(exchange)
  }

  /** With a listener of its own, administration is there and nowhere else, and nothing else is there (H-122). */
  #isAtTheRightDoor(found: Destination, { atAdminDoor }: Exchange): boolean {
    if (atAdminDoor === undefined) return true
    return 'own' in found && !found.administrative ? true : atAdminDoor === 'own' in found
  }

  /** The answer to `exchange` is complete, or its client has gone. */
  leave(exchange: Exchange): void {
    for (const observe of this.app.observers) observe(exchange)
    if (exchange.counted) this.#runtime.overload.leave(exchange)
    const { previous, next } = exchange
    if (previous === undefined) this.#youngest = next
    else previous.next = next
    if (next !== undefined) next.previous = previous
    exchange.previous = exchange.next = undefined
    this.#inFlight--
    if (this.#inFlight === 0) while (this.#whenIdle.length > 0) this.#whenIdle.pop()?.()
  }

  #add(exchange: Exchange): void {
    exchange.generation = this
    exchange.next = this.#youngest
    if (this.#youngest !== undefined) this.#youngest.previous = exchange
    this.#youngest = exchange
    this.#inFlight++
  }

  /** Cuts off what is still in flight, or what of it `isOver`. */
  abort(reason: string, isOver: (exchange: Exchange) => boolean = everything): void {
    for (let exchange = this.#youngest; exchange !== undefined; exchange = exchange.next) {
      if (!isOver(exchange)) continue
      exchange.reason = reason
      exchange.cut()
    }
  }

  /** Everything here is to end, and nothing is to follow on the same connections. */
  drain(reason: string): void {
    for (let exchange = this.#youngest; exchange !== undefined; exchange = exchange.next) {
      if (!exchange.http2 && !exchange.response.headersSent) exchange.response.shouldKeepAlive = false
    }
    this.closeTunnels(reason)
  }

  /** Resolves when nothing is in flight any more. */
  get idle(): Promise<void> {
    if (this.#inFlight === 0) return Promise.resolve()
    return new Promise(resolve => this.#whenIdle.push(resolve))
  }

  /** Closes this generation's WebSockets, saying that the gateway goes away. */
  closeTunnels(reason: string, isOver: (exchange: Exchange) => boolean = everything): void {
    for (const tunnel of this.#tunnels) if (isOver(tunnel.exchange)) tunnel.close(CLOSE.GOING_AWAY, reason)
  }

  get tunnels(): number {
    return this.#tunnels.size
  }

  /** Gives back what it holds. Its requests have to have ended, or been given up, before. */
  async close(): Promise<void> {
    for (const stop of this.#unfollow) stop?.()
    await closeApp(this.app, this.#runtime)
    for (const key of this.#leases) this.#runtime.leases.release(key)
  }
}

function everything(): boolean {
  return true
}

/** Third parties may have hung anything on the end of an app: neither what fails there nor what hangs keeps it open. */
async function closeApp(app: FastifyInstance, { log }: Runtime): Promise<void> {
  try {
    if (!(await within(CLOSE_MS, app.close()))) log.error('a plugin’s onClose does not come to its end')
  } catch (error) {
    log.error({ err: error }, 'a plugin’s onClose has failed')
  }
}

/** What a route does not take unless it says so. */
function faultOf({ method, encodedSlash, upgrade }: Exchange, route: Route): GatewayError | undefined {
  if (route.methods === undefined && !ANY_METHOD.has(method)) {
    return refuse('method_not_allowed', { headers: ['allow', [...ANY_METHOD].join(', ')] })
  }
  if (encodedSlash && !route.encodedSlash) {
    return refuse('bad_request', { reason: 'encoded_slash', details: 'The path is not acceptable.' })
  }
  if (upgrade !== undefined && !route.websocket) {
    return refuse('bad_request', { reason: 'websocket_not_allowed', details: 'There are no WebSockets here.' })
  }
  return undefined
}

/** Builds a generation, giving way to requests in between. @throws {ConfigError} when a policy does not like its options */
export async function createGeneration(snapshot: Snapshot, build: Build): Promise<Generation> {
  const { runtime, concerns, control } = build
  const leases: string[] = []
  const problems: Problem[] = []
  const tunnels = new Set<Tunnel>()
  let app: FastifyInstance | undefined
  try {
    prove(snapshot, concerns)
    leases.push(...holdSeries(snapshot, concerns, runtime))
    const identity = authenticatorOf(snapshot, runtime, leases)
    app = createApp(snapshot)
    const own = collectOwnEndpoints(app)
    app.decorate('observers', [])
    for (const concern of concerns) {
      if ('policy' in concern)
        await app.register(policyPlugin(concern.policy, concern.origin, { snapshot, runtime, problems }))
      else await registerPlugin(app, concern, { snapshot, runtime, ...identity })
    }
    if (concerns.some(({ origin }) => origin !== undefined)) await app.register(replyFields)
    app.route({
      method: 'GET',
      url: REFUSED,
      exposeHeadRoute: false,
      config: {
        policies: {
          ...usesOf(snapshot.defaults, ['security_headers', 'cors', 'ip_filter', 'errors']),
          // Looking for what is there costs as much as using it.
          ...(snapshot.rateLimits.ip === undefined ? {} : { pre_limit: { options: {}, scope: 'defaults' } })
        },
        refused: true
      },
      handler: request => {
        throw request.exchange.refusal
      }
    })
    await app.register(ownRoutes, { snapshot, runtime, control })
    const mounted = await mountRoutes(app, { snapshot, runtime, tunnels, onLease: key => leases.push(key) })
    const { routes } = mounted
    await app.ready()
    if (problems.length > 0) throw new ConfigError(problems)
    const countryOf = routes.some(({ countries }) => countries !== undefined)
      ? compileCountry(snapshot.geo, await countriesOf(snapshot, runtime, leases))
      : undefined
    const table = new RouteTable<Destination>([...routes, ...own()], versioningOf(snapshot))
    return new Generation(snapshot, app, { table, countryOf }, runtime, tunnels, mounted, leases)
  } catch (error) {
    if (app !== undefined) await closeApp(app, runtime)
    for (const key of leases) runtime.leases.release(key)
    throw error
  }
}

/** The database of countries, if there is one: read once for all configurations that have it as it is. */
async function countriesOf(
  { geo: { database }, document }: Snapshot,
  runtime: Runtime,
  leases: string[]
): Promise<Countries | undefined> {
  if (database === undefined) return undefined
  const { file, print } = database
  const key = `countries:${print}:${file}`
  leases.push(key)
  try {
    return await runtime.leases.acquire(
      key,
      () => openCountries(file),
      () => {}
    )
  } catch (error) {
    throw ConfigError.at(document, ['geo', 'database'], `cannot be read: ${(error as Error).message}`)
  }
}

function versioningOf({ versioning }: Snapshot): Versioning {
  const { default: fallback } = versioning
  return { ...versioning, default: fallback === undefined ? undefined : versionName(fallback) }
}

/** Series last as long as any generation has what they are about: names that come and go do not pile up. */
function holdSeries(
  { routes, services }: Snapshot,
  concerns: readonly Concern[],
  { leases, metrics }: Runtime
): string[] {
  const names: Record<SeriesKind, Iterable<string>> = {
    endpoint: new Set(routes.map(({ label }) => label)),
    service: services.keys(),
    plugin: concerns.filter(({ origin }) => origin !== undefined).map(({ name }) => name)
  }
  return (Object.keys(names) as SeriesKind[]).flatMap(kind =>
    [...names[kind]].map(name => {
      const key = `series:${kind}:${name}`
      leases.acquire(
        key,
        () => {},
        () => metrics.forget(kind, name)
      )
      return key
    })
  )
}

/** A concern that a route asks for and nobody provides would look on and be off: that is an error, never a shrug. */
function prove(snapshot: Snapshot, concerns: readonly Concern[]): void {
  const provided = new Set(concerns.map(concern => concern.name))
  for (const route of snapshot.routes) {
    for (const name of Object.keys(route.concerns)) {
      if (!provided.has(name))
        throw new ConfigError([
          { ...route.at, key: name, message: `nothing provides this concern (route ${route.id})`, severity: 'error' }
        ])
    }
  }
}

/** @throws {ConfigError} when a third party's plugin does not start */
async function registerPlugin(
  app: FastifyInstance,
  { name, plugin, origin }: Extract<Concern, { plugin: unknown }>,
  options: Record<string, unknown>
): Promise<void> {
  try {
    await app.register(plugin as FastifyPluginCallback<Record<string, unknown>>, options)
  } catch (error) {
    throw origin === undefined ? error : pluginFailure(name, origin, error)
  }
}

function authenticatorOf(snapshot: Snapshot, runtime: Runtime, leases: string[]) {
  try {
    const { key, ...identity } = acquireAuthenticator(snapshot, runtime)
    leases.push(key)
    return identity
  } catch (error) {
    if (!(error instanceof IdentityError)) throw error
    throw ConfigError.at(snapshot.document, error.path, error.message)
  }
}

function createApp(snapshot: Snapshot): FastifyInstance {
  const app = Fastify({
    logger: false,
    // A server that never listens: whatever plugins hang on it belongs to this generation, and closing closes nothing else.
    serverFactory: () => http.createServer(),
    routerOptions: { maxParamLength: 8192, compile: false } as object,
    exposeHeadRoutes: true,
    schemaController: { compilersFactory: lazyCompilers as never },
    return503OnClosing: false,
    // Called first of all for each request: Fastify has matched the slot by now, and everybody after this sees the URL.
    genReqId: raw => {
      const exchange = exchangeOf(raw)
      raw.url = exchange.path + exchange.search
      return exchange.id
    }
  })
  for (const method of methodsBeyondFastify(snapshot, app)) app.addHttpMethod(method, { hasBody: true })
  // Bodies are the forwarder's to read; the gateway's own endpoints bring a parser along.
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_request, _payload, done) => done(null, undefined))
  return app
}

function methodsBeyondFastify(snapshot: Snapshot, app: FastifyInstance): Set<string> {
  const named = snapshot.routes.flatMap(route => [...(route.methods ?? [])])
  return new Set(named.filter(method => !app.supportedMethods.includes(method)))
}

/** The gateway's own endpoints, as entries of the route table: they win over every route (C-16). */
function collectOwnEndpoints(app: FastifyInstance): () => OwnEndpoint[] {
  const urls = new Map<string, { methods: Set<string>; administrative: boolean }>()
  app.addHook('onRoute', ({ url, method, config }) => {
    if (config?.route !== undefined || config?.refused || !url.startsWith('/')) return
    const endpoint = urls.get(url) ?? { methods: new Set(), administrative: config?.administrative === true }
    urls.set(url, endpoint)
    for (const name of [method].flat()) endpoint.methods.add(name)
  })
  return () =>
    [...urls].map(([url, { methods, administrative }]) => ({
      own: true,
      administrative,
      id: `own ${url}`,
      pattern: parsePattern(url),
      methods,
      hosts: undefined,
      headers: [],
      query: [],
      priority: Number.MAX_SAFE_INTEGER,
      catchAll: false
    }))
}

function usesOf(concerns: Snapshot['defaults'], names: readonly string[]): Record<string, PolicyUse> {
  return Object.fromEntries(names.flatMap(name => (concerns[name] === undefined ? [] : [[name, concerns[name]]])))
}
