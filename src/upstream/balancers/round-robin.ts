import type { Exchange } from '../../proxy/exchange.ts'
import type { Instance } from '../instance.ts'
import type { Balancer } from './balancer.ts'

/** One after the other, each as often as it weighs against the others and as evenly spread as can be. */
export class RoundRobin implements Balancer {
  readonly #weightOf: (instance: Instance) => number
  readonly #random: () => number
  #instances: readonly Instance[] = []
  #schedule: Schedule | undefined
  #turn = -1

  constructor(weightOf: (instance: Instance) => number, random: () => number) {
    this.#weightOf = weightOf
    this.#random = random
  }

  pick(instances: readonly Instance[], _exchange: Exchange, after?: Instance): Instance {
    if (instances !== this.#instances) this.#take(instances)
    if (this.#schedule !== undefined) return this.#schedule.next(after)
    const { length } = instances
    this.#turn = (this.#turn + 1) % length
    if (instances[this.#turn] === after) this.#turn = (this.#turn + 1) % length
    return instances[this.#turn] as Instance
  }

  /** Those who all weigh the same need no schedule. */
  #take(instances: readonly Instance[]): void {
    this.#instances = instances
    const weights = instances.map(this.#weightOf)
    const alike = weights.every(weight => weight === weights[0])
    this.#schedule = alike ? undefined : new Schedule(instances, weights, this.#random)
  }
}

/**
 * Smooth weighted turns as a heap of due times: whoever is due first is next, and is due again after 1/weight. A pick costs the
 * logarithm of the instances, exact for any weights (1:999), where a list of turns would be as long as the weights are high.
 */
class Schedule {
  readonly #instances: readonly Instance[]
  readonly #due: Float64Array
  readonly #gap: Float64Array
  /** Indexes of instances; each is due no later than the two at twice its place. */
  readonly #heap: Uint32Array

  constructor(instances: readonly Instance[], weights: readonly number[], random: () => number) {
    this.#instances = instances
    this.#gap = Float64Array.from(weights, weight => 1 / weight)
    // Each begins somewhere within its first turn. If all did at its end, the heaviest would be first after every change, and
    // on all gateways at once, and the light ones never when changes come often.
    this.#due = this.#gap.map(gap => gap * random())
    this.#heap = Uint32Array.from(instances.keys()).sort((a, b) => this.#dueOf(a) - this.#dueOf(b))
  }

  next(after: Instance | undefined): Instance {
    const place = this.#instances[this.#heap[0] as number] === after ? this.#second() : 0
    const picked = this.#heap[place] as number
    this.#due[picked] = this.#dueOf(picked) + (this.#gap[picked] as number)
    this.#sink(place)
    return this.#instances[picked] as Instance
  }

  #dueOf(index: number): number {
    return this.#due[index] as number
  }

  #dueAt(place: number): number {
    return this.#due[this.#heap[place] as number] as number
  }

  /** The place of whoever is due after the first. */
  #second(): number {
    const { length } = this.#heap
    return length > 2 && this.#dueAt(2) < this.#dueAt(1) ? 2 : length - 1 === 0 ? 0 : 1
  }

  /** Puts the entry at `place`, which is due later now, below those that are due before it. */
  #sink(place: number): void {
    const heap = this.#heap
    const moved = heap[place] as number
    const due = this.#dueOf(moved)
    for (;;) {
      let child = 2 * place + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && this.#dueAt(child + 1) < this.#dueAt(child)) child++
      if (due <= this.#dueAt(child)) break
      heap[place] = heap[child] as number
      place = child
    }
    heap[place] = moved
  }
}
