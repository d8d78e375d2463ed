import type { Stage } from '../proxy/stage.ts'
import type { Clock } from '../runtime/clock.ts'
import { bucketOf, LATENCY_BUCKETS, percentiles } from '../traffic/latency.ts'
import type { AbortLimits, CanaryRelease } from './settings.ts'

/** How a canary stands, as all gateways know it. Times are milliseconds since 1970. */
export interface CanaryRecord {
  readonly startedAt: number
  /** Since when it stands still; null while it goes on. */
  readonly pausedAt: number | null
  /** How long it stood still before that, in milliseconds. */
  readonly pausedMs: number
  readonly outcome: 'running' | 'promoted' | 'aborted'
  /** Why it is as it is, if somebody has said so. */
  readonly reason: string
  /** Who has changed it last. */
  readonly by: string
  readonly changedAt: number
}

/** What can be done to a canary by hand. */
export const ACTIONS = ['pause', 'resume', 'promote', 'abort', 'restart'] as const
export type CanaryAction = (typeof ACTIONS)[number]

export function startOf(now: number, by: string): CanaryRecord {
  return { startedAt: now, pausedAt: null, pausedMs: 0, outcome: 'running', reason: '', by, changedAt: now }
}

/** The record after `action`; undefined if that makes no sense as it is. */
export function after(
  record: CanaryRecord,
  action: CanaryAction,
  { now, by, reason }: { now: number; by: string; reason: string }
): CanaryRecord | undefined {
  const { outcome, pausedAt, pausedMs } = record
  const change = { reason, by, changedAt: now }
  switch (action) {
    case 'pause':
      return outcome === 'running' && pausedAt === null ? { ...record, ...change, pausedAt: now } : undefined
    case 'resume':
      if (outcome !== 'running' || pausedAt === null) return undefined
      return { ...record, ...change, pausedAt: null, pausedMs: pausedMs + now - pausedAt }
    case 'promote':
      return outcome === 'promoted' ? undefined : { ...record, ...change, outcome: 'promoted' }
    case 'abort':
      return outcome === 'aborted' ? undefined : { ...record, ...change, outcome: 'aborted' }
    case 'restart':
      return { ...startOf(now, by), reason }
  }
}

/** Where a canary is on its way. */
export interface Progress {
  /** Requests of a hundred that it gets. */
  readonly weight: number
  /** The step that it is at, counted from 0; undefined when it is past all of them, or has been decided on. */
  readonly step: number | undefined
  /** Until when that is so; Infinity if nothing changes by itself. */
  readonly until: number
}

export function progressOf(record: CanaryRecord, steps: CanaryRelease['steps'], now: number): Progress {
  const until = Number.POSITIVE_INFINITY
  if (record.outcome !== 'running') return { weight: record.outcome === 'promoted' ? 100 : 0, step: undefined, until }
  const { startedAt, pausedAt, pausedMs } = record
  let left = (pausedAt ?? now) - startedAt - pausedMs
  for (const [step, { weight, forMs }] of steps.entries()) {
    if (left < forMs) return { weight, step, until: pausedAt === null ? now + forMs - left : until }
    left -= forMs
  }
  return { weight: 100, step: undefined, until }
}

/** Calls of a stretch of time. */
export interface Tally {
  readonly calls: number
  readonly failures: number
  /** That 95 of a hundred stayed below, in milliseconds; null while nothing has been answered. */
  readonly p95: number | null
}

/** Faster than this, in milliseconds, nobody is slower than anybody. */
const LEAST_MS = 10

/** Why a canary that does `canary` beside a control that does `control` is to be aborted; undefined if it is not. */
export function verdict(
  control: Tally,
  canary: Tally,
  { errors, latency, minimum }: Omit<AbortLimits, 'windowMs'>
): string | undefined {
  if (canary.calls < minimum || control.calls < minimum) return undefined
  const [bad, usual] = [canary, control].map(({ calls, failures }) => (failures * 100) / calls) as [number, number]
  if (bad > usual + errors) return `errors: ${inTenths(bad)} % beside ${inTenths(usual)} %`
  if (canary.p95 === null || control.p95 === null || canary.p95 < LEAST_MS) return undefined
  if (canary.p95 > control.p95 * latency)
    return `latency: p95 ${inTenths(canary.p95)} ms beside ${inTenths(control.p95)} ms`
  return undefined
}

