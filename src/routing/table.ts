import { covers, type Pattern } from './pattern.ts'
import { compareVersions, negotiate, type Versioning, wantedBy } from './version.ts'

/** What the table needs to know of a request. An exchange is one; so is what `explain` and the library make up. */
export interface RequestView {
  readonly method: string
  /** The canonical path as {@link import('../proxy/path.ts').matchable} gives it. */
  readonly matchPath: string
  /** Host in lower case, without port and trailing dot. */
  readonly host: string
  /** From which it comes, as ISO 3166-1 has it; '' if that is not known. */
  readonly country: string
  header(name: string): string | undefined
  query(name: string): string | undefined
}

/** A condition on a header or a query parameter of a request. */
export interface Condition {
  readonly name: string
  /** How it is shown: `equals "v2"`, `matches ^curl/`, `is present`. */
  readonly wanted: string
  test(value: string | undefined): boolean
}

/** The part of a route that decides which requests are its own. */
export interface RouteMatch {
  readonly id: string
  /** Unset for a route by regular expression. */
  readonly pattern?: Pattern | undefined
  readonly regex?: { readonly source: string; test(path: string): boolean } | undefined
  /** Upper-case methods; unset means any. */
  readonly methods?: ReadonlySet<string> | undefined
  /** Host names in lower case, `*.example.com` for any name below; unset means any. */
  readonly hosts?: readonly string[] | undefined
  readonly headers: readonly Condition[]
  readonly query: readonly Condition[]
  /** Countries, as ISO 3166-1 has them; unset means any, and is the only one that takes requests of which it is not known. */
  readonly countries?: ReadonlySet<string> | undefined
  /**
   * Which version of what is at its path it is, where requests say which one they want. Once host, path, method and conditions
   * have led to such a route, those that differ from it in their version stand to choice as well.
   */
  readonly version?: string | undefined
  /** Higher goes first; 0 unless the configuration says otherwise. */
  readonly priority: number
  /** Made from a service's name (`catch_all: true`), so it comes after everything that was written down. */
  readonly catchAll: boolean
}

/**
 * The order in which routes are asked (contract C-16): explicit priority, host, exact, parametric, longest prefix,
 * regular expression, the service-name catch-all; among equals the one with more conditions, then the one written first.
 */
export function compareRoutes(a: RouteMatch, b: RouteMatch): number {
  return (
    b.priority - a.priority ||
    hostRank(b) - hostRank(a) ||
    kindRank(a) - kindRank(b) ||
    compareSegments(a.pattern, b.pattern) ||
    Number(b.methods !== undefined) - Number(a.methods !== undefined) ||
    b.headers.length - a.headers.length ||
    b.query.length - a.query.length ||
    Number(b.countries !== undefined) - Number(a.countries !== undefined) ||
    Number(b.version !== undefined) - Number(a.version !== undefined)
  )
}

function kindRank(route: RouteMatch): number {
  if (route.catchAll) return 5
  if (route.pattern === undefined) return 4
  return { exact: 1, parametric: 2, prefix: 3 }[route.pattern.kind]
}

/** An exact host counts more than any wildcard, a longer wildcard more than a shorter one. */
function hostRank(route: RouteMatch): number {
  if (route.hosts === undefined) return 0
  return Math.max(...route.hosts.map(host => (host.startsWith('*.') ? host.length : 1000 + host.length)))
}

/** More segments first, then a literal before a parameter, from the left. */
function compareSegments(a: Pattern | undefined, b: Pattern | undefined): number {
  if (a === undefined || b === undefined) return 0
  if (a.segments.length !== b.segments.length) return b.segments.length - a.segments.length
  for (const [i, segment] of a.segments.entries()) {
    const difference = Number(segment.parameter !== undefined) - Number(b.segments[i]?.parameter !== undefined)
    if (difference !== 0) return difference
  }
  return 0
}

