import { setTimeout as after } from 'node:timers/promises'

/**
 * Waits, so that tests need not: injected like the clock. Keeps no process alive.
 * @param ms milliseconds
 * @returns fulfilled after that time; rejected as soon as `signal` aborts
 */
export type Pause = (ms: number, signal: AbortSignal) => Promise<void>

export const systemPause: Pause = (ms, signal) => after(ms, undefined, { signal, ref: false })
