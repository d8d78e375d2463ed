import type { Clock } from '../runtime/clock.ts'
import { Histogram } from '../telemetry/metrics.ts'
import { Deadline, type Deadlines } from '../upstream/deadline.ts'
import { Gradient } from './gradient.ts'
import { PRIORITIES, type Priority } from './priority.ts'
import type { ConcurrencyConfig } from './settings.ts'

/** Who wants a place; told once how that has ended, at once or later. */
export interface Guest {
  admitted(): void
  /** @param reason all places in the queue were taken, by then or since, or its time there was over */
  turnedAway(reason: 'queue_full' | 'queue_timeout'): void
}

/**
 * So many requests at once and no more, so that one slow service does not keep all of the gateway's sockets and memory. Who
 * finds no place waits in a queue that is bounded in length and in time; the most important of those who wait goes first,
 * and gives way last.
 */
export class Bulkhead {
  readonly #config: ConcurrencyConfig
  readonly #deadlines: Deadlines
  readonly #clock: Clock
  readonly #lines = PRIORITIES.map(() => new Line())
  /** Finds out what the limit should be, unless it is fixed. */
  readonly #gradient: Gradient | undefined
  #limit: number
  #inside = 0
  #waiting = 0
  #admitting = false
  /** How long those waited who got a place or were turned away, in seconds. */
  readonly waits = new Histogram()
  /** Requests that were turned away, by priority. */
  readonly refused = { queue_full: PRIORITIES.map(() => 0), queue_timeout: PRIORITIES.map(() => 0) }

  constructor(config: ConcurrencyConfig, clock: Clock, deadlines: Deadlines) {
    this.#config = config
    this.#clock = clock
    this.#deadlines = deadlines
    this.#gradient = config.limit === undefined ? new Gradient(config) : undefined
    this.#limit = config.limit ?? (this.#gradient as Gradient).limit
  }

  /** Requests that may be inside at once. */
  get limit(): number {
    return this.#limit
  }

  get inside(): number {
    return this.#inside
  }

  get waiting(): number {
    return this.#waiting
  }

  /** A place inside for `place`, or one in the queue, or none. */
  enter(place: Place): void {
    if (this.#inside < this.#limit && this.#waiting === 0) return this.#admit(place)
    if (this.#waiting >= this.#config.queue && !this.#makeRoomFor(place)) return this.#refuse(place, 'queue_full')
    place.state = 'waiting'
    place.since = this.#clock.monotonic()
    place.deadline = new Deadline(place)
    this.#deadlines.set(place.deadline, this.#config.maxWaitMs)
    this.#line(place).add(place)
    this.#waiting++
  }

  /** `place` is free again, wherever it was. */
  leave(place: Place): void {
    if (place.state === 'inside') {
      this.#inside--
      place.state = 'outside'
      this.#admitNext()
    } else if (place.state === 'waiting') this.#leaveLine(place)
  }

  /** A try of a request that is inside has had its answer, or has been given up as too late. @param ms how long that took */
  answered(ms: number): void {
    if (this.#gradient === undefined) return
    if (!this.#gradient.observe(ms, this.#inside, this.#clock.monotonic())) return
    this.#limit = this.#gradient.limit
    this.#admitNext()
  }

  /** It has waited for as long as anybody may. */
  late(place: Place): void {
    this.#leaveLine(place)
    this.#refuse(place, 'queue_timeout')
  }

  /** The youngest of the least important that wait goes, if it is less important than `place`. */
  #makeRoomFor({ priority }: Place): boolean {
    for (let i = this.#lines.length - 1; i > priority; i--) {
      const youngest = this.#lines[i]?.last
      if (youngest === undefined) continue
      this.#leaveLine(youngest)
      this.#refuse(youngest, 'queue_full')
      return true
    }
    return false
  }

  #admitNext(): void {
    // Who is admitted may fail on the spot and leave again: that is the loop's business, not the stack's.
    if (this.#admitting) return
    this.#admitting = true
    try {
      while (this.#waiting > 0 && this.#inside < this.#limit) {
        const next = this.#lines.find(({ first }) => first !== undefined)?.first as Place
        this.#leaveLine(next)
        this.#admit(next)
      }
    } finally {
      this.#admitting = false
    }
  }

  #admit(place: Place): void {
    this.#inside++
    place.state = 'inside'
    place.guest.admitted()
  }

  #refuse(place: Place, reason: keyof Bulkhead['refused']): void {
    const counts = this.refused[reason]
    counts[place.priority] = (counts[place.priority] as number) + 1
    place.state = 'outside'
    place.guest.turnedAway(reason)
  }

  #leaveLine(place: Place): void {
    place.deadline?.cancel()
    this.#line(place).remove(place)
    this.#waiting--
    place.state = 'outside'
    this.waits.observe((this.#clock.monotonic() - place.since) / 1000)
  }

  #line({ priority }: Place): Line {
    return this.#lines[priority] as Line
  }
}

/** One request's place in a bulkhead or its queue. However the request ends, `leave` gives it back, once. */
export class Place {
  readonly #bulkhead: Bulkhead
  readonly guest: Guest
  readonly priority: Priority
  state: 'outside' | 'waiting' | 'inside' = 'outside'
  /** When it began to wait. */
  since = 0
  deadline: Deadline | undefined
  before: Place | undefined
  after: Place | undefined

  constructor(bulkhead: Bulkhead, guest: Guest, priority: Priority) {
    this.#bulkhead = bulkhead
    this.guest = guest
    this.priority = priority
  }

  enter(): void {
    this.#bulkhead.enter(this)
  }

  leave(): void {
    this.#bulkhead.leave(this)
  }

  expired(): void {
    this.#bulkhead.late(this)
  }
}

/** Those of one priority, in the order in which they came. Linked, since anybody may go at any time. */
class Line {
  first: Place | undefined
  last: Place | undefined

  add(place: Place): void {
    place.before = this.last
    if (this.last === undefined) this.first = place
    else this.last.after = place
    this.last = place
  }

  remove(place: Place): void {
    if (place.before === undefined) this.first = place.after
    else place.before.after = place.after
    if (place.after === undefined) this.last = place.before
    else place.after.before = place.before
    place.before = place.after = undefined
  }
}
