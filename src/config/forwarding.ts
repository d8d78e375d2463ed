import { readFileSync } from 'node:fs'
import { OF_THE_SERVICE } from '../upstream/balancing-settings.ts'
import { type BreakerUse, breakerTrouble, breakerUse } from '../upstream/breaker-settings.ts'
import { type FallbackConfig, fallbackConfig, fallbackTrouble, LARGEST_FILE } from '../upstream/fallback-settings.ts'
import { BUDGET, type Failure, IDEMPOTENT, type RetryPolicy } from '../upstream/retry.ts'
import type { Block, Draft, Levels } from './draft.ts'
import type { Path } from './located.ts'
import { suggestion } from './problem.ts'
import type { RetrySettings } from './schema.ts'
import { balancerFor } from './services.ts'
import type { ConcernConfig, RouteConfig } from './snapshot.ts'

const TIMEOUT_MS = 30_000

/** Concerns that `enabled: false` switches off (CFG-04): what is left is a plain proxy. */
const OPTIONAL_CONCERNS = new Set(['rate_limit', 'cache', 'transform'])

/** Deadlines, retries and concerns: what a route takes from its service and the defaults when it does not say otherwise. */
export function forwardingOf(
  draft: Draft,
  settings: Block,
  serviceName: string,
  id: string,
  path: Path
): Pick<
  RouteConfig,
  | 'timeoutMs'
  | 'firstByteMs'
  | 'writeMs'
  | 'totalMs'
  | 'retry'
  | 'hedgeMs'
  | 'breaker'
  | 'fallback'
  | 'balancer'
  | 'concerns'
  | 'off'
> {
  const service: Block = draft.settled.services[serviceName] ?? {}
  const { defaults } = draft.settled
  for (const stage of ['connect', 'idle'] as const) {
    if (settings.timeouts && settings.timeouts[stage] !== undefined)
      draft.problems.add(
        [...path, 'timeouts', stage],
        `is of the service’s connections, which other routes use as well: put it under "services.${serviceName}.timeouts"`
      )
  }
  for (const key of OF_THE_SERVICE) {
    if (settings.load_balancer?.[key] !== undefined)
      draft.problems.add(
        [...path, 'load_balancer', key],
        `is of the service’s instances, which other routes use as well: put it under "services.${serviceName}.load_balancer"`
      )
  }
  if (settings.fallback && settings.fallback.service === serviceName)
    draft.problems.add([...path, 'fallback', 'service'], 'is the service that it would stand in for')
  const timeouts = (settings.timeouts ?? service.timeouts ?? defaults.timeouts) || {}
  const levels: Levels = [
    [settings, id, path],
    [service, `services.${serviceName}`, ['services', serviceName]],
    [defaults, 'defaults', ['defaults']]
  ]
  return {
    timeoutMs: settings.timeout ?? service.timeout ?? defaults.timeout ?? TIMEOUT_MS,
    firstByteMs: timeouts.first_byte ?? 0,
    writeMs: timeouts.write ?? 0,
    totalMs: timeouts.total ?? 0,
    retry: retryPolicy(settings.retry ?? service.retry ?? defaults.retry),
    balancer: balancerFor(draft, settings, path),
    hedgeMs: (settings.hedge ?? service.hedge ?? defaults.hedge) || 0,
    breaker: breakerOfRoute(draft, settings, path),
    fallback: fallbackOf(draft, levels),
    concerns: concernsOf(draft, levels),
    off: switchedOff(draft, levels)
  }
}

/** For each concern the most specific level that says something, as a whole. */
export function concernsOf(draft: Draft, levels: Levels): Record<string, ConcernConfig> {
  const concerns: Record<string, ConcernConfig> = {}
  const take = (name: string, pick: (block: Block) => unknown, keys: Path): void => {
    for (const [block, scope, path] of levels) {
      const options = pick(block)
      if (options === undefined) continue
      if (options !== false) concerns[name] = { options, scope, at: draft.positionOf([...path, ...keys]) }
      return
    }
  }
  for (const name of draft.dialect.concerns) {
    if (!draft.settled.enabled && OPTIONAL_CONCERNS.has(name)) continue
    take(name, block => block[name], [name])
  }
  const plugins = new Set(levels.flatMap(([block]) => Object.keys(block.plugins ?? {})))
  for (const name of plugins) take(name, block => block.plugins?.[name], ['plugins', name])
  return concerns
}

