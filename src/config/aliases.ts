import { isPriorityName } from '../overload/priority.ts'
import { copyPlace, move, type Position, placeOf, setPlace } from './located.ts'

/**
 * The spellings of the five seeds, turned into the one dialect before anything is checked (contract C-05, C-14 to C-19,
 * section 21). Values move with their places, so a problem is still reported where, and as, the user wrote it.
 */

type Mapping = Record<string, unknown>

/** Other words for keys of a route, a service or the defaults. */
const EVERYWHERE: Record<string, string> = {
  timeout_config: 'timeouts',
  retry_config: 'retry',
  breaker: 'circuit_breaker'
}
const ROUTE: Record<string, string> = { ...EVERYWHERE, method: 'methods', host: 'hosts', url: 'target' }
const SERVICE: Record<string, string> = {
  ...EVERYWHERE,
  base_url: 'url',
  bulkhead: 'concurrency',
  priority: 'request_priority'
}
const DEFAULTS: Record<string, string> = { ...EVERYWHERE, bulkhead: 'concurrency', priority: 'request_priority' }
const BREAKER: Record<string, string> = { threshold: 'failure_threshold', timeout: 'recovery_timeout' }
const RETRY: Record<string, string> = { retries: 'attempts', max_retries: 'attempts', on: 'retry_on' }
const TIMEOUTS: Record<string, string> = { read: 'first_byte' }

/** All of them, by the key under which the block stands, or its list. */
export const ALIASES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  routes: ROUTE,
  services: SERVICE,
  defaults: DEFAULTS,
  circuit_breaker: BREAKER,
  retry: RETRY,
  timeouts: TIMEOUTS
}
/** Keys whose words may be written in upper case, too; with their block where they mean something else elsewhere. */
export const ANY_CASE: ReadonlySet<string> = new Set([
  'load_balancer_type',
  'load_balancer',
  'load_balancer.type',
  'health_check.type'
])

/** Rewrites one file's document to the canonical keys. */
export function canonicalKeys(document: Mapping): Mapping {
  const shaped = recogniseShape(document)
  fold(shaped, 'errors', 'defaults')
  foldExternal(shaped)
  for (const route of itemsOf(shaped.routes)) {
    canonicalBlock(route, ROUTE)
    // A number says which of two routes goes first, a word how important a request is.
    if (isPriorityName(route.priority)) rename(route, { priority: 'request_priority' })
  }
  if (Array.isArray(shaped.routes)) shaped.routes = withSplits(shaped.routes)
  if (isMapping(shaped.services))
    for (const service of Object.values(shaped.services)) if (isMapping(service)) canonicalBlock(service, SERVICE)
  if (isMapping(shaped.defaults)) canonicalBlock(shaped.defaults, DEFAULTS)
  return shaped
}

function lowerCase(mapping: Mapping, key: string): void {
  const value = mapping[key]
  if (typeof value === 'string') mapping[key] = value.toLowerCase()
}

function canonicalBlock(block: Mapping, aliases: Record<string, string>): void {
  rename(block, aliases)
  if (typeof block.load_balancer === 'string') rename(block, { load_balancer: 'load_balancer_type' })
  lowerCase(block, 'load_balancer_type')
  if (isMapping(block.load_balancer)) lowerCase(block.load_balancer, 'type')
  if (isMapping(block.health_check)) lowerCase(block.health_check, 'type')
  if (isMapping(block.circuit_breaker)) rename(block.circuit_breaker, BREAKER)
  if (isMapping(block.retry)) rename(block.retry, RETRY)
  if (isMapping(block.timeouts)) rename(block.timeouts, TIMEOUTS)
}

function rename(mapping: Mapping, aliases: Record<string, string>): void {
  for (const [alias, key] of Object.entries(aliases))
    if (alias in mapping && !(key in mapping)) move(mapping, alias, mapping, key)
}

