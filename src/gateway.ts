import { hostname } from 'node:os'
import type { Duplex } from 'node:stream'
import type { Logger } from 'pino'
import type { Concern } from '../plugins/index.ts'
import { type Control, createGeneration, type Generation } from './app.ts'
import { VERSION } from './cli.ts'
import type { NodeState, Nodes } from './cluster/nodes.ts'
import type { Siblings } from './cluster/siblings.ts'
import { changesBetween } from './config/diff.ts'
import { type ConfigSources, readDocument, type SourceDocument } from './config/document.ts'
import { createSnapshot } from './config/normalise.ts'
import { ConfigError, formatProblem } from './config/problem.ts'
import type { Snapshot } from './config/snapshot.ts'
import { withRemote } from './config/sources/remote.ts'
import { type Seen, seenNow, watchFiles } from './config/watch.ts'
import { noteChange } from './database/audit.ts'
import { type Database, openDatabase } from './database/database.ts'
import { DatabaseError } from './database/database-error.ts'
import type { NodesTable } from './database/tables.ts'
import type { RemoteConfig } from './discovery/remote-config.ts'
import { refuse } from './errors.ts'
import { ensureAdministrator, type FirstAdministrator } from './identity/administrator.ts'
import { type Concerns, loadConcerns } from './plugins.ts'
import type { Policy } from './policy.ts'
import { pluginFailure } from './policy-hooks.ts'
import type { Exchange } from './proxy/exchange.ts'
import { type Host, Registry } from './registry/registry.ts'
import { type RegisteredService, withRegistered } from './registry/service.ts'
import { type Clock, systemClock } from './runtime/clock.ts'
import { Runtime } from './runtime/runtime.ts'
import { within } from './runtime/within.ts'
import type { TObject } from './schema.ts'
import { GatewayServer } from './server.ts'
import { createStore } from './store/create.ts'
import { createLog } from './telemetry/log.ts'

/** A configuration read, checked, and with everything that it names loaded. */
export interface Loaded {
  readonly snapshot: Snapshot
  readonly concerns: Concerns
  /** What was looked at on the way: a change of it is a reason to read again. */
  readonly seen: Seen
  /** What the snapshot was made of. */
  readonly source: SourceDocument
}

/** A configuration with the registered services, ready to serve. */
interface Built {
  readonly loaded: Loaded
  readonly snapshot: Snapshot
  readonly generation: Generation
}

/**
 * Reads and checks a configuration; nothing is started.
 * @param seen gets the files and folders that were looked at, whatever comes of it
 * @throws {ConfigError} with every problem found
 */
export async function loadConfiguration(sources: ConfigSources, seen: Seen = new Map()): Promise<Loaded> {
  const source = await readDocument(sources, seen)
  const concerns = await loadConcerns(source.document, seen)
  const whole = { ...source, problems: [...source.problems, ...concerns.problems] }
  return { snapshot: await createSnapshot(whole, concerns.dialect), concerns, seen, source: whole }
}

/** Checks a configuration as far as a start would, short of opening a port: policies are compiled, too. @throws {ConfigError} */
export async function checkConfiguration(sources: ConfigSources): Promise<Loaded> {
  const loaded = await loadConfiguration(sources)
  await withGeneration(loaded, () => {})
  return loaded
}

/** Builds a generation that serves nobody, for `look`, and closes it. @throws {ConfigError} when it cannot be built */
export async function withGeneration<T>(
  { snapshot, concerns }: Loaded,
  look: (generation: Generation, runtime: Runtime) => T
): Promise<Awaited<T>> {
  const runtime = new Runtime({ log: await createLog({ ...snapshot.logging, level: 'silent', format: 'json' }) })
  try {
    for (const concern of concerns.order) await setUp(concern, runtime)
    const generation = await createGeneration(snapshot, { runtime, concerns: concerns.order, control: NO_CONTROL })
    try {
      return await look(generation, runtime)
    } finally {
      await generation.close()
    }
  } finally {
    await runtime.close()
  }
}

