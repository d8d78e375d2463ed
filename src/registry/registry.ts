import type { Logger } from 'pino'
import { ConfigError, formatProblem, inWords } from '../config/problem.ts'
import type { Snapshot } from '../config/snapshot.ts'
import { type AuditEntry, writeAudit } from '../database/audit.ts'
import type { Database } from '../database/database.ts'
import { isUnreachable } from '../database/database-error.ts'
import { readServices, type ServiceList, serviceListVersion, writeServices } from '../database/services.ts'
import { GatewayError, refuse } from '../errors.ts'
import { placeOfService, type RegisteredService } from './service.ts'
import { trespassOf } from './trespass.ts'

/** Changes that are made in one go; more wait for the next. */
const BATCH = 200
/** How often changes are begun anew because another gateway was faster. */
const ROUNDS = 30
/** After so long a list that could not be followed is asked for again, in milliseconds. */
const AGAIN_MS = 1000

/** What a list of services is compiled to. */
export interface Compiled {
  readonly snapshot: Snapshot
}

/** The gateway as the registry sees it. */
export interface Host<C extends Compiled> {
  /** Compiles the configuration with these services. @throws {ConfigError} */
  compile(services: readonly RegisteredService[]): Promise<C>
  /** Puts in charge what has been compiled. */
  serve(compiled: C): Promise<unknown>
  /** Lets go of what has been compiled. */
  discard(compiled: C): Promise<void>
  /** One thing at a time, reloads included. */
  exclusively<T>(work: () => Promise<T>): Promise<T>
}

/** What somebody wants of the list. */
export interface Edit {
  /** Of the service that it is about. */
  readonly name: string
  /** Decides on the list as it is, and again whenever it has become another one. @throws {GatewayError} */
  decide(services: Lookup, revision: number): Change
}

/** A service comes, goes or becomes another one. */
export interface Change {
  readonly before: RegisteredService | undefined
  readonly after: RegisteredService | undefined
  /** Whether it may take requests from routes of others. */
  readonly privileged: boolean
  readonly audit: AuditEntry
}

/** What has come of an edit. */
export interface Done {
  readonly change: Change
  /** What is doubtful about the service as it is now. */
  readonly warnings: readonly string[]
}

interface Waiting {
  readonly edit: Edit
  resolve(done: Done): void
  reject(error: unknown): void
}

interface Outcome {
  readonly waiting: Waiting
  readonly result: { readonly change: Change } | { readonly error: unknown }
}

/** What becomes of the list, and of those who wait for it. */
interface Plan<C> {
  readonly list: ServiceList
  readonly outcomes: readonly Outcome[]
  /** Undefined when there is nothing that is not served already. */
  readonly compiled: C | undefined
  readonly leftOut: LeftOut
}

/** Active services that are not served, by id, and why. */
type LeftOut = ReadonlyMap<string, string>

/** Registered services by id and by name. */
export class Lookup {
  readonly #byId: Map<string, RegisteredService>
  readonly #byName: Map<string, RegisteredService>

  constructor(services: readonly RegisteredService[]) {
    this.#byId = new Map(services.map(service => [service.id, service]))
    this.#byName = new Map(services.map(service => [service.name, service]))
  }

  byId(id: string): RegisteredService | undefined {
    return this.#byId.get(id)
  }

  byName(name: string): RegisteredService | undefined {
    return this.#byName.get(name)
  }