/** Documents that are not a gateway's configuration but a part of one. */
function recogniseShape(document: Mapping): Mapping {
  if ('router' in document || 'rate_limiter' in document) return fromSeed003(document)
  if ('user_tiers' in document || ('global' in document && !('routes' in document)))
    return wrap(document, 'rate_limits')
  if (typeof document.name === 'string' && ('base_url' in document || 'instances' in document))
    return fromServiceDefinition(document)
  return document
}

function wrap(document: Mapping, key: string): Mapping {
  const wrapped: Mapping = { [key]: document }
  unspoken(document, wrapped, key)
  return wrapped
}

/** Gives a key that the user has not written the place of the first one that he has. */
function unspoken(document: Mapping, container: Mapping, key: string): void {
  const place = placeOf(document, firstPlace(document) ?? '')
  if (place !== undefined) setPlace(container, key, { ...place, spelled: '' })
}

function firstPlace(document: Mapping): string | undefined {
  return Object.keys(document)[0]
}

/** Seeds 000 and 002: one service's definition, by file rather than by API. */
function fromServiceDefinition(document: Mapping): Mapping {
  const name = document.name as string
  const services: Mapping = {}
  const out: Mapping = { services }
  unspoken(document, out, 'services')
  unspoken(document, services, name)
  const { name: _, ...rest } = document
  const service: Mapping = {}
  for (const key of Object.keys(rest)) move(document, key, service, key)
  services[name] = service
  return out
}

/** Seed 003's `api_gateway_config.yaml`. */
function fromSeed003(document: Mapping): Mapping {
  const out: Mapping = {}
  for (const key of Object.keys(document)) {
    if (!['router', 'rate_limiter', 'circuit_breaker'].includes(key)) move(document, key, out, key)
  }
  if (isMapping(document.router))
    for (const key of Object.keys(document.router)) moveFrom(document, 'router', key, out, key)
  if ('rate_limiter' in document) move(document, 'rate_limiter', out, 'rate_limits')
  const breaker = document.circuit_breaker
  if (isMapping(breaker) && 'default' in breaker) {
    const defaults: Mapping = isMapping(out.defaults) ? out.defaults : {}
    moveFrom(document, 'circuit_breaker', 'default', defaults, 'circuit_breaker')
    if (!('defaults' in out)) unspoken(document, out, 'defaults')
    out.defaults = defaults
  }
  return out
}

/**
 * Routes that differ in nothing but their service and its weight are one that shares its requests among them (HLB-09, seed
 * 003's `add_route`): the first one, with a `split`.
 */
function withSplits(routes: readonly unknown[]): unknown[] {
  const merged: unknown[] = []
  const byRest = new Map<string, { route: Mapping; at: number }>()
  for (const [i, route] of routes.entries()) {
    const key = isMapping(route) && 'weight' in route ? restOf(route) : undefined
    const first = key === undefined ? undefined : byRest.get(key)
    if (first === undefined) {
      if (key !== undefined) byRest.set(key, { route: route as Mapping, at: i })
      copyPlace(routes, i, merged, merged.length)
      merged.push(route)
      continue
    }
    if (first.route.split === undefined) {
      const variants = [variantOf(first.route)]
      first.route.split = variants
      copyPlace(routes, first.at, first.route, 'split')
      copyPlace(routes, first.at, variants, 0)
    }
    const variants = first.route.split as Mapping[]
    copyPlace(routes, i, variants, variants.length)
    variants.push(variantOf(route as Mapping))
  }
  return merged
}

function restOf({ service: _, target: _target, weight: _weight, ...rest }: Mapping): string {
  return JSON.stringify(rest)
}

/** Takes the service of a route, and its weight, out of it. */
function variantOf(route: Mapping): Mapping {
  const variant: Mapping = {}
  for (const key of ['service', 'target', 'weight']) if (key in route) move(route, key, variant, key)
  return variant
}