/** For generations that nobody will ask to do anything. */
export const NO_CONTROL: Control = {
  reload: () => Promise.reject(new Error('not running')),
  siblings: undefined,
  nodes: async () => [],
  connect: () => {
    throw new Error('not running')
  },
  ready: () => false,
  status: () => ({ version: '', appliedAt: 0, error: undefined }),
  setRouteEnabled: async () => false,
  registry: undefined,
  ports: []
}

/** How long a start waits for those who say where services are, in milliseconds. */
const FIRST_LISTS_MS = 3000

const SHUTTING_DOWN = refuse('service_unavailable', { details: 'The gateway is shutting down.' })

/** A gateway at work: one runtime, one door, and one generation after another. */
export class Gateway implements Control {
  readonly runtime: Runtime
  readonly server: GatewayServer
  /** Services that are registered by the API, if there is a database for them. */
  readonly registry: Registry<Built> | undefined
  /** The other workers on the same port, if this is one of several. */
  readonly siblings: Siblings | undefined
  readonly #sources: ConfigSources
  readonly #setUp = new WeakSet<Policy>()
  /** Routes that an administrator has switched on or off, until the next start. */
  readonly #switched = new Map<string, boolean>()
  /** What the process was started with, whatever the configuration has come to say since. */
  readonly #atStart: Readonly<Record<string, unknown>>
  /** What the files say. */
  #own: Loaded
  /** That, with what {@link Snapshot.serviceConfigUrl} says. */
  #files: Loaded
  #remote: RemoteConfig | undefined
  /** What it has said last that could be served. */
  #remoteDocument: unknown
  /** That, with the registered services. */
  #loaded: Loaded
  #seen: Seen
  /** The files of the listener's certificate, as they were just before they were read. */
  #certificateSeen: Seen
  #appliedAt: number
  #error: string | undefined
  #applying: Promise<unknown> = Promise.resolve()
  #unwatch: (() => void) | undefined
  #closing: Promise<void> | undefined
  /** Where it listens. */
  port = 0
  readonly ports: number[] = []
  /** The gateways on this database, if others can be there. */
  #nodes: Nodes | undefined
  /** The administrator whom this start has made, if it was the first one. */
  firstAdministrator: FirstAdministrator | undefined

