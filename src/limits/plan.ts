import type { Consumer } from '../identity/consumer.ts'
import { oncePer } from '../runtime/once-per.ts'
import { TwoGenerations } from '../runtime/two-generations.ts'
import { type LimitRequest, limitRequest } from '../store/store.ts'
import type { Limit } from './limit.ts'
import { limitsOf, type RateLimitsSettings, type RateSettings } from './settings.ts'

/** Whose requests a route's own limit counts together. */
export type CountBy = 'consumer' | 'ip' | 'route'

/** A limit that a route, a service or the defaults ask for. */
export interface OwnLimit {
  readonly limits: readonly Limit[]
  readonly by: CountBy
  /** Where it was written, as `route:/api/**`; requests under it count together. */
  readonly scope: string
}

/** Which route a plan is for. */
export interface PlanRoute {
  readonly id: string
  readonly service: string
  /** `service.endpoint`, if the route was made from one. */
  readonly endpoint: string | undefined
}

/** What a caller has to pass: the limits with their keys, and whether they are told about them. */
export interface Plan {
  readonly requests: readonly LimitRequest[]
  /** Whom the caller's own limits count: `user:alice`, `ip:192.0.2.1`. */
  readonly subject: string
  /** Callers without a limit of their own are told nothing (RLM-27). */
  readonly silent: boolean
}

/** Most plans of callers without a name that are remembered, twice over. */
const MOST_STRANGERS = 10_000
/** Most addresses of one caller, for routes that count by address. */
const MOST_PLACES = 100

/**
 * What is remembered of callers without a name, for all routes of a configuration together: nobody needs credentials to
 * become one, so what they cost must not grow with the number of routes.
 */
class Strangers {
  readonly plans = new TwoGenerations<Plan>(MOST_STRANGERS)
  readonly #kinds = new Map<string, string>()

  /** A short name for what a route asks of everybody; routes that ask the same share it, and their plans. */
  kindOf(asked: unknown): string {
    const key = JSON.stringify(asked)
    let kind = this.#kinds.get(key)
    if (kind === undefined) {
      kind = String(this.#kinds.size)
      this.#kinds.set(key, kind)
    }
    return kind
  }
}

const strangersOf = oncePer((_settings: RateLimitsSettings) => new Strangers())

/**
 * All limits of a route, for any caller (RLM-02): global, service, endpoint, the caller's own by client, tier or role, and
 * the route's. What a caller has to pass is worked out once per caller, keys and all.
 */
export class LimitPlan {
  readonly #settings: RateLimitsSettings
  readonly #shared: readonly LimitRequest[]
  readonly #own: OwnLimit | undefined
  readonly #byConsumer = new WeakMap<Consumer, Plan>()
  readonly #byConsumerAndAddress = new WeakMap<Consumer, TwoGenerations<Plan>>()
  readonly #strangers: TwoGenerations<Plan>
  readonly #kind: string
  readonly #resolved = new Map<string, readonly Limit[] | null>()

  constructor(settings: RateLimitsSettings, route: PlanRoute | undefined, own: OwnLimit | undefined) {
    this.#settings = settings
    this.#own = own
    this.#shared = [
      ...shared('global', 'global', settings.global),
      ...(route === undefined
        ? []
        : [
            ...shared('service', `service:${route.service}`, settings.services[route.service]),
            ...shared(
              'endpoint',
              `endpoint:${route.endpoint ?? route.id}`,
              settings.endpoints[route.endpoint ?? route.id] ?? settings.endpoints[route.id]
            )
          ])
    ]
    const strangers = strangersOf(settings)
    this.#strangers = strangers.plans
    this.#kind = strangers.kindOf([this.#shared, own])
  }

  /** Whether no caller has anything to pass. */
  get empty(): boolean {
    const { roles, user_tiers, clients, guest, default: fallback } = this.#settings
    const nobody =
      [roles, user_tiers, clients].every(map => Object.keys(map).length === 0) &&
      guest === undefined &&
      fallback === undefined
    return nobody && this.#shared.length === 0 && this.#own === undefined
  }

  /**
   * @param consumer the caller, if known.
   * @param client the caller's address.
   * @param clientId what a trusted proxy says the caller's name is; '' otherwise (C-37).
   */
  for(consumer: Consumer | undefined, client: string, clientId: string): Plan {
    if (consumer === undefined) return clientId === '' ? this.#forAddress(client) : this.#forClientId(clientId, client)
    if (this.#own?.by === 'ip') return this.#forConsumerAt(consumer, client)
    let plan = this.#byConsumer.get(consumer)
    if (plan === undefined) {
      plan = this.#make(consumer, consumer.key, consumer.id, client)
      this.#byConsumer.set(consumer, plan)
    }
    return plan
  }

  #forAddress(client: string): Plan {
    const name = `${this.#kind} ${client}`
    let plan = this.#strangers.get(name)
    if (plan === undefined) {
      plan = this.#make(undefined, `ip:${network(client)}`, '', client)
      this.#strangers.set(name, plan)
    }
    return plan
  }