/** Moves `document[outer][inner]`, which keeps both names in messages. */
function moveFrom(document: Mapping, outer: string, inner: string, to: Mapping, newKey: string): void {
  const from = document[outer] as Mapping
  const place = placeOf(from, inner)
  move(from, inner, to, newKey)
  if (place !== undefined) setPlace(to, newKey, { ...place, spelled: `${outer}.${inner}` })
}

/** A top-level key that is short for one under another. */
function fold(document: Mapping, key: string, into: string): void {
  if (!(key in document)) return
  const target = isMapping(document[into]) ? (document[into] as Mapping) : {}
  if (!(into in document)) {
    document[into] = target
    copyPlace(document, key, document, into)
  }
  move(document, key, target, key)
}

/** Seed 004's `auth: { external: { introspection_url, userinfo_url, jwks_url, timeout } }`: one more issuer (IDN-36). */
function foldExternal(document: Mapping): void {
  const { auth } = document
  if (!isMapping(auth) || !isMapping(auth.external) || Object.keys(auth).length !== 1) return
  const identity: Mapping = isMapping(document.identity) ? document.identity : {}
  const issuers = Array.isArray(identity.issuers) ? identity.issuers : []
  if (document.identity !== identity) {
    document.identity = identity
    copyPlace(document, 'auth', document, 'identity')
  }
  if (identity.issuers !== issuers) {
    identity.issuers = issuers
    copyPlace(auth, 'external', identity, 'issuers')
  }
  copyPlace(auth, 'external', issuers, issuers.length)
  issuers.push(auth.external)
  delete document.auth
}

export function isMapping(value: unknown): value is Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function itemsOf(value: unknown): Mapping[] {
  return Array.isArray(value) ? value.filter(isMapping) : []
}

/** Mappings whose keys are set one by one; everything else a later file replaces as a whole. */
const MERGED = new Set([
  'gateway',
  'server',
  'server.limits',
  'server.timeouts',
  'storage',
  'identity',
  'identity.jwt',
  'identity.password',
  'identity.claims',
  'logging',
  'recording',
  'recording.keep',
  'metrics',
  'paths',
  'admin',
  'registry',
  'defaults',
  'services',
  'rate_limits',
  'rate_limits.services',
  'rate_limits.endpoints',
  'rate_limits.user_tiers',
  'rate_limits.roles',
  'rate_limits.clients',
  'rate_limits.abuse',
  'overload',
  'overload.roles',
  'overload.tiers',
  'overload.clients'
])

/** Lists to which a later file adds. */
const APPENDED = new Set(['routes', 'plugins', 'identity.issuers', 'identity.providers', 'identity.api_keys'])

/** Puts `source` over `target`: what comes later wins, key by key where {@link MERGED} says so. */
export function merge(target: Mapping, source: Mapping, path = ''): Mapping {
  for (const [key, value] of Object.entries(source)) {
    const here = path === '' ? key : `${path}.${key}`
    const old = target[key]
    if (isMapping(old) && isMapping(value) && MERGED.has(here)) {
      merge(old, value, here)
    } else if (Array.isArray(old) && Array.isArray(value) && APPENDED.has(here)) {
      for (const i of value.keys()) {
        copyPlace(value, i, old, old.length)
        old.push(value[i])
      }
    } else {
      target[key] = value
      copyPlace(source, key, target, key)
    }
  }
  return target
}

/** Sets the value at a dotted path, making mappings on the way, as coming from `position`: a variable, a flag. */
export function setAt(document: Mapping, path: string, value: unknown, position: Position): void {
  const keys = path.split('.')
  const last = keys.pop() as string
  let mapping = document
  for (const key of keys) {
    if (!Object.hasOwn(mapping, key) || !isMapping(mapping[key])) {
      mapping[key] = {}
      setPlace(mapping, key, { key: position, value: position })
    }
    mapping = mapping[key] as Mapping
  }
  mapping[last] = value
  setPlace(mapping, last, { key: position, value: position })
}

/** The place of what stands in no file. */
export function outsideFiles(source: string): Position {
  return { file: source, line: 0, column: 0 }
}
