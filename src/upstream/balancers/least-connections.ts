import type { Exchange } from '../../proxy/exchange.ts'
import type { Instance } from '../instance.ts'
import type { Balancer } from './balancer.ts'
import { Random } from './random.ts'

/** Up to so many instances are all looked at. */
const FEW = 16
/** Draws for a second one that is not the first; after that the first has won. */
const DRAWS = 3

/**
 * Whoever has least under way for its weight; those that are as busy take turns by weight. Of many, the better of two drawn by
 * chance: nearly as good as the best of all at the price of two, and not all gateways run to the same one (Mitzenmacher, "The
 * power of two choices in randomized load balancing").
 */
export class LeastConnections implements Balancer {
  readonly #random: () => number
  readonly #chance: Random
  #instances: readonly Instance[] = []
  /** When each is in turn among those that are as busy: 1/weight after its last one. */
  #turns = new Float64Array()
  #turn = 0

  constructor(random: () => number) {
    this.#random = random
    this.#chance = new Random(random)
  }

  pick(instances: readonly Instance[], _exchange: Exchange, after?: Instance): Instance {
    if (instances !== this.#instances) this.#take(instances)
    const index = instances.length <= FEW ? this.#leastOfAll(after) : this.#betterOfTwo(after)
    const picked = instances[index] as Instance
    // Whoever was too busy for a while does not get all the turns that it has missed.
    this.#turn = Math.max(this.#turn, this.#turns[index] as number)
    this.#turns[index] = this.#turn + 1 / picked.share
    return picked
  }

  #take(instances: readonly Instance[]): void {
    this.#instances = instances
    this.#turn = 0
    this.#turns = Float64Array.from(instances, ({ share }) => this.#random() / share)
  }

  #leastOfAll(after: Instance | undefined): number {
    const instances = this.#instances
    let least = instances[0] === after && instances.length > 1 ? 1 : 0
    for (let i = least + 1; i < instances.length; i++) if (instances[i] !== after && this.#isBefore(i, least)) least = i
    return least
  }

  #betterOfTwo(after: Instance | undefined): number {
    const first = this.#chance.draw(this.#instances, after)
    for (let i = 0; i < DRAWS; i++) {
      const second = this.#chance.draw(this.#instances, after)
      if (second !== first) return this.#isBefore(second, first) ? second : first
    }
    return first
  }

  #isBefore(i: number, j: number): boolean {
    const [one, other] = [this.#instances[i] as Instance, this.#instances[j] as Instance]
    const difference = one.active * other.share - other.active * one.share
    return difference === 0 ? (this.#turns[i] as number) < (this.#turns[j] as number) : difference < 0
  }
}
