import type { Dependency } from '../runtime/runtime.ts'
import { within } from '../runtime/within.ts'
import type { Service, ServiceConfig } from '../upstream/service.ts'
import { type DiscoveryTerms, Watch } from './discovery.ts'

/**
 * Who follows the instances of which service: one watch for each, shared by all generations that find them alike. Instances
 * that come and go are news to the {@link Service}, and to nobody else.
 */
export class Watches {
  readonly #terms: DiscoveryTerms
  readonly #dependencies: Set<Dependency>
  readonly #byName = new Map<string, { watch: Watch; key: string; dependency: Dependency }>()

  constructor(terms: DiscoveryTerms, dependencies: Set<Dependency>) {
    this.#terms = terms
    this.#dependencies = dependencies
  }

  /** From now on `service` has the instances that `config` says, or those that are found as it says. */
  enter(service: Service, { name, instances, discovery }: ServiceConfig): void {
    const held = this.#byName.get(name)
    if (discovery === undefined) {
      this.leave(name)
      service.update(instances)
      return
    }
    const key = JSON.stringify(discovery)
    let watch = held?.watch
    if (watch === undefined || held?.key !== key) {
      // Until somebody else has been asked, the instances are where they were.
      watch = new Watch(name, discovery, this.#terms, watch?.instances ?? service.list)
      this.leave(name)
      const dependency = { name: `discovery:${name}`, check: async () => (watch as Watch).state() }
      this.#byName.set(name, { watch, key, dependency })
      this.#dependencies.add(dependency)
      watch.start()
    }
    watch.onInstances = list => service.update(list)
    service.update(watch.instances)
  }

  /** Nobody reaches the service any more. */
  leave(name: string): void {
    const held = this.#byName.get(name)
    if (held === undefined) return
    held.watch.stop()
    this.#byName.delete(name)
    this.#dependencies.delete(held.dependency)
  }

  /** Waits until there is a list of every service, or for so many milliseconds. */
  async settled(ms: number): Promise<void> {
    if (this.#byName.size === 0) return
    await within(ms, Promise.all([...this.#byName.values()].map(({ watch }) => watch.ready)))
  }

  /** All of them. */
  get all(): readonly Watch[] {
    return [...this.#byName.values()].map(({ watch }) => watch)
  }

  close(): void {
    for (const name of [...this.#byName.keys()]) this.leave(name)
  }
}
