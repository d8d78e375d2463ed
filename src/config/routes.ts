import { apiVersion, successorOf, type VersionForm, versionForms } from '../releases/versions.ts'
import { compileCondition, compileRegex } from '../routing/conditions.ts'
import { covers, type Pattern, parsePattern } from '../routing/pattern.ts'
import type { RouteMatch } from '../routing/table.ts'
import { canaryOf, destinationOf, mirrorOf } from './destinations.ts'
import type { Block, Draft } from './draft.ts'
import { forwardingOf } from './forwarding.ts'
import type { Path } from './located.ts'
import { countriesOf, describeMatch, hostsOf, methodsOf, patternOf } from './match.ts'
import { suggestion } from './problem.ts'
import type { RouteSettings, ServiceSettings } from './schema.ts'
import type { RewriteConfig, RouteConfig } from './snapshot.ts'

/** One of the ways in which requests come to a route with versions. */
interface RouteForm extends VersionForm<VersionSettings> {
  readonly label: string
  /** The path with a segment for the version in it. */
  readonly whole: string
  readonly versions: Readonly<Record<string, VersionSettings>> | undefined
}

type VersionSettings = NonNullable<RouteSettings['versions']>[string] & { readonly deprecated?: unknown }
/** What most routes do without. */
type Absent = 'endpoint' | 'mirror' | 'release' | 'segment' | 'successor'

/** One entry of `routes`, which is as many routes as its versions have ways to be asked for. */
export function addRoute(draft: Draft, settings: RouteSettings & Block, path: Path): void {
  const { version, versions, id } = settings
  if (version === undefined && versions === undefined) return addForm(draft, settings, path)
  if (version !== undefined && versions !== undefined)
    return draft.problems.add([...path, 'version'], 'stands beside "versions"; keep one of them', 'key')
  const forms = versionForms(settings, asksForVersions(draft))
  if (forms.some(({ segment }) => segment === undefined) && !asksForVersions(draft))
    return draft.problems.add(
      [...path, version === undefined ? 'versions' : 'version'],
      'can be asked for by nobody: put "{version}" into the path, or set "versioning.vendor" or "versioning.query"'
    )
  for (const form of forms) {
    const { path: source = settings.path, own, name, asked } = form
    const label = `${source ?? settings.regex}${asked === undefined ? '' : ` (${name})`}`
    addForm(
      draft,
      {
        ...settings,
        ...(own?.service !== undefined && { target: undefined }),
        ...(own?.target !== undefined && { service: undefined }),
        ...own,
        path: source,
        ...(id !== undefined && forms.length > 1 && { id: `${id} ${label}` })
      } as RouteSettings & Block,
      path,
      { ...form, label, whole: settings.path ?? '', versions }
    )
  }
}

/** Whether requests may say in a field or in their query which version they want. */
function asksForVersions(draft: Draft): boolean {
  const { vendor, query } = draft.settled.versioning
  return vendor !== undefined || query !== undefined
}

/** What a form of a route with versions has beyond its match. */
function versionParts(form: RouteForm | undefined): Pick<RouteConfig, 'segment' | 'successor'> {
  const { segment, asked, name = '', versions = {}, own } = form ?? {}
  if (segment === undefined) return { segment: undefined, successor: undefined }
  const next = own?.deprecated ? successorOf(versions, name, version => !version.deprecated) : undefined
  return {
    segment: asked === undefined ? undefined : { ...segment, whole: parsePattern(form?.whole as string) },
    successor: next === undefined ? undefined : { at: segment.at, text: next, replaces: asked === undefined }
  }
}

/** A route, or one form of it. */
function addForm(draft: Draft, settings: RouteSettings & Block, path: Path, form?: RouteForm): void {
  const own: Path = form?.own === undefined ? path : [...path, 'versions', form.name]
  const destination = destinationOf(draft, settings, own)
  const pattern = patternOf(draft, settings, path)
  const regex =
    settings.regex === undefined
      ? undefined
      : draft.attempt(() => compileRegex(settings.regex as string, true), [...path, 'regex'])
  if ((settings.path === undefined) === (settings.regex === undefined)) {
    draft.problems.add(
      path,
      settings.path === undefined ? 'needs "path" or "regex"' : 'has both "path" and "regex"; keep one of them',
      'key'
    )
    return
  }
  if (destination === undefined || (pattern === undefined && regex === undefined)) return
  const methods = methodsOf(draft, settings.methods, [...path, 'methods'])
  const conditions = (key: 'headers' | 'query') =>
    Object.entries(settings[key]).flatMap(([name, wanted]) => {
      const compiled = draft.attempt(
        () => compileCondition(key === 'headers' ? name.toLowerCase() : name, wanted as string),
        [...path, key, name]
      )
      return compiled === undefined ? [] : [compiled]
    })
  const label = form?.label ?? settings.path ?? (settings.regex as string)
  const match: Omit<RouteMatch, 'id'> = {
    pattern,
    regex,
    methods,
    hosts: hostsOf(draft, settings.hosts, [...path, 'hosts']),
    headers: conditions('headers'),
    query: conditions('query'),
    countries: countriesOf(draft, settings.countries, path),
    version: form?.asked,
    priority: Number(settings.priority),
    catchAll: false
  }
  const id = settings.id ?? describeMatch(label, match)
  const parts = versionParts(form)
  pushRoute(
    draft,
    {
      ...match,
      ...forwardingOf(draft, settings, destination.service, id, path),
      service: destination.service,
      release: destination.release ?? canaryOf(draft, settings, destination.service, id, path),
      mirror: mirrorOf(draft, settings, destination.service, path),
      ...parts,
      id,
      label,
      rewrite: rewriteOf(draft, settings, parts.segment?.whole ?? pattern, own)
    },
    settings,
    path
  )
}