  #forClientId(clientId: string, client: string): Plan {
    const name = `${this.#kind}\n${clientId}${this.#own?.by === 'ip' ? `\n${client}` : ''}`
    let plan = this.#strangers.get(name)
    if (plan === undefined) {
      plan = this.#make(undefined, `client-id:${clientId}`, clientId, client)
      this.#strangers.set(name, plan)
    }
    return plan
  }

  #forConsumerAt(consumer: Consumer, client: string): Plan {
    let plans = this.#byConsumerAndAddress.get(consumer)
    if (plans === undefined) {
      plans = new TwoGenerations(MOST_PLACES)
      this.#byConsumerAndAddress.set(consumer, plans)
    }
    let plan = plans.get(client)
    if (plan === undefined) {
      plan = this.#make(consumer, consumer.key, consumer.id, client)
      plans.set(client, plan)
    }
    return plan
  }

  #make(consumer: Consumer | undefined, subject: string, id: string, client: string): Plan {
    const personal = this.#personal(consumer, id)
    const requests = [...this.#shared, ...counted(personal ?? [], subject, 'user')]
    if (this.#own !== undefined) {
      const { limits, by, scope } = this.#own
      const whose = { consumer: subject, ip: `ip:${network(client)}`, route: scope }[by]
      requests.push(...counted(limits, whose, scope))
    }
    return { requests, subject, silent: personal === null }
  }

  /** The caller's own limits: by client, tier, role, or as a guest; null for none on purpose, undefined for none said. */
  #personal(consumer: Consumer | undefined, id: string): readonly Limit[] | null | undefined {
    const { clients, user_tiers, roles, guest, default: fallback } = this.#settings
    const tier = consumer?.tier
    const named = (map: Record<string, RateSettings>, key: string | undefined) =>
      key !== undefined && Object.hasOwn(map, key) ? map[key] : undefined
    const ofRole = (role: string) => (Object.hasOwn(roles, role) ? roles[role] : undefined)
    const first = named(clients, id === '' ? undefined : id) ?? named(clients, tier) ?? named(user_tiers, tier)
    if (first !== undefined) return this.#limits(first)
    if (consumer === undefined) return this.#limits(firstOf(guest, ofRole('guest'), fallback))
    const byRole = consumer.roles.flatMap(role =>
      [named(clients, role), ofRole(role)].filter(entry => entry !== undefined)
    )
    if (byRole.length > 0) return mostGenerous(byRole.map(entry => this.#limits(entry)))
    return this.#limits(firstOf(ofRole('default'), fallback))
  }

  #limits(settings: RateSettings | number | null | undefined): readonly Limit[] | null | undefined {
    if (settings === undefined || settings === null) return settings
    const key = JSON.stringify(settings)
    let limits = this.#resolved.get(key)
    if (limits === undefined) {
      limits = typeof settings === 'number' ? [this.#plain(settings)] : limitsOf('user', settings)
      this.#resolved.set(key, limits)
    }
    return limits
  }

  #plain(limit: number): Limit {
    const { windowMs, algorithm } = this.#settings
    return Object.freeze({ name: 'user', algorithm, limit, windowMs, burst: limit })
  }
}

/** The limits of `rate_limits.ip`, the same for every address and on every route. */
export const addressPlanOf = oncePer(
  ({ ip }: RateLimitsSettings) => new AddressPlan(ip === undefined ? [] : limitsOf('ip', ip))
)

class AddressPlan {
  readonly #limits: readonly Limit[]
  readonly #byAddress = new TwoGenerations<Plan>(MOST_STRANGERS)

  constructor(limits: readonly Limit[]) {
    this.#limits = limits
  }

  for(client: string): Plan {
    let plan = this.#byAddress.get(client)
    if (plan === undefined) {
      const subject = `ip:${network(client)}`
      plan = { requests: counted(this.#limits, subject, 'ip'), subject, silent: false }
      this.#byAddress.set(client, plan)
    }
    return plan
  }
}

/** The first that says something; null is a limit, too: none. */
function firstOf<T>(...entries: readonly T[]): T | undefined {
  return entries.find(entry => entry !== undefined)
}

function counted(limits: readonly Limit[], subject: string, what: string): LimitRequest[] {
  return limits.map(limit => limitRequest(limit, subject, what))
}

function shared(name: string, subject: string, settings: RateSettings | undefined): LimitRequest[] {
  return settings === undefined ? [] : counted(limitsOf(name, settings), subject, name)
}

function mostGenerous(
  candidates: readonly (readonly Limit[] | null | undefined)[]
): readonly Limit[] | null | undefined {
  const perSecond = (limits: readonly Limit[] | null | undefined) =>
    limits === null ? Number.POSITIVE_INFINITY : Math.min(...(limits ?? []).map(limit => limit.limit / limit.windowMs))
  return candidates.reduce((best, next) => (perSecond(next) > perSecond(best) ? next : best))
}

/** An IPv6 caller has a whole /64 to come from, so that is what counts (H-83); an IPv4 address is itself. */
export function network(address: string): string {
  if (!address.includes(':')) return address
  const [head = '', tail] = address.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === undefined || tail === '' ? [] : tail.split(':')
  const groups =
    tail === undefined ? left : [...left, ...new Array(Math.max(0, 8 - left.length - right.length)).fill('0'), ...right]
  return `${groups
    .slice(0, 4)
    .map(group => Number.parseInt(group || '0', 16).toString(16))
    .join(':')}::/64`
}
