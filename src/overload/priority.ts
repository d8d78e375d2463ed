import type { Consumer } from '../identity/consumer.ts'
import type { CallerPriorities } from './settings.ts'

/** How important a request is, the most important first: what is shed, or waits, begins at the other end (TRC-02). */
export const PRIORITIES = ['critical', 'high', 'normal', 'low'] as const

export type PriorityName = (typeof PRIORITIES)[number]

/** A place in {@link PRIORITIES}: smaller is more important. */
export type Priority = number

/** What a request has for which nobody says anything else. */
export const NORMAL: Priority = PRIORITIES.indexOf('normal')

export function priorityOf(name: PriorityName): Priority {
  return PRIORITIES.indexOf(name)
}

export function isPriorityName(value: unknown): value is PriorityName {
  return PRIORITIES.includes(value as PriorityName)
}

/** The priority of a caller: its own, its tier's, or that of the most important of its roles; undefined if it has none. */
export function priorityOfCaller(
  { id, tier, roles }: Pick<Consumer, 'id' | 'tier' | 'roles'>,
  callers: CallerPriorities
): Priority | undefined {
  const own = named(callers.clients, id) ?? named(callers.tiers, tier)
  if (own !== undefined) return own
  const byRole = roles.flatMap(role => named(callers.roles, role) ?? [])
  return byRole.length === 0 ? undefined : Math.min(...byRole)
}

function named(map: Readonly<Record<string, Priority>>, name: string | undefined): Priority | undefined {
  return name !== undefined && Object.hasOwn(map, name) ? map[name] : undefined
}