  get all(): RegisteredService[] {
    return [...this.#byId.values()]
  }

  change({ before, after }: Change): void {
    if (before !== undefined) this.#byName.delete(before.name)
    if (before !== undefined && after === undefined) this.#byId.delete(before.id)
    if (after === undefined) return
    this.#byId.set(after.id, after)
    this.#byName.set(after.name, after)
  }
}

/**
 * The services that were registered by the API: a list in the database, which every gateway serves beside its files. A change
 * is compiled before it is written, and written only if nobody else has changed the list meanwhile; changes that come at once
 * are made together. While the list cannot be read, the last one stays.
 */
export class Registry<C extends Compiled = Compiled> {
  readonly #database: Database
  readonly #host: Host<C>
  readonly #log: Logger
  readonly #waiting: Waiting[] = []
  readonly #unfollow: () => void
  /** As far as it is known here. */
  #list: ServiceList = { version: 0, services: [] }
  /** The highest version that was ever known here. */
  #highest = 0
  /** The last version that was not believed. */
  #doubted = -1
  /** The version that is served here. */
  #served = 0
  #leftOut: LeftOut = new Map()
  #committing = false
  #following = false
  #again: NodeJS.Timeout | undefined

  constructor(database: Database, host: Host<C>, log: Logger) {
    this.#database = database
    this.#host = host
    this.#log = log
    // Not waited for: a change of our own is told to us before its turn is over.
    this.#unfollow = database.changes.on('registry', () => this.#follow())
  }

  /** Reads the list for the first time. @throws {DatabaseError} */
  async open(): Promise<void> {
    this.#know(await readServices(this.#database.db))
  }

  #know(list: ServiceList): void {
    this.#list = list
    this.#highest = Math.max(this.#highest, list.version)
  }

