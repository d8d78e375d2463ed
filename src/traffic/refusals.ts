import type { AuditEntry } from '../database/audit.ts'
import type { Exchange } from '../proxy/exchange.ts'
import { endpointOf, storable } from './caller.ts'

/** Most different refusals between two looks; more are only counted, so that a flood fills neither memory nor disk. */
const MOST = 20

/** Requests that were refused for want of a credential or a right, alike ones counted together (OBS-33). */
export class Refusals {
  readonly #found = new Map<string, { readonly entry: AuditEntry; times: number }>()
  #beyond = 0

  note(exchange: Exchange, now: number): void {
    const actor = exchange.consumer?.key ?? 'anonymous'
    const target = `${exchange.method} ${endpointOf(exchange)}`
    const why = exchange.reason === '' ? exchange.errorCode : `${exchange.errorCode}: ${exchange.reason}`
    const key = `${exchange.client}\n${actor}\n${target}\n${why}`
    const found = this.#found.get(key)
    if (found !== undefined) found.times++
    else if (this.#found.size >= MOST) this.#beyond++
    else {
      const entry: AuditEntry = {
        at: now,
        actor: storable(actor),
        action: 'access',
        target: storable(target, 1024),
        outcome: 'denied',
        details: storable(why, 1024),
        clientIp: exchange.client,
        requestId: storable(exchange.id)
      }
      this.#found.set(key, { entry, times: 1 })
    }
  }

  /** The entries for them, the last of which counts those that have none; and begins anew. */
  take(now: number): AuditEntry[] {
    const entries = [...this.#found.values()].map(({ entry, times }) =>
      times === 1 ? entry : { ...entry, details: `${entry.details} (${times} times)` }
    )
    const details = `${this.#beyond} more requests were refused at the same time`
    if (this.#beyond > 0)
      entries.push({ at: now, actor: 'gateway', action: 'access', target: OTHERS, outcome: 'denied', details })
    this.#found.clear()
    this.#beyond = 0
    return entries
  }
}

const OTHERS = 'several endpoints'
