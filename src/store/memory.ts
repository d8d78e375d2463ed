import { FixedWindow } from '../limits/fixed-window.ts'
import { type Counter, capacityOf, type Limit } from '../limits/limit.ts'
import { SlidingWindow } from '../limits/sliding-window.ts'
import { TokenBucket } from '../limits/token-bucket.ts'
import type { Clock } from '../runtime/clock.ts'
import { TwoGenerations } from '../runtime/two-generations.ts'
import { LabelledCounter } from '../telemetry/metrics.ts'
import { type Decision, keyOf, type LimitRequest, nameOf, type Store, type Usage } from './store.ts'

/** Most counters kept per generation; the least used go first, so that a flood of names cannot fill the memory. */
const MAX_COUNTERS = 100_000
/** Values that are kept before any is looked at for its age. */
const MIN_TIDY = 1000

/** Windows from this length on are worth keeping over a restart, in milliseconds. */
const LASTING_MS = 86_400_000

interface Entry {
  readonly counter: Counter
  readonly subject: string
  readonly name: string
  limit: Limit
  /** Whether it is kept over a restart. */
  readonly lasting: boolean
}

/** What has been used of a window that is to outlast this process (RLM-08). */
export interface Quota {
  readonly subject: string
  /** See {@link LimitRequest.counter}. */
  readonly counter: string
  readonly limit: number
  readonly windowMs: number
  readonly used: number
  /** When its window ends, in milliseconds since 1970. */
  readonly endsAt: number
}

/** The store of a gateway that stands alone. */
export class MemoryStore implements Store {
  readonly kind = 'memory'
  readonly errors = new LabelledCounter()
  readonly clockSkewMs = 0
  readonly #clock: Clock
  readonly #counters = new TwoGenerations<Entry>(MAX_COUNTERS)
  readonly #values = new Map<string, { value: string; expiresAt: number }>()
  #tidyAt = MIN_TIDY
  readonly #maxValueBytes: number
  #valueBytes = 0
  readonly #origin: number
  /** Lasting counters that have counted since somebody last asked. */
  readonly #changed = new Set<Entry>()
  /** The entries of the decision being made; kept between decisions to spare a list for each. */
  readonly #asked: Entry[] = []

  /** @param maxValueBytes of values and their keys: the oldest go first; no end unless given */
  constructor(clock: Clock, maxValueBytes = Number.POSITIVE_INFINITY) {
    this.#maxValueBytes = maxValueBytes
    this.#clock = clock
    // Wall time as it was at the start, going forward evenly from there: days begin at midnight, and nobody can set it back.
    this.#origin = clock.now() - clock.monotonic()
  }

