import type { Exchange } from '../../proxy/exchange.ts'
import type { BalancerConfig } from '../balancing-settings.ts'
import type { Instance } from '../instance.ts'
import { ConsistentHash } from './consistent-hash.ts'
import { LeastConnections } from './least-connections.ts'
import { Random } from './random.ts'
import { RoundRobin } from './round-robin.ts'
import { Sticky } from './sticky.ts'

/** Decides whose turn it is. One per service, and one per route that has its own. */
export interface Balancer {
  /**
   * One of `instances`. The list is the same object for as long as neither it nor any weight in it changes, so that what
   * follows from it is worked out once.
   * @param instances at least one, and all may be asked
   * @param exchange the request that it is for, for those who look at it
   * @param after where it has been already: not picked while there is another choice
   */
  pick(instances: readonly Instance[], exchange: Exchange, after?: Instance): Instance
}

/** @param random between 0 and 1, as `Math.random` */
export function createBalancer(config: BalancerConfig, random: () => number): Balancer {
  switch (config.type) {
    case 'round_robin':
      return new RoundRobin(({ ramp }) => ramp, random)
    case 'weighted_round_robin':
      return new RoundRobin(({ share }) => share, random)
    case 'least_connections':
      return new LeastConnections(random)
    case 'random':
      return new Random(random)
    case 'consistent_hash':
      return new ConsistentHash(config, new RoundRobin(({ share }) => share, random))
    case 'sticky':
      return new Sticky(config, new RoundRobin(({ share }) => share, random))
  }
}
