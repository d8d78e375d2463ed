import type { Clock } from '../runtime/clock.ts'
import { type LimitRequest, limitRequest } from '../store/store.ts'
import type { IpBlocks } from './ip-blocks.ts'
import type { Limit } from './limit.ts'
import type { Plan } from './plan.ts'
import type { AbuseConfig } from './settings.ts'

/** The limit is halved so many times at most: to an eighth. */
const MOST_HALVINGS = 3
/** Most callers whose refusals are remembered. */
const MOST_SUSPECTS = 10_000

/** How often it is looked which of them can be forgotten, while there are too many, in milliseconds. */
const TIDY_MS = 1000

interface Suspect {
  /** How many times its limits are halved. */
  halvings: number
  /** Refusals since `since`. */
  refusals: number
  since: number
  /** When it was last refused, or its limits were last doubled. */
  quietSince: number
}

/**
 * Callers who go on asking when they have been told to wait: with every so many refusals their limits are halved, down to
 * an eighth, and doubled again for each stretch in which they keep to them. Who goes on even then can be blocked by address
 * (RLM-20, SEC-08). Each gateway judges what it sees itself; blocks are everybody's.
 */
export class Suspects {
  readonly #clock: Clock
  readonly #blocks: IpBlocks
  readonly #known = new Map<string, Suspect>()
  readonly #narrowed = new WeakMap<Plan, (readonly LimitRequest[] | undefined)[]>()
  #config: AbuseConfig | undefined
  #tidyAt = 0

  constructor(clock: Clock, blocks: IpBlocks) {
    this.#clock = clock
    this.#blocks = blocks
  }

  /** From now on this holds; undefined for no such thing. */
  configure(config: AbuseConfig | undefined): void {
    this.#config = config
    if (config === undefined) this.#known.clear()
  }

  /** Callers whose limits are halved at least once. */
  get size(): number {
    const now = this.#clock.monotonic()
    return [...this.#known.values()].filter(suspect => this.#halvingsOf(suspect, now) > 0).length
  }

  /** What the caller has to pass now: the limits of its plan, its own ones narrowed if it has earned that. */
  limitsFor(plan: Plan): readonly LimitRequest[] {
    if (this.#known.size === 0) return plan.requests
    const suspect = this.#known.get(plan.subject)
    if (suspect === undefined) return plan.requests
    const halvings = this.#halvingsOf(suspect, this.#clock.monotonic())
    return halvings === 0 ? plan.requests : this.#narrow(plan, halvings)
  }

  /** A caller has been refused. @param client its address */
  refused({ subject }: Plan, client: string): void {
    const config = this.#config
    if (config === undefined) return
    const now = this.#clock.monotonic()
    const suspect = this.#known.get(subject) ?? this.#suspect(subject, now)
    if (suspect === undefined) return
    this.#halvingsOf(suspect, now)
    if (now - suspect.since >= config.windowMs) {
      suspect.since = now
      suspect.refusals = 0
    }
    suspect.quietSince = now
    suspect.refusals++
    if (suspect.refusals < config.refusals) return
    suspect.refusals = 0
    if (suspect.halvings < MOST_HALVINGS) suspect.halvings++
    else if (config.blockMs > 0) this.#blocks.block(client, config.blockMs, `refused again and again as ${subject}`)
  }

  /** Forgets what is held against a caller, as its counters are forgotten. */
  forgive(subject: string): void {
    this.#known.delete(subject)
  }

  #suspect(subject: string, now: number): Suspect | undefined {
    if (this.#known.size >= MOST_SUSPECTS && now >= this.#tidyAt) this.#tidy(now)
    if (this.#known.size >= MOST_SUSPECTS) return undefined
    const suspect = { halvings: 0, refusals: 0, since: now, quietSince: now }
    this.#known.set(subject, suspect)
    return suspect
  }

  #tidy(now: number): void {
    const { windowMs = 0 } = this.#config ?? {}
    this.#tidyAt = now + TIDY_MS
    for (const [subject, suspect] of this.#known)
      if (this.#halvingsOf(suspect, now) === 0 && now - suspect.since >= windowMs) this.#known.delete(subject)
  }

  #halvingsOf(suspect: Suspect, now: number): number {
    const { decayMs = 0 } = this.#config ?? {}
    while (suspect.halvings > 0 && now - suspect.quietSince >= decayMs) {
      suspect.halvings--
      suspect.quietSince += decayMs
    }
    return suspect.halvings
  }

  #narrow(plan: Plan, halvings: number): readonly LimitRequest[] {
    let byHalvings = this.#narrowed.get(plan)
    if (byHalvings === undefined) {
      byHalvings = []
      this.#narrowed.set(plan, byHalvings)
    }
    byHalvings[halvings] ??= plan.requests.map(request =>
      isPersonal(request, plan) ? narrower(request, 2 ** halvings) : request
    )
    return byHalvings[halvings]
  }
}

/** What others use as well is not narrowed for one of them. */
function isPersonal({ subject }: LimitRequest, plan: Plan): boolean {
  return subject === plan.subject || subject.startsWith('ip:')
}

/** The same counter, with less room. */
function narrower({ limit, subject, counter }: LimitRequest, by: number): LimitRequest {
  return limitRequest(divided(limit, by), subject, counter.slice(0, counter.lastIndexOf('|')))
}

function divided(limit: Limit, by: number): Limit {
  const bucket = limit.algorithm === 'token_bucket'
  return Object.freeze({
    ...limit,
    limit: bucket ? limit.limit / by : Math.max(1, Math.floor(limit.limit / by)),
    burst: Math.max(1, Math.floor(limit.burst / by))
  })
}