function pushRoute(
  draft: Draft,
  route: Omit<RouteConfig, 'enabled' | 'encodedSlash' | 'websocket' | 'at' | Absent> &
    Partial<Pick<RouteConfig, Absent>>,
  settings: Partial<RouteSettings>,
  path: Path
): void {
  draft.routes.push({
    path,
    route: {
      endpoint: undefined,
      release: undefined,
      mirror: undefined,
      segment: undefined,
      successor: undefined,
      ...route,
      enabled: settings.enabled ?? true,
      encodedSlash: settings.encoded_slash ?? false,
      websocket: settings.websocket ?? false,
      at: draft.positionOf(path)
    }
  })
}

function rewriteOf(
  draft: Draft,
  settings: RouteSettings,
  pattern: Pattern | undefined,
  path: Path
): RewriteConfig | undefined {
  const { rewrite, strip_prefix: strip } = settings
  if (rewrite !== undefined && strip !== false) {
    draft.problems.add([...path, 'rewrite'], 'stands beside "strip_prefix"; keep one of them', 'key')
    return undefined
  }
  if (rewrite !== undefined) {
    for (const [, name] of rewrite.matchAll(/\{([^}]*)\}/g)) {
      const parameters = pattern?.segments.flatMap(({ parameter }) => parameter ?? []) ?? []
      if (!parameters.includes(name as string))
        draft.problems.add(
          [...path, 'rewrite'],
          `the path has no parameter "${name}"${suggestion(name as string, parameters)}`
        )
    }
    return {
      kind: 'replace',
      template: rewrite,
      segments: pattern?.segments.length ?? 0,
      keepRest: pattern?.kind === 'prefix'
    }
  }
  if (strip === false) return undefined
  if (pattern === undefined) {
    draft.problems.add([...path, 'strip_prefix'], 'needs "path"; a regular expression has no prefix', 'key')
    return undefined
  }
  if (strip === true) return { kind: 'strip', segments: pattern.segments.length }
  const prefix = draft.attempt(() => parsePattern(strip), [...path, 'strip_prefix'])
  if (prefix === undefined) return undefined
  if (!covers({ ...prefix, kind: 'prefix' }, pattern))
    draft.problems.add([...path, 'strip_prefix'], `is no prefix of ${pattern.source}`)
  return { kind: 'strip', segments: prefix.segments.length }
}

/** `/api/v1/…` for an endpoint, and `/api/…` where requests may say their version elsewhere (VER-01 to VER-03). */
export function addEndpoint(
  draft: Draft,
  name: string,
  endpoint: ServiceSettings['endpoints'][number],
  path: Path
): void {
  const version = apiVersion(endpoint.version) ?? apiVersion(draft.settled.services[name]?.version) ?? 'v1'
  const source = `/api/{version}${endpoint.path}`
  for (const form of versionForms<never>({ path: source, version }, asksForVersions(draft)))
    addEndpointForm(draft, name, endpoint, form, path)
}

function addEndpointForm(
  draft: Draft,
  name: string,
  endpoint: ServiceSettings['endpoints'][number],
  form: VersionForm<never>,
  path: Path
): void {
  const source = form.path as string
  const label = form.asked === undefined ? source : `${source} (${form.name})`
  const pattern = draft.attempt(() => parsePattern(source), [...path, 'path'])
  if (pattern === undefined) return
  const methods = methodsOf(draft, [endpoint.method], [...path, 'method'])
  const match = {
    pattern,
    regex: undefined,
    methods,
    hosts: undefined,
    headers: [],
    query: [],
    version: form.asked,
    priority: 0,
    catchAll: false
  }
  const id = describeMatch(label, match)
  const settings: Block = endpoint.public
    ? { authentication: 'none', required_roles: false, permissions: false }
    : { authentication: 'required' }
  if (!endpoint.public && endpoint.required_roles.length > 0) settings.required_roles = endpoint.required_roles
  if (endpoint.deprecated) settings.deprecated = true
  const whole = `/api/{version}${endpoint.path}`
  pushRoute(
    draft,
    {
      ...match,
      ...forwardingOf(draft, settings, name, id, path),
      ...versionParts({ ...form, label, whole, versions: undefined }),
      id,
      label,
      service: name,
      rewrite: { kind: 'strip', segments: 2 },
      ...(endpoint.name === undefined ? {} : { endpoint: `${name}.${endpoint.name}` })
    },
    {},
    path
  )
}

/** `/{service}/**` for every service (RTE-01). */
export function addCatchAll(draft: Draft, name: string): void {
  const path: Path = ['services', name]
  const label = `/${name}/**`
  const pattern = draft.attempt(() => parsePattern(label), path)
  if (pattern === undefined) return
  const match = {
    pattern,
    regex: undefined,
    methods: undefined,
    hosts: undefined,
    headers: [],
    query: [],
    priority: 0,
    catchAll: true
  }
  pushRoute(
    draft,
    {
      ...match,
      ...forwardingOf(draft, {}, name, label, path),
      id: label,
      label,
      service: name,
      rewrite: { kind: 'strip', segments: 1 }
    },
    {},
    path
  )
}
