import type { Logger } from 'pino'
import { addressOf, type Networks, networksOf } from '../registry/networks.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Leases } from '../runtime/leases.ts'
import type { Pause } from '../runtime/pause.ts'
import type { InstanceConfig } from '../upstream/instance.ts'
import type { DiscoveryConfig } from './settings.ts'

export type InstanceList = readonly InstanceConfig[]

/** Somebody who knows where the instances of a service are. One per service; {@link Watch} makes the best of it. */
export interface Adapter {
  /**
   * Tells whole lists, the first as soon as there is one and further ones as they change, until `signal` aborts. Rejects when
   * it cannot go on, and is called again after a while: it may go on from where it was.
   */
  follow(tell: (list: InstanceList) => void, signal: AbortSignal): Promise<void>
  close?(): void
}

/** What adapters and their watch need of the process. */
export interface DiscoveryTerms {
  readonly clock: Clock
  readonly random: () => number
  readonly pause: Pause
  readonly log: Logger
  /** What several adapters share. */
  readonly leases: Leases
}

/** Somebody answered, and that was no list. */
export class DiscoveryError extends Error {
  /** `HTTP_503`, `INVALID`: anybody may read it. */
  readonly code: string

  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

/** The first pause after a failure, in milliseconds; each further one is twice as long, up to {@link LONGEST_MS}. */
const FIRST_MS = 500
const LONGEST_MS = 30_000

/**
 * Follows one service's instances, whoever knows of them (REG-14, REG-22). The last good list stays for as long as nobody
 * answers, and for a stated time when the answer is that there are none, since that is more often an accident than the truth
 * (H-124). Lists are in the order of the ids, without instances where none may be (H-103).
 */
export class Watch {
  readonly name: string
  readonly config: DiscoveryConfig
  /** Gets every list that differs from the one before. */
  onInstances: (list: InstanceList) => void = () => {}
  /** Fulfilled when there is a list. */
  readonly ready: Promise<void>
  /** Lists that were other than the one before. */
  updates = 0
  errors = 0
  readonly #terms: DiscoveryTerms
  readonly #create: (config: DiscoveryConfig, terms: DiscoveryTerms) => Promise<Adapter>
  readonly #networks: Networks | undefined
  readonly #stop = new AbortController()
  readonly #isReady: () => void
  #instances: InstanceList
  /** Of the last list, who had an address that is not allowed: said once, however often the list comes. */
  #forbidden: ReadonlySet<string> = new Set()
  /** Wall time of the last list. */
  #heardAt: number | undefined
  /** Why nobody answers at present, as a code. */
  #error: string | undefined
  /** Ends the wait for an empty list to become credible. */
  #doubt: AbortController | undefined

  /**
   * @param known what is served until there is a list
   * @param create makes the adapter
   */
  constructor(
    name: string,
    config: DiscoveryConfig,
    terms: DiscoveryTerms,
    known: InstanceList,
    create = createAdapter
  ) {
    this.name = name
    this.config = config
    this.#terms = terms
    this.#create = create
    this.#networks = config.networks && networksOf(config.networks)
    this.#instances = known
    const { promise, resolve } = Promise.withResolvers<void>()
    this.ready = promise
    this.#isReady = resolve
  }

  /** The last list that was believed. */
  get instances(): InstanceList {
    return this.#instances
  }

  /** Whether what is served is older than what somebody could say, if he answered or were believed. */
  get stale(): boolean {
    return this.#heardAt === undefined || this.#error !== undefined || this.#doubt !== undefined
  }

