import { systemClock } from '../runtime/clock.ts'
import { Stretches } from '../runtime/stretches.ts'
import type { RouteConfig, Snapshot } from './snapshot.ts'

const SETTINGS = [
  'identity',
  'rateLimits',
  'overload',
  'registry',
  'batch',
  'logging',
  'recording',
  'metrics',
  'paths',
  'plugins'
] as const

/** What has changed between two configurations, in a few words for the log. */
export async function changesBetween(before: Snapshot, after: Snapshot): Promise<string[]> {
  const old = new Map(before.routes.map(route => [route.id, route]))
  const now = new Map(after.routes.map(route => [route.id, route]))
  const changes: string[] = []
  const stretches = new Stretches(systemClock)
  for (const [id, route] of now) {
    const previous = old.get(id)
    if (previous === undefined) changes.push(`+ route ${id}`)
    else {
      const parts = changedParts(previous, route)
      if (parts.length > 0) changes.push(`~ ${parts.join(', ')} of ${id}`)
    }
    if (stretches.isOver) await stretches.next()
  }
  for (const id of old.keys()) if (!now.has(id)) changes.push(`- route ${id}`)
  for (const [name, service] of after.services) {
    const previous = before.services.get(name)
    if (previous === undefined) changes.push(`+ service ${name}`)
    else if (!same(previous, service)) changes.push(`~ service ${name}`)
    if (stretches.isOver) await stretches.next()
  }
  for (const name of before.services.keys()) if (!after.services.has(name)) changes.push(`- service ${name}`)
  for (const key of SETTINGS)
    if (!same(before[key], after[key])) changes.push(`~ ${key === 'rateLimits' ? 'rate_limits' : key}`)
  return changes
}

/** Whether a route is what it was, and so is the service behind it. */
export function isUnchanged(id: string, before: Snapshot, after: Snapshot): boolean {
  const [old, now] = [before, after].map(({ routes }) => routes.find(route => route.id === id))
  if (old === undefined || now === undefined || changedParts(old, now).length > 0) return false
  return same(before.services.get(old.service), after.services.get(now.service))
}

function changedParts(before: RouteConfig, after: RouteConfig): string[] {
  const names = new Set([...Object.keys(before.concerns), ...Object.keys(after.concerns)])
  const concerns = [...names].filter(name => !same(before.concerns[name]?.options, after.concerns[name]?.options))
  const plain: [string, keyof RouteConfig][] = [
    ['service', 'service'],
    ['timeout', 'timeoutMs'],
    ['release', 'release'],
    ['mirror', 'mirror'],
    ['version', 'version'],
    ['countries', 'countries'],
    ['rewrite', 'rewrite'],
    ['enabled', 'enabled'],
    ['websocket', 'websocket'],
    ['priority', 'priority'],
    ['retry', 'retry'],
    ['circuit_breaker', 'breaker'],
    ['fallback', 'fallback'],
    ['hedge', 'hedgeMs']
  ]
  return [...concerns, ...plain.filter(([, key]) => !same(before[key], after[key])).map(([name]) => name)]
}

function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a, plainSets) === JSON.stringify(b, plainSets)
}

function plainSets(_key: string, value: unknown): unknown {
  return value instanceof Set ? [...value] : value
}
