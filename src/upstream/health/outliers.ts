import type { Instance } from '../instance.ts'
import type { OutlierConfig } from './settings.ts'

/** How the traffic of one instance does. */
export interface TrafficRecord {
  /** Failures since the last success. */
  inARow: number
  /** Of the present window. */
  requests: number
  failures: number
  windowEndsAt: number
  /** Ejections in succession, the present one included. */
  ejections: number
}

/** Which of a service's instances its own traffic speaks against (passive health checks; HLB-03, H-101). */
export class OutlierDetection {
  readonly #config: OutlierConfig

  constructor(config: OutlierConfig) {
    this.#config = config
  }

  /**
   * Counts what a try came to.
   * @param among all instances of the service
   * @returns why the instance is ejected, if that is so from now on; `ejectedUntil` is set then
   */
  count(instance: Instance, failed: boolean, among: readonly Instance[], now: number): string | undefined {
    // What was under way when it was ejected says nothing new.
    if (instance.ejectedUntil > now) return undefined
    instance.record ??= { inARow: 0, requests: 0, failures: 0, windowEndsAt: 0, ejections: 0 }
    const { record } = instance
    if (record.windowEndsAt <= now) this.#beginWindow(record, now)
    record.requests++
    if (!failed) {
      record.inARow = 0
      return undefined
    }
    record.failures++
    record.inARow++
    const why = this.#whyNot(record)
    if (why === undefined || !this.#mayEject(among, now)) return undefined
    this.#eject(instance, record, now)
    return why
  }

  #whyNot({ inARow, requests, failures }: TrafficRecord): string | undefined {
    const { consecutive, minimumRequests, errorPercent } = this.#config
    if (consecutive > 0 && inARow >= consecutive) return `${inARow} failures in a row`
    if (requests >= minimumRequests && failures * 100 >= requests * errorPercent)
      return `${failures} of ${requests} requests failed`
    return undefined
  }

  #mayEject(among: readonly Instance[], now: number): boolean {
    const ejected = among.filter(({ ejectedUntil }) => ejectedUntil > now).length
    return (ejected + 1) * 100 <= among.length * this.#config.maxEjectedPercent
  }

  #eject(instance: Instance, record: TrafficRecord, now: number): void {
    const { ejectionMs, maxEjectionMs } = this.#config
    // As long without an ejection as one may last at most, and the past is forgotten.
    if (now - instance.ejectedUntil > maxEjectionMs) record.ejections = 0
    record.ejections++
    instance.ejectedUntil = now + Math.min(maxEjectionMs, ejectionMs * record.ejections)
    record.inARow = 0
    record.windowEndsAt = 0
  }

  #beginWindow(record: TrafficRecord, now: number): void {
    record.requests = 0
    record.failures = 0
    record.windowEndsAt = now + this.#config.windowMs
  }
}
