import { createHash } from 'node:crypto'
import type { Watches } from '../discovery/watches.ts'
import type { Leases } from '../runtime/leases.ts'
import { Service, type ServiceConfig, type Surroundings } from './service.ts'

/**
 * The services that generations reach, by name. One is the same for all generations that configure it alike, whatever they
 * say of its instances, or of how these are found: those are news to it, not another service.
 */
export class Services {
  readonly #leases: Leases
  readonly #surroundings: Surroundings & { readonly watches: Watches }
  readonly #byName = new Map<string, Service>()

  constructor(leases: Leases, surroundings: Surroundings & { readonly watches: Watches }) {
    this.#leases = leases
    this.#surroundings = surroundings
  }

  /** The service of this configuration. @param onLease gets the key of the lease that gives it back */
  acquire(config: ServiceConfig, onLease: (key: string) => void): Service {
    const { instances: _, discovery: __, ...rest } = config
    const key = `service:${config.name}:${createHash('sha256').update(JSON.stringify(rest)).digest('hex')}`
    onLease(key)
    return this.#leases.acquire(
      key,
      () => new Service(config, this.#surroundings),
      service => {
        if (this.#byName.get(service.name) === service) {
          this.#byName.delete(service.name)
          this.#surroundings.watches.leave(service.name)
        }
        service.close()
      }
    )
  }

  /** The configuration that has acquired `service` is in charge now. @param allow its `registry.allow` */
  enter(service: Service, config: ServiceConfig, allow: readonly string[]): void {
    this.#byName.set(service.name, service)
    this.#surroundings.watches.enter(service, config, allow)
    service.start()
  }

  /** The one that is served by now; undefined if no route leads to one of this name. */
  get(name: string): Service | undefined {
    return this.#byName.get(name)
  }

  /** Those that are served by now. */
  values(): Iterable<Service> {
    return this.#byName.values()
  }
}
