import { cookieOf } from '../../proxy/cookies.ts'
import type { Exchange } from '../../proxy/exchange.ts'
import type { HashKey } from '../balancing-settings.ts'
import type { Instance } from '../instance.ts'
import type { Balancer } from './balancer.ts'

/** Into how many slots keys fall; a power of two. Of two instances alike each has half of them, give or take a percent. */
const SLOTS = 4096

/**
 * The same instance for the same key, on every gateway. Each slot belongs to the instance that scores best for it, and a score
 * depends on the slot and the instance alone: when one goes its slots move, over all others by their weights, and no other
 * slot does; when it comes back they return (Thaler and Ravishankar, "Rendezvous hashing"). The winners stand in a table, so
 * that a pick looks at one slot.
 */
export class ConsistentHash implements Balancer {
  readonly #keyOf: (exchange: Exchange) => string | undefined
  /** For requests without a key. */
  readonly #otherwise: Balancer
  #instances: readonly Instance[] = []
  readonly #owners: Instance[] = []
  readonly #scores = new Float64Array(SLOTS)
  /** Those that are in the table, as they were when they were put there. */
  #contestants = new Map<Instance, Contestant>()

  constructor(key: HashKey, otherwise: Balancer) {
    this.#keyOf = KEYS[key.from](key.name)
    this.#otherwise = otherwise
  }

  pick(instances: readonly Instance[], exchange: Exchange, after?: Instance): Instance {
    const key = this.#keyOf(exchange)
    if (key === undefined || key === '') return this.#otherwise.pick(instances, exchange, after)
    if (instances !== this.#instances) this.#take(instances)
    const slot = hash(key) & (SLOTS - 1)
    const owner = this.#owners[slot] as Instance
    return owner === after ? this.#secondOf(slot, owner) : owner
  }

  /** To whom the slot goes when its owner does. */
  #secondOf(slot: number, owner: Instance): Instance {
    let second = owner
    let least = Number.POSITIVE_INFINITY
    for (const [instance, contestant] of this.#contestants) {
      const score = scoreOf(contestant, slot)
      if (instance === owner || score >= least) continue
      second = instance
      least = score
    }
    return second
  }

  #take(instances: readonly Instance[]): void {
    this.#instances = instances
    const before = this.#contestants
    this.#contestants = new Map()
    const newcomers: [Instance, Contestant][] = []
    for (const instance of instances) {
      const known = before.get(instance)
      const contestant = known?.weight === instance.weight ? known : contestantOf(instance)
      this.#contestants.set(instance, contestant)
      if (contestant !== known) newcomers.push([instance, contestant])
    }
    const staying = [...this.#contestants].filter(([instance, contestant]) => before.get(instance) === contestant)
    for (let slot = 0; slot < SLOTS; slot++) {
      const owner = this.#owners[slot]
      if (owner === undefined || before.get(owner) !== this.#contestants.get(owner)) {
        this.#scores[slot] = Number.POSITIVE_INFINITY
        this.#contest(slot, staying)
      }
      this.#contest(slot, newcomers)
    }
  }

  /** Gives a slot to the best of `contestants`, if it is better than its owner. */
  #contest(slot: number, contestants: readonly [Instance, Contestant][]): void {
    for (const [instance, contestant] of contestants) {
      const score = scoreOf(contestant, slot)
      if (score >= (this.#scores[slot] as number)) continue
      this.#scores[slot] = score
      this.#owners[slot] = instance
    }
  }
}

interface Contestant {
  readonly seed: number
  readonly weight: number
}

function contestantOf({ id, url, weight }: Instance): Contestant {
  return { seed: hash(`${id} ${url.href}`), weight }
}

/** The lower the better: the time of an event that comes at the rate of `weight`, so that each is first as often as it weighs. */
function scoreOf({ seed, weight }: Contestant, slot: number): number {
  const uniform = (mix(seed ^ mix(slot)) + 0.5) / 2 ** 32
  return -Math.log(uniform) / (weight || 1)
}

/** FNV-1a over the UTF-16 units, and then {@link mix}. The same everywhere; not for keeping secrets. */
function hash(text: string): number {
  let state = 0x811c9dc5
  for (let i = 0; i < text.length; i++) state = Math.imul(state ^ text.charCodeAt(i), 0x01000193)
  return mix(state)
}

/** Spreads every bit over all others (the finaliser of MurmurHash3). */
function mix(bits: number): number {
  let mixed = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}

const KEYS: Readonly<Record<HashKey['from'], (name: string) => (exchange: Exchange) => string | undefined>> = {
  ip:
    () =>
    ({ client }) =>
      client,
  user:
    () =>
    ({ consumer, client }) =>
      consumer?.key ?? client,
  header: name => {
    const field = name.toLowerCase()
    return exchange => exchange.header(field)
  },
  query: name => exchange => exchange.query(name),
  cookie: name => exchange => cookieOf(exchange, name)
}