  private constructor(sources: ConfigSources, loaded: Loaded, runtime: Runtime, siblings: Siblings | undefined) {
    this.siblings = siblings
    this.#answerSiblings()
    this.#sources = sources
    this.#own = loaded
    this.#files = loaded
    this.#loaded = loaded
    this.#seen = loaded.seen
    this.#atStart = settingsOfTheProcess(loaded.snapshot)
    this.runtime = runtime
    this.server = new GatewayServer(loaded.snapshot.server, runtime)
    this.#certificateSeen = seenNow(this.server.certificateFiles)
    this.#appliedAt = runtime.clock.now()
    const { database, log } = runtime
    this.registry = database && new Registry(database, this.#registryHost(), log)
  }

  /** What is done at one worker is done at all of them. */
  #answerSiblings(): void {
    const { siblings } = this
    siblings?.on('reload', () => this.reload())
    siblings?.on('route', ({ id, enabled }: { id: string; enabled: boolean }) => this.setRouteEnabled(id, enabled))
    siblings?.on('metrics', async () => (await this.#metrics()).metrics())
    siblings?.on('metrics as json', async () => (await this.#metrics()).getMetricsAsJSON())
    siblings?.on('summary', () => this.runtime.metrics.summary())
  }

  async #metrics() {
    const { prometheusRegistry } = await import('./metrics-registry.ts')
    return prometheusRegistry(this.runtime, this.snapshot.gateway.region)
  }

  #registryHost(): Host<Built> {
    return {
      compile: services => this.#compile(this.#files, services),
      serve: built => this.#serve(built, { since: this.runtime.clock.monotonic(), routes: true }),
      discard: ({ generation }) => generation.close(),
      exclusively: work => this.#oneAtATime(work)
    }
  }

  /**
   * Reads the configuration, builds the first generation and opens the port. What does not start leaves nothing open.
   * @param runtime instead of one made from the configuration, for tests; it ends with the gateway
   * @param siblings the other workers, if there are any
   * @param prepare called once the data folder is this gateway's own, before anything is read from there
   * @throws {ConfigError} when the configuration is not good; whatever `listen` throws when the port is not to be had
   */
  static async start(
    sources: ConfigSources,
    options: { runtime?: Runtime; loaded?: Loaded; siblings?: Siblings; prepare?(snapshot: Snapshot): void } = {}
  ): Promise<Gateway> {
    const loaded = options.loaded ?? (await loadConfiguration(sources))
    const runtime = options.runtime ?? (await createRuntime(loaded.snapshot))
    options.prepare?.(loaded.snapshot)
    const gateway = new Gateway(sources, loaded, runtime, options.siblings)
    try {
      await gateway.#open()
    } catch (error) {
      await gateway.close(0)
      throw error
    }
    return gateway
  }

  async #open(): Promise<void> {
    const { database, live, recorder, revocations } = this.runtime
    await recorder?.open()
    await revocations.open()
    live.keepFor(lifeOfTokens(this.snapshot))
    if (database !== undefined) await live.follow(database)
    await this.registry?.open()
    await this.runtime.registrations?.open()
    const { loaded, generation } = await this.#compileAll(this.#files)
    this.#loaded = loaded
    this.server.swap(generation)
    await this.#followRemote()
    await this.runtime.watches.settled(FIRST_LISTS_MS)
    const { server, adminListen } = this.snapshot
    const atAdminDoor = adminListen === undefined ? undefined : false
    this.port = (await this.server.listen(server.host, server.port, atAdminDoor)).port
    this.ports.push(this.port)
    if (adminListen !== undefined) {
      const [, host, port] = /^(.+):(\d+)$/.exec(adminListen) as unknown as [string, string, string]
      this.ports.push((await this.server.listen(host, Number(port), true)).port)
    }
    await this.#welcome()
    if (database?.kind !== 'postgres') return
    const { Nodes } = await import('./cluster/nodes.ts')
    this.#nodes = new Nodes(database, this.runtime.log, () => this.#describe())
    await this.#nodes.open()
  }

  /** Follows who knows further services. A start waits for him, but not for ever; what he says later is served then. */
  async #followRemote(): Promise<void> {
    const { serviceConfigUrl } = this.snapshot
    if (serviceConfigUrl === undefined) return
    const { RemoteConfig } = await import('./discovery/remote-config.ts')
    this.#remote = new RemoteConfig(serviceConfigUrl, this.runtime.discovery, document =>
      this.#oneAtATime(() => this.#takeRemote(document))
    )
    this.runtime.dependencies.add(this.#remote)
    this.#remote.start()
    await within(FIRST_LISTS_MS, this.#remote.asked)
  }

  /** @throws {ConfigError} when it cannot be served; then nothing has changed */
  async #takeRemote(document: unknown): Promise<void> {
    const files = await withDocument(this.#own, document)
    if (files.snapshot.version !== this.#files.snapshot.version) await this.#apply(files)
    this.#remoteDocument = document
  }

  /** Whoever starts a gateway for the first time is told how to get in, once. */
  async #welcome(): Promise<void> {
    const { log } = this.runtime
    this.firstAdministrator = await ensureAdministrator(this.runtime, this.snapshot)
    const { username, password } = this.firstAdministrator ?? {}
    if (username === undefined) return
    if (password === undefined) log.info({ username }, 'the first administrator has been made')
    else
      log.warn(
        { username, password },
        'the first administrator has been made; this password is shown once, and good once'
      )
  }

  /** With all registered services that go with these files. */
  #compileAll(files: Loaded): Promise<Built> {
    const compile = (services: readonly RegisteredService[]) => this.#compile(files, services)
    return this.registry === undefined ? compile([]) : this.registry.compile(compile)
  }

