import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { InstanceConfig } from '../upstream/instance.ts'
import { type Adapter, DiscoveryError, type DiscoveryTerms, type InstanceList } from './discovery.ts'
import { HttpClient, invalid, jsonOf, linesOf, parseJson } from './http-client.ts'
import { originOf } from './parse.ts'
import type { SourceOf } from './settings.ts'

/** A watch is opened anew after so long: a connection that has died in silence shows by then. In seconds. */
const WATCH_SECONDS = 60
const PATIENCE_MS = (WATCH_SECONDS + 10) * 1000
/** Between two watches, should the server end them at once. In milliseconds. */
const REST_MS = 500

interface Endpoint {
  readonly addresses?: readonly string[]
  readonly conditions?: { readonly ready?: boolean; readonly serving?: boolean; readonly terminating?: boolean }
  readonly targetRef?: { readonly name?: string }
  readonly zone?: string
  readonly hints?: { readonly forZones?: readonly { readonly name?: string }[] }
}

export interface EndpointSlice {
  readonly metadata: { readonly name: string; readonly resourceVersion: string }
  readonly addressType?: string
  readonly endpoints?: readonly Endpoint[] | null
  readonly ports?: readonly { readonly name?: string; readonly port?: number; readonly protocol?: string }[] | null
}

/**
 * The EndpointSlices of a Kubernetes service (REG-21): listed, then watched from there, and listed again when the server does
 * not remember that far back. Token and certificate authority are those of the pod, and read again as they are renewed.
 */
export class Kubernetes implements Adapter {
  readonly #source: SourceOf<'kubernetes'>
  readonly #scheme: string
  readonly #terms: DiscoveryTerms
  #client: HttpClient | undefined
  readonly #slices = new Map<string, EndpointSlice>()
  /** Undefined while they have to be listed. */
  #version: string | undefined

  constructor(source: SourceOf<'kubernetes'>, scheme: string, terms: DiscoveryTerms) {
    this.#source = source
    this.#scheme = scheme
    this.#terms = terms
  }

  async follow(tell: (list: InstanceList) => void, signal: AbortSignal): Promise<void> {
    const url = await this.#address()
    const tellAll = (): void => tell(instancesOf([...this.#slices.values()], this.#source.port, this.#scheme))
    for (;;) {
      if (this.#version === undefined) {
        await this.#list(url, signal)
        tellAll()
      }
      await this.#watch(`${url}&${watchFrom(this.#version)}`, tellAll, signal)
      await this.#terms.pause(REST_MS, signal)
    }
  }

  close(): void {
    this.#client?.close()
  }

  /** Where the slices are, and a client that trusts who is there. */
  async #address(): Promise<string> {
    const { url, namespace, selector, tokenFile, tls } = this.#source
    const beside = (name: string) => textOf(join(dirname(tokenFile), name))
    const ca = tls?.ca === undefined ? await beside('ca.crt') : undefined
    this.#client?.close()
    this.#client = new HttpClient(ca === undefined ? tls : { ...tls, ca }, this.#terms.leases)
    const where = encodeURIComponent(namespace ?? (await beside('namespace')) ?? 'default')
    const path = `/apis/discovery.k8s.io/v1/namespaces/${where}/endpointslices`
    return `${url.replace(/\/+$/, '')}${path}?labelSelector=${encodeURIComponent(selector)}`
  }

  async #list(url: string, signal: AbortSignal): Promise<void> {
    const list = (await jsonOf(await this.#ask(url, signal))) as {
      items?: EndpointSlice[]
      metadata?: { resourceVersion?: string }
    }
    if (!Array.isArray(list.items)) throw invalid('is no list of EndpointSlices')
    this.#slices.clear()
    for (const slice of list.items) this.#slices.set(slice.metadata.name, slice)
    this.#version = list.metadata?.resourceVersion ?? ''
  }

  /** Returns when the watch is over, as all are some time; then it is known from where to go on, or that there is no going on. */
  async #watch(url: string, tellAll: () => void, signal: AbortSignal): Promise<void> {
    const reply = await this.#ask(url, signal)
    if (reply.status === 410) return this.#forget()
    if (reply.status !== 200) await jsonOf(reply)
    // The list stands: whoever could not be asked is there again.
    tellAll()
    for await (const line of linesOf(reply.body)) {
      const { type, object } = parseJson(line) as { type?: string; object: EndpointSlice & { code?: number } }
      if (type === 'ERROR') {
        if (object.code === 410) return this.#forget()
        throw new DiscoveryError(`HTTP_${object.code}`, 'the watch has failed')
      }
      this.#version = object.metadata.resourceVersion
      if (type === 'BOOKMARK') continue
      if (type === 'DELETED') this.#slices.delete(object.metadata.name)
      else this.#slices.set(object.metadata.name, object)
      tellAll()
    }
  }

  #forget(): void {
    this.#version = undefined
  }

  async #ask(url: string, signal: AbortSignal) {
    const token = await textOf(this.#source.tokenFile)
    const headers = token === undefined ? {} : { authorization: `Bearer ${token}` }
    return (this.#client as HttpClient).ask(url, { signal, headers, patienceMs: PATIENCE_MS })
  }
}

function watchFrom(version = ''): string {
  return `watch=1&allowWatchBookmarks=true&timeoutSeconds=${WATCH_SECONDS}&resourceVersion=${encodeURIComponent(version)}`
}

async function textOf(file: string): Promise<string | undefined> {
  try {
    return (await readFile(file, 'utf8')).trim()
  } catch {
    return undefined
  }
}

/**
 * The instances of a service's slices: those that are ready; while there are none, those that end and still serve, as for
 * kube-proxy. Of a service that has both families IPv4 counts, so that no pod is there twice.
 * @param port its number or name; the first one if undefined
 */
export function instancesOf(
  slices: readonly EndpointSlice[],
  port: number | string | undefined,
  scheme: string
): InstanceConfig[] {
  const inV4 = slices.some(({ addressType, endpoints }) => addressType === 'IPv4' && (endpoints ?? []).length > 0)
  const all = slices
    .filter(({ addressType }) => !inV4 || addressType === 'IPv4')
    .flatMap(slice => {
      const number = portOf(slice, port)
      return number === undefined ? [] : (slice.endpoints ?? []).map(endpoint => ({ endpoint, number }))
    })
  // What is not said is so: the API's own rule.
  const ready = all.filter(({ endpoint }) => endpoint.conditions?.ready !== false)
  const ending = all.filter(({ endpoint: { conditions } }) => conditions?.serving && conditions.terminating)
  return (ready.length > 0 ? ready : ending).flatMap(({ endpoint, number }) => instanceAt(endpoint, number, scheme))
}

function instanceAt({ addresses, targetRef, zone, hints }: Endpoint, port: number, scheme: string): InstanceConfig[] {
  // All addresses of an endpoint are the same thing.
  const address = addresses?.[0]
  if (address === undefined) return []
  const near = hints?.forZones?.[0]?.name ?? zone
  return [
    {
      id: targetRef?.name ?? `${address}:${port}`,
      url: originOf(scheme, address, port),
      weight: 1,
      ...(near !== undefined && { zone: near })
    }
  ]
}

function portOf({ ports }: EndpointSlice, wanted: number | string | undefined): number | undefined {
  const tcp = (ports ?? []).filter(({ protocol = 'TCP' }) => protocol === 'TCP')
  if (wanted === undefined) return tcp[0]?.port
  return tcp.find(({ name, port }) => name === wanted || port === wanted)?.port
}
