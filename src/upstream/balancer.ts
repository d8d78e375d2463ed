import type { Exchange } from '../proxy/exchange.ts'
import type { Instance } from './instance.ts'

/** Decides whose turn it is. One per service, and one per route that has its own. */
export interface Balancer {
  /**
   * One of `instances`, of which there are at least two and all may be asked.
   * @param exchange the request that it is for, for those who look at it
   */
  pick(instances: readonly Instance[], exchange: Exchange): Instance
}

/** One after the other, whatever their weights. */
export class RoundRobin implements Balancer {
  #turn = -1

  pick(instances: readonly Instance[]): Instance {
    this.#turn = (this.#turn + 1) % instances.length
    return instances[this.#turn] as Instance
  }
}