  close(): void {
    this.#unfollow()
    clearTimeout(this.#again)
  }

  /** The list as it is now; as it was last, while the database is out of reach. */
  async services(): Promise<readonly RegisteredService[]> {
    try {
      await this.#read()
    } catch (error) {
      if (!isUnreachable(error)) throw error
    }
    return this.#list.services
  }

  /** Why an active service is not served here; undefined if it is. */
  whyLeftOut({ id }: RegisteredService): string | undefined {
    return this.#leftOut.get(id)
  }

  /**
   * Compiles with as many services as go with the files and with each other, the older before the younger: what a file has
   * come to say keeps no gateway from starting, and takes nobody's requests to somebody else.
   */
  async compile(compile: Host<C>['compile'] = this.#host.compile): Promise<C> {
    const list = this.#list
    const { compiled, leftOut } = await this.#compileMost(list, compile)
    this.#leftOut = leftOut
    this.#served = list.version
    return compiled ?? (await compile([]))
  }

  async #compileMost({ services }: ServiceList, make: Host<C>['compile']) {
    const leftOut = new Map<string, string>()
    const compiled = await together(
      services.filter(service => service.active),
      { make, discard: compiled => this.#host.discard(compiled) },
      ({ id, name }, { message, problems }) => {
        leftOut.set(id, message)
        if (!this.#leftOut.has(id))
          this.#log.warn({ problems: problems.map(formatProblem) }, `the registered service "${name}" is left out`)
      }
    )
    return { compiled, leftOut }
  }

  /**
   * Makes a change. Resolves when it is in the database and this gateway serves it.
   * @throws {GatewayError} what the edit throws; 409 and 422 for what cannot be compiled with the rest
   */
  change(edit: Edit): Promise<Done> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ edit, resolve, reject })
      if (!this.#committing) void this.#commitAll()
    })
  }

  async #commitAll(): Promise<void> {
    this.#committing = true
    while (this.#waiting.length > 0) {
      let batch: Waiting[] = []
      try {
        await this.#host.exclusively(() => {
          batch = this.#waiting.splice(0, BATCH)
          return this.#commit(batch)
        })
      } catch (error) {
        for (const { reject } of batch.length > 0 ? batch : this.#waiting.splice(0)) reject(error)
      }
    }
    this.#committing = false
  }

  async #commit(batch: readonly Waiting[]): Promise<void> {
    for (let round = 0; round < ROUNDS; round++) {
      const before = await this.#read('whatever it is')
      const plan = await this.#plan(before, batch)
      if (!(await this.#write(before, plan))) continue
      if (plan.compiled !== undefined) await this.#serve(plan, plan.compiled)
      for (const { waiting, result } of plan.outcomes) {
        if ('error' in result) waiting.reject(result.error)
        else waiting.resolve({ change: result.change, warnings: warningsOf(result.change, plan.compiled) })
      }
      return
    }
    throw refuse('service_unavailable', { reason: 'registry busy', headers: ['retry-after', '1'] })
  }

  /** @returns whether nobody else was faster; if somebody was, nothing is left of the plan */
  async #write(before: ServiceList, { list, outcomes, compiled }: Plan<C>): Promise<boolean> {
    if (list === before) return true
    const entries = outcomes.flatMap(({ result }) => ('change' in result ? result.change.audit : []))
    let written = false
    try {
      written = await this.#database.transaction(async (transaction, changed) => {
        if (!(await writeServices(transaction, before, list))) return false
        await writeAudit(transaction, entries)
        changed.push({ kind: 'registry', subject: String(list.version) })
        return true
      })
    } finally {
      if (!written && compiled !== undefined) await this.#host.discard(compiled)
    }
    return written
  }

  async #serve({ list, leftOut }: Plan<C>, compiled: C): Promise<void> {
    this.#know(list)
    this.#served = list.version
    this.#leftOut = leftOut
    await this.#host.serve(compiled)
    if (leftOut.size === 0) return
    // What they did not go with may be gone.
    this.#served = -1
    this.#follow()
  }

  /** What becomes of the list with these edits; those that do not go with the rest are refused. @throws {DatabaseError} */
  async #plan(before: ServiceList, batch: readonly Waiting[]): Promise<Plan<C>> {
    try {
      return await this.#attempt(before, batch, this.#leftOut)
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
    }
    const leftOut = await this.#leftOutOf(before)
    const refused: Outcome[] = []
    const plan = await together(
      batch,
      {
        make: edits => this.#attempt(before, edits, leftOut),
        discard: async ({ compiled }) => compiled && (await this.#host.discard(compiled))
      },
      (waiting, error) => refused.push({ waiting, result: { error: refusalOf(error, waiting.edit.name) } })
    )
    const { list = before, outcomes = [], compiled } = plan ?? {}
    return { list, outcomes: [...outcomes, ...refused], compiled, leftOut }
  }

  /** Which services do not go with our files as it is: another gateway, which has let them in, may have others. */
  async #leftOutOf(list: ServiceList): Promise<LeftOut> {
    if (list.version === this.#served) return this.#leftOut
    const { compiled, leftOut } = await this.#compileMost(list, this.#host.compile)
    if (compiled !== undefined) await this.#host.discard(compiled)
    return leftOut
  }

  /** @throws {ConfigError} when they do not go together */
  async #attempt(before: ServiceList, batch: readonly Waiting[], leftOut: LeftOut): Promise<Plan<C>> {
    const services = new Lookup(before.services)
    // Higher than what anybody knows, even if what was read is older than that.
    const version = Math.max(before.version, this.#highest) + 1
    const outcomes = batch.map((waiting): Outcome => {
      try {
        const change = waiting.edit.decide(services, version)
        services.change(change)
        return { waiting, result: { change } }
      } catch (error) {
        return { waiting, result: { error } }
      }
    })
    const changes = outcomes.flatMap(({ result }) => ('change' in result ? result.change : []))
    const list = changes.length === 0 ? before : { version, services: services.all }
    if (list === before && before.version === this.#served) return { list, outcomes, compiled: undefined, leftOut }
    const untouched = new Set(before.services)
    const active = list.services.filter(
      service => service.active && !(leftOut.has(service.id) && untouched.has(service))
    )
    const compiled = await this.#host.compile(active)
    const owners = new Map(active.map(({ name, owner }) => [name, owner]))
    for (const { after, privileged } of changes) {
      const trespass =
        privileged || after === undefined ? undefined : trespassOf(after, compiled.snapshot.routes, owners)
      if (trespass === undefined) continue
      await this.#host.discard(compiled)
      throw new ConfigError([
        {
          ...placeOfService((after as RegisteredService).name),
          key: 'endpoints',
          message: `${trespass.route.label} lies within ${trespass.within.label}, the route${inWords(trespass.within.at)}, which is somebody else’s`,
          severity: 'error',
          conflict: true
        }
      ])
    }
    return { list, outcomes, compiled, leftOut }
  }

  /** Serves what other gateways have changed, as soon as it is our turn; what changes until then is taken along. */
  #follow(): void {
    if (this.#following) return
    this.#following = true
    const turn = this.#host.exclusively(async () => {
      this.#following = false
      await this.#read()
      if (this.#served !== this.#list.version) await this.#host.serve(await this.compile())
    })
    turn.catch(error => {
      this.#following = false
      if (isUnreachable(error)) this.#followLater()
      // Otherwise the gateway is shutting down.
      else if (!(error instanceof GatewayError))
        this.#log.error({ err: error }, 'registered services cannot be followed; those before stay')
    })
  }

  #followLater(): void {
    clearTimeout(this.#again)
    this.#again = setTimeout(() => this.#follow(), AGAIN_MS).unref()
  }

  /**
   * Reads the list if it has changed. One that is older than what is known is not believed, as an empty one after an accident
   * would be, unless somebody wants to change it.
   */
  async #read(want: 'newer' | 'whatever it is' = 'newer'): Promise<ServiceList> {
    const { db } = this.#database
    const version = await serviceListVersion(db)
    if (version < this.#list.version && want === 'newer') {
      if (version !== this.#doubted)
        this.#log.error(
          { known: this.#list.version, found: version },
          'the list of registered services is older than the one that is served, which stays'
        )
      this.#doubted = version
    } else if (version !== this.#list.version) {
      const list = await readServices(db)
      if (list.version > this.#list.version || want !== 'newer') this.#know(list)
    }
    return this.#list
  }
}

