import { promises as dns } from 'node:dns'
import { isIP, isIPv6 } from 'node:net'
import { addressOf } from '../registry/networks.ts'
import type { InstanceConfig } from '../upstream/instance.ts'
import type { Adapter, DiscoveryTerms, InstanceList } from './discovery.ts'
import { DiscoveryError } from './discovery.ts'
import type { SourceOf } from './settings.ts'

/** A name is asked for again when its records end, but not sooner and not later than this, in milliseconds. */
const SOONEST_MS = 1000
const LATEST_MS = 300_000
/** When a name that stands for nothing is asked for again, in milliseconds. */
const NOTHING_MS = 5000

const PATIENCE = { timeout: 2000, tries: 2 }

/** Answers that say that there is no such record. */
const NONE = new Set(['ENODATA', 'ENOTFOUND'])

const NOTHING: Found = { addresses: [], ttlMs: NOTHING_MS }

interface Found {
  readonly addresses: readonly string[]
  /** Of the record that ends first. */
  readonly ttlMs: number
}

/**
 * The DNS: each address of a name is an instance, or each address of each target of its SRV records (RFC 2782). An instance
 * keeps the name in its URL, for `Host` and certificates, and is connected to at its address.
 */
export class Dns implements Adapter {
  readonly #url: URL
  readonly #terms: DiscoveryTerms
  readonly #resolver = new dns.Resolver(PATIENCE)
  /** The last answer by question: half of an answer takes nothing away. */
  readonly #known = new Map<string, Found>()

  constructor({ url, servers }: SourceOf<'dns'>, terms: DiscoveryTerms) {
    this.#url = new URL(url)
    this.#terms = terms
    if (servers.length > 0) this.#resolver.setServers(servers)
  }

  async follow(tell: (list: InstanceList) => void, signal: AbortSignal): Promise<void> {
    const { pause, random } = this.#terms
    const name = addressOf(this.#url) ?? this.#url.hostname
    const cancel = (): void => this.#resolver.cancel()
    signal.addEventListener('abort', cancel)
    try {
      for (;;) {
        const { list, ttlMs } = await (name.startsWith('_') ? this.#services(name) : this.#hosts(name))
        tell(list)
        const wait = list.length === 0 ? NOTHING_MS : Math.min(LATEST_MS, Math.max(SOONEST_MS, ttlMs))
        await pause(wait * (1 + random() / 10), signal)
      }
    } finally {
      signal.removeEventListener('abort', cancel)
    }
  }

  async #hosts(name: string): Promise<{ list: InstanceList; ttlMs: number }> {
    const { addresses, ttlMs } = await this.#addresses(name)
    const port = this.#url.port || (this.#url.protocol === 'https:' ? '443' : '80')
    return { list: addresses.map(address => this.#instance(name, port, address, 1)), ttlMs }
  }

  /** Those of other priorities than the best are there for when all of these are down: that is what our weight 0 means. */
  async #services(name: string): Promise<{ list: InstanceList; ttlMs: number }> {
    const records = await this.#resolver.resolveSrv(name).catch(error => {
      if (error.code === 'ENODATA') return []
      throw error
    })
    // A lone "." says that there is no such service.
    const targets = records.filter(({ name }) => name !== '' && name !== '.')
    const best = Math.min(...targets.map(({ priority }) => priority))
    const answers = await Promise.allSettled(targets.map(target => this.#addresses(target.name)))
    const failed = answers.find(answer => answer.status === 'rejected')
    if (failed !== undefined && answers.every(({ status }) => status === 'rejected')) throw failed.reason
    const found = answers.map(answer => (answer.status === 'fulfilled' ? answer.value : NOTHING))
    return {
      list: targets.flatMap(({ name, port, priority, weight }, i) =>
        (found[i] as Found).addresses.map(address =>
          this.#instance(name, String(port), address, priority > best ? 0 : Math.max(1, weight))
        )
      ),
      ttlMs: Math.min(...found.map(({ ttlMs }) => ttlMs))
    }
  }

  #instance(host: string, port: string, address: string, weight: number): InstanceConfig {
    const url = new URL(this.#url)
    url.hostname = host
    url.port = port
    const id = `${isIPv6(address) ? `[${address}]` : address}:${port}`
    return { id, url: url.href, weight, address }
  }

  /** Both families; one that cannot be asked for keeps what it had. @throws when neither can, or the name is no name */
  async #addresses(name: string): Promise<Found> {
    if (isIP(name) !== 0) return { addresses: [name], ttlMs: LATEST_MS }
    const answers = await Promise.allSettled([
      this.#resolver.resolve4(name, { ttl: true }),
      this.#resolver.resolve6(name, { ttl: true })
    ])
    const reasons = answers.flatMap(answer =>
      answer.status === 'rejected' ? [answer.reason as NodeJS.ErrnoException] : []
    )
    if (reasons.length === answers.length) {
      const [reason] = reasons.filter(({ code }) => code !== 'ENODATA')
      if (reason !== undefined) throw new DiscoveryError(reason.code ?? 'FAILED', reason.message)
    }
    const found = answers.map((answer, i): Found => {
      const key = `${i} ${name}`
      if (answer.status === 'rejected') {
        if (NONE.has(answer.reason.code)) return { addresses: [], ttlMs: LATEST_MS }
        return { ...NOTHING, ...this.#known.get(key) }
      }
      const known = {
        addresses: answer.value.map(({ address }) => address),
        ttlMs: Math.min(...answer.value.map(({ ttl }) => ttl * 1000))
      }
      this.#known.set(key, known)
      return known
    })
    return {
      addresses: found.flatMap(({ addresses }) => addresses),
      ttlMs: Math.min(...found.map(({ ttlMs }) => ttlMs))
    }
  }
}
