import { compileCondition, compileRegex } from '../../src/routing/conditions.ts'
import { parsePattern } from '../../src/routing/pattern.ts'
import type { RequestView, RouteMatch } from '../../src/routing/table.ts'

/** A route's match in few words. */
export interface Sketch {
  readonly id?: string
  readonly path?: string
  readonly regex?: string
  readonly methods?: readonly string[]
  readonly hosts?: readonly string[]
  readonly headers?: Parameters<typeof compileCondition>[1] extends infer C ? Readonly<Record<string, C>> : never
  readonly query?: Sketch['headers']
  readonly version?: string
  readonly countries?: readonly string[]
  readonly priority?: number
  readonly catchAll?: boolean
}

export function route({
  id,
  path,
  regex,
  methods,
  hosts,
  headers = {},
  query = {},
  version,
  countries,
  priority = 0,
  catchAll = false
}: Sketch): RouteMatch {
  const conditions = (settings: NonNullable<Sketch['headers']>) =>
    Object.entries(settings).map(([name, wanted]) => compileCondition(name, wanted))
  return {
    id: id ?? path ?? regex ?? '',
    pattern: path === undefined ? undefined : parsePattern(path),
    regex: regex === undefined ? undefined : compileRegex(regex, true),
    methods: methods === undefined ? undefined : new Set(methods),
    hosts,
    headers: conditions(headers),
    query: conditions(query),
    version,
    countries: countries === undefined ? undefined : new Set(countries),
    priority,
    catchAll
  }
}

export interface RequestSketch {
  readonly method?: string
  readonly path: string
  readonly host?: string
  readonly country?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly query?: Readonly<Record<string, string>>
}

/** A request as the table sees it, its path canonical already. */
export function request({
  method = 'GET',
  path,
  host = 'localhost',
  country = '',
  headers = {},
  query = {}
}: RequestSketch): RequestView {
  return {
    method,
    matchPath: path.toLowerCase(),
    host,
    country,
    header: name => headers[name],
    query: name => query[name]
  }
}

/** Chance that can be had again: numbers from 0 to less than 1 that follow from `seed` alone (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }
}
