import type { LookupFunction } from 'node:net'
import { Client } from 'undici'
import { lookupOf } from '../registry/networks.ts'
import type { Clock } from '../runtime/clock.ts'
import type { InstanceConfig } from './instance.ts'
import { connector, type PoolOptions } from './pool.ts'
import type { ServiceConfig } from './service.ts'

/** How it is found out whether an instance is well (REG-12). */
export interface HealthCheckConfig {
  readonly type: 'http' | 'tcp' | 'grpc' | 'websocket'
  readonly path: string
  /** For the whole answer, in milliseconds. */
  readonly timeoutMs: number
  readonly expected: readonly number[]
}

/** What is known of an instance; null for what is not. */
export interface InstanceHealth {
  readonly id: string
  readonly url: string
  readonly healthy: boolean | null
  /** Milliseconds since 1970. */
  readonly checkedAt: number | null
  readonly tookMs: number | null
  readonly status: number | null
  /** `ECONNREFUSED`, `timeout`, … */
  readonly error: string | null
}

/** What instances have answered when they were asked how they are; each gateway knows what it has seen itself. */
export class HealthChecks {
  readonly #clock: Clock
  readonly #via: string
  readonly #known = new Map<string, InstanceHealth>()
  readonly #running = new Map<string, Promise<InstanceHealth[]>>()

  /** @param via what the gateway calls itself, so that it knows itself again */
  constructor(clock: Clock, via: string) {
    this.#clock = clock
    this.#via = via
  }

  /** What is known of a service's instances, without asking. */
  known(service: ServiceConfig): InstanceHealth[] {
    return service.instances.map(({ id, url }) => {
      const {
        healthy = null,
        checkedAt = null,
        tookMs = null,
        status = null,
        error = null
      } = this.#known.get(keyOf(service, url)) ?? {}
      return { id, url, healthy, checkedAt, tookMs, status, error }
    })
  }

  /** Asks all instances; who wants to know while that is under way gets the same answer. */
  check(service: ServiceConfig, how: HealthCheckConfig): Promise<InstanceHealth[]> {
    const running = this.#running.get(service.name)
    if (running !== undefined) return running
    const checks = Promise.all(service.instances.map(instance => this.#check(service, instance, how)))
    this.#running.set(service.name, checks)
    return checks.finally(() => this.#running.delete(service.name))
  }

  /** Forgets all services but these. */
  keep(services: ReadonlyMap<string, ServiceConfig>): void {
    const kept = new Set(
      [...services.values()].flatMap(service => service.instances.map(({ url }) => keyOf(service, url)))
    )
    for (const key of this.#known.keys()) if (!kept.has(key)) this.#known.delete(key)
  }

  async #check(service: ServiceConfig, instance: InstanceConfig, how: HealthCheckConfig): Promise<InstanceHealth> {
    const { id, url } = instance
    const lookup = lookupOf({ address: instance.address, networks: service.networks })
    const since = this.#clock.monotonic()
    let status: number | null = null
    let error: string | null = null
    try {
      if (how.type === 'tcp') await canConnect(new URL(url), how.timeoutMs, lookup)
      else status = await ask(new URL(url), how, { tls: service.tls, lookup, via: this.#via })
    } catch (cause) {
      error = codeOf(cause)
    }
    const health = {
      id,
      url,
      healthy: error === null && (status === null || how.expected.includes(status)),
      checkedAt: this.#clock.now(),
      tookMs: Math.round((this.#clock.monotonic() - since) * 10) / 10,
      status,
      error
    }
    this.#known.set(keyOf(service, url), health)
    return health
  }
}

function keyOf({ name }: ServiceConfig, url: string): string {
  return `${name} ${url}`
}

/** A connection of its own: whether a new one can be had is part of the question. */
async function ask(
  url: URL,
  { path, timeoutMs }: HealthCheckConfig,
  { tls, lookup, via }: Pick<PoolOptions, 'tls' | 'lookup'> & { via: string }
): Promise<number> {
  const client = new Client(url.origin, { connect: connector({ tls, lookup, connectTimeoutMs: timeoutMs }) })
  try {
    const { statusCode, body } = await client.request({
      method: 'GET',
      path: url.pathname.replace(/\/+$/, '') + path,
      headers: { 'user-agent': 'sallyport', via },
      signal: AbortSignal.timeout(timeoutMs)
    })
    await body.dump()
    return statusCode
  } finally {
    client.destroy(() => {})
  }
}

function canConnect(url: URL, timeoutMs: number, lookup: LookupFunction | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    connector({ lookup, connectTimeoutMs: timeoutMs })(
      { hostname: url.hostname, host: url.host, protocol: 'http:', port: url.port || portOf(url) } as never,
      (error, socket) => {
        socket?.destroy()
        if (error === null) resolve()
        else reject(error)
      }
    )
  })
}

function portOf({ protocol }: URL): string {
  return protocol === 'https:' ? '443' : '80'
}

function codeOf(error: unknown): string {
  const { name, code } = error as { name?: string; code?: string }
  return name === 'TimeoutError' || code === 'UND_ERR_CONNECT_TIMEOUT' ? 'timeout' : (code ?? 'failed')
}