/** A route as one of its hosts sees it: with several hosts, each has its own place in the order. */
interface Entry<R extends RouteMatch> {
  readonly route: R
  /** The route with that host alone, or with none. */
  readonly match: RouteMatch
}

interface Candidate<R extends RouteMatch> extends Entry<R> {
  readonly rank: number
  /** What is left to be asked once host and path have led here; undefined when nothing is, as for most routes. */
  readonly conditions: RouteMatch | undefined
  /** For a version of something: all its versions, this one included, in the order in which they are asked. */
  versions: readonly Candidate<R>[] | undefined
}

class Node<R extends RouteMatch> {
  readonly literals = new Map<string, Node<R>>()
  parameter: Node<R> | undefined
  /** Routes whose pattern ends here. */
  readonly leaves: Candidate<R>[] = []
  /** Routes that take everything from here on. */
  readonly prefixes: Candidate<R>[] = []
}

/** The routes of one host, of one wildcard, or of all hosts. */
class Tree<R extends RouteMatch> {
  readonly root = new Node<R>()
  readonly regexes: Candidate<R>[] = []
}

/** Which route a request belongs to. Built once per generation; asking allocates nothing but the path's segments. */
export class RouteTable<R extends RouteMatch> {
  /** In the order in which they are asked. */
  readonly routes: readonly R[]
  readonly #candidates: readonly Candidate<R>[]
  readonly #anyHost = new Tree<R>()
  readonly #hosts = new Map<string, Tree<R>>()
  /** By what follows the asterisk: `.example.com`. */
  readonly #wildcards = new Map<string, Tree<R>>()
  readonly #versioning: Versioning
  #longestWildcard = 0

