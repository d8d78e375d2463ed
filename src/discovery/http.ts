import type { Adapter, DiscoveryTerms, InstanceList } from './discovery.ts'
import { HttpClient, invalid, jsonOf } from './http-client.ts'
import { instanceOf } from './parse.ts'
import type { SourceOf } from './settings.ts'

/** An HTTP server that answers with a list (REG-17). It is asked again and again, and says by `ETag` that nothing has changed. */
export class Http implements Adapter {
  readonly #source: SourceOf<'http'>
  readonly #scheme: string
  readonly #terms: DiscoveryTerms
  readonly #client: HttpClient
  #etag: string | undefined
  #last: InstanceList = []

  constructor(source: SourceOf<'http'>, scheme: string, terms: DiscoveryTerms) {
    this.#source = source
    this.#scheme = scheme
    this.#terms = terms
    this.#client = new HttpClient(source.tls, terms.leases)
  }

  async follow(tell: (list: InstanceList) => void, signal: AbortSignal): Promise<void> {
    const { pause, random } = this.#terms
    for (;;) {
      tell(await this.#ask(signal))
      // Gateways that were started together do not ask together for ever.
      await pause(this.#source.intervalMs * (0.9 + random() / 5), signal)
    }
  }

  close(): void {
    this.#client.close()
  }

  async #ask(signal: AbortSignal): Promise<InstanceList> {
    const { url, token } = this.#source
    const reply = await this.#client.ask(url, {
      signal,
      headers: {
        ...(token !== undefined && { authorization: `Bearer ${token}` }),
        ...(this.#etag !== undefined && { 'if-none-match': this.#etag })
      }
    })
    if (reply.status === 304 && this.#etag !== undefined) {
      for await (const _ of reply.body);
      return this.#last
    }
    this.#last = listOf(await jsonOf(reply), this.#scheme)
    this.#etag = typeof reply.headers.etag === 'string' ? reply.headers.etag : undefined
    return this.#last
  }
}

/** `[…]` or `{ "instances": […] }`; entries as in {@link instanceOf}. @throws {DiscoveryError} for anything else */
function listOf(document: unknown, scheme: string): InstanceList {
  const entries = Array.isArray(document) ? document : (document as { instances?: unknown } | null)?.instances
  if (!Array.isArray(entries)) throw invalid('holds no list of instances')
  return entries.flatMap(entry => instanceOf(entry, scheme) ?? [])
}
