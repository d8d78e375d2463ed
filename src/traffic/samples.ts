import { randomUUID } from 'node:crypto'
import type { Insertable } from 'kysely'
import type { ApiRequestsTable } from '../database/tables.ts'
import type { Consumer } from '../identity/consumer.ts'
import type { Exchange } from '../proxy/exchange.ts'
import { apiKeyOf, storable, userOf } from './caller.ts'

/** Longest path that is kept of a request. */
const LONGEST_PATH = 1024

/** A place for one request, used over and over. */
class Slot {
  #at = 0
  #consumer: Consumer | undefined
  #route: string | undefined
  #client = ''
  #method = ''
  #path = ''
  #status = 0
  #durationMs = 0
  #bytesIn = 0
  #bytesOut = 0

  fill(exchange: Exchange, status: number, now: number): void {
    this.#at = now
    this.#consumer = exchange.consumer
    this.#route = exchange.route?.id
    this.#client = exchange.client
    this.#method = exchange.method
    this.#path = exchange.path
    this.#status = status
    this.#durationMs = exchange.durationMs
    this.#bytesIn = exchange.bytesIn
    this.#bytesOut = exchange.bytesOut
  }

  record(): Insertable<ApiRequestsTable> {
    return {
      id: randomUUID(),
      user_id: userOf(this.#consumer) || null,
      api_key_id: apiKeyOf(this.#consumer) || null,
      endpoint_id: this.#route === undefined ? null : storable(this.#route, LONGEST_PATH),
      client_ip: this.#client,
      method: storable(this.#method),
      path: storable(this.#path, LONGEST_PATH),
      status_code: this.#status,
      response_time_ms: Math.round(this.#durationMs * 1000) / 1000,
      request_size_bytes: this.#bytesIn,
      response_size_bytes: this.#bytesOut,
      created_at: this.#at
    }
  }
}

/**
 * Some of the requests since the last look: all of them while they are few, and else as many as there is room for, each with
 * the same chance (Vitter's algorithm R).
 */
export class Samples {
  readonly #random: () => number
  readonly #slots: Slot[] = []
  #most = 0
  #seen = 0

  constructor(random: () => number) {
    this.#random = random
  }

  /** @param most requests to keep */
  set most(most: number) {
    this.#most = most
  }

  offer(exchange: Exchange, status: number, now: number): void {
    const seen = this.#seen++
    const place = seen < this.#most ? seen : Math.floor(this.#random() * this.#seen)
    if (place >= this.#most) return
    let slot = this.#slots[place]
    if (slot === undefined) {
      slot = new Slot()
      this.#slots[place] = slot
    }
    slot.fill(exchange, status, now)
  }

  /** What has been kept, as rows; and begins anew. */
  take(): Insertable<ApiRequestsTable>[] {
    const kept = Math.min(this.#seen, this.#most)
    this.#seen = 0
    return this.#slots.slice(0, kept).map(slot => slot.record())
  }
}