  async #compile(files: Loaded, services: readonly RegisteredService[]): Promise<Built> {
    const snapshot =
      services.length === 0
        ? files.snapshot
        : await createSnapshot(withRegistered(files.source, services), files.concerns.dialect)
    const loaded = { ...files, snapshot }
    return { loaded, snapshot, generation: await this.#build(loaded) }
  }

  get snapshot(): Snapshot {
    return this.#loaded.snapshot
  }

  /** The schema of its document, with the options of its plugins. */
  get schema(): TObject {
    return this.#loaded.concerns.dialect.schema
  }

  /** Follows changes of the configuration's files. A change that is not good is reported, and changes nothing. */
  watch(): void {
    this.#unwatch?.()
    const stop = watchFiles(this.#seen, () => {
      this.reload().catch(() => {})
    })
    const stopTls = watchFiles(this.#certificateSeen, () => this.#reloadCertificate())
    this.#unwatch = () => {
      stop()
      stopTls()
    }
  }

  #reloadCertificate(): void {
    this.#certificateSeen = seenNow(this.server.certificateFiles)
    try {
      this.server.reloadCertificate()
      this.runtime.log.info('the certificate has been read again')
    } catch (error) {
      this.runtime.log.error({ err: error }, 'the certificate cannot be used; the one before stays')
    }
  }

  /** One change at a time; what is asked for meanwhile comes after, and finds the newest files. */
  reload(): Promise<{ version: string; changed: boolean }> {
    return this.#oneAtATime(() => this.#reload())
  }

  async #reload(): Promise<{ version: string; changed: boolean }> {
    const { runtime } = this
    const seen: Seen = new Map()
    try {
      const own = await loadConfiguration(this.#sources, seen)
      this.#seen = seen
      const loaded = await withDocument(own, this.#remoteDocument)
      if (loaded.snapshot.version === this.#files.snapshot.version && this.#changedPlugins(loaded).length === 0) {
        this.#error = undefined
        runtime.log.info(`configuration ${shortVersion(this.snapshot)} has been read again: nothing has changed`)
        return { version: this.snapshot.version, changed: false }
      }
      await this.#apply(loaded)
      this.#own = own
      runtime.metrics.reloads.inc({ result: 'applied' })
      return { version: this.snapshot.version, changed: true }
    } catch (error) {
      // What mends it may be in a file that this reading did not come to: it is followed, as it is by now.
      this.#seen = new Map([...seenNow([...this.#seen.keys()]), ...seen])
      runtime.metrics.reloads.inc({ result: 'refused' })
      const problems = error instanceof ConfigError ? error.problems : undefined
      this.#error =
        problems === undefined
          ? (error as Error).message
          : `${problems.length} problem${problems.length === 1 ? '' : 's'}`
      runtime.log.error(
        problems === undefined ? { err: error } : { problems: problems.map(formatProblem) },
        `configuration refused; still serving ${shortVersion(this.snapshot)}`
      )
      throw error
    } finally {
      if (this.#unwatch !== undefined) this.watch()
      void this.#nodes?.report()
    }
  }

  /** Plugins whose files have changed; a plugin that comes or goes shows in the configuration. */
  #changedPlugins(loaded: Loaded): string[] {
    const running = new Set(this.#files.concerns.order.map(({ origin }) => origin?.url))
    return loaded.concerns.order.filter(({ origin }) => !running.has(origin?.url)).map(({ name }) => name)
  }

  async #apply(files: Loaded): Promise<void> {
    const { runtime } = this
    const since = runtime.clock.monotonic()
    const built = await this.#compileAll(files)
    const before = this.snapshot
    this.#error = undefined
    const plugins = this.#changedPlugins(files).map(name => `~ plugin ${name}`)
    this.#files = files
    const changes = await this.#serve(built, { since, plugins })
    await noteChange(runtime, {
      at: runtime.clock.now(),
      actor: 'gateway',
      action: 'configuration.apply',
      target: 'configuration',
      before: { version: before.version },
      after: { version: this.snapshot.version, changes }
    })
    for (const problem of files.snapshot.warnings) runtime.log.warn(formatProblem(problem))
    if (before.logging.level !== files.snapshot.logging.level) runtime.log.level = files.snapshot.logging.level
    const [started, now] = [this.#atStart, settingsOfTheProcess(files.snapshot)]
    for (const [key, value] of Object.entries(now)) {
      if (started[key] !== value) runtime.log.warn(`"${key}" has changed; that takes effect at the next start`)
    }
  }

  /**
   * Puts a generation in charge; returns what is other than before, in words.
   * @param since when it was begun to be made, for the log
   * @param routes whether nothing but routes and services has changed
   */
  async #serve(
    { loaded, generation }: Built,
    { since, routes = false, plugins = [] }: { since: number; routes?: boolean; plugins?: readonly string[] }
  ): Promise<string[]> {
    const { runtime } = this
    const before = this.snapshot
    this.#loaded = loaded
    this.#appliedAt = runtime.clock.now()
    this.server.swap(generation, { routes })
    void this.#nodes?.report()
    const took = Math.round(runtime.clock.monotonic() - since)
    const changes = [...(await changesBetween(before, loaded.snapshot)), ...plugins]
    runtime.log.info(
      { generation: loaded.snapshot.version, took_ms: took },
      `configuration ${shortVersion(before)} → ${shortVersion(loaded.snapshot)}: ${changes.join(', ') || 'no visible change'}  (swap ${took} ms)`
    )
    return changes
  }

  async #build(loaded: Loaded): Promise<Generation> {
    for (const concern of loaded.concerns.order) {
      if (!('policy' in concern) || this.#setUp.has(concern.policy)) continue
      await setUp(concern, this.runtime)
      this.#setUp.add(concern.policy)
    }
    this.runtime.live.keepFor(lifeOfTokens(loaded.snapshot))
    const routes = loaded.snapshot.routes.map(route => ({
      ...route,
      enabled: this.#switched.get(route.id) ?? route.enabled
    }))
    return createGeneration(
      { ...loaded.snapshot, routes },
      { runtime: this.runtime, concerns: loaded.concerns.order, control: this }
    )
  }

  async setRouteEnabled(id: string, enabled: boolean): Promise<boolean> {
    if (!this.snapshot.routes.some(route => route.id === id)) return false
    this.#switched.set(id, enabled)
    await this.#oneAtATime(async () => this.server.swap(await this.#build(this.#loaded)))
    this.runtime.log.info({ route: id }, `route switched ${enabled ? 'on' : 'off'}`)
    return true
  }

  #oneAtATime<T>(change: () => Promise<T>): Promise<T> {
    if (this.#closing !== undefined) return Promise.reject(SHUTTING_DOWN)
    const result = this.#applying.then(change, change)
    this.#applying = result.catch(() => {})
    return result
  }

  async nodes(): Promise<readonly NodesTable[]> {
    return (await this.#nodes?.list()) ?? [{ ...this.#describe(), seen_at: this.runtime.clock.now() }]
  }

  #describe(): NodeState {
    const { runtime, snapshot } = this
    const { server, gateway } = snapshot
    return {
      id: runtime.node,
      address: `${hostname()}:${this.port || server.port}`,
      region: gateway.region,
      version: snapshot.version,
      software: VERSION,
      error: this.#error ?? null,
      started_at: Math.round(runtime.startedAt)
    }
  }

  connect(exchange: Exchange): Duplex {
    return this.server.connect(exchange)
  }

  ready(): boolean {
    return this.server.accepting && !this.runtime.overload.lasting
  }

  status(): { version: string; appliedAt: number; error: string | undefined } {
    return { version: this.snapshot.version, appliedAt: this.#appliedAt, error: this.#error }
  }

  /**
   * Fails readiness for `server.timeouts.shutdown_delay`, lets requests end and closes everything.
   * @param graceMs for those under way; the drain time if not given, and 0 to close at once
   */
  close(graceMs: number = this.snapshot.server.timeouts.drain): Promise<void> {
    this.#closing ??= this.#close(graceMs)
    return this.#closing
  }

  async #close(graceMs: number): Promise<void> {
    if (graceMs > 0) await this.server.withdraw()
    await this.#applying
    this.#remote?.stop()
    this.registry?.close()
    this.#unwatch?.()
    // Others see that it goes before it has gone.
    await this.#nodes?.close()
    await this.server.close(graceMs)
    await this.runtime.close()
    this.runtime.sink.flush()
  }
}