  /** For `/health/dependencies`. */
  state(): Record<string, unknown> {
    return {
      ...(this.#error !== undefined && { status: 'down', error: this.#error }),
      kind: this.config.source.kind,
      instances: this.#instances.length,
      stale: this.stale,
      since: this.#heardAt === undefined ? null : new Date(this.#heardAt).toISOString()
    }
  }

  start(): void {
    void this.#run(this.#stop.signal)
  }

  stop(): void {
    this.#stop.abort()
    this.#doubt?.abort()
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { pause, random } = this.#terms
    let adapter: Adapter | undefined
    let failures = 0
    const tell = (list: InstanceList): void => {
      failures = 0
      if (!signal.aborted) this.#hear(list)
    }
    while (!signal.aborted) {
      try {
        adapter ??= await this.#create(this.config, this.#terms)
        await adapter.follow(tell, signal)
      } catch (error) {
        if (signal.aborted) break
        this.#fail(error)
      }
      await pause(pauseAfter(failures++, random), signal).catch(() => {})
    }
    adapter?.close?.()
  }

  #hear(given: InstanceList): void {
    const { clock, log } = this.#terms
    if (this.#error !== undefined) log.info({ service: this.name }, 'discovery answers again')
    this.#error = undefined
    this.#heardAt = clock.now()
    const list = this.#acceptable(given)
    if (list.length === 0 && this.#instances.length > 0 && this.config.emptyAfterMs > 0) return this.#distrust()
    this.#doubt?.abort()
    this.#doubt = undefined
    this.#take(list)
  }

  /** Those that may be there, each once. */
  #acceptable(list: InstanceList): InstanceList {
    const byId = new Map<string, InstanceConfig>()
    const forbidden = new Set<string>()
    for (const instance of list) {
      const { id, url, address = addressOf(new URL(url)) } = instance
      // What a name stands for is looked at when a connection is made.
      if (address === undefined || this.#networks?.allows(address) !== false) byId.set(id, instance)
      else {
        const key = `${id} ${address}`
        forbidden.add(key)
        if (!this.#forbidden.has(key))
          this.#terms.log.warn({ service: this.name, instance: id }, `leads to ${address}, which is not allowed`)
      }
    }
    this.#forbidden = forbidden
    return [...byId.values()].sort((a, b) => (a.id < b.id ? -1 : 1))
  }

  #distrust(): void {
    if (this.#doubt !== undefined) return
    const { pause, log } = this.#terms
    const { emptyAfterMs } = this.config
    log.warn(
      { service: this.name, instances: this.#instances.length },
      `discovery knows no instances any more; the last ones stay for ${emptyAfterMs / 1000} s unless it finds some`
    )
    const doubt = new AbortController()
    this.#doubt = doubt
    pause(emptyAfterMs, doubt.signal).then(
      () => {
        this.#doubt = undefined
        this.#take([])
      },
      () => {}
    )
  }

  #take(list: InstanceList): void {
    this.#isReady()
    if (JSON.stringify(list) === JSON.stringify(this.#instances)) return
    this.#instances = list
    this.updates++
    this.#terms.log.debug({ service: this.name, instances: list.length }, 'instances have changed')
    this.onInstances(list)
  }

  #fail(error: unknown): void {
    this.errors++
    // That there are none was said by somebody who is not there any more.
    this.#doubt?.abort()
    this.#doubt = undefined
    const code = codeOf(error)
    if (this.#error !== code)
      this.#terms.log.warn(
        { service: this.name, ...whyOf(error), instances: this.#instances.length },
        'discovery does not answer; what is known stays'
      )
    this.#error = code
  }
}

/** What a log says of a failure: what is to be expected of a network in words, and only the rest with where it came from. */
export function whyOf(error: unknown): { error: string; reason: string } | { err: unknown } {
  const code = codeOf(error)
  return code === 'FAILED' ? { err: error } : { error: code, reason: (error as Error).message }
}

/** Loads what a configuration needs when it is needed first. */
async function createAdapter(config: DiscoveryConfig, terms: DiscoveryTerms): Promise<Adapter> {
  const { source, scheme } = config
  switch (source.kind) {
    case 'dns':
      return new (await import('./dns.ts')).Dns(source, terms)
    case 'http':
      return new (await import('./http.ts')).Http(source, scheme, terms)
    case 'consul':
      return new (await import('./consul.ts')).Consul(source, scheme, terms)
    case 'etcd':
      return new (await import('./etcd.ts')).Etcd(source, scheme, terms)
    case 'kubernetes':
      return new (await import('./kubernetes.ts')).Kubernetes(source, scheme, terms)
  }
}

/**
 * How long not to ask after so many failures before this one, in milliseconds. Half of it is chance: what has come down must
 * not be asked by everybody at once when it comes back.
 */
export function pauseAfter(failures: number, random: () => number): number {
  return Math.min(LONGEST_MS, FIRST_MS * 2 ** failures) * (0.5 + random() / 2)
}

/** An error's code: its message may hold an address. */
export function codeOf(error: unknown): string {
  const { code, name } = error as { code?: unknown; name?: string }
  return typeof code === 'string' ? code : name === 'TimeoutError' ? 'ETIMEDOUT' : 'FAILED'
}
