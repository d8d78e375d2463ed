import type { LookupFunction, Socket } from 'node:net'
import type { ConnectionOptions } from 'node:tls'
import { buildConnector, Client, errors } from 'undici'
import type { Clock } from '../runtime/clock.ts'

export interface PoolOptions {
  /** Most connections at once; further requests wait for one. */
  readonly connections: number
  /** To open a connection, in milliseconds; 0 for no limit. */
  readonly connectTimeoutMs: number
  /** How long an unused connection is kept, in milliseconds. */
  readonly keepAliveMs: number
  /** Longest silence between two pieces of an answer's body, in milliseconds; 0 for no end. */
  readonly idleTimeoutMs: number
  /** Largest response head, in bytes. */
  readonly maxHeaderBytes: number
  readonly tls?: ConnectionOptions | undefined
  /** What names stand for; the system says if not given. */
  readonly lookup?: LookupFunction | undefined
}

/** One who waits for a connection and then holds it until {@link Pool.release}. */
export interface PoolUser {
  connected(connection: Connection): void
}

/** An undici client with one request at a time; it opens its socket again by itself. */
export interface Connection {
  readonly client: Client
  /** Requests that its present socket has carried. */
  uses: number
  /** Its present socket has failed; an answer that ends with its connection has not ended, then. */
  broken: boolean
  idleSince: number
}

/**
 * Connections to one instance. The one used last is used next, so that a quiet pool shrinks, and finding one costs nothing.
 * (undici's own pool looks through its clients from the first on, at every request.)
 */
export class Pool {
  readonly origin: string
  readonly #options: PoolOptions
  readonly #clock: Clock
  readonly #connect: buildConnector.connector
  readonly #idle: Connection[] = []
  readonly #waiting = new Set<PoolUser>()
  #open = 0
  #closed = false
  #sweep: NodeJS.Timeout | undefined

  /** @param origin `http://orders-1:8080`: scheme, host and port only. */
  constructor(origin: string, options: PoolOptions, clock: Clock) {
    this.origin = origin
    this.#options = options
    this.#clock = clock
    this.#connect = connector(options)
  }

  /**
   * Hands `user` a connection, at once or when one is free.
   * @param afresh one that nobody has used before, for those who have just found a used one stale.
   */
  acquire(user: PoolUser, afresh = false): void {
    let connection = this.#idle.pop()
    if (afresh && connection !== undefined) {
      this.#drop(connection)
      connection = undefined
    }
    if (connection !== undefined) user.connected(connection)
    else if (this.#open < this.#options.connections) user.connected(this.#create())
    else this.#waiting.add(user)
  }

  /** Takes back what `acquire` gave, once its answer is complete. */
  release(connection: Connection): void {
    const [next] = this.#waiting
    if (next !== undefined) {
      this.#waiting.delete(next)
      next.connected(connection)
      return
    }
    if (this.#closed) {
      this.#drop(connection)
      return
    }
    connection.idleSince = this.#clock.monotonic()
    this.#idle.push(connection)
    this.#sweep ??= setInterval(() => this.#dropUnused(), this.#options.keepAliveMs).unref()
  }

  /** Takes back what `acquire` gave, when it is no good any more or has not come about: its socket is closed. */
  discard(connection: Connection): void {
    this.#open--
    connection.client.destroy(() => {})
    const [next] = this.#waiting
    if (next !== undefined) {
      this.#waiting.delete(next)
      next.connected(this.#create())
    }
  }

  /** Gives up waiting. */
  forget(user: PoolUser): void {
    this.#waiting.delete(user)
  }

  /** Closes what is idle now and what is in use when it comes back. */
  close(): void {
    this.#closed = true
    clearInterval(this.#sweep)
    for (const connection of this.#idle.splice(0)) this.#drop(connection)
  }

  #create(): Connection {
    const { keepAliveMs, idleTimeoutMs, maxHeaderBytes } = this.#options
    const client = new Client(this.origin, {
      pipelining: 1,
      connect: (options, callback) =>
        this.#connect(options, (...result) => {
          const [, socket] = result
          connection.broken = false
          // Before undici hears of it, which takes a reset for the end of an answer without a length.
          socket?.on('error', () => {
            connection.broken = true
          })
          callback(...result)
        }),
      keepAliveTimeout: keepAliveMs,
      // How long to wait for a head is the request's deadline, which undici's coarse timer would only blur.
      headersTimeout: 0,
      bodyTimeout: idleTimeoutMs,
      maxHeaderSize: maxHeaderBytes
    })
    const connection = { client, uses: 0, broken: false, idleSince: 0 }
    client.on('disconnect', () => {
      connection.uses = 0
    })
    this.#open++
    return connection
  }

  #dropUnused(): void {
    const before = this.#clock.monotonic() - this.#options.keepAliveMs
    let unused = 0
    while (unused < this.#idle.length && (this.#idle[unused] as Connection).idleSince < before) unused++
    for (const connection of this.#idle.splice(0, unused)) this.#drop(connection)
    if (this.#open === 0) {
      clearInterval(this.#sweep)
      this.#sweep = undefined
    }
  }

  #drop(connection: Connection): void {
    this.#open--
    connection.client.close(() => {})
  }
}

/** Opens connections as these options ask for. */
export function connector({
  tls,
  lookup,
  connectTimeoutMs
}: Pick<PoolOptions, 'tls' | 'lookup' | 'connectTimeoutMs'>): buildConnector.connector {
  const connect = buildConnector({ ...tls, ...(lookup && { lookup }), timeout: 0 } as buildConnector.BuildOptions)
  return connectTimeoutMs === 0 ? connect : connectWithin(connectTimeoutMs, connect)
}

/** undici's connector with a timeout that keeps its time; undici's own may come a second late. */
function connectWithin(ms: number, connect: buildConnector.connector): buildConnector.connector {
  return (options, callback) => {
    const timer = setTimeout(() => socket.destroy(new errors.ConnectTimeoutError(`no connection within ${ms} ms`)), ms)
    const socket = connect(options, (...result) => {
      clearTimeout(timer)
      callback(...result)
    }) as unknown as Socket
    return socket as unknown as undefined
  }
}
