import { randomBytes } from 'node:crypto'
import { Cluster, Redis } from 'ioredis'
import type { Logger } from 'pino'
import type { Clock } from '../runtime/clock.ts'
import { BEAT, DECIDE, GIVE_BACK, USAGE } from './redis-scripts.ts'
import { parseRedisUrl, type RedisTarget } from './redis-url.ts'
import { StoreUnreachable } from './store.ts'

/** How often a node says that it is there, in milliseconds, and for how long that is believed. */
const BEAT_MS = 2000
const BELIEVED_MS = 7000
/** How often a lost Redis is looked for, in milliseconds. */
const PROBE_MS = 250
/** Longest wait between attempts to connect, and for one of them, in milliseconds. */
const MOST_BETWEEN_MS = 1000
const CONNECT_MS = 2000
/** A connection on which nothing comes for so long although something was asked is given up, in milliseconds. */
const SILENT_MS = 5000
/** How often a cluster is asked anew which node has which slots, in milliseconds. */
const REFRESH_MS = 5000
/** How often the same complaint is logged, in milliseconds. */
const AGAIN_MS = 30_000

/** The scripts, as ioredis puts them on its client; the first argument is the number of keys. */
interface Scripts {
  decideLimits(...args: (string | number)[]): Promise<[now: number, decisions: number[], leases: number[]]>
  giveBack(...args: (string | number)[]): Promise<number>
  readUsage(...args: (string | number)[]): Promise<[string, string, string, number, number, number][]>
  beat(...args: (string | number)[]): Promise<[now: string, nodes: number]>
}

export interface RedisOptions {
  /** What `parseRedisUrl` reads, with a user and a password if need be. Shown nowhere. */
  readonly url: string
  /** How long a command may take, in milliseconds. */
  readonly timeoutMs: number
  /** What the key of the list of nodes begins with. */
  readonly prefix: string
  readonly clock: Clock
  readonly log: Logger
}

type Client = Redis & Scripts

function createClient(target: RedisTarget, timeoutMs: number): Redis | Cluster {
  const connection = {
    commandTimeout: timeoutMs,
    connectTimeout: CONNECT_MS,
    socketTimeout: SILENT_MS,
    // What was under way when the connection broke has been decided without Redis; counting it later would be wrong.
    autoResendUnfulfilledCommands: false
  }
  const common = {
    lazyConnect: true,
    enableOfflineQueue: false,
    scripts: {
      decideLimits: { lua: DECIDE },
      giveBack: { lua: GIVE_BACK },
      readUsage: { lua: USAGE },
      beat: { lua: BEAT, numberOfKeys: 1 }
    }
  }
  const retryStrategy = (times: number): number => Math.min(2 ** times * 25, MOST_BETWEEN_MS)
  const single = {
    ...connection,
    ...common,
    maxRetriesPerRequest: 1,
    retryStrategy,
    // After a failover the old primary refuses writes; the name leads to the new one.
    reconnectOnError: (error: Error) => error.message.startsWith('READONLY')
  }
  if (target.kind === 'single') return new Redis(target.url, single)
  const { nodes, username, password, tls } = target
  const access = { ...(username && { username }), ...(password && { password }), ...(tls && { tls: {} }) }
  if (target.kind === 'sentinel') {
    const { name, db, sentinelPassword } = target
    const sentinels = [...nodes]
    return new Redis({
      ...single,
      ...access,
      sentinels,
      name,
      db,
      ...(sentinelPassword && { sentinelPassword }),
      enableTLSForSentinelMode: tls,
      sentinelRetryStrategy: retryStrategy,
      // One that does not answer is no reason to wait when there is another.
      sentinelCommandTimeout: timeoutMs
    })
  }
  return new Cluster([...nodes], {
    ...common,
    redisOptions: { ...connection, ...access },
    clusterRetryStrategy: retryStrategy,
    slotsRefreshTimeout: CONNECT_MS,
    slotsRefreshInterval: REFRESH_MS,
    // A request does not wait for a failover: it is decided here meanwhile.
    maxRedirections: 3,
    retryDelayOnFailover: PROBE_MS / 5,
    retryDelayOnClusterDown: PROBE_MS / 5,
    // Certificates are for names, and so are addresses that cluster nodes know each other by.
    ...(tls && {
      dnsLookup: (address: string, callback: (error: null, address: string) => void) => callback(null, address)
    })
  })
}

/**
 * A connection to Redis, and whether it is of use. A command fails at once while there is none, and within the timeout
 * always; after the first that did, nobody waits for Redis until it has been seen alive again.
 */
export class RedisConnection {
  readonly client: Client
  /** Whether keys that go together have to say so. */
  readonly clustered: boolean
  /** Whether Redis answered when it was last asked. */
  reachable = false
  /** Gateways on this Redis, as far as is known. */
  nodes = 1
  clockSkewMs = 0
  readonly #options: RedisOptions
  readonly #node = randomBytes(8).toString('hex')
  #timer: NodeJS.Timeout | undefined
  #lostAt = 0
  #beating: Promise<void> | undefined
  #code = 'ECONNREFUSED'
  #complaint = { code: '', at: Number.NEGATIVE_INFINITY }
  #closed = false