  #now(): number {
    return this.#origin + this.#clock.monotonic()
  }

  decide(requests: readonly LimitRequest[]): Decision {
    const now = this.#now()
    let tightest: Entry | undefined
    let left = 0
    let share = 2
    let denied = false
    for (let i = 0; i < requests.length; i++) {
      const entry = this.#entry(requests[i] as LimitRequest, now)
      this.#asked[i] = entry
      const available = entry.counter.available(now)
      if (available < 1) denied = true
      const of = (available - 1) / capacityOf(entry.limit)
      if (of < share) {
        share = of
        tightest = entry
        left = available - 1
      }
    }
    if (denied) return this.#denial(requests.length, now)
    for (let i = 0; i < requests.length; i++) {
      const entry = this.#asked[i] as Entry
      entry.counter.take(now)
      if (entry.lasting) this.#changed.add(entry)
    }
    return decision(true, tightest as Entry, left, now)
  }

  /** Of several limits that deny, the one that does so for longest: before that there is no point in trying again. */
  #denial(asked: number, now: number): Decision {
    let worst: Entry | undefined
    let longest = -1
    for (let i = 0; i < asked; i++) {
      const entry = this.#asked[i] as Entry
      if (entry.counter.available(now) >= 1) continue
      const retryMs = entry.counter.retryMs(now)
      if (retryMs > longest) {
        longest = retryMs
        worst = entry
      }
    }
    return decision(false, worst as Entry, 0, now)
  }

  #entry({ key, limit, subject, counter: name }: LimitRequest, now: number): Entry {
    let entry = this.#counters.get(key)
    if (entry === undefined) {
      const lasting = limit.algorithm === 'fixed_window' && limit.windowMs >= LASTING_MS
      entry = { counter: createCounter(limit, now), subject, name, limit, lasting }
      this.#counters.set(key, entry)
    } else if (entry.limit !== limit) {
      entry.limit = limit
      entry.counter.configure(limit)
    }
    return entry
  }

  async usage(subject: string): Promise<Usage[]> {
    const now = this.#now()
    const usages: Usage[] = []
    for (const entry of this.#counters.values()) {
      if (entry.subject === subject) usages.push(usageOf(entry, now))
    }
    return usages.filter(({ used }) => used > 0).sort(byName)
  }

  async reset(subject: string): Promise<void> {
    const now = this.#now()
    for (const entry of this.#counters.values()) {
      if (entry.subject !== subject || !entry.lasting) continue
      ;(entry.counter as FixedWindow).restore(0, now)
      this.#changed.add(entry)
    }
    this.#counters.deleteWhere((_key, entry) => entry.subject === subject)
  }

  /** What has been used of long windows and not been told before, for whoever keeps it. */
  takeQuotas(): Quota[] {
    const now = this.#now()
    const changed = [...this.#changed]
    this.#changed.clear()
    return changed.map(({ counter, subject, name, limit: { limit, windowMs } }) => {
      counter.available(now)
      const endsAt = Math.floor(now / windowMs) * windowMs + windowMs
      return { subject, counter: name, limit, windowMs, used: counter.used(now), endsAt }
    })
  }

  /** Goes on from what {@link takeQuotas} said before a restart, as far as its windows last. */
  restoreQuotas(quotas: readonly Quota[]): void {
    const now = this.#now()
    for (const { subject, counter: name, limit: most, windowMs, used, endsAt } of quotas) {
      if (endsAt <= now) continue
      const limit: Limit = { name: nameOf(name), algorithm: 'fixed_window', limit: most, windowMs, burst: most }
      const entry = this.#entry({ limit, subject, counter: name, key: keyOf(subject, name) }, now)
      ;(entry.counter as FixedWindow).restore(used, now)
    }
  }

  async get(key: string): Promise<string | undefined> {
    const entry = this.#values.get(key)
    if (entry === undefined) return undefined
    if (entry.expiresAt > this.#clock.monotonic()) return entry.value
    this.#drop(key)
    return undefined
  }

  async set(key: string, value: string, ttlMs: number): Promise<void> {
    const now = this.#clock.monotonic()
    if (this.#values.size >= this.#tidyAt) this.#tidy(now)
    this.#drop(key)
    this.#values.set(key, { value, expiresAt: now + ttlMs })
    this.#valueBytes += key.length + value.length
    for (const oldest of this.#values.keys()) {
      if (this.#valueBytes <= this.#maxValueBytes) break
      this.#drop(oldest)
    }
  }

  async add(key: string, value: string, ttlMs: number): Promise<boolean> {
    const entry = this.#values.get(key)
    if (entry !== undefined && entry.expiresAt > this.#clock.monotonic()) return false
    void this.set(key, value, ttlMs)
    return true
  }

  /** Drops what is over; again when there is twice as much as is left now. */
  #tidy(now: number): void {
    for (const [key, { expiresAt }] of this.#values) if (expiresAt <= now) this.#drop(key)
    this.#tidyAt = Math.max(MIN_TIDY, this.#values.size * 2)
  }

  async delete(key: string): Promise<void> {
    this.#drop(key)
  }

  #drop(key: string): void {
    const entry = this.#values.get(key)
    if (entry === undefined) return
    this.#values.delete(key)
    this.#valueBytes -= key.length + entry.value.length
  }

  async check(): Promise<undefined> {}

  async close(): Promise<void> {}
}

function createCounter(limit: Limit, now: number): Counter {
  switch (limit.algorithm) {
    case 'token_bucket':
      return new TokenBucket(limit.burst, limit.limit / (limit.windowMs / 1000), () => now)
    case 'sliding_window':
      return new SlidingWindow(limit.limit, limit.windowMs)
    case 'fixed_window':
      return new FixedWindow(limit.limit, limit.windowMs)
  }
}

function decision(allowed: boolean, { counter, limit }: Entry, remaining: number, now: number): Decision {
  return {
    allowed,
    tightest: limit,
    remaining,
    resetMs: Math.ceil(counter.resetMs(now)),
    retryMs: Math.ceil(counter.retryMs(now))
  }
}

function usageOf({ counter, limit, name }: Entry, now: number): Usage {
  const remaining = counter.available(now)
  return {
    name: nameOf(name),
    algorithm: limit.algorithm,
    limit: limit.limit,
    windowMs: limit.windowMs,
    used: counter.used(now),
    remaining,
    resetMs: Math.ceil(counter.resetMs(now))
  }
}

/** In an order that does not depend on who came first. */
export function byName(a: Usage, b: Usage): number {
  return a.name.localeCompare(b.name) || a.windowMs - b.windowMs || a.algorithm.localeCompare(b.algorithm)
}
