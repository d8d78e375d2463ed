import { servicesOf } from '../releases/settings.ts'
import { matchKey } from '../routing/table.ts'
import { conflictInWords, conflictsAmong } from './conflicts.ts'
import type { Draft } from './draft.ts'
import type { Path } from './located.ts'
import { inWords } from './problem.ts'
import type { RouteConfig } from './snapshot.ts'

/** An id is for one route alone: by their ids routes are switched on and off. */
export function checkIds(draft: Draft): void {
  const seen = new Map<string, RouteConfig>()
  for (const { route, path } of draft.routes) {
    const other = seen.get(route.id)
    if (other === undefined) seen.set(route.id, route)
    else if (matchKey(other) !== matchKey(route))
      draft.problems.conflict([...path, 'id'], `"${route.id}" is the id of another route${inWords(other.at)}`)
    else if (!other.enabled || !route.enabled)
      draft.problems.conflict(
        path,
        `is told from the route${inWords(other.at)} by nothing; give one of them an "id"`,
        'key'
      )
  }
}

/** Two routes of which one would never be asked: an error that names both (C-16). */
export function checkConflicts(draft: Draft): void {
  const paths = new Map(draft.routes.map(({ route, path }) => [route, path]))
  for (const { route, by, host } of conflictsAmong(draft.routes.map(({ route }) => route)))
    draft.problems.conflict(
      [...(paths.get(route) as Path), route.pattern ? 'path' : 'regex'],
      conflictInWords(route, by, host)
    )
}

/** What is configured and has no effect. */
export function warnAboutUnused(draft: Draft): void {
  const used = new Set(
    draft.routes.flatMap(({ route }) => [...servicesOf(route), route.fallback?.service, route.mirror?.service])
  )
  for (const name of Object.keys(draft.settled.services)) {
    if (!used.has(name)) draft.problems.warn(['services', name], 'no route leads to this service')
  }
  if ('cache' in draft.document) draft.problems.warn(['cache'], 'is understood but has no effect in this version')
}
