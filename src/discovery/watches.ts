import { addressOf, networksOf } from '../registry/networks.ts'
import type { Dependency } from '../runtime/runtime.ts'
import { within } from '../runtime/within.ts'
import type { Service, ServiceConfig } from '../upstream/service.ts'
import { type DiscoveryTerms, type InstanceList, Watch } from './discovery.ts'
import type { Registrations } from './registrations.ts'
import type { DiscoveryConfig } from './settings.ts'

/** A service that is served, and where its instances come from. */
interface Entered {
  readonly service: Service
  readonly name: string
  /** Where those have to be that register themselves. */
  readonly allow: readonly string[]
  /** What the configuration says, or what has been found as it says. */
  base: InstanceList
  readonly watch: Watch | undefined
}

/**
 * Where the instances of each service that is served come from: those of its configuration, or what somebody is asked who
 * knows, by one watch for all generations that ask alike; and those that have registered themselves. Instances that come
 * and go are news to the {@link Service}, and to nobody else.
 */
export class Watches {
  readonly #terms: DiscoveryTerms
  readonly #dependencies: Set<Dependency>
  readonly #registrations: Registrations | undefined
  readonly #entered = new Map<string, Entered>()
  readonly #shown = new Map<Watch, Dependency>()

  constructor(terms: DiscoveryTerms, dependencies: Set<Dependency>, registrations?: Registrations) {
    this.#terms = terms
    this.#dependencies = dependencies
    this.#registrations = registrations
    if (registrations !== undefined)
      registrations.onChange = name => {
        const entered = this.#entered.get(name)
        if (entered !== undefined) this.#update(entered)
      }
  }

  /**
   * From now on `service` has the instances that `config` says, or those that are found as it says.
   * @param allow `registry.allow`
   */
  enter(service: Service, config: ServiceConfig, allow: readonly string[]): void {
    const { name, instances, discovery } = config
    const before = this.#entered.get(name)
    const watch = discovery && this.#watchOf(name, discovery, before)
    if (before?.watch !== watch) this.#stop(before?.watch)
    const entered = { service, name, allow, watch, base: watch?.instances ?? instances }
    this.#entered.set(name, entered)
    if (watch !== undefined)
      watch.onInstances = list => {
        entered.base = list
        this.#update(entered)
      }
    this.#update(entered)
  }

  /** The watch that there is, if it asks the same. Until another one has been answered, the instances are where they were. */
  #watchOf(name: string, discovery: DiscoveryConfig, before: Entered | undefined): Watch {
    if (before?.watch !== undefined && JSON.stringify(before.watch.config) === JSON.stringify(discovery))
      return before.watch
    const watch = new Watch(name, discovery, this.#terms, before?.base ?? [])
    const dependency = { name: `discovery:${name}`, check: async () => watch.state() }
    this.#shown.set(watch, dependency)
    this.#dependencies.add(dependency)
    watch.start()
    return watch
  }

  #stop(watch: Watch | undefined): void {
    if (watch === undefined) return
    watch.stop()
    this.#dependencies.delete(this.#shown.get(watch) as Dependency)
    this.#shown.delete(watch)
  }

  /** With those that have registered themselves, who may be where `registry.allow` says; ids of the others are taken. */
  #update({ service, name, allow, base }: Entered): void {
    const registered = this.#registrations?.instancesOf(name) ?? []
    if (registered.length === 0) return service.update(base)
    const taken = new Set(base.map(({ id }) => id))
    const networks = networksOf(allow)
    const theirs = registered.filter(({ id, url }) => {
      const address = addressOf(new URL(url))
      return !taken.has(id) && (address === undefined || networks.allows(address))
    })
    service.update([...base, ...theirs.map(instance => ({ ...instance, networks: allow }))])
  }

  /** Nobody reaches the service any more. */
  leave(name: string): void {
    this.#stop(this.#entered.get(name)?.watch)
    this.#entered.delete(name)
  }

  /** Waits until there is a list of every service, or for so many milliseconds. */
  async settled(ms: number): Promise<void> {
    const { all } = this
    if (all.length > 0) await within(ms, Promise.all(all.map(watch => watch.ready)))
  }

  /** Who says where the instances of a service are; undefined if nobody does, or it is not served. */
  of(name: string): Watch | undefined {
    return this.#entered.get(name)?.watch
  }

  /** All of them. */
  get all(): readonly Watch[] {
    return [...this.#shown.keys()]
  }

  close(): void {
    for (const name of [...this.#entered.keys()]) this.leave(name)
  }
}
