import { createHash } from 'node:crypto'
import { type CookieOptions, cookieOf, setCookie } from '../../proxy/cookies.ts'
import type { Exchange } from '../../proxy/exchange.ts'
import type { Instance } from '../instance.ts'
import type { Balancer } from './balancer.ts'

/**
 * Each client keeps to one instance by a cookie that names it: by a digest, which is the same on all gateways and shows no
 * address. Who has none, or one of an instance that is gone or may not be asked, is given one.
 */
export class Sticky implements Balancer {
  readonly #cookie: CookieOptions
  readonly #first: Balancer
  #instances: readonly Instance[] = []
  #byName = new Map<string, Instance>()

  /** @param first assigns those who come for the first time */
  constructor(cookie: CookieOptions, first: Balancer) {
    this.#cookie = cookie
    this.#first = first
  }

  pick(instances: readonly Instance[], exchange: Exchange, after?: Instance): Instance {
    if (instances !== this.#instances) this.#take(instances)
    const name = cookieOf(exchange, this.#cookie.name)
    const kept = name === undefined ? undefined : this.#byName.get(name)
    if (kept !== undefined && kept !== after) return kept
    const picked = this.#first.pick(instances, exchange, after)
    if (picked !== kept) setCookie(exchange, this.#cookie, nameOf(picked))
    return picked
  }

  #take(instances: readonly Instance[]): void {
    this.#instances = instances
    this.#byName = new Map(instances.map(instance => [nameOf(instance), instance]))
  }
}

function nameOf({ id, url }: Instance): string {
  return createHash('sha256').update(`${id} ${url.href}`).digest('base64url').slice(0, 16)
}