interface Making<T, M> {
  make(items: readonly T[]): Promise<M>
  discard(made: M): Promise<unknown>
}

/**
 * Makes something of as many items as go together, those before others in the list before these.
 * @param refuse is told of each that does not go with those before it
 * @returns undefined when there are none
 */
async function together<T, M>(
  items: readonly T[],
  { make, discard }: Making<T, M>,
  refuse: (item: T, error: ConfigError) => void
): Promise<M | undefined> {
  let made: { what: M } | undefined
  const add = async (accepted: readonly T[], more: readonly T[]): Promise<readonly T[]> => {
    if (more.length === 0) return accepted
    const all = [...accepted, ...more]
    try {
      const what = await make(all)
      if (made !== undefined) await discard(made.what)
      made = { what }
      return all
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      if (more.length === 1) {
        refuse(more[0] as T, error)
        return accepted
      }
    }
    const half = more.length >> 1
    return add(await add(accepted, more.slice(0, half)), more.slice(half))
  }
  await add([], items)
  return made?.what
}

/** Problems of a configuration as the answer to who has asked for one of its services. */
function refusalOf({ problems }: ConfigError, name: string): GatewayError {
  const place = placeOfService(name).file
  const conflict = problems.find(problem => problem.conflict || problem.file !== place)
  if (conflict !== undefined) return refuse('conflict', { details: `${formatProblem(conflict)}.` })
  const fields = problems.map(({ key, message }) => ({ field: fieldOf(key, name), message, type: 'configuration' }))
  return refuse('validation_error', {
    details: fields.map(({ field, message }) => `${field} ${message}`).join('; '),
    fields
  })
}

/** The key of a document as that of a service's definition. */
function fieldOf(key: string, name: string): string {
  const service = `services.${name}`
  return key.startsWith(`${service}.`) ? key.slice(service.length + 1) : key === service ? '' : key
}

function warningsOf({ after }: Change, compiled: Compiled | undefined): string[] {
  if (after === undefined || compiled === undefined) return []
  const { file } = placeOfService(after.name)
  return compiled.snapshot.warnings
    .filter(problem => problem.file === file)
    .map(({ key, message }) => `${fieldOf(key, after.name)} ${message}`.trim())
}
