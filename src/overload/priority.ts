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
