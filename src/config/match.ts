import { type Pattern, parsePattern } from '../routing/pattern.ts'
import type { RouteMatch } from '../routing/table.ts'
import { http } from '../runtime/node.ts'
import type { Draft } from './draft.ts'
import type { Path } from './located.ts'
import { suggestion } from './problem.ts'
import type { RouteSettings } from './schema.ts'

/** Undefined without a path, or with one that cannot be. */
export function patternOf(draft: Draft, settings: RouteSettings, path: Path): Pattern | undefined {
  const { path: source } = settings
  return source === undefined ? undefined : draft.attempt(() => parsePattern(source), [...path, 'path'])
}

/** Undefined where any will do. Whoever may GET may HEAD. */
export function methodsOf(draft: Draft, names: readonly string[], path: Path): ReadonlySet<string> | undefined {
  if (names.length === 0) return undefined
  const methods = names.map(name => name.toUpperCase())
  for (const [i, method] of methods.entries()) {
    if (!http.METHODS.includes(method))
      draft.problems.add(draft.item(path, i), `"${names[i]}" is no method${suggestion(method, http.METHODS)}`)
    else if (method === 'CONNECT' || method === 'TRACE')
      draft.problems.add(draft.item(path, i), `${method} is never passed on`)
  }
  if (methods.includes('GET') && !methods.includes('HEAD')) methods.push('HEAD')
  return new Set(methods)
}

/** Undefined where any will do. */
export function countriesOf(draft: Draft, codes: readonly string[], path: Path): ReadonlySet<string> | undefined {
  if (codes.length === 0) return undefined
  const { header, database } = draft.settled.geo
  if (header === undefined && database === undefined)
    draft.problems.add([...path, 'countries'], 'are known to nobody: set "geo.header" or "geo.database"')
  for (const [i, code] of codes.entries()) {
    // The United Kingdom is GB, and some countries are called otherwise by now: with these nobody would ever match.
    const { region } = new Intl.Locale(`und-${code}`)
    if (region !== code.toUpperCase())
      draft.problems.add([...path, 'countries', i], `"${code}" is called ${region} in ISO 3166-1`)
  }
  return new Set(codes.map(code => code.toUpperCase()))
}

/** Undefined where any will do. */
export function hostsOf(draft: Draft, names: readonly string[], path: Path): readonly string[] | undefined {
  if (names.length === 0) return undefined
  return names.map((name, i) => {
    const host = name.toLowerCase()
    if (!/^(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*$|^\[[0-9a-f:.]+\]$/.test(host)) {
      draft.problems.add(
        draft.item(path, i),
        `"${name}" is no host name: write api.example.com or *.example.com, without scheme and port`
      )
    }
    return host
  })
}

/** `GET|HEAD api.example.com/users/**`: what a route is called when nobody named it. */
export function describeMatch(label: string, match: Omit<RouteMatch, 'id'>): string {
  const methods =
    match.methods === undefined
      ? ''
      : `${[...match.methods].filter(method => method !== 'HEAD' || match.methods?.size === 1).join('|')} `
  const hosts = match.hosts === undefined ? '' : match.hosts.join('|')
  const conditions = [...match.headers, ...match.query].map(condition => ` ${condition.name} ${condition.wanted}`)
  if (match.countries !== undefined) conditions.push(` from ${[...match.countries].join('|')}`)
  return `${methods}${hosts}${match.pattern === undefined ? '~' : ''}${label}${conditions.join('')}`
}
