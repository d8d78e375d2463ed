import type { Findings } from '../report.ts'

/** How much to measure. */
export interface Options {
  readonly rounds: number
  /** Length of a window. */
  readonly seconds: number
  /** Load before anything counts, for each contender. */
  readonly warmSeconds: number
  /** Contenders to take part; all if not given. */
  readonly only: readonly string[] | undefined
}

/** One part of the measurements, with contenders and a service of its own. */
export type Section = (options: Options) => Promise<Findings>
