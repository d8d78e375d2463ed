import type { InstanceConfig } from '../upstream/instance.ts'
import { type Adapter, DiscoveryError, type DiscoveryTerms, type InstanceList } from './discovery.ts'
import { HttpClient, isTimeout, jsonOf, linesOf, parseJson } from './http-client.ts'
import { instanceOf } from './parse.ts'
import type { SourceOf } from './settings.ts'

/** A watch is opened anew after so long: a connection that has died in silence shows by then. In milliseconds. */
const WATCH_MS = 60_000

interface Header {
  readonly cluster_id?: string
  readonly revision?: string
}

interface KeyValue {
  readonly key: string
  readonly value?: string
}

interface WatchResponse {
  readonly header?: Header
  readonly created?: boolean
  readonly canceled?: boolean
  readonly cancel_reason?: string
  readonly compact_revision?: string
  readonly events?: readonly { readonly type?: 'PUT' | 'DELETE'; readonly kv: KeyValue }[]
}

/** Where the list that is known belongs. */
interface Position {
  readonly cluster: string | undefined
  revision: number
}

/**
 * The keys below a prefix of etcd v3, by its JSON gateway (REG-19): read once, then watched from the revision after that. A key
 * that ends with its lease is deleted as any other is.
 */
export class Etcd implements Adapter {
  readonly #source: SourceOf<'etcd'>
  readonly #scheme: string
  readonly #watchMs: number
  readonly #client: HttpClient
  readonly #range: { readonly key: string; readonly range_end: string }
  readonly #known = new Map<string, InstanceConfig>()
  /** Undefined while the list has to be read. */
  #position: Position | undefined
  /** Which member is asked. */
  #member = -1
  #token: string | undefined

  constructor(source: SourceOf<'etcd'>, scheme: string, { leases }: DiscoveryTerms, watchMs = WATCH_MS) {
    this.#source = source
    this.#scheme = scheme
    this.#watchMs = watchMs
    this.#client = new HttpClient(source.tls, leases)
    this.#range = { key: base64(source.prefix), range_end: afterPrefix(source.prefix).toString('base64') }
  }

  async follow(tell: (list: InstanceList) => void, signal: AbortSignal): Promise<void> {
    this.#member = (this.#member + 1) % this.#source.urls.length
    await this.#authenticate(signal)
    for (;;) {
      this.#position ??= await this.#read(signal)
      await this.#watch(this.#position, tell, signal)
    }
  }

  close(): void {
    this.#client.close()
  }

  async #authenticate(signal: AbortSignal): Promise<void> {
    const { username: name, password } = this.#source
    if (name === undefined) return
    this.#token = undefined
    const { token } = (await jsonOf(await this.#ask('auth/authenticate', { name, password }, signal))) as {
      token?: string
    }
    this.#token = token
  }

  async #read(signal: AbortSignal): Promise<Position> {
    const answer = await jsonOf(await this.#ask('kv/range', this.#range, signal))
    const { header = {}, kvs = [] } = answer as { header?: Header; kvs?: readonly KeyValue[] }
    this.#known.clear()
    for (const kv of kvs) this.#put(kv)
    return { cluster: header.cluster_id, revision: Number(header.revision) }
  }

  /** Returns when the watch is to be opened anew, or the list to be read again. */
  async #watch(position: Position, tell: (list: InstanceList) => void, signal: AbortSignal): Promise<void> {
    const request = { ...this.#range, start_revision: String(position.revision + 1) }
    let created = false
    try {
      const reply = await this.#ask('watch', { create_request: request }, signal, this.#watchMs)
      if (reply.status !== 200) await jsonOf(reply)
      for await (const line of linesOf(reply.body)) {
        const { result, error } = parseJson(line) as { result?: WatchResponse; error?: { message?: string } }
        if (result === undefined) throw new DiscoveryError('ENDED', `the watch has failed: ${error?.message}`)
        if (isLost(result, position)) {
          this.#position = undefined
          return
        }
        if (result.canceled) throw new DiscoveryError('ENDED', `the watch was ended: ${result.cancel_reason}`)
        created = true
        for (const { type, kv } of result.events ?? []) {
          if (type === 'DELETE') this.#known.delete(kv.key)
          else this.#put(kv)
        }
        position.revision = Math.max(position.revision, Number(result.header?.revision ?? 0))
        tell([...this.#known.values()])
      }
    } catch (error) {
      // A watch that has begun, and about which there was nothing to tell, has done all that it should.
      if (created && isTimeout(error) && !signal.aborted) return
      throw error
    }
    throw new DiscoveryError('ENDED', 'the watch has ended')
  }

  #put({ key, value = '' }: KeyValue): void {
    const name = text(key).slice(this.#source.prefix.length)
    const instance = instanceOf(entryOf(text(value)), this.#scheme, name)
    if (instance === undefined) this.#known.delete(key)
    else this.#known.set(key, instance)
  }

  #ask(method: string, body: object, signal: AbortSignal, patienceMs?: number) {
    const url = (this.#source.urls[this.#member] as string).replace(/\/+$/, '')
    return this.#client.ask(`${url}/v3/${method}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(this.#token !== undefined && { authorization: this.#token }) },
      body: JSON.stringify(body),
      signal,
      ...(patienceMs !== undefined && { patienceMs })
    })
  }
}

/** Whether what is known does not lead to what comes: it has been compacted away, or this is another cluster, or an older one. */
function isLost({ compact_revision, header, created }: WatchResponse, { cluster, revision }: Position): boolean {
  if (Number(compact_revision ?? 0) > 0) return true
  return created === true && (header?.cluster_id !== cluster || Number(header?.revision) < revision)
}

/** JSON as in `parse.ts`, or an address as it is. */
function entryOf(value: string): unknown {
  try {
    return JSON.parse(value)
  } catch {
    return value
  }
}

function base64(value: string): string {
  return Buffer.from(value).toString('base64')
}

function text(encoded: string): string {
  return Buffer.from(encoded, 'base64').toString()
}

/** The first key after all that begin with `prefix`: its last byte that is not the highest, one up. */
function afterPrefix(prefix: string): Buffer {
  const bytes = Buffer.from(prefix)
  const last = bytes.findLastIndex(byte => byte < 0xff)
  return Buffer.from([...bytes.subarray(0, last), (bytes[last] as number) + 1])
}
