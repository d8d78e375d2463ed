/** Time, injected everywhere so that tests never wait for it. */
export interface Clock {
  /** Wall clock, milliseconds since 1970; jumps when somebody sets it. For claims, logs and shared windows only. */
  now(): number
  /** Milliseconds that only ever go forward. For durations, deadlines and local windows (H-128). */
  monotonic(): number
}

export const systemClock: Clock = { now: () => Date.now(), monotonic: () => performance.now() }
