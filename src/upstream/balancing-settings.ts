import { duration, oneOf, type Static, Type } from '../schema.ts'

export const BALANCERS = [
  'round_robin',
  'weighted_round_robin',
  'least_connections',
  'random',
  'consistent_hash',
  'sticky'
] as const
export type BalancerName = (typeof BALANCERS)[number]

export const loadBalancerType = oneOf(BALANCERS, {
  description: 'Which instance is asked: in turn unless given, each as often as its `weight` says.'
})

/** Which instance is asked (HLB-04 to HLB-11), with what there is to say about it. A name alone is its type. */
export const loadBalancer = Type.Union(
  [
    loadBalancerType,
    Type.Object({
      type: Type.Optional(loadBalancerType),
      hash_on: Type.Optional(
        Type.String({
          description:
            'For `consistent_hash`, what requests to one instance have in common: `ip` unless given, `user`, `header:<name>`, `query:<name>`, `cookie:<name>`.',
          pattern: '^(ip|user|(header|query|cookie):.+)$'
        })
      ),
      cookie: Type.Optional(
        Type.String({
          description: 'For `sticky`, the cookie that names the instance; `sallyport_instance` unless given.',
          pattern: '^[A-Za-z0-9_.-]+$'
        })
      ),
      cookie_max_age: Type.Optional(
        duration({
          description:
            'For `sticky`, how long a client keeps to its instance; as long as the browser runs unless given.',
          positive: true
        })
      ),
      slow_start: Type.Optional(
        duration({
          description:
            'How long an instance that is new, or well again, takes to get its full share of the traffic; no time unless given.'
        })
      ),
      panic_threshold: Type.Optional(
        Type.Integer({
          description:
            'Percent: when fewer of the instances are well, all are asked. Unless given, only those that are, and 503 is the answer when none is.',
          minimum: 0,
          maximum: 100
        })
      ),
      zone_threshold: Type.Optional(
        Type.Union([Type.Literal(false), Type.Integer({ minimum: 0, maximum: 100 })], {
          description:
            'Percent: while as much of what the gateway’s own zone (`gateway.zone`) has of the service is well, nobody else is asked; 50 unless given, `false` for no preference.'
        })
      )
    })
  ],
  { description: 'Which instance is asked, and by what.' }
)

/** As its options stand there; a name alone has become `load_balancer_type` by then. */
export type BalancerSettings = Exclude<Static<typeof loadBalancer>, string>

/** What requests to one instance have in common. */
export interface HashKey {
  readonly from: 'ip' | 'user' | 'header' | 'query' | 'cookie'
  readonly name: string
}

export type BalancerConfig =
  | { readonly type: Exclude<BalancerName, 'consistent_hash' | 'sticky'> }
  | ({ readonly type: 'consistent_hash' } & HashKey)
  | { readonly type: 'sticky'; readonly name: string; readonly maxAge: number | undefined }

/** The two keys that may say which instance is asked, as they stand at one level. */
export interface BalancerKeys {
  readonly load_balancer_type?: BalancerName
  readonly load_balancer?: BalancerSettings
}

/** For whoever does not say: in turn, by weight. */
export const DEFAULT_BALANCER: BalancerConfig = { type: 'weighted_round_robin' }

/** What these keys say; undefined if they say nothing. */
export function balancerOf({ load_balancer_type, load_balancer }: BalancerKeys): BalancerConfig | undefined {
  if (load_balancer_type === undefined && load_balancer === undefined) return undefined
  const {
    type = load_balancer_type ?? DEFAULT_BALANCER.type,
    hash_on = 'ip',
    cookie,
    cookie_max_age
  } = load_balancer ?? {}
  switch (type) {
    case 'consistent_hash': {
      const [from, ...name] = hash_on.split(':')
      return { type, from: from as HashKey['from'], name: name.join(':') }
    }
    case 'sticky': {
      const maxAge = cookie_max_age === undefined ? undefined : Math.ceil(cookie_max_age / 1000)
      return { type, name: cookie ?? 'sallyport_instance', maxAge }
    }
    default:
      return { type }
  }
}

/** How it is decided who may be asked. */
export interface SelectionConfig {
  /** 0 for at once. */
  readonly slowStartMs: number
  /** When fewer of the instances are well, all are asked. */
  readonly panicPercent: number
  /** Where the gateway is. */
  readonly zone: string | undefined
  /** How much of its zone has to be well for the others to get nothing; undefined where it does not matter. */
  readonly zonePercent: number | undefined
}

export const DEFAULT_SELECTION: SelectionConfig = {
  slowStartMs: 0,
  panicPercent: 0,
  zone: undefined,
  zonePercent: undefined
}

/** @param zone of the gateway */
export function selectionOf({ load_balancer = {} }: BalancerKeys, zone: string | undefined): SelectionConfig {
  const { slow_start = 0, panic_threshold = 0, zone_threshold = 50 } = load_balancer
  const zonePercent = zone === undefined || zone_threshold === false ? undefined : zone_threshold
  return { slowStartMs: slow_start, panicPercent: panic_threshold, zone, zonePercent }
}

/** What is said of a service's instances, and not of how a route picks one. */
export const OF_THE_SERVICE = ['slow_start', 'panic_threshold', 'zone_threshold'] as const

/** What is wrong with these keys beside each other: the key, and what to say of it. */
export function balancerTrouble(keys: BalancerKeys): [key: readonly string[], message: string][] {
  const { load_balancer_type: plain, load_balancer: options = {} } = keys
  // A name is left there only where the other key has one already.
  if (typeof options === 'string') return [[['load_balancer_type'], 'stands beside "load_balancer"; keep one of them']]
  const trouble: [readonly string[], string][] = []
  if (plain !== undefined && options.type !== undefined)
    trouble.push([['load_balancer_type'], 'stands beside "load_balancer", which has a "type"; keep one of them'])
  const type = balancerOf(keys)?.type
  const needs = { hash_on: 'consistent_hash', cookie: 'sticky', cookie_max_age: 'sticky' } as const
  for (const [key, needed] of Object.entries(needs) as [keyof typeof needs, BalancerName][])
    if (options[key] !== undefined && type !== needed)
      trouble.push([['load_balancer', key], `is for "type: ${needed}"; this is ${type}`])
  return trouble
}