function inTenths(value: number): string {
  return String(Math.round(value * 10) / 10)
}

/** What its calls have come to, of the last window and what is left of the one before. */
export class Arm {
  readonly #canary: Canary
  readonly #windowMs: number
  #now = new Half()
  #before = new Half()
  #turnsAt = 0

  constructor(canary: Canary, windowMs: number) {
    this.#canary = canary
    this.#windowMs = windowMs
  }

  /** A try has ended at its answer's head, or before or after that in `stage`. */
  tried(status: number, stage: Stage | undefined, ms: number): void {
    const now = this.#canary.clock.monotonic()
    this.#turn(now)
    this.#now.add(stage !== undefined || status >= 500, ms)
    this.#canary.judge(now)
  }

  tally(now: number): Tally {
    this.#turn(now)
    const { calls, failures } = this.#now
    const latencies = [...this.#before.latencies()].concat([...this.#now.latencies()])
    const [p95 = null] = percentiles(latencies, [0.95])
    return { calls: calls + this.#before.calls, failures: failures + this.#before.failures, p95 }
  }

  #turn(now: number): void {
    if (now < this.#turnsAt) return
    const late = now - this.#turnsAt >= this.#windowMs
    this.#before = late ? new Half() : this.#now
    this.#now = new Half()
    this.#turnsAt = now + this.#windowMs
  }

  clear(): void {
    this.#now = new Half()
    this.#before = new Half()
  }
}

class Half {
  calls = 0
  failures = 0
  readonly #buckets = new Uint32Array(LATENCY_BUCKETS)

  add(failed: boolean, ms: number): void {
    this.calls++
    if (failed) this.failures++
    else {
      const bucket = bucketOf(ms)
      this.#buckets[bucket] = (this.#buckets[bucket] as number) + 1
    }
  }

  *latencies(): Iterable<[bucket: number, count: number]> {
    for (const [bucket, count] of this.#buckets.entries()) if (count > 0) yield [bucket, count]
  }
}

/** How often a canary is held against its control, in milliseconds. */
const JUDGE_MS = 1000

/** A canary at work: what share it gets, and whether it goes on to get one. */
export class Canary {
  readonly release: CanaryRelease
  readonly clock: Clock
  readonly control: Arm
  readonly canary: Arm
  readonly #onAbort: (canary: Canary, reason: string) => void
  #record: CanaryRecord | undefined
  /** Nothing, while nobody knows how it stands: it may have been aborted. */
  #weight = 0
  #until = Number.POSITIVE_INFINITY
  #judgedAt = 0

  /** @param onAbort told when it has aborted itself, and why */
  constructor(release: CanaryRelease, clock: Clock, onAbort: (canary: Canary, reason: string) => void) {
    this.release = release
    this.clock = clock
    this.#onAbort = onAbort
    // What is of use is the sum of two halves, the older of which is complete.
    const halfMs = (release.abort?.windowMs ?? 0) / 2
    this.control = new Arm(this, halfMs)
    this.canary = new Arm(this, halfMs)
  }

  /** Undefined until the configuration that asks for it is in charge. */
  get record(): CanaryRecord | undefined {
    return this.#record
  }

  set record(record: CanaryRecord) {
    if (record.startedAt !== this.#record?.startedAt) {
      this.control.clear()
      this.canary.clear()
    }
    this.#record = record
    this.#until = 0
  }

  /** Requests of a hundred that it gets now. */
  get weight(): number {
    const now = this.clock.now()
    if (now >= this.#until && this.#record !== undefined) {
      const { weight, until } = progressOf(this.#record, this.release.steps, now)
      this.#weight = weight
      this.#until = until
    }
    return this.#weight
  }

  get progress(): Progress | undefined {
    return this.#record && progressOf(this.#record, this.release.steps, this.clock.now())
  }

  /** Aborts it if it does worse than its control. @param now monotonic milliseconds */
  judge(now: number): void {
    const { abort } = this.release
    if (abort === undefined || now - this.#judgedAt < JUDGE_MS || this.#record?.outcome !== 'running') return
    this.#judgedAt = now
    const reason = verdict(this.control.tally(now), this.canary.tally(now), abort)
    if (reason !== undefined) this.#onAbort(this, reason)
  }
}
