/** How long the gateway may take to notice that an instance has gone, or is back, in milliseconds. */
export const DETECTION_MS = 3000
const FORGET_AFTER_MS = 120_000

/** Why a request does not count towards availability. */
export type Excuse = 'warm-up' | 'detection' | 'nobody' | 'redis'

/** A spell in which an instance was not well. */
interface Spell {
  readonly from: number
  to: number
}

/** What was wrong with the instances of one service, and when: what decides whether a request to it had to succeed. */
export class Weather {
  #spells: Spell[][]
  #surprises: number[] = []

  constructor(instances: number) {
    this.#spells = Array.from({ length: instances }, () => [])
  }

  /** @param isSurprise whether requests may run into it before anybody can know of it */
  worsens(instance: number, isSurprise: boolean, at = performance.now()): void {
    const spells = this.#of(instance)
    if (isSurprise) this.#surprises.push(at)
    if (spells.at(-1)?.to !== Number.POSITIVE_INFINITY) spells.push({ from: at, to: Number.POSITIVE_INFINITY })
  }

  /** It counts as well when the gateway has had the time to see it. */
  clears(instance: number, at = performance.now()): void {
    const last = this.#of(instance).at(-1)
    if (last?.to === Number.POSITIVE_INFINITY) last.to = at + DETECTION_MS
  }

  /** Why a request that was under way in that time need not have succeeded; undefined when it had to. */
  excuse(from: number, to: number): Excuse | undefined {
    if (this.#surprises.some(at => at <= to && at + DETECTION_MS >= from)) return 'detection'
    const changes = this.#spells.flatMap(spells => spells.map(spell => spell.from))
    for (const at of [from, ...changes.filter(at => at >= from && at <= to)])
      if (this.#spells.every(spells => isWithin(spells, at))) return 'nobody'
    return undefined
  }

  /** Forgets what is too long ago for any request that is still under way. */
  forget(now = performance.now()): void {
    const since = now - FORGET_AFTER_MS
    this.#surprises = this.#surprises.filter(at => at > since)
    this.#spells = this.#spells.map(spells => spells.filter(({ to }) => to > since))
  }

  #of(instance: number): Spell[] {
    return this.#spells[instance] as Spell[]
  }
}

function isWithin(spells: readonly Spell[], at: number): boolean {
  return spells.some(({ from, to }) => from <= at && at < to)
}

/** When something that the gateway uses was out of reach. */
export class Outages {
  readonly #spells: Spell[] = []

  begin(at = performance.now()): void {
    this.#spells.push({ from: at, to: Number.POSITIVE_INFINITY })
  }

  end(at = performance.now()): void {
    const last = this.#spells.at(-1)
    if (last !== undefined) last.to = at + DETECTION_MS
  }

  /** Whether it was at some moment of that time, or had been just before. */
  touches(from: number, to = from): boolean {
    return this.#spells.some(spell => spell.from <= to && from < spell.to)
  }
}