function switchedOff(draft: Draft, levels: Levels): string[] {
  const off = draft.dialect.concerns.filter(
    name => levels.map(([block]) => block[name]).find(options => options !== undefined) === false
  )
  return draft.settled.enabled ? off : [...off, ...OPTIONAL_CONCERNS]
}

/** What the most specific level says, whose file is read but once. */
function fallbackOf(draft: Draft, levels: Levels): FallbackConfig | undefined {
  const level = levels.find(([block]) => block.fallback !== undefined)
  if (level === undefined || !level[0].fallback) return undefined
  const [{ fallback: settings }, , path] = level
  const known = draft.fallbacks.get(settings)
  if (known !== undefined) return known
  const at: Path = [...path, 'fallback']
  for (const [key, message] of fallbackTrouble(settings)) draft.problems.add([...at, ...key.split('.')], message)
  if (settings.service !== undefined && !(settings.service in draft.settled.services))
    draft.problems.add(
      [...at, 'service'],
      `there is no service "${settings.service}"${suggestion(settings.service, Object.keys(draft.settled.services))}`
    )
  const config = fallbackConfig(settings, contentOf(draft, settings.file, [...at, 'file'])) as FallbackConfig
  draft.fallbacks.set(settings, config)
  return config
}

function contentOf(draft: Draft, name: string | undefined, path: Path): Buffer | undefined {
  if (name === undefined) return undefined
  try {
    const content = readFileSync(draft.file(name, path))
    if (content.length <= LARGEST_FILE) return content
    draft.problems.add(path, `"${name}" is larger than 1 MB`)
  } catch (error) {
    draft.problems.add(path, `"${name}" cannot be read: ${(error as NodeJS.ErrnoException).code}`)
  }
  return undefined
}

/** Of services, which take what the defaults say unless they say otherwise. */
export function breakersOf(draft: Draft): Map<string, BreakerUse> {
  const { services, defaults, enabled } = draft.settled
  checkBreaker(draft, defaults, ['defaults'])
  const found = new Map<string, BreakerUse>()
  for (const [name, service] of Object.entries(services)) {
    checkBreaker(draft, service, ['services', name])
    const use = enabled ? breakerUse(service.circuit_breaker ?? defaults.circuit_breaker, false) : undefined
    if (use !== undefined) found.set(name, use)
  }
  return found
}

function breakerOfRoute(draft: Draft, settings: Block, path: Path): BreakerUse | false | undefined {
  if (settings.circuit_breaker === undefined || !draft.settled.enabled) return undefined
  checkBreaker(draft, settings, path)
  return breakerUse(settings.circuit_breaker, true) ?? false
}

function checkBreaker(draft: Draft, { circuit_breaker: settings }: Block, path: Path): void {
  const at: Path = [...path, 'circuit_breaker']
  for (const [key, message] of breakerTrouble(settings)) draft.problems.add([...at, key], message)
  const { services, defaults } = draft.settled
  for (const [i, name] of (settings || undefined)?.depends_on.entries() ?? []) {
    const place: Path = [...at, 'depends_on', i]
    const service = services[name]
    if (service === undefined)
      draft.problems.add(place, `there is no service "${name}"${suggestion(name, Object.keys(services))}`)
    else if (path[0] === 'services' && path[1] === name) draft.problems.add(place, 'is this service itself')
    else if (breakerUse(service.circuit_breaker ?? defaults.circuit_breaker, false)?.per !== 'service')
      draft.problems.warn(place, `changes nothing: "${name}" has no breaker of its own ("per: service")`, 'value')
  }
}

function retryPolicy(settings: RetrySettings | undefined): RetryPolicy {
  const none: RetryPolicy = {
    attempts: 0,
    backoffMs: 25,
    maxBackoffMs: 1000,
    methods: IDEMPOTENT,
    on: new Set(),
    budget: BUDGET
  }
  if (settings === undefined || settings === false) return none
  if (typeof settings === 'number') return { ...none, attempts: settings, on: new Set(['connect', 'reset']) }
  return {
    attempts: settings.attempts,
    backoffMs: settings.backoff,
    maxBackoffMs: settings.max_backoff,
    methods: new Set(settings.methods.map(method => method.toUpperCase())),
    on: new Set(settings.retry_on as Failure[]),
    budget: settings.budget
  }
}
