/** One measurement of one contender, and what else happened meanwhile. */
export interface Window {
  readonly round: number
  /** Processor microseconds per request (or message), by the process tree of the contender. */
  readonly us: number
  readonly user: number
  readonly system: number
  readonly requests: number
  readonly perSecond: number
  readonly errors: number
  /** Milliseconds; not a number where nobody measured. */
  readonly p50: number
  readonly p99: number
  /** Cores kept busy by anybody else. */
  readonly foreign: number
  /** MB of the process tree at the end. */
  readonly rss: number
}

/** With others taking more than this many cores, a window is not quiet: caches are cold and batches short. */
export const QUIET = 0.15

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/** The windows that count: the quiet ones, if there are two at least. */
export function counting(windows: readonly Window[]): readonly Window[] {
  const quiet = windows.filter(({ foreign }) => foreign < QUIET)
  return quiet.length >= 2 ? quiet : windows
}

/** A figure of a contender in the windows that count. */
export function medianOf(windows: readonly Window[], of: (window: Window) => number): number {
  return median(counting(windows).map(of))
}

/** Both contenders' windows of the same rounds, quiet ones if there are two such rounds at least. */
function sameRounds(a: readonly Window[], b: readonly Window[]): [Window, Window][] {
  const pairs = a.flatMap((window): [Window, Window][] => {
    const other = b.find(({ round }) => round === window.round)
    return other === undefined ? [] : [[window, other]]
  })
  const quiet = pairs.filter(pair => pair.every(({ foreign }) => foreign < QUIET))
  return quiet.length >= 2 ? quiet : pairs
}

/** Cost of `a` as a multiple of that of `b`: the median of the ratios within a round. */
export function ratio(a: readonly Window[], b: readonly Window[]): number {
  return median(sameRounds(a, b).map(([first, second]) => first.us / second.us))
}

/** How much more a figure of `a` is, microseconds unless said otherwise: the median of the differences within a round. */
export function difference(
  a: readonly Window[],
  b: readonly Window[],
  of: (window: Window) => number = ({ us }) => us
): number {
  return median(sameRounds(a, b).map(([first, second]) => of(first) - of(second)))
}