  constructor(routes: readonly R[], versioning: Versioning = {}) {
    this.#versioning = versioning
    this.#candidates = routes.flatMap(entriesOf).sort(byOrder).map(toCandidate)
    this.routes = [...new Set(this.#candidates.map(({ route }) => route))]
    for (const candidate of this.#candidates) this.#add(candidate)
    tieVersions(this.#candidates)
  }

  #add(candidate: Candidate<R>): void {
    const { pattern, hosts } = candidate.match
    const tree = this.#treeOf(hosts?.[0])
    if (pattern === undefined) {
      tree.regexes.push(candidate)
      return
    }
    let node = tree.root
    for (const { literal } of pattern.segments) {
      if (literal === undefined) {
        node.parameter ??= new Node()
        node = node.parameter
      } else {
        let next = node.literals.get(literal)
        if (next === undefined) {
          next = new Node()
          node.literals.set(literal, next)
        }
        node = next
      }
    }
    ;(pattern.kind === 'prefix' ? node.prefixes : node.leaves).push(candidate)
  }

  #treeOf(host: string | undefined): Tree<R> {
    if (host === undefined) return this.#anyHost
    const isWildcard = host.startsWith('*')
    const trees = isWildcard ? this.#wildcards : this.#hosts
    const key = isWildcard ? host.slice(1) : host
    if (isWildcard) this.#longestWildcard = Math.max(this.#longestWildcard, key.length)
    let tree = trees.get(key)
    if (tree === undefined) {
      tree = new Tree()
      trees.set(key, tree)
    }
    return tree
  }

  /** The route that `request` belongs to, or undefined: also when there are but versions that it does not want. */
  match(request: RequestView): R | undefined {
    const best = this.#first(request)
    if (best?.versions === undefined) return best?.route
    const fitting = fittingVersions(best.versions, request)
    const wanted = wantedBy(request, this.#versioning)
    const version = negotiate(wanted, [...fitting.keys()], this.#versioning.default)
    return version === undefined ? undefined : fitting.get(version)
  }

  /** The versions of what `request` asks for, the lowest first; empty where there are none to choose from. */
  versionsFor(request: RequestView): string[] {
    const versions = this.#first(request)?.versions ?? []
    return [...fittingVersions(versions, request).keys()].sort(compareVersions)
  }

  /** The first candidate for `request`, whatever version it is. */
  #first(request: RequestView): Candidate<R> | undefined {
    const path = withoutTrailingSlash(request.matchPath)
    const { host } = request
    let best = this.#ask(this.#anyHost, path, request, undefined)
    if (this.#hosts.size > 0) {
      const tree = this.#hosts.get(host)
      if (tree !== undefined) best = this.#ask(tree, path, request, best)
    }
    if (this.#wildcards.size > 0) {
      for (let dot = this.#firstDot(host); dot !== -1; dot = host.indexOf('.', dot + 1)) {
        const tree = this.#wildcards.get(host.slice(dot))
        if (tree !== undefined) best = this.#ask(tree, path, request, best)
      }
    }
    return best
  }

  /** The first dot behind which a wildcard can stand: at least one letter in, and not further from the end than the longest. */
  #firstDot(host: string): number {
    return host.indexOf('.', Math.max(1, host.length - this.#longestWildcard))
  }

  #ask(tree: Tree<R>, path: string, request: RequestView, best: Candidate<R> | undefined): Candidate<R> | undefined {
    const found = this.#walk(tree.root, path, 0, request, best)
    return tree.regexes.length > 0 ? firstMatch(tree.regexes, request, found) : found
  }

  #walk(
    node: Node<R>,
    path: string,
    from: number,
    request: RequestView,
    best: Candidate<R> | undefined
  ): Candidate<R> | undefined {
    if (node.prefixes.length > 0) best = firstMatch(node.prefixes, request, best)
    if (from === path.length) return node.leaves.length > 0 ? firstMatch(node.leaves, request, best) : best
    const slash = path.indexOf('/', from + 1)
    const end = slash === -1 ? path.length : slash
    if (node.literals.size > 0) {
      const next = node.literals.get(path.slice(from + 1, end))
      if (next !== undefined) best = this.#walk(next, path, end, request, best)
    }
    if (node.parameter !== undefined && end > from + 1) best = this.#walk(node.parameter, path, end, request, best)
    return best
  }

  /** The methods that would have found a route for `request`, sorted; what `Allow` says on a 405 (RFC 9110 section 15.5.6). */
  allowedMethods(request: RequestView): string[] {
    const methods = new Set<string>()
    for (const { route, conditions } of this.#near(request.host, withoutTrailingSlash(request.matchPath).split('/'))) {
      if (route.methods === undefined || mismatch(conditions as RouteMatch, request, true) !== undefined) continue
      for (const method of route.methods) methods.add(method)
    }
    return [...methods].sort()
  }

  /**
   * Routes of which at least one host is never asked, since another route goes first and takes all of it.
   * @returns each such route once, with the route in its way and, if it has several hosts, the host
   */
  unreachable(): { route: R; by: R; host: string | undefined }[] {
    const found = new Map<R, { route: R; by: R; host: string | undefined }>()
    for (const later of this.#candidates) {
      const { route, match, rank } = later
      if (found.has(route)) continue
      const host = match.hosts?.[0]
      const path = match.pattern?.segments.map(({ literal }) => literal ?? PARAMETER)
      const earlier = this.#near(host ?? '', path === undefined ? undefined : ['', ...path])
        .filter(candidate => candidate.rank < rank && candidate.route !== route && shadows(candidate.match, match))
        .sort((a, b) => a.rank - b.rank)[0]
      if (earlier !== undefined) found.set(route, { route, by: earlier.route, host })
    }
    return [...found.values()]
  }

  /** Candidates whose host and path fit, whatever else they ask for. @param parts a path's segments behind '', or undefined for any path */
  #near(host: string, parts: readonly string[] | undefined): Candidate<R>[] {
    const trees = [this.#anyHost, this.#hosts.get(host)]
    for (let dot = this.#firstDot(host); dot !== -1; dot = host.indexOf('.', dot + 1))
      trees.push(this.#wildcards.get(host.slice(dot)))
    const near: Candidate<R>[] = []
    const visit = (node: Node<R>, at: number): void => {
      near.push(...node.prefixes)
      const part = parts?.[at]
      if (part === undefined) {
        near.push(...node.leaves)
        return
      }
      const next = node.literals.get(part)
      if (next !== undefined) visit(next, at + 1)
      if (node.parameter !== undefined && part !== '') visit(node.parameter, at + 1)
    }
    for (const tree of trees) {
      if (tree === undefined) continue
      visit(tree.root, 1)
      near.push(...tree.regexes)
    }
    return near
  }
}

/** No segment of a path: it stands for a parameter where patterns are compared. */
const PARAMETER = '{}'

function entriesOf<R extends RouteMatch>(route: R): Entry<R>[] {
  if (route.hosts === undefined) return [{ route, match: route }]
  return route.hosts.map(host => ({ route, match: { ...route, hosts: [host] } }))
}

function byOrder(a: Entry<RouteMatch>, b: Entry<RouteMatch>): number {
  return compareRoutes(a.match, b.match)
}

function toCandidate<R extends RouteMatch>({ route, match }: Entry<R>, rank: number): Candidate<R> {
  const { regex, methods, headers, query, countries } = match
  const unconditional =
    regex === undefined &&
    methods === undefined &&
    headers.length === 0 &&
    query.length === 0 &&
    countries === undefined
  return {
    route,
    match,
    rank,
    conditions: unconditional ? undefined : { ...match, pattern: undefined, hosts: undefined },
    versions: undefined
  }
}

/** Lets each version of something know the others. */
function tieVersions<R extends RouteMatch>(candidates: readonly Candidate<R>[]): void {
  const byResource = new Map<string, Candidate<R>[]>()
  for (const candidate of candidates) {
    if (candidate.match.version === undefined) continue
    const resource = resourceOf(candidate.match)
    const versions = byResource.get(resource) ?? []
    byResource.set(resource, versions)
    versions.push(candidate)
    candidate.versions = versions
  }
}

/** A string equal for routes of which each may be a version of the same. */
function resourceOf({ priority, pattern, regex, hosts }: RouteMatch): string {
  return JSON.stringify([priority, pattern === undefined ? regex?.source : segmentsOf(pattern), hosts])
}

function segmentsOf({ kind, segments }: Pattern): unknown {
  return [kind, segments.map(({ literal }) => literal ?? PARAMETER)]
}

/** Of each version the route that takes `request`, if it were to have that version. */
function fittingVersions<R extends RouteMatch>(
  versions: readonly Candidate<R>[],
  request: RequestView
): ReadonlyMap<string, R> {
  const fitting = new Map<string, R>()
  for (const { route, match, conditions } of versions) {
    const version = match.version as string
    if (fitting.has(version)) continue
    if (conditions === undefined || mismatch(conditions, request, false) === undefined) fitting.set(version, route)
  }
  return fitting
}

function firstMatch<R extends RouteMatch>(
  candidates: readonly Candidate<R>[],
  request: RequestView,
  best: Candidate<R> | undefined
): Candidate<R> | undefined {
  for (let i = 0; i < candidates.length; i++) {
    const candidate = candidates[i] as Candidate<R>
    if (best !== undefined && best.rank < candidate.rank) return best
    const { conditions } = candidate
    if (conditions === undefined || mismatch(conditions, request, false) === undefined) return candidate
  }
  return best
}

/** `/users/` is held by the rules for `/users`: many services answer both alike. */
function withoutTrailingSlash(path: string): string {
  return path.charCodeAt(path.length - 1) === 0x2f ? path.slice(0, -1) : path
}

/** The first condition of `route` that `request` fails, in words; undefined when it matches. */
export function mismatch(route: RouteMatch, request: RequestView, anyMethod: boolean): string | undefined {
  if (route.pattern !== undefined) {
    if (!matchesPath(route.pattern, withoutTrailingSlash(request.matchPath)))
      return `path is not ${route.pattern.source}`
  } else if (route.regex !== undefined && !route.regex.test(request.matchPath)) {
    return `path does not match ${route.regex.source}`
  }
  if (route.hosts !== undefined && !matchesHost(route.hosts, request.host)) {
    return `host ${request.host || '(none)'} is not ${route.hosts.join(' or ')}`
  }
  if (!anyMethod && route.methods !== undefined && !route.methods.has(request.method)) {
    return `method ${request.method} is not ${[...route.methods].join(' or ')}`
  }
  for (const condition of route.headers) {
    if (!condition.test(request.header(condition.name))) return `header ${condition.name} ${condition.wanted} is not so`
  }
  for (const condition of route.query) {
    if (!condition.test(request.query(condition.name))) return `query ${condition.name} ${condition.wanted} is not so`
  }
  if (route.countries !== undefined && !route.countries.has(request.country)) {
    return `country ${request.country || '(not known)'} is not ${[...route.countries].join(' or ')}`
  }
  return undefined
}

function matchesPath(pattern: Pattern, path: string): boolean {
  let from = 0
  for (const segment of pattern.segments) {
    if (from >= path.length) return false
    const slash = path.indexOf('/', from + 1)
    const end = slash === -1 ? path.length : slash
    if (segment.literal === undefined ? end === from + 1 : path.slice(from + 1, end) !== segment.literal) return false
    from = end
  }
  return from === path.length || pattern.kind === 'prefix'
}

function matchesHost(hosts: readonly string[], host: string): boolean {
  for (const wanted of hosts) {
    if (wanted === host) return true
    if (wanted.startsWith('*.') && host.length > wanted.length - 1 && host.endsWith(wanted.slice(1))) return true
  }
  return false
}

/** A string equal for routes that match the same requests. */
export function matchKey(route: RouteMatch): string {
  return JSON.stringify([
    route.priority,
    route.pattern ? segmentsOf(route.pattern) : route.regex?.source,
    route.methods ? [...route.methods].sort() : null,
    route.hosts ? [...route.hosts].sort() : null,
    inWords(route.headers),
    inWords(route.query),
    route.countries ? [...route.countries].sort() : null,
    route.version
  ])
}

function inWords(conditions: readonly Condition[]): string[] {
  return conditions.map(({ name, wanted }) => `${name} ${wanted}`).sort()
}

/** Whether `earlier`, being asked first, leaves no request over for `later`. Conditions that are not the same are taken for independent. */
function shadows(earlier: RouteMatch, later: RouteMatch): boolean {
  return (
    !areVersions(earlier, later) &&
    coversPath(earlier, later) &&
    includesAll(earlier.methods, later.methods) &&
    includesAllHosts(earlier.hosts, later.hosts) &&
    includesAll(earlier.countries, later.countries) &&
    isAmong(inWords(earlier.headers), inWords(later.headers)) &&
    isAmong(inWords(earlier.query), inWords(later.query))
  )
}

/** Whether they are two versions of the same, of which each is asked for by name. */
function areVersions(a: RouteMatch, b: RouteMatch): boolean {
  if (a.version === undefined || b.version === undefined || a.version === b.version) return false
  return resourceOf(a) === resourceOf(b)
}

function coversPath(earlier: RouteMatch, later: RouteMatch): boolean {
  if (earlier.pattern === undefined) return earlier.regex?.source === later.regex?.source
  if (later.pattern === undefined) return earlier.pattern.kind === 'prefix' && earlier.pattern.segments.length === 0
  return covers(earlier.pattern, later.pattern)
}

function isAmong(some: readonly string[], all: readonly string[]): boolean {
  return some.every(word => all.includes(word))
}

function includesAll(outer: ReadonlySet<string> | undefined, inner: ReadonlySet<string> | undefined): boolean {
  return outer === undefined || (inner !== undefined && [...inner].every(word => outer.has(word)))
}

function includesAllHosts(outer: readonly string[] | undefined, inner: readonly string[] | undefined): boolean {
  return outer === undefined || inner?.every(host => outer.includes(host) || matchesHost(outer, host)) === true
}
