import type { InstanceConfig } from '../upstream/instance.ts'
import type { Adapter, DiscoveryTerms, InstanceList } from './discovery.ts'
import { HttpClient, invalid, jsonOf } from './http-client.ts'
import { instanceOf } from './parse.ts'
import type { SourceOf } from './settings.ts'

/** How long a query waits for news, and how long we wait for it: Consul adds up to a sixteenth. In milliseconds. */
const WAIT_MS = 55_000
const PATIENCE_MS = 65_000
/** Between two queries, so that a busy catalogue is not asked for each of its changes. In milliseconds. */
const REST_MS = 100

interface Entry {
  readonly Node?: { readonly Address?: string; readonly Meta?: Meta; readonly Locality?: Locality | null }
  readonly Service?: {
    readonly ID?: string
    readonly Address?: string
    readonly Port?: number
    readonly Meta?: Meta
    readonly Weights?: { readonly Passing?: number }
    readonly Locality?: Locality | null
  }
}
type Meta = Readonly<Record<string, string>> | null
interface Locality {
  readonly Zone?: string
}

/** The passing instances of a service of Consul, by blocking queries (REG-18). */
export class Consul implements Adapter {
  readonly #source: SourceOf<'consul'>
  readonly #scheme: string
  readonly #terms: DiscoveryTerms
  readonly #client: HttpClient

  constructor(source: SourceOf<'consul'>, scheme: string, terms: DiscoveryTerms) {
    this.#source = source
    this.#scheme = scheme
    this.#terms = terms
    this.#client = new HttpClient(source.tls, terms.leases)
  }

  async follow(tell: (list: InstanceList) => void, signal: AbortSignal): Promise<void> {
    let index = 0
    for (;;) {
      const answer = await this.#ask(index, signal)
      tell(answer.list)
      // One that goes back is of another server, or of one that was restored: what it counted before means nothing.
      index = answer.index < index ? 0 : answer.index
      await this.#terms.pause(REST_MS, signal)
    }
  }

  close(): void {
    this.#client.close()
  }

  async #ask(index: number, signal: AbortSignal): Promise<{ list: InstanceList; index: number }> {
    const { url, service, tag, datacenter, token } = this.#source
    const query = new URLSearchParams({ passing: '1' })
    if (tag !== undefined) query.set('tag', tag)
    if (datacenter !== undefined) query.set('dc', datacenter)
    if (index > 0) {
      query.set('index', String(index))
      query.set('wait', `${WAIT_MS}ms`)
    }
    const path = `/v1/health/service/${encodeURIComponent(service)}?${query}`
    const reply = await this.#client.ask(url.replace(/\/+$/, '') + path, {
      signal,
      patienceMs: PATIENCE_MS,
      ...(token !== undefined && { headers: { 'x-consul-token': token } })
    })
    const entries = await jsonOf(reply)
    const next = Number(reply.headers['x-consul-index'])
    if (!Array.isArray(entries)) throw invalid('is no list')
    // With none, every query would be answered at once.
    if (!(next > 0)) throw invalid('has no X-Consul-Index')
    return { list: entries.flatMap(entry => this.#instance(entry as Entry) ?? []), index: next }
  }

  #instance({ Node, Service }: Entry): InstanceConfig | undefined {
    return instanceOf(
      {
        id: Service?.ID,
        address: Service?.Address || Node?.Address,
        port: Service?.Port,
        weight: Service?.Weights?.Passing,
        scheme: Service?.Meta?.scheme,
        zone: Service?.Locality?.Zone ?? Node?.Locality?.Zone ?? Service?.Meta?.zone ?? Node?.Meta?.zone
      },
      this.#scheme
    )
  }
}