/** What no change of the configuration reaches, because it made the listeners, the store or the log; comparable. */
function settingsOfTheProcess({
  server,
  adminListen,
  serviceConfigUrl,
  storage,
  logging
}: Snapshot): Record<string, unknown> {
  return {
    server: JSON.stringify(server),
    'admin.listen': adminListen,
    service_config_url: serviceConfigUrl,
    'storage.database': storage.database,
    'storage.database_url': storage.database_url,
    'storage.data_dir': storage.data_dir,
    'storage.redis_url': storage.redis_url,
    'storage.redis_timeout': storage.redis_timeout,
    'logging.format': logging.format
  }
}

/** With what somebody else knows of services; undefined is nothing. @throws {ConfigError} when that does not go with the rest */
async function withDocument(own: Loaded, document: unknown): Promise<Loaded> {
  if (document === undefined) return own
  const source = withRemote(own.source, document)
  return { ...own, source, snapshot: await createSnapshot(source, own.concerns.dialect) }
}

/** Has a policy make what outlives configurations. @throws {ConfigError} when a third party's cannot */
async function setUp(concern: Concern, runtime: Runtime): Promise<void> {
  if (!('policy' in concern)) return
  const { name, policy, origin } = concern
  try {
    await policy.setup?.(runtime)
  } catch (error) {
    throw origin === undefined ? error : pluginFailure(name, origin, error)
  }
}

