import { matchKey, RouteTable } from '../routing/table.ts'
import { inWords } from './problem.ts'
import type { RouteConfig } from './snapshot.ts'

/** A route that is never asked for one of its hosts, or at all, since another goes first. */
export interface Conflict {
  readonly route: RouteConfig
  readonly by: RouteConfig
  /** Of the hosts of `route` the one that is lost; undefined when it has none. */
  readonly host: string | undefined
}

/** Conflicts among the routes that are enabled. Catch-alls give way to what was written down, and that is no conflict. */
export function conflictsAmong(routes: readonly RouteConfig[]): Conflict[] {
  const enabled = new RouteTable(routes.filter(route => route.enabled))
  return enabled.unreachable().filter(({ route }) => !route.catchAll)
}

/** What is wrong, as the problem of `route`. */
export function conflictInWords(route: RouteConfig, by: RouteConfig, host: string | undefined): string {
  const where = inWords(by.at)
  if (matchKey(route) === matchKey(by))
    return `matches the same requests as the route${where}; one of them would never be asked`
  return `is never reached${host === undefined ? '' : ` for the host ${host}`}: the route ${by.label}${where} goes first and takes all of it`
}
