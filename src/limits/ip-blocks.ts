import type { Logger } from 'pino'
import { noteChange } from '../database/audit.ts'
import type { Database } from '../database/database.ts'
import { addressSet, type TrustedProxies } from '../proxy/peer.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Store } from '../store/store.ts'
import { network } from './plan.ts'

/** How often what other gateways have blocked is looked up, in milliseconds. */
const POLL_MS = 1000
/** Where the list is in the store. */
const KEY = 'ip-blocks'
/** Most addresses on the list: blocking more of them is a firewall's work. */
const MOST = 1000

/** An address that may not call for a while. */
export interface IpBlock {
  /** `192.0.2.1`, or the /64 of an IPv6 address. */
  readonly address: string
  /** Milliseconds since 1970. */
  readonly at: number
  readonly until: number
  readonly reason: string
}

/** On the list a block that has been lifted stays until it would have ended, so that nobody brings it back. */
interface Entry extends Omit<IpBlock, 'address'> {
  /** When it was made or lifted, whichever was last: the later word holds. */
  readonly changedAt: number
  readonly lifted: boolean
}

/**
 * Addresses that are blocked for a time (SEC-08). Gateways that share a store share one list: each holds what it knows
 * against the list once a second, takes over what is newer and adds what is missing, so that writing at the same time loses
 * nothing. While the store is out of reach each goes by what it knows (C-29).
 */
export class IpBlocks {
  readonly #store: Store
  readonly #database: Database | undefined
  readonly #clock: Clock
  readonly #log: Logger
  readonly #entries = new Map<string, Entry>()
  /** Until when, by monotonic time: nobody's clock that is set frees or holds anybody. */
  readonly #until = new Map<string, number>()
  #exempt: TrustedProxies = addressSet([])
  #timer: NodeJS.Timeout | undefined
  #syncing: Promise<void> | undefined
  /** Requests that have been refused. */
  refusals = 0

  constructor(options: { store: Store; database: Database | undefined; clock: Clock; log: Logger }) {
    this.#store = options.store
    this.#database = options.database
    this.#clock = options.clock
    this.#log = options.log
  }

  /** @param exempt addresses and ranges that are never blocked; undefined if nobody is, and nobody need be looked for */
  configure(exempt: readonly string[] | undefined): void {
    this.#exempt = addressSet(exempt ?? [])
    if (exempt === undefined || this.#store.kind === 'memory') this.close()
    else this.#timer ??= setInterval(() => void this.sync(), POLL_MS).unref()
  }

  close(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  /** Those that are blocked now, the newest first. */
  list(): IpBlock[] {
    const now = this.#clock.monotonic()
    return [...this.#entries]
      .filter(([address]) => (this.#until.get(address) ?? 0) > now)
      .map(([address, { at, until, reason }]) => ({ address, at, until, reason }))
      .sort((a, b) => b.at - a.at)
  }

  /** Milliseconds for which an address is still blocked; 0 if it is not. */
  left(client: string): number {
    if (this.#until.size === 0) return 0
    const address = network(client)
    const until = this.#until.get(address)
    if (until === undefined) return 0
    const left = until - this.#clock.monotonic()
    if (left <= 0) this.#until.delete(address)
    return Math.max(0, left)
  }

  /** Blocks the network that `client` belongs to, unless it is exempt. Takes effect here at once. */
  block(client: string, ms: number, reason: string): void {
    if (this.#exempt.has(client) || this.left(client) > 0) return
    this.#tidy()
    if (this.#until.size >= MOST) return
    const address = network(client)
    const at = this.#wall()
    this.#set(address, { at, until: at + ms, reason, changedAt: at, lifted: false })
    this.#log.warn({ client: address, for_ms: ms, reason }, 'an address has been blocked')
    const audit = {
      at,
      actor: 'gateway',
      action: 'address.block',
      target: `ip:${address}`,
      after: { until: at + ms, reason }
    }
    noteChange({ database: this.#database, log: this.#log }, audit).catch(error =>
      this.#log.error({ err: error }, 'a block could not be noted')
    )
    void this.sync()
  }

  /** Lets an address call again, everywhere. @returns whether it was blocked */
  async lift(client: string): Promise<boolean> {
    const address = network(client)
    const entry = this.#entries.get(address)
    if (entry === undefined || this.left(client) === 0) return false
    this.#set(address, { ...entry, lifted: true, changedAt: Math.max(this.#wall(), entry.changedAt + 1) })
    await this.sync()
    return true
  }

  /** Holds what is known here against the shared list. Never rejects: it is tried again in a second. */
  sync(): Promise<void> {
    const next = (this.#syncing ?? Promise.resolve()).then(() => this.#sync()).catch(() => {})
    this.#syncing = next
    return next
  }

  async #sync(): Promise<void> {
    if (this.#store.kind === 'memory') return
    const text = await this.#store.get(KEY)
    const now = this.#wall()
    const shared = new Map(Object.entries(parse(text)).filter(([, { until }]) => until > now))
    for (const [address, entry] of shared)
      if (entry.changedAt > (this.#entries.get(address)?.changedAt ?? 0)) this.#set(address, entry)
    this.#tidy()
    const isNews = [...this.#entries].some(
      ([address, { changedAt }]) => changedAt > (shared.get(address)?.changedAt ?? 0)
    )
    if (!isNews) return
    const last = Math.max(...[...this.#entries.values()].map(({ until }) => until))
    await this.#store.set(KEY, JSON.stringify(Object.fromEntries(this.#entries)), last - now)
  }

  #set(address: string, entry: Entry): void {
    this.#entries.set(address, entry)
    if (entry.lifted) this.#until.delete(address)
    else this.#until.set(address, this.#clock.monotonic() + entry.until - this.#wall())
  }

  /** Of the store, so that gateways whose clocks are apart mean the same (RLM-28). */
  #wall(): number {
    return this.#clock.now() - this.#store.clockSkewMs
  }

  #tidy(): void {
    const [wall, now] = [this.#wall(), this.#clock.monotonic()]
    for (const [address, { until }] of this.#entries) if (until <= wall) this.#entries.delete(address)
    for (const [address, until] of this.#until) if (until <= now) this.#until.delete(address)
  }
}

/** What is no entry is left out, and gone with the next that is written (H-82). */
function parse(text: string | undefined): Record<string, Entry> {
  if (text === undefined) return {}
  try {
    const entries = Object.entries(JSON.parse(text) as Record<string, Entry>)
    return Object.fromEntries(entries.filter(([, entry]) => entry?.until > 0 && entry.changedAt > 0))
  } catch {
    return {}
  }
}
