import { canonicalKeys, isMapping, outsideFiles } from '../config/aliases.ts'
import type { SourceDocument } from '../config/document.ts'
import { copyOf, copyPlace, type Position, placeOf, setPlaces } from '../config/located.ts'
import { inWords, type Problem } from '../config/problem.ts'

/** A service that was registered by the API (REG-09, REG-10); frozen once it is known. */
export interface RegisteredService {
  readonly id: string
  readonly name: string
  readonly version: string | null
  readonly description: string | null
  /** The first of its addresses. */
  readonly base_url: string
  /** Whether it has routes. */
  readonly active: boolean
  /** Who may change it, besides administrators: the key of a consumer, `user:alice`. */
  readonly owner: string
  readonly tags: readonly string[]
  /** `health_check`, `timeout_config` and the like, as they were given. */
  readonly settings: Readonly<Record<string, unknown>>
  readonly instances: readonly RegisteredInstance[]
  readonly endpoints: readonly RegisteredEndpoint[]
  /** The list's version at its last change; its entity tag. */
  readonly revision: number
  /** Milliseconds since 1970. */
  readonly created_at: number
  readonly updated_at: number
}

export interface RegisteredInstance {
  readonly id: string
  readonly url: string
  readonly weight: number
}

export interface RegisteredEndpoint {
  readonly id: string
  readonly path: string
  readonly method: string
  readonly name: string | null
  readonly description: string | null
  readonly public: boolean
  readonly required_roles: readonly string[]
  readonly deprecated: boolean
  readonly version: string | null
  readonly created_at: number
  readonly updated_at: number
}

/** Where problems of a registered service are said to be. */
export function placeOfService(name: string): Position {
  return outsideFiles(`service "${name}" (registered)`)
}

/**
 * The document of the files with registered services beside theirs, so that they are validated, compiled and held against
 * each other like all others. What is wrong with them has {@link placeOfService} as its place.
 */
export function withRegistered(source: SourceDocument, services: readonly RegisteredService[]): SourceDocument {
  const { document } = source
  const together = copyOf(document.services)
  const hosts = hostsOf(document)
  const problems: Problem[] = [...source.problems]
  const registered = new Set<string>()
  for (const service of services) {
    const taken = placeOf(document.services, service.name)?.key ?? hosts.get(service.name)
    if (taken !== undefined || Object.hasOwn(together, service.name)) {
      problems.push(nameTaken(service.name, taken))
      continue
    }
    registered.add(service.name)
    const fragment = fragmentOf(service)
    together[service.name] = fragment[service.name]
    copyPlace(fragment, service.name, together, service.name)
  }
  const whole = copyOf(document)
  whole.services = together
  // What is looked at here is not to be taken for what the files' reading has looked at.
  return { ...source, document: whole, seen: new Map(source.seen), problems, registered }
}

function nameTaken(name: string, by: Position | undefined): Problem {
  return {
    ...placeOfService(name),
    key: `services.${name}`,
    message: `is the name of another service${inWords(by)}`,
    severity: 'error',
    conflict: true
  }
}

/** Names that routes of the files take for hosts: who registers one of them must not get their requests. */
function hostsOf({ routes, services }: Readonly<Record<string, unknown>>): Map<string, Position | undefined> {
  const hosts = new Map<string, Position | undefined>()
  for (const [i, route] of (Array.isArray(routes) ? routes : []).entries()) {
    for (const { name, at } of servicesNamedIn(route)) {
      if (isMapping(services) && Object.hasOwn(services, name)) continue
      hosts.set(name, at ?? placeOf(routes, i)?.key)
    }
  }
  return hosts
}

/** The services that a route leads to, be it by `service` or somewhere in its `split`, its `fallback` and the like. */
function* servicesNamedIn(block: unknown): Generator<{ name: string; at: Position | undefined }> {
  if (typeof block !== 'object' || block === null) return
  for (const [key, value] of Object.entries(block)) {
    if (key === 'service' && typeof value === 'string') yield { name: value, at: placeOf(block, key)?.value }
    else yield* servicesNamedIn(value)
  }
}

/** `{ [name]: … }` as a file would have it. */
function fragmentOf(service: RegisteredService): Record<string, unknown> {
  const { name, description, version, base_url, instances, settings } = service
  const [first, ...others] = instances
  const alone = first !== undefined && others.length === 0 && first.url === base_url && first.weight === 1
  const block: Record<string, unknown> = {
    ...(description !== null && { description }),
    ...(version !== null && { version }),
    ...(alone ? { base_url } : { instances: instances.map(({ id, url, weight }) => ({ id, url, weight })) }),
    ...structuredClone(settings),
    endpoints: service.endpoints.map(endpoint => ({
      path: endpoint.path,
      method: endpoint.method,
      ...(endpoint.name !== null && { name: endpoint.name }),
      public: endpoint.public,
      required_roles: [...endpoint.required_roles],
      deprecated: endpoint.deprecated,
      ...(endpoint.version !== null && { version: endpoint.version })
    }))
  }
  const document = { services: { [name]: block } }
  setPlaces(document.services, placeOfService(name))
  return canonicalKeys(document).services as Record<string, unknown>
}
