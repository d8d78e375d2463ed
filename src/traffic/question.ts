/** What requests can be told apart by; `class` is that of a status, as in `4xx`. */
export const DIMENSIONS = ['service', 'endpoint', 'user', 'key', 'status', 'class'] as const
export type Dimension = (typeof DIMENSIONS)[number]

/** What the most of comes first. */
export const ORDERS = ['requests', 'errors', 'bytes', 'latency'] as const
export type Order = (typeof ORDERS)[number]

/** What somebody wants to know of the traffic. */
export interface Question {
  /** Milliseconds since 1970; `to` is not included. */
  readonly from: number
  readonly to: number
  /** Length of the stretches of time that are told apart, in milliseconds; undefined for all of it as one. */
  readonly interval: number | undefined
  readonly by: readonly Dimension[]
  readonly only: {
    readonly service?: string | undefined
    readonly endpoint?: string | undefined
    readonly user?: string | undefined
    readonly key?: string | undefined
    /** `404`, or `4xx` for the class. */
    readonly status?: string | undefined
    readonly errors?: boolean
  }
  /** By what the rows are sorted, falling; by time if not given. */
  readonly order?: Order | undefined
  /** Most rows. */
  readonly limit: number
}

/** The statuses that `404` or `4xx` means: from the first up to, and without, the second. */
export function statusRange(status: string): [least: number, end: number] {
  const least = Number(status.replace('xx', '00'))
  return [least, least + (status.endsWith('xx') ? 100 : 1)]
}
