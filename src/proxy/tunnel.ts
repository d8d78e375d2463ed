import type { ClientRequest, IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { refuse } from '../errors.ts'
import { http, https } from '../runtime/node.ts'
import type { Instance } from '../upstream/service.ts'
import type { Exchange, Upgrade } from './exchange.ts'
import type { ForwardContext } from './forward.ts'
import { closeFrame, FrameFollower } from './frames.ts'
import { RESPONSE, responseRule } from './headers.ts'
import type { Route } from './route.ts'

/** Close codes of the gateway's own (RFC 6455 section 7.4). */
export const CLOSE = { GOING_AWAY: 1001, UNAUTHORIZED: 4401 } as const

/** How long the two ends may take to answer a close frame, in milliseconds. */
const CLOSING_MS = 1000
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

class Handshake {
  readonly #exchange: Exchange
  readonly #upgrade: Upgrade
  readonly #route: Route
  readonly #context: ForwardContext
  #instance: Instance | undefined
  #request: ClientRequest | undefined
  #timer: NodeJS.Timeout | undefined
  #startedAt = 0
  #over = false

  constructor(exchange: Exchange, upgrade: Upgrade, route: Route, context: ForwardContext) {
    this.#exchange = exchange
    this.#upgrade = upgrade
    this.#route = route
    this.#context = context
    exchange.onGone = this
  }

  start(): void {
    this.#timer = setTimeout(
      () => this.#fail('timeout', new Error('no answer to the handshake')),
      this.#route.timeoutMs
    )
    this.#try()
  }

  #try(): void {
    const instance = this.#route.service.pick(this.#instance)
    if (instance === undefined)
      return this.#give(refuse('service_unavailable', { reason: 'no_target', headers: ['retry-after', '1'] }))
    this.#instance = instance
    const { exchange } = { exchange: this.#exchange }
    exchange.instance = instance.id
    exchange.attempts++
    this.#startedAt = this.#context.clock.monotonic()
    const path = this.#route.rewrite === undefined ? exchange.path : this.#route.rewrite(exchange)
    const secure = instance.url.protocol === 'https:'
    const request = (secure ? https() : http).request({
      ...this.#route.service.config.tls,
      host: instance.url.hostname.replace(/^\[|\]$/g, ''),
      port: instance.url.port || (secure ? 443 : 80),
      method: 'GET',
      path: instance.basePath + path + exchange.search,
      headers: ['host', instance.url.host, 'connection', 'Upgrade', 'upgrade', 'websocket', ...exchange.upstreamFields],
      agent: false
    })
    this.#request = request
    const connecting = setTimeout(
      () => request.destroy(new Error('connection timeout')),
      this.#route.service.config.pool.connectTimeoutMs
    )
    let connected = false
    request.on('socket', socket => {
      socket.once(secure ? 'secureConnect' : 'connect', () => {
        connected = true
        clearTimeout(connecting)
        socket.setNoDelay(true)
      })
    })
    request.on('upgrade', (response, socket, head) => this.#accepted(response, socket as Socket, head))
    request.on('response', response => this.#refused(response))
    request.on('error', error => {
      clearTimeout(connecting)
      if (this.#over || request !== this.#request) return
      if (connected) return this.#fail('reset', error)
      this.#route.service.unreachable(instance)
      this.#context.failed?.(this.#route, 'connect')
      if (this.#route.service.hasOther(instance)) return this.#try()
      this.#fail('connect', error)
    })
    request.end()
  }

  #accepted(response: IncomingMessage, upstream: Socket, head: Buffer): void {
    if (this.#over) {
      upstream.destroy()
      return
    }
    this.#end()
    const exchange = this.#exchange
    const { socket: client, head: early } = this.#upgrade
    exchange.upstreamMs = this.#context.clock.monotonic() - this.#startedAt
    exchange.reply?.hijack()
    exchange.response.statusCode = 101
    exchange.tunnelled = true
    const fields = [...this.#fields(response), ...exchange.blocks.flatMap(block => block.fields), ...exchange.fields]
    let text = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n'
    for (let i = 0; i < fields.length; i += 2) text += `${fields[i]}: ${fields[i + 1]}\r\n`
    client.write(`${text}\r\n`, 'latin1')
    const joined = new Tunnel(client, upstream, exchange, this.#context)
    exchange.onGone = joined
    joined.start(early, head)
  }

  /** The service's own answer, passed on as it is; no tunnel opens (H-113). */
  #refused(response: IncomingMessage): void {
    if (this.#over) return
    this.#end()
    const exchange = this.#exchange
    exchange.upstreamMs = this.#context.clock.monotonic() - this.#startedAt
    exchange.reply?.hijack()
    const fields = this.#fields(response)
    for (const block of exchange.blocks) block.appendTo(fields, 0)
    exchange.response.shouldKeepAlive = false
    exchange.response.writeHead(response.statusCode as number, [...fields, ...exchange.fields])
    response.on('error', () => exchange.response.destroy())
    response.on('data', (chunk: Buffer) => {
      exchange.bytesOut += chunk.length
    })
    response.pipe(exchange.response)
  }

  #fields({ rawHeaders }: IncomingMessage): string[] {
    const fields: string[] = []
    for (let i = 0; i < rawHeaders.length; i += 2) {
      const rule = responseRule(rawHeaders[i] as string)
      if (rule !== RESPONSE.DROP && rule !== RESPONSE.CONNECTION)
        fields.push(rawHeaders[i] as string, rawHeaders[i + 1] as string)
    }
    return fields
  }

  #fail(stage: 'connect' | 'reset' | 'timeout', error: Error): void {
    this.#context.failed?.(this.#route, stage)
    const reason = `${stage}: ${error.message}`
    this.#give(
      stage === 'timeout'
        ? refuse('gateway_timeout', { reason })
        : refuse('bad_gateway', {
            reason,
            proxyStatus: stage === 'connect' ? 'connection_refused' : 'connection_terminated'
          })
    )
  }

  #give(error: Error): void {
    if (this.#over) return
    const request = this.#request
    this.#end()
    request?.destroy()
    this.#exchange.reply?.send(error)
  }

  #end(): void {
    this.#over = true
    clearTimeout(this.#timer)
  }

  gone(): void {
    if (this.#over) return
    this.#end()
    this.#request?.destroy()
  }
}

/** Two sockets joined as bytes, with back-pressure: a slow end slows the other down instead of filling our memory. */
export class Tunnel {
  readonly #client: Socket
  readonly #upstream: Socket
  readonly #exchange: Exchange
  readonly #context: ForwardContext
  readonly #down = new FrameFollower()
  readonly #up = new FrameFollower()
  #closing: { code: number; reason: string } | undefined
  #timer: NodeJS.Timeout | undefined
  #expiry: NodeJS.Timeout | undefined
  #over = false

  constructor(client: Socket, upstream: Socket, exchange: Exchange, context: ForwardContext) {
    this.#client = client
    this.#upstream = upstream
    this.#exchange = exchange
    this.#context = context
  }

  /** @param early bytes that came with the request, @param head bytes that came with its answer. */
  start(early: Buffer, head: Buffer): void {
    const { metrics, tunnels, websocketIdleMs } = this.#context
    metrics.websockets++
    tunnels.add(this)
    for (const socket of [this.#client, this.#upstream]) {
      socket.setNoDelay(true)
      socket.setTimeout(websocketIdleMs, () => this.close(CLOSE.GOING_AWAY, 'idle'))
      socket.on('error', () => this.#destroy())
      socket.on('close', () => this.#destroy())
    }
    this.#pass(this.#upstream, this.#client, this.#down, false, head)
    this.#pass(this.#client, this.#upstream, this.#up, true, early)
    const { consumer } = this.#exchange
    if (consumer !== undefined) {
      const left = consumer.expiresAt - this.#context.clock.now()
      if (left < LONGEST_TIMER)
        this.#expiry = setTimeout(() => this.close(CLOSE.UNAUTHORIZED, 'token expired'), Math.max(0, left))
    }
  }

  #pass(from: Socket, to: Socket, frames: FrameFollower, upwards: boolean, first: Buffer): void {
    const onData = (chunk: Buffer): void => {
      if (upwards) this.#exchange.bytesIn += chunk.length
      else this.#exchange.bytesOut += chunk.length
      const whole = frames.push(chunk)
      if (this.#closing === undefined) {
        if (!to.write(chunk)) from.pause()
      } else if (whole > 0) {
        to.write(chunk.subarray(0, whole))
        this.#sendClose(to, upwards)
        from.off('data', onData).resume()
      } else to.write(chunk)
    }
    if (first.length > 0) onData(first)
    from.on('data', onData)
    to.on('drain', () => from.resume())
    from.on('end', () => to.end())
  }

  /**
   * Closes the WebSocket with a code, at both ends, between two frames; an end that does not answer in a second is cut.
   */
  close(code: number, reason: string): void {
    if (this.#over || this.#closing !== undefined) return
    this.#closing = { code, reason }
    this.#exchange.reason = reason
    if (this.#down.atBoundary) this.#sendClose(this.#client, false)
    if (this.#up.atBoundary) this.#sendClose(this.#upstream, true)
    this.#timer = setTimeout(() => this.#destroy(), CLOSING_MS)
  }

  #sendClose(to: Socket, masked: boolean): void {
    if (this.#closing === undefined || to.writableEnded) return
    to.end(closeFrame(this.#closing.code, this.#closing.reason, masked))
  }

  gone(): void {
    this.#destroy()
  }

  #destroy(): void {
    if (this.#over) return
    this.#over = true
    clearTimeout(this.#timer)
    clearTimeout(this.#expiry)
    this.#context.metrics.websockets--
    this.#context.tunnels.delete(this)
    this.#client.destroySoon()
    this.#upstream.destroySoon()
  }
}
