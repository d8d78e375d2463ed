import type { Exchange } from '../proxy/exchange.ts'
import { type Clock, systemClock } from '../runtime/clock.ts'
import { type Balancer, createBalancer } from '../upstream/balancers/balancer.ts'
import { Instance } from '../upstream/instance.ts'

/** An instance of a service, as seed 002 has it (REG-11). */
export interface ServiceInstance {
  readonly id: string
  readonly url: string
  readonly weight: number
  readonly healthy: boolean
  /** Milliseconds since 1970; null while nobody has said how it is. */
  readonly last_health_check: number | null
  readonly response_time_ms: number | null
}

/** A service, as seed 002 has it (REG-10). An id that is not given is the place in the list, a weight 1. */
export interface ServiceDefinition {
  readonly name: string
  readonly instances: readonly { readonly id?: string; readonly url: string; readonly weight?: number }[]
  readonly load_balancer_type?: 'round_robin' | 'weighted_round_robin' | 'least_connections' | 'random'
}

/** How a program has found an instance to be. */
export interface HealthReport {
  readonly healthy: boolean
  readonly response_time_ms?: number
  /** Requests that are under way there, for `least_connections`. */
  readonly active_connections?: number
}

interface Known {
  readonly instance: Instance
  readonly url: string
  healthy: boolean
  last_health_check: number | null
  response_time_ms: number | null
}

interface Registered {
  readonly type: string
  readonly balancer: Balancer
  readonly known: Map<string, Known>
  /** Those that may be picked; the same list until something changes. */
  candidates: readonly Instance[]
}

/** Nothing is ever sent from here. */
const NO_POOL = {
  name: '',
  instances: [],
  pool: { connections: 0, connectTimeoutMs: 0, keepAliveMs: 0, idleTimeoutMs: 0, maxHeaderBytes: 0 }
}

/**
 * The service registry of seed 002, for programs that want its answers without a gateway (REG-13): services in, the instance
 * whose turn it is out, by the gateway's own balancers. How instances are the program says itself.
 *
 * @example
 * const registry = new ServiceRegistry()
 * registry.registerService({ name: 'orders', instances: [{ id: 'a', url: 'http://orders-1:8080' }] })
 * registry.getBestInstance('orders')?.url // 'http://orders-1:8080'
 */
export class ServiceRegistry {
  readonly #clock: Clock
  readonly #random: () => number
  readonly #services = new Map<string, Registered>()

  constructor({ clock = systemClock, random = Math.random }: { clock?: Clock; random?: () => number } = {}) {
    this.#clock = clock
    this.#random = random
  }

  /**
   * Adds a service, or takes over what it is now: what is known of instances of the same id and address stays.
   * @throws {TypeError} for two instances of one id, a weight below 0, and what is no HTTP address
   */
  registerService({ name, instances, load_balancer_type: type = 'round_robin' }: ServiceDefinition): void {
    const before = this.#services.get(name)
    const known = new Map<string, Known>()
    for (const [i, { id = String(i), url, weight = 1 }] of instances.entries()) {
      if (known.has(id)) throw new TypeError(`two instances of "${name}" have the id "${id}"`)
      if (!/^https?:\/\//.test(url) || !URL.canParse(url)) throw new TypeError(`"${url}" is no HTTP address`)
      if (!(weight >= 0)) throw new TypeError(`the weight of "${id}" is ${weight}`)
      const old = before?.known.get(id)
      const entry = old?.url === url ? old : this.#create(id, url)
      entry.instance.weight = weight
      known.set(id, entry)
    }
    const balancer = before?.type === type ? before.balancer : createBalancer({ type }, this.#random)
    this.#services.set(name, reconsidered({ type, balancer, known, candidates: [] }))
  }

  /** Takes a service away. @returns whether it was there */
  deregisterService(name: string): boolean {
    return this.#services.delete(name)
  }

  /**
   * The healthy instance whose turn it is; one of weight 0 only while there are no others. Undefined for an unknown service, and
   * while none of its instances is healthy. Instances are healthy until somebody says otherwise.
   */
  getBestInstance(name: string): ServiceInstance | undefined {
    const service = this.#services.get(name)
    if (service === undefined || service.candidates.length === 0) return undefined
    // None of these balancers looks at the request.
    const { id } = service.balancer.pick(service.candidates, undefined as unknown as Exchange)
    return shown(service.known.get(id) as Known)
  }

  /** Says how an instance is. @returns whether there is such an instance */
  reportHealth(name: string, id: string, { healthy, response_time_ms, active_connections }: HealthReport): boolean {
    const service = this.#services.get(name)
    const known = service?.known.get(id)
    if (service === undefined || known === undefined) return false
    known.last_health_check = this.#clock.now()
    known.response_time_ms = response_time_ms ?? null
    known.instance.active = active_connections ?? 0
    if (known.healthy !== healthy) {
      known.healthy = healthy
      reconsidered(service)
    }
    return true
  }

  /** All instances of a service, as they are known; empty for an unknown one. */
  getInstances(name: string): ServiceInstance[] {
    return [...(this.#services.get(name)?.known.values() ?? [])].map(shown)
  }

  /** {@link registerService} by the seed's name. */
  register_service(service: ServiceDefinition): void {
    this.registerService(service)
  }

  /** {@link getBestInstance} by the seed's name. */
  get_best_instance(service_name: string): ServiceInstance | undefined {
    return this.getBestInstance(service_name)
  }

  #create(id: string, url: string): Known {
    const instance = new Instance({ id, url, weight: 1 }, NO_POOL, this.#clock)
    return { instance, url, healthy: true, last_health_check: null, response_time_ms: null }
  }
}

function reconsidered(service: Registered): Registered {
  const healthy = [...service.known.values()].filter(({ healthy }) => healthy).map(({ instance }) => instance)
  const weighty = healthy.filter(({ weight }) => weight > 0)
  service.candidates = weighty.length > 0 ? weighty : healthy
  return service
}

function shown({
  instance: { id, weight },
  url,
  healthy,
  last_health_check,
  response_time_ms
}: Known): ServiceInstance {
  return { id, url, weight, healthy, last_health_check, response_time_ms }
}
