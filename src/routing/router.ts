import { canonicalise, matchable } from '../proxy/path.ts'
import { type Pattern, parsePattern } from './pattern.ts'
import { type RouteMatch, RouteTable } from './table.ts'

interface Target {
  readonly url: string
  readonly weight: number
}

interface LibraryRoute extends RouteMatch {
  readonly targets: Target[]
  enabled: boolean
}

/**
 * The router of seed 003, for programs that want its answers without a gateway: paths and methods in, addresses out. The
 * precedence is the gateway's own (contract C-16).
 *
 * @example
 * const router = new ApiGatewayRouter()
 * router.addRoute('/api/v1/agents', 'GET', 'http://agent-service:8001', 100)
 * router.routeRequest('/api/v1/agents', 'GET') // 'http://agent-service:8001'
 */
export class ApiGatewayRouter {
  /** While it is false, no request has a target. */
  enabled = true
  readonly #random: () => number
  readonly #routes = new Map<string, LibraryRoute>()
  #table: RouteTable<LibraryRoute> | undefined

  /** @param options.random chance, from 0 to less than 1, by which one of several targets is taken */
  constructor({ random = Math.random }: { random?: () => number } = {}) {
    this.#random = random
  }

  /**
   * Adds a target. Further targets of the same path and method share its requests by weight; the same target again has its
   * weight changed.
   * @param path `/users`, `/users/{id}` or `/users/**`
   * @param weight the target's share, against the others'; 0 for none
   * @throws {import('./pattern.ts').PatternError} for a path that is none
   */
  addRoute(path: string, method: string, target: string, weight = 100): void {
    const pattern = parsePattern(path)
    const id = keyOf(pattern, method)
    let route = this.#routes.get(id)
    if (route === undefined) {
      route = createRoute(id, pattern, method)
      this.#routes.set(id, route)
      this.#table = undefined
    }
    const known = route.targets.findIndex(({ url }) => url === target)
    route.targets.splice(known === -1 ? route.targets.length : known, 1, { url: target, weight })
  }

  /** The address for a request, or undefined when there is none. @param path a request target; its query does not matter */
  routeRequest(path: string, method: string): string | undefined {
    if (!this.enabled) return undefined
    const canonical = canonicalise(path.split('?', 1)[0] as string)
    if (typeof canonical === 'string') return undefined
    this.#table ??= new RouteTable([...this.#routes.values()].filter(route => route.enabled))
    const route = this.#table.match({
      method: method.toUpperCase(),
      matchPath: matchable(canonical.path),
      host: '',
      country: '',
      header: () => undefined,
      query: () => undefined
    })
    return route === undefined ? undefined : this.#pick(route.targets)
  }

  #pick(targets: readonly Target[]): string | undefined {
    let at = this.#random() * targets.reduce((sum, { weight }) => sum + weight, 0)
    return targets.find(({ weight }) => {
      at -= weight
      return at < 0
    })?.url
  }

  /** Switches a route on or off (RTE-05). Returns whether there is one. */
  setRouteEnabled(path: string, method: string, enabled: boolean): boolean {
    const route = this.#routes.get(keyOf(parsePattern(path), method))
    if (route === undefined) return false
    route.enabled = enabled
    this.#table = undefined
    return true
  }

  getHealthStatus(): { enabled: boolean; routes_count: number; targets_count: number } {
    const routes = [...this.#routes.values()]
    return {
      enabled: this.enabled,
      routes_count: routes.length,
      targets_count: routes.reduce((sum, { targets }) => sum + targets.length, 0)
    }
  }
}

function keyOf({ kind, segments }: Pattern, method: string): string {
  return `${method.toUpperCase()} ${kind} ${segments.map(({ literal }) => literal ?? '{}').join('/')}`
}

function createRoute(id: string, pattern: Pattern, method: string): LibraryRoute {
  return {
    id,
    pattern,
    methods: new Set([method.toUpperCase()]),
    headers: [],
    query: [],
    priority: 0,
    catchAll: false,
    targets: [],
    enabled: true
  }
}
