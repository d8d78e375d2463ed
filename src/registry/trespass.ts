import type { RouteConfig } from '../config/snapshot.ts'
import { covers, parsePattern } from '../routing/pattern.ts'
import type { RegisteredService } from './service.ts'

/** Where endpoints are. A route that takes all of it, or more, is there for what nobody else wants. */
const EVERYTHING = parsePattern('/api/v1/**')

/**
 * A route of `service` that lies within a route of somebody else, whose requests it would take: another owner's, or the files'.
 * @param owners of registered services, by name
 */
export function trespassOf(
  service: RegisteredService,
  routes: readonly RouteConfig[],
  owners: ReadonlyMap<string, string>
): { route: RouteConfig; within: RouteConfig } | undefined {
  const others = routes.filter(
    route => route.enabled && isElsewhere(route) && owners.get(route.service) !== service.owner
  )
  for (const route of routes) {
    if (route.service !== service.name || route.catchAll) continue
    const within = others.find(other => takesAllOf(other, route))
    if (within !== undefined) return { route, within }
  }
  return undefined
}

/** Routes with hosts or a priority go first anyway. */
function isElsewhere({ pattern, hosts, priority, catchAll }: RouteConfig): boolean {
  return pattern !== undefined && !covers(pattern, EVERYTHING) && hosts === undefined && priority <= 0 && !catchAll
}

function takesAllOf(other: RouteConfig, route: RouteConfig): boolean {
  if (other.pattern === undefined || route.pattern === undefined || !covers(other.pattern, route.pattern)) return false
  return (
    other.methods === undefined ||
    route.methods === undefined ||
    [...route.methods].some(method => other.methods?.has(method))
  )
}
