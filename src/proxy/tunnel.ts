import type { ClientRequest, IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { refuse } from '../errors.ts'
import { type Guest, Place } from '../overload/bulkhead.ts'
import { overloaded, serviceBusy } from '../overload/refusal.ts'
import { http, https } from '../runtime/node.ts'
import { Call } from '../upstream/call.ts'
import { Deadline } from '../upstream/deadline.ts'
import type { Instance } from '../upstream/instance.ts'
import { isShortage } from '../upstream/shortage.ts'
import type { Target } from '../upstream/target.ts'
import { answerFields } from './answer.ts'
import type { Exchange, Upgrade } from './exchange.ts'
import type { ForwardContext } from './forward.ts'
import { closeFrame, FrameFollower } from './frames.ts'
import type { Route } from './route.ts'
import { refusalOf, type Stage } from './stage.ts'

/** Close codes of the gateway's own (RFC 6455 section 7.4). */
export const CLOSE = { GOING_AWAY: 1001, UNAUTHORIZED: 4401 } as const

/** How long the two ends may take to answer a close frame, in milliseconds. */
const CLOSING_MS = 1000
/** How much of what a client sends before the handshake is done is read, in bytes; the rest waits where it is. */
const EARLY_BYTES = 65536
/** How often the token of a WebSocket is looked up among those that have been taken back, in milliseconds. */
const REVOCATION_MS = 10_000
/** How long one end may go on after the other has ended, in milliseconds. */
const HALF_OPEN_MS = 10_000
/** How long an end may take to read what was sent before the tunnel ended, in milliseconds. */
const FLUSHING_MS = 5000
/** The longest a timer can be set for. */
const LONGEST_TIMER = 2 ** 31 - 1

/**
 * Passes a WebSocket through: the handshake to an instance, its answer back, and from then on bytes (RFC 6455 section 4).
 * Every policy has run by now; frames are the two ends' own business.
 */
export function tunnel(exchange: Exchange, upgrade: Upgrade, route: Route, context: ForwardContext): void {
  if (exchange.hasPassed(context.pseudonym)) {
    exchange.reply?.send(refuse('loop_detected'))
    return
  }
  exchange.appendCredentials(exchange.upstreamFields, route.forwardCredentials)
  exchange.appendForwarding(exchange.upstreamFields, context.pseudonym)
  new Handshake(exchange, upgrade, route, context).start()
}

class Handshake implements Guest {
  readonly #exchange: Exchange
  readonly #upgrade: Upgrade
  readonly #route: Route
  readonly #context: ForwardContext
  readonly #target: Target
  #call: Call | undefined
  #request: ClientRequest | undefined
  #timer: NodeJS.Timeout | undefined
  /** Among the requests that the service has at once; a WebSocket that is open is none any more. */
  #place: Place | undefined
  /** What the client sends before it knows whether there is anybody to read it. */
  readonly #early: Buffer[] = []
  #earlyBytes = 0
  #over = false

  constructor(exchange: Exchange, upgrade: Upgrade, route: Route, context: ForwardContext) {
    this.#exchange = exchange
    this.#upgrade = upgrade
    this.#route = route
    this.#context = context
    this.#target = route.choose?.(exchange) ?? route.target
    exchange.target = this.#target
    exchange.onGone = this
  }

  start(): void {
    // A socket that nobody reads does not tell either that its client has gone.
    this.#upgrade.socket.on('data', this.#onEarly).on('end', this.#onLeft)
    this.#onEarly(this.#upgrade.head)
    const { timeoutMs } = this.#route
    if (timeoutMs > 0) this.#timer = setTimeout(() => this.#late(), timeoutMs)
    const { bulkhead } = this.#target.service
    if (bulkhead === undefined) return this.#try()
    this.#place = new Place(bulkhead, this, this.#exchange.priority)
    this.#place.enter()
  }

  admitted(): void {
    this.#try()
  }

  turnedAway(reason: string): void {
    this.#give(serviceBusy(reason, this.#context.random))
  }

  #late(): void {
    if (this.#place?.state === 'waiting') return this.#place.expired()
    this.#failedAt('timeout')
    this.#give(refusalOf('timeout', new Error('no answer to the handshake')))
  }

  /** The try has come to grief, which its service's health and metrics want to know. */
  #failedAt(stage: Stage): void {
    this.#call?.judge(false)
    this.#call?.failedAt(stage)
  }

  #onEarly = (chunk: Buffer): void => {
    this.#early.push(chunk)
    this.#earlyBytes += chunk.length
    if (this.#earlyBytes > EARLY_BYTES) this.#upgrade.socket.pause()
  }

  #onLeft = (): void => {
    this.#upgrade.socket.destroy()
  }

  #try(): void {
    const exchange = this.#exchange
    const call = new Call(exchange, this.#target, this.#context.clock)
    const refusal = call.admit(this.#call?.instance)
    if (refusal !== undefined) return this.#give(refusal)
    this.#call?.end()
    this.#call = call
    const { instance } = call
    exchange.instance = instance.id
    exchange.attempts++
    const path = this.#route.rewrite === undefined ? exchange.path : this.#route.rewrite(exchange)
    const secure = instance.url.protocol === 'https:'
    const request = (secure ? https() : http).request({
      ...this.#target.service.config.tls,
      host: instance.url.hostname.replace(/^\[|\]$/g, ''),
      ...(instance.lookup && { lookup: instance.lookup }),
      port: instance.url.port || (secure ? 443 : 80),
      method: 'GET',
      path: instance.basePath + path + exchange.search,
      maxHeaderSize: this.#target.service.config.pool.maxHeaderBytes,
      headers: ['host', instance.url.host, 'connection', 'Upgrade', 'upgrade', 'websocket', ...exchange.upstreamFields],
      agent: false
    })
    this.#request = request
    let stage: Stage = 'connect'
    const { connectTimeoutMs } = this.#target.service.config.pool
    const connecting =
      connectTimeoutMs > 0
        ? setTimeout(() => {
            stage = 'connect_timeout'
            request.destroy(new Error(`no connection within ${connectTimeoutMs} ms`))
          }, connectTimeoutMs)
        : undefined
    request.on('socket', socket => {
      socket.once(secure ? 'secureConnect' : 'connect', () => {
        stage = 'reset'
        clearTimeout(connecting)
        socket.setNoDelay(true)
      })
    })
    request.on('upgrade', (response, socket, head) => this.#accepted(call, response, socket as Socket, head))
    request.on('response', response => this.#refused(call, response))
    request.on('error', (error: Error & { code?: string }) => {
      clearTimeout(connecting)
      if (this.#over || request !== this.#request) return
      if (isShortage(error)) return this.#give(overloaded(error.code as string, this.#context.random))
      const failed = error.code?.startsWith('HPE_') ? 'protocol' : stage
      this.#failedAt(failed)
      if (stage !== 'reset' && this.#target.service.hasOther(instance)) return this.#try()
      this.#give(refusalOf(failed, error))
    })
    request.end()
  }

  #accepted(call: Call, response: IncomingMessage, upstream: Socket, head: Buffer): void {
    upstream.on('error', () => upstream.destroy())
    if (this.#over) {
      upstream.destroy()
      return
    }
    // Whatever it is that this service wants to speak, nobody has asked for it.
    if (response.headers.upgrade?.toLowerCase() !== 'websocket') {
      upstream.destroy()
      this.#failedAt('protocol')
      return this.#give(refusalOf('protocol', new Error('101 to another protocol')))
    }
    this.#end()
    const exchange = this.#exchange
    const { socket: client } = this.#upgrade
    client.off('data', this.#onEarly).off('end', this.#onLeft)
    exchange.upstreamMs = call.answered(101)
    call.judge(true)
    exchange.reply?.hijack()
    exchange.response.statusCode = 101
    exchange.tunnelled = true
    const fields = answerFields(exchange, 101, rawFields(response))
    let text = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n'
    for (let i = 0; i < fields.length; i += 2) text += `${fields[i]}: ${fields[i + 1]}\r\n`
    client.write(`${text}\r\n`, 'latin1')
    const joined = new Tunnel(client, upstream, exchange, call.instance, this.#context)
    exchange.onGone = joined
    joined.start(Buffer.concat(this.#early), head)
  }

  /** The service's own answer, passed on as it is; no tunnel opens (H-113). */
  #refused(call: Call, response: IncomingMessage): void {
    if (this.#over) return
    this.#end()
    const exchange = this.#exchange
    const status = response.statusCode as number
    exchange.upstreamMs = call.answered(status)
    call.judge(true)
    exchange.reply?.hijack()
    exchange.response.shouldKeepAlive = false
    exchange.response.writeHead(status, answerFields(exchange, status, rawFields(response)))
    exchange.onGone = { gone: () => response.destroy() }
    const { idleTimeoutMs } = this.#target.service.config.pool
    if (idleTimeoutMs > 0) response.setTimeout(idleTimeoutMs, () => response.destroy(new Error('it says no more')))
    response.on('error', error => {
      exchange.reason = `reset: ${error.message}`
      exchange.response.destroy()
    })
    response.on('data', (chunk: Buffer) => {
      exchange.bytesOut += chunk.length
    })
    response.pipe(exchange.response)
  }

  #give(error: Error): void {
    if (this.#over) return
    const request = this.#request
    this.#call?.judge(undefined)
    this.#end()
    request?.destroy()
    this.#exchange.reply?.send(error)
  }

  #end(): void {
    this.#over = true
    this.#call?.end()
    clearTimeout(this.#timer)
    this.#place?.leave()
  }

  gone(): void {
    if (this.#over) return
    this.#call?.judge(undefined)
    this.#end()
    this.#request?.destroy()
  }
}

/** The fields of an answer as undici would have them, in bytes. */
function rawFields({ rawHeaders }: IncomingMessage): Buffer[] {
  return rawHeaders.map(text => Buffer.from(text, 'latin1'))
}

/** Two sockets joined as bytes, with back-pressure: a slow end slows the other down instead of filling our memory. */
export class Tunnel {
  readonly #client: Socket
  readonly #upstream: Socket
  /** The request that asked for it. */
  readonly exchange: Exchange
  readonly #instance: Instance
  readonly #context: ForwardContext
  readonly #down: Direction
  readonly #up: Direction
  #closing = false
  #timer: NodeJS.Timeout | undefined
  #expiry: NodeJS.Timeout | undefined
  readonly #lookUp = new Deadline(this)
  #over = false

  constructor(client: Socket, upstream: Socket, exchange: Exchange, instance: Instance, context: ForwardContext) {
    this.#client = client
    this.#upstream = upstream
    this.exchange = exchange
    this.#instance = instance
    this.#context = context
    this.#down = new Direction(upstream, client)
    this.#up = new Direction(client, upstream)
  }

  /** @param early bytes that came behind the request, @param head bytes that came with its answer. */
  start(early: Buffer, head: Buffer): void {
    const { metrics, tunnels, websocketIdleMs } = this.#context
    metrics.websockets++
    this.#instance.active++
    tunnels.add(this)
    for (const socket of [this.#client, this.#upstream]) {
      socket.setNoDelay(true)
      socket.setTimeout(websocketIdleMs, () => this.close(CLOSE.GOING_AWAY, 'idle'))
      socket.on('error', () => this.#destroy())
      socket.on('close', () => this.#destroy())
      socket.on('end', () => {
        this.#timer ??= setTimeout(() => this.#destroy(), HALF_OPEN_MS)
      })
    }
    this.#down.start(head)
    this.#up.start(early)
    const { consumer } = this.exchange
    if (consumer !== undefined) {
      const left = consumer.expiresAt - this.#context.clock.now()
      if (left < LONGEST_TIMER)
        this.#expiry = setTimeout(() => this.close(CLOSE.UNAUTHORIZED, 'token expired'), Math.max(0, left))
      this.reconsider()
      if (consumer.revocationKey !== undefined) this.#context.deadlines.set(this.#lookUp, REVOCATION_MS)
    }
  }

  /**
   * Closes the WebSocket with a code, at both ends, between two frames; an end that does not answer in a second is cut.
   */
  close(code: number, reason: string): void {
    if (this.#over || this.#closing) return
    this.#closing = true
    this.exchange.reason = reason
    this.#down.endWith(closeFrame(code, reason, false))
    this.#up.endWith(closeFrame(code, reason, true))
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#destroy(), CLOSING_MS)
  }

  /** Closes it if what its caller's token stands on has ended; asked whenever something has. */
  reconsider(): void {
    const { consumer } = this.exchange
    if (consumer !== undefined && this.#context.isOver(consumer)) this.close(CLOSE.UNAUTHORIZED, 'session over')
  }

  /** A token that is taken back while its WebSocket is open ends that, too (IDN-15). */
  async expired(): Promise<void> {
    const key = this.exchange.consumer?.revocationKey as string
    if (await this.#context.revocations.isRevoked(key)) this.close(CLOSE.UNAUTHORIZED, 'token revoked')
    else if (!this.#over) this.#context.deadlines.set(this.#lookUp, REVOCATION_MS)
  }

  gone(): void {
    this.#destroy()
  }

  #destroy(): void {
    if (this.#over) return
    this.#over = true
    this.#lookUp.cancel()
    clearTimeout(this.#timer)
    clearTimeout(this.#expiry)
    this.exchange.bytesIn = this.#up.bytes
    this.exchange.bytesOut = this.#down.bytes
    this.#context.metrics.websockets--
    this.#instance.active--
    this.#context.tunnels.delete(this)
    for (const socket of [this.#client, this.#upstream]) {
      // What has been sent may still arrive, if somebody takes it in time.
      socket.destroySoon()
      if (!socket.destroyed) setTimeout(() => socket.destroy(), FLUSHING_MS).unref()
    }
  }
}

/** What goes from one end of a tunnel to the other. */
class Direction {
  readonly #from: Socket
  readonly #to: Socket
  readonly #frames = new FrameFollower()
  #lastWords: Buffer | undefined
  bytes = 0

  constructor(from: Socket, to: Socket) {
    this.#from = from
    this.#to = to
  }

  /** @param first what has come already */
  start(first: Buffer): void {
    this.#from.on('data', this.#pass)
    this.#from.on('end', () => this.#to.end())
    this.#to.on('drain', () => this.#from.resume())
    this.#from.resume()
    if (first.length > 0) this.#pass(first)
  }

  /** Ends it with a frame of our own, once the one under way is complete; nothing follows. */
  endWith(frame: Buffer): void {
    this.#lastWords = frame
    if (this.#frames.atBoundary) this.#end()
  }

  #pass = (chunk: Buffer): void => {
    this.bytes += chunk.length
    const whole = this.#frames.push(chunk)
    const last = this.#lastWords !== undefined && whole > 0
    if (!this.#to.write(last ? chunk.subarray(0, whole) : chunk)) this.#from.pause()
    if (last) this.#end()
  }

  #end(): void {
    this.#from.off('data', this.#pass).resume()
    if (!this.#to.writableEnded) this.#to.end(this.#lastWords as Buffer)
  }
}
