import type { Exchange } from '../../proxy/exchange.ts'
import type { Instance } from '../instance.ts'
import type { Balancer } from './balancer.ts'

/** Any, the heavier the likelier. */
export class Random implements Balancer {
  readonly #random: () => number
  #instances: readonly Instance[] = []
  /** What the instances up to each weigh together; empty when all weigh the same. */
  #sums = new Float64Array()

  constructor(random: () => number) {
    this.#random = random
  }

  pick(instances: readonly Instance[], _exchange: Exchange, after?: Instance): Instance {
    return instances[this.draw(instances, after)] as Instance
  }

  /** The index of one of `instances`, by chance. */
  draw(instances: readonly Instance[], after?: Instance): number {
    if (instances !== this.#instances) this.#take(instances)
    const drawn = this.#sums.length === 0 ? Math.floor(this.#random() * instances.length) : this.#drawByWeight()
    return instances[drawn] === after ? (drawn + 1) % instances.length : drawn
  }

  #drawByWeight(): number {
    const sums = this.#sums
    const drawn = this.#random() * (sums[sums.length - 1] as number)
    let low = 0
    let high = sums.length - 1
    while (low < high) {
      const middle = (low + high) >> 1
      if ((sums[middle] as number) > drawn) high = middle
      else low = middle + 1
    }
    return low
  }

  #take(instances: readonly Instance[]): void {
    this.#instances = instances
    let sum = 0
    const alike = instances.every(({ share }) => share === instances[0]?.share)
    this.#sums = alike
      ? new Float64Array()
      : Float64Array.from(instances, ({ share }) => {
          sum += share
          return sum
        })
  }
}
