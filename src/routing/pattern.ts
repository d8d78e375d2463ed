/**
 * Path patterns of routes: `/users` (exact), `/users/{id}` or `/users/:id` (parametric; a bare `*` segment is a parameter without a name),
 * `/users/**` (prefix; a trailing `/*` means the same, as seed 004 writes it).
 */

export type PatternKind = 'exact' | 'parametric' | 'prefix'

/** One segment: a literal in lower case, or a parameter and its name (`*` when it has none). */
export type Segment =
  | { readonly literal: string; readonly parameter?: undefined }
  | { readonly parameter: string; readonly literal?: undefined }

export interface Pattern {
  /** As the user wrote it; the label of metrics and the name in messages. */
  readonly source: string
  readonly kind: PatternKind
  readonly segments: readonly Segment[]
  /** The part before the first parameter or wildcard, in lower case and without a trailing slash; '' for the root. */
  readonly staticPrefix: string
  /** Whether any segment is a parameter with a name. */
  readonly hasParameters: boolean
}

/** Thrown for a path that is no pattern; the message says what to write instead. */
export class PatternError extends Error {}

/** Parses a path pattern. @throws {PatternError} */
export function parsePattern(source: string): Pattern {
  if (!source.startsWith('/')) throw new PatternError(`must start with "/", as in "/${source}"`)
  if (source.includes('?')) throw new PatternError('must not hold a query; use "query" to match on it')
  const names = source.split('/').slice(1)
  const tail = names.at(-1)
  const isPrefix = tail === '**' || tail === '*'
  if (isPrefix) names.pop()
  if (!isPrefix && tail === '') names.pop()

  const segments = names.map(name => parseSegment(name, source))
  const parameters = segments.flatMap(segment =>
    segment.parameter && segment.parameter !== '*' ? [segment.parameter] : []
  )
  const twice = parameters.find((name, i) => parameters.indexOf(name) !== i)
  if (twice !== undefined) throw new PatternError(`names the parameter "${twice}" twice`)

  const firstParameter = segments.findIndex(segment => segment.parameter !== undefined)
  const statics = firstParameter === -1 ? segments : segments.slice(0, firstParameter)
  return Object.freeze({
    source,
    kind: isPrefix ? 'prefix' : firstParameter === -1 ? 'exact' : 'parametric',
    segments,
    staticPrefix: statics.map(segment => `/${segment.literal}`).join(''),
    hasParameters: parameters.length > 0
  })
}

function parseSegment(name: string, source: string): Segment {
  if (name === '') throw new PatternError('must not hold an empty segment ("//")')
  if (name === '.' || name === '..') throw new PatternError('must not hold dot segments; they never reach a route')
  if (name === '**') throw new PatternError('may hold "**" at its end only')
  if (name === '*') return { parameter: '*' }
  const parameter = /^(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|:([A-Za-z_][A-Za-z0-9_]*))$/.exec(name)
  if (parameter) return { parameter: (parameter[1] ?? parameter[2]) as string }
  if (/[{}*]/.test(name))
    throw new PatternError(`"${name}" in ${source}: a parameter or wildcard has to be a whole segment`)
  if (/[\s;\\#]/.test(name)) throw new PatternError(`"${name}" holds a character that no canonical path has`)
  return { literal: name.toLowerCase() }
}

/** The values of the parameters of `pattern` in `path` (which it matches), still percent-encoded. */
export function parametersOf(pattern: Pattern, path: string): Record<string, string> {
  const values: Record<string, string> = Object.create(null)
  const parts = path.split('/')
  pattern.segments.forEach((segment, i) => {
    if (segment.parameter !== undefined && segment.parameter !== '*') values[segment.parameter] = parts[i + 1] as string
  })
  return values
}

/** Whether every path that `inner` matches is matched by `outer` too. */
export function covers(outer: Pattern, inner: Pattern): boolean {
  if (outer.kind !== 'prefix' && (inner.kind === 'prefix' || outer.segments.length !== inner.segments.length))
    return false
  if (outer.segments.length > inner.segments.length) return false
  return outer.segments.every((segment, i) => {
    if (segment.parameter !== undefined) return true
    return segment.literal === inner.segments[i]?.literal
  })
}