  constructor(options: RedisOptions) {
    this.#options = options
    const target = parseRedisUrl(options.url)
    this.clustered = target.kind === 'cluster'
    this.client = createClient(target, options.timeoutMs) as unknown as Client
    this.client.on('error', error => this.#lost(error))
    this.client.on('close', () => this.#lost(new StoreUnreachable(this.reachable ? 'ECONNRESET' : this.#code)))
    this.client.on('ready', () => void this.#beat())
  }

  /** Connects, and waits for it as long as for a command; a Redis that is not there is looked for from then on. */
  async open(): Promise<void> {
    const { timeoutMs } = this.#options
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>(resolve => {
      timer = setTimeout(resolve, timeoutMs)
    })
    // Why it could not connect is told by the client's error event.
    const connected = this.client.connect().then(
      () => this.#beat(),
      () => {}
    )
    await Promise.race([connected, late])
    clearTimeout(timer)
    this.#again()
  }

  /**
   * What the keys of counters begin with. All limits of a request are decided in one step, so in a cluster they have to be in one
   * place: the part in braces decides which (Redis Cluster specification, hash tags).
   */
  tagged(prefix: string): string {
    return !this.clustered || /\{[^}]+\}/.test(prefix) ? prefix : `{${prefix || 'rl'}}`
  }

  /** Runs a command. @throws {StoreUnreachable} at once if Redis is not there, or after the timeout */
  async run<T>(command: (client: Client) => Promise<T>): Promise<T> {
    if (!this.reachable) throw new StoreUnreachable(this.#code)
    try {
      return await command(this.client)
    } catch (error) {
      throw this.failed(error)
    }
  }

  /** Takes note of a failed command. Redis may also have answered, but not with what was asked for: then it is still there. */
  failed(error: unknown): StoreUnreachable {
    const code = codeOf(error)
    if ((error as Error).name === 'ReplyError') {
      this.#complain(code)
      return new StoreUnreachable(code)
    }
    // A command that could not even be sent knows nothing that is not known already.
    if (this.reachable) this.#lost(error)
    return new StoreUnreachable(this.#code)
  }

  #lost(error: unknown): void {
    if (this.#closed) return
    this.#code = codeOf(error)
    if (!this.reachable) {
      this.#complain(this.#code)
      return
    }
    this.reachable = false
    this.#lostAt = this.#options.clock.monotonic()
    this.#complain(this.#code, 'redis is out of reach')
    this.#again()
  }

  /** Never the error itself: ioredis puts the command into it, and that may hold the password. */
  #complain(code: string, message = 'redis cannot be used'): void {
    const now = this.#options.clock.monotonic()
    if (this.#complaint.code === code && now - this.#complaint.at < AGAIN_MS) return
    this.#complaint = { code, at: now }
    this.#options.log.warn({ error: code }, message)
  }

  #again(): void {
    clearTimeout(this.#timer)
    if (this.#closed) return
    this.#timer = setTimeout(() => void this.#beat(), this.reachable ? BEAT_MS : PROBE_MS).unref()
  }

  #beat(): Promise<void> {
    this.#beating ??= this.#sayHere().finally(() => {
      this.#beating = undefined
      this.#again()
    })
    return this.#beating
  }

  /** Says that this node is there, and learns how many others are, and what time it is over there. */
  async #sayHere(): Promise<void> {
    const { clock, prefix, log } = this.#options
    const before = clock.now()
    const since = clock.monotonic()
    try {
      const [now, nodes] = await this.client.beat(`${this.tagged(prefix)}nodes`, this.#node, BELIEVED_MS)
      const tripMs = clock.monotonic() - since
      this.nodes = Math.max(1, nodes)
      this.clockSkewMs = before + tripMs / 2 - Number(now)
      if (!this.reachable && !this.#closed) {
        this.reachable = true
        if (this.#lostAt !== 0) log.info({ away_ms: Math.round(since - this.#lostAt) }, 'redis is back')
        this.#complaint = { code: '', at: Number.NEGATIVE_INFINITY }
      }
    } catch (error) {
      this.failed(error)
    }
  }

  /** How it is, for `/health/dependencies`. @throws {StoreUnreachable} */
  async check(): Promise<Record<string, unknown>> {
    await this.run(client => client.ping())
    return { gateways: this.nodes, clock_skew_ms: Math.round(this.clockSkewMs) }
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    if (this.reachable)
      await this.client.beat(`${this.tagged(this.#options.prefix)}nodes`, this.#node, 0).catch(() => {})
    this.reachable = false
    this.client.disconnect()
  }
}

/** A word for what went wrong that may be shown: no address, no password. */
function codeOf(error: unknown): string {
  if (error instanceof StoreUnreachable) return error.code
  const { code, message = '', name } = error as { code?: string; message?: string; name?: string }
  if (name === 'ReplyError') return message.split(' ', 1)[0] ?? 'ERR'
  if (code !== undefined) return code
  return message.includes('timed out') ? 'ETIMEDOUT' : 'ECONNRESET'
}
