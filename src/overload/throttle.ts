import { PRIORITIES, type Priority } from './priority.ts'

/** How much less is let through after an interval that was late; more if it was late by far. */
const LESS = 0.9
const MUCH_LESS = 0.7
/** How much more after one that was not. */
const MORE = 1.05
/** Never fewer requests than this in an interval: whoever stands still learns nothing. */
const LEAST = 5
/** Intervals in a row in which nothing had to be shed, until the throttle is off. */
const CALM = 10
/** So many times as late as it may be, with hardly anything left to shed, and critical requests are shed as well. */
const DESPERATE = 10
const HARDLY = 0.1

/**
 * How many requests of which priority are let through while there are more than can be served. What can be served is found
 * by trying: a little more after each interval that was in time, clearly less after each that was late (AIMD, as TCP does,
 * over priorities, as in "Overload Control for Scaling WeChat Microservices", 2018). What is left over from the more
 * important goes to the less important.
 */
export class Throttle {
  /** Requests of the present interval, by priority. */
  readonly #offered = PRIORITIES.map(() => 0)
  #admitted = 0
  /** Those of them that are not critical. */
  #lesser = 0
  #shed = 0
  /** Requests of an interval lately, by priority. */
  readonly #usual = PRIORITIES.map(() => 0)
  /** The share of each priority that is let through, and what is saved up towards the next one. */
  readonly #shares = PRIORITIES.map(() => 1)
  readonly #credits = PRIORITIES.map(() => 0)
  #budget = Number.POSITIVE_INFINITY
  #late = 0
  #calm = 0

  /** Whether anything is held back. */
  get on(): boolean {
    return this.#budget !== Number.POSITIVE_INFINITY
  }

  /** Whether nothing of this priority is let through now. */
  isShutTo(priority: Priority): boolean {
    return this.#shares[priority] === 0
  }

  /** Whether the next request of this priority is let through. */
  admits(priority: Priority): boolean {
    this.#offered[priority] = (this.#offered[priority] as number) + 1
    if (this.#budget === Number.POSITIVE_INFINITY) {
      this.#admitted++
      if (priority > 0) this.#lesser++
      return true
    }
    const credit = (this.#credits[priority] as number) + (this.#shares[priority] as number)
    const admitted = credit >= 1
    this.#credits[priority] = admitted ? credit - 1 : credit
    if (!admitted) this.#shed++
    else {
      this.#admitted++
      if (priority > 0) this.#lesser++
    }
    return admitted
  }

  /**
   * An interval is over.
   * @param lateness how late everything was, against how late it may be: from 1 on it is too late
   */
  next(lateness: number): void {
    this.#late = lateness >= 1 ? this.#late + 1 : 0
    // Who comes no more is forgotten at once, so that the end of a load is the end of it.
    for (const [i, offered] of this.#offered.entries())
      this.#usual[i] = Math.min(offered, ((this.#usual[i] as number) + offered) / 2)
    // One pause, as for a collection of garbage, is no overload: what has waited for it is served the sooner.
    if (this.#late >= 2) this.#lower(lateness)
    else if (this.on) this.#raise()
    this.#share()
    this.#offered.fill(0)
    this.#admitted = this.#lesser = this.#shed = 0
  }

  #lower(lateness: number): void {
    const desperate = lateness >= DESPERATE && this.#lesser <= this.#admitted * HARDLY
    const floor = desperate ? LEAST : LEAST + (this.#usual[0] as number)
    const budget = Math.min(this.#budget, this.#admitted) * (lateness >= 2 ? MUCH_LESS : LESS)
    this.#budget = Math.max(floor, budget)
    this.#calm = 0
  }

  #raise(): void {
    this.#budget = this.#budget * MORE + 1
    this.#calm = this.#shed === 0 ? this.#calm + 1 : 0
    if (this.#calm >= CALM) this.#budget = Number.POSITIVE_INFINITY
  }

  #share(): void {
    let left = this.#budget
    for (const [i, usual] of this.#usual.entries()) {
      this.#shares[i] = usual <= left ? 1 : left / usual
      left = Math.max(0, left - usual)
    }
  }
}
