import type { RouteConfig, Snapshot } from '../config/snapshot.ts'
import { limitsOf, type RateSettings } from '../limits/settings.ts'

/** Concerns of which more is said than the name. */
const SAID = new Set(['authentication', 'required_roles', 'permissions', 'rate_limit'])

/** A route's concerns in a few words: `JWT · 60/min · retry`. */
export function describeRoute(route: RouteConfig, snapshot: Snapshot): string {
  const { concerns } = route
  const words = [authentication(concerns.authentication?.options)]
  if (concerns.required_roles !== undefined)
    words.push(`roles ${(concerns.required_roles.options as string[]).join('|')}`)
  if (concerns.permissions !== undefined) words.push('permissions')
  const limit = concerns.rate_limit?.options as RateSettings | undefined
  if (limit !== undefined)
    for (const { limit: requests, windowMs } of limitsOf('route', limit)) words.push(`${requests}/${unit(windowMs)}`)
  const { roles, user_tiers, clients } = snapshot.rateLimits
  if (!route.off.includes('rate_limit') && [roles, user_tiers, clients].some(map => Object.keys(map).length > 0))
    words.push('limits by role or tier')
  if (route.release !== undefined) words.push(route.release.kind)
  if (route.mirror !== undefined) words.push('mirror')
  if (route.retry.attempts > 0) words.push('retry')
  if (route.hedgeMs > 0) words.push('hedge')
  if (route.breaker ?? snapshot.breakers.has(route.service)) words.push('circuit breaker')
  if (route.fallback !== undefined) words.push('fallback')
  if (route.websocket) words.push('WebSocket')
  for (const name of Object.keys(concerns)) if (!SAID.has(name)) words.push(name.replaceAll('_', ' '))
  return words.join(' · ')
}

function authentication(options: unknown): string {
  const mode =
    typeof options === 'object' && options !== null ? (options as { mode: string }).mode : (options ?? 'required')
  return { required: 'JWT or key', optional: 'JWT or key, optional', none: 'open' }[mode as string] ?? String(mode)
}

function unit(windowMs: number): string {
  return { 1000: 's', 60000: 'min', 3600000: 'h', 86400000: 'day' }[windowMs] ?? `${windowMs / 1000} s`
}