/** For how long an access token of the gateway's own may be used, in milliseconds. */
function lifeOfTokens({ identity: { jwt } }: Snapshot): number {
  return jwt.access_minutes * 60_000 + jwt.clock_skew
}

/** The first letters of a version, as people see it. */
export function shortVersion({ version }: Snapshot): string {
  return version.slice(0, 4)
}

async function createRuntime(snapshot: Snapshot): Promise<Runtime> {
  const log = await createLog(snapshot.logging)
  // First what may refuse: a connection to Redis would keep a process alive that does not start.
  const database = await databaseOf(snapshot, log.logger)
  return new Runtime({ log, store: await createStore(snapshot, log.logger), database })
}

/**
 * The database of a configuration, up to date; undefined when it is to have none.
 * @throws {ConfigError} when it cannot be used, where the configuration names it
 */
export async function databaseOf(
  { storage, document }: Pick<Snapshot, 'storage' | 'document'>,
  log: Logger,
  clock: Clock = systemClock
): Promise<Database | undefined> {
  if (!storage.database) return undefined
  try {
    return await openDatabase(storage, { clock, log })
  } catch (error) {
    if (!(error instanceof DatabaseError)) throw error
    const path = ['storage', storage.database_url ? 'database_url' : 'data_dir']
    throw ConfigError.at(document, path, error.message, { cause: error })
  }
}
