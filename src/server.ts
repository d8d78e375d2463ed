import { readFileSync } from 'node:fs'
import type { IncomingMessage, Server, ServerOptions, ServerResponse } from 'node:http'
import type { Http2SecureServer, ServerHttp2Session } from 'node:http2'
import type { Server as SecureServer, ServerOptions as SecureServerOptions } from 'node:https'
import net, { type AddressInfo, type Socket } from 'node:net'
import { type Duplex, duplexPair } from 'node:stream'
import { setTimeout } from 'node:timers/promises'
import type { SecureContextOptions, TLSSocket } from 'node:tls'
import type { Generation } from './app.ts'
import { expiryOf } from './config/certificate.ts'
import { isUnchanged } from './config/diff.ts'
import type { ServerSettings } from './config/schema.ts'
import { type GatewayError, refuse } from './errors.ts'
import { network } from './limits/plan.ts'
import { abuseOf } from './limits/settings.ts'
import { answerTo, type ClientError, refusalOf } from './malformed.ts'
import { attach, Exchange, exchangeOf, type Upgrade } from './proxy/exchange.ts'
import { lingerAtEnd } from './proxy/linger.ts'
import { addressSet, Peer, plainAddress, type TrustedProxies } from './proxy/peer.ts'
import { type Door, Turns } from './proxy/turns.ts'
import { http, http2, https } from './runtime/node.ts'
import type { Runtime } from './runtime/runtime.ts'
import { within } from './runtime/within.ts'
import { UNKNOWN } from './telemetry/metrics.ts'
import { Deadline } from './upstream/deadline.ts'

/** How often connections are looked at for one that is too slow, in milliseconds. */
const CHECK_MS = 1000
/** How long what was asked to go may take before it is cut, in milliseconds. */
const LAST_WORDS_MS = 1500
/** Generations that may wait for their requests without a limit; the oldest has to give way to more. */
const MOST_PATIENT = 16
/** Requests that one HTTP/2 connection may have under way. */
const HTTP2_STREAMS = 128

/** `:method`, `:path` and the like come on top of the fields of an HTTP/2 request. */
const PSEUDO_FIELDS = 4

type AnyServer = Server | SecureServer | Http2SecureServer

/**
 * The socket, and the door behind it: limits, TLS, the request target made canonical, then on to the current generation.
 * Lives as long as the process, while generations come and go behind it.
 */
export class GatewayServer {
  readonly #settings: ServerSettings
  readonly #runtime: Runtime
  readonly #proxies: TrustedProxies
  readonly #servers: AnyServer[] = []
  readonly #inner = new Map<boolean | undefined, Server>()
  readonly #sessions = new Set<ServerHttp2Session>()
  readonly #perAddress = new Map<string, number>()
  readonly #door: Door = {
    begin: exchange => this.#begin(exchange),
    turnAway: (socket, refusal) => this.#turnAway(socket, refusal)
  }
  #current: Generation | undefined
  readonly #retiring = new Set<Generation>()
  /** Generations that wait for their requests without a limit, the oldest first, and what ends that. */
  readonly #patient = new Map<Generation, () => void>()
  #withdrawn = false
  /** Connections are closed after the answer under way. */
  #draining = false

  constructor(settings: ServerSettings, runtime: Runtime) {
    this.#settings = settings
    this.#runtime = runtime
    this.#proxies = addressSet(settings.trusted_proxies)
  }

  get current(): Generation {
    return this.#current as Generation
  }

  /** Whether requests should be sent here; some may come for a while after that. */
  get accepting(): boolean {
    return this.#servers.length > 0 && !this.#withdrawn
  }

  /** Requests and WebSockets under way, on all generations. */
  get inFlight(): number {
    return [...this.#retiring].reduce((sum, generation) => sum + generation.inFlight, this.#current?.inFlight ?? 0)
  }

  /**
   * Opens a port.
   * @param atAdminDoor whether it is the administration's own; undefined while that has none
   * @throws when it cannot be opened
   */
  async listen(host: string, port: number, atAdminDoor?: boolean): Promise<AddressInfo> {
    const server = this.#createServer(atAdminDoor)
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen({ host, port }, () => {
        server.off('error', reject)
        resolve()
      })
    })
    this.#servers.push(server)
    return server.address() as AddressInfo
  }

  /**
   * Puts a generation in charge. The one before it keeps its requests until they end, or the drain time does.
   * @param routes only these have changed: what goes by others may take as long as it likes
   */
  swap(next: Generation, { routes: onlyRoutes = false } = {}): void {
    const old = this.#current
    this.#current = next
    next.takeOver()
    const { metrics, recorder, overload, suspects, ipBlocks, clock } = this.#runtime
    metrics.dataDir = next.snapshot.storage.data_dir
    metrics.generation = { version: next.snapshot.version, since: clock.now() }
    recorder?.configure(next.snapshot.recording)
    overload.configure(next.snapshot.overload)
    const abuse = abuseOf(next.snapshot.rateLimits)
    suspects.configure(abuse)
    ipBlocks.configure(abuse && [...this.#settings.trusted_proxies, ...abuse.neverBlock])
    if (old !== undefined) void this.#retire(old, this.#settings.timeouts.drain, onlyRoutes)
    if (onlyRoutes) for (const generation of this.#patient.keys()) void this.#endWhatIsOver(generation)
    else for (const hurry of this.#patient.values()) hurry()
  }

  async #retire(generation: Generation, drainMs: number, onlyRoutes: boolean): Promise<void> {
    this.#retiring.add(generation)
    if (onlyRoutes) await this.#wait(generation)
    if (!(await within(drainMs, generation.idle))) {
      generation.closeTunnels('the gateway’s configuration has changed')
      if (!(await within(LAST_WORDS_MS, generation.idle))) generation.abort('drain time over')
      await within(LAST_WORDS_MS, generation.idle)
    }
    await generation.close()
    this.#retiring.delete(generation)
  }

  /**
   * Services may come and go by the minute, and are no reason to close everybody's WebSockets: only what goes by routes that
   * are gone ends with the drain time. Until somebody is in a hurry, or too many generations wait.
   */
  async #wait(generation: Generation): Promise<void> {
    const [oldest] = this.#patient.values()
    if (this.#patient.size >= MOST_PATIENT) oldest?.()
    await new Promise<void>(hurry => {
      this.#patient.set(generation, hurry)
      void generation.idle.then(hurry)
    })
    this.#patient.delete(generation)
  }

  async #endWhatIsOver(generation: Generation): Promise<void> {
    const why = 'the service is gone, or another one'
    if (await within(this.#settings.timeouts.drain, generation.idle)) return
    const now = this.current.snapshot
    const known = new Map<string, boolean>()
    const isOver = ({ route }: Exchange): boolean => {
      if (route === undefined) return false
      const over = known.get(route.id) ?? !isUnchanged(route.id, generation.snapshot, now)
      known.set(route.id, over)
      return over
    }
    generation.closeTunnels(why, isOver)
    if (!(await within(LAST_WORDS_MS, generation.idle))) generation.abort(why, isOver)
  }

  /** From now on readiness fails. Resolves when those who look at it have had their time (`shutdown_delay`) to see that. */
  async withdraw(): Promise<void> {
    const { shutdown_delay: delayMs } = this.#settings.timeouts
    const listening = this.accepting
    this.#withdrawn = true
    if (listening && delayMs > 0) await setTimeout(delayMs)
  }

  /**
   * Stops listening, lets what is under way end, and closes everything. Connections that are kept open learn with their
   * answer, or with a GOAWAY, that this was the last one.
   * @param graceMs for requests under way
   */
  async close(graceMs: number): Promise<void> {
    this.#withdrawn = true
    this.#draining = true
    const generations = [...this.#retiring, ...(this.#current === undefined ? [] : [this.#current])]
    const closed = this.#servers.map(stopListening)
    for (const session of this.#sessions) session.close()
    for (const generation of generations) generation.drain('the gateway is shutting down')
    const idle = async (): Promise<void> => {
      while (this.inFlight > 0) await Promise.all(generations.map(generation => generation.idle))
    }
    if (!(await within(graceMs, idle()))) for (const generation of generations) generation.abort('shutdown')
    for (const server of this.#servers) (server as Server).closeIdleConnections()
    if (!(await within(LAST_WORDS_MS, Promise.all(closed)))) this.#cutConnections()
    if (this.#current !== undefined) await this.#current.close()
  }

  #cutConnections(): void {
    for (const session of this.#sessions) session.destroy()
    for (const server of this.#servers) if ('closeAllConnections' in server) server.closeAllConnections()
  }

  get #httpOptions(): ServerOptions {
    const { limits, timeouts } = this.#settings
    return {
      maxHeaderSize: limits.header_bytes,
      // Node will have it that a head takes no longer than the whole request.
      headersTimeout: timeouts.request === 0 ? timeouts.headers : Math.min(timeouts.headers, timeouts.request),
      requestTimeout: timeouts.request,
      keepAliveTimeout: timeouts.idle,
      connectionsCheckingInterval: CHECK_MS,
      insecureHTTPParser: false,
      // Answered at the door instead, where it is logged.
      requireHostHeader: false,
      // Anything else than a WebSocket goes on as plain HTTP/1.1 (H-22).
      shouldUpgradeCallback: isWebSocket
    }
  }

  #createServer(atAdminDoor: boolean | undefined): AnyServer {
    const { tls, limits, timeouts, http2: offersHttp2 } = this.#settings
    const options = this.#httpOptions
    let server: AnyServer
    if (tls === undefined || atAdminDoor) server = http.createServer(options)
    else {
      this.#runtime.metrics.certificateExpiry = expiryOf(tls.cert)
      const secure = {
        ...options,
        ...readCertificate(tls),
        handshakeTimeout: timeouts.headers,
        requestCert: tls.client_ca !== undefined,
        rejectUnauthorized: true
      }
      server = offersHttp2 ? this.#createHttp2Server(secure) : https().createServer(secure)
    }
    // Fields beyond Node's own limit would be dropped without a word; they are counted at the door.
    if ('maxHeadersCount' in server) server.maxHeadersCount = 0
    if (limits.connections > 0) server.maxConnections = limits.connections
    server.on('drop', () => this.#runtime.metrics.connectionsRefused.inc({ reason: 'limit' }))
    if (limits.connections_per_ip > 0) server.on('connection', (socket: Socket) => this.#admit(socket))
    this.#serve(server, atAdminDoor)
    return server
  }

  /** Everything that comes in by `server` goes through the door. */
  #serve(server: AnyServer, atAdminDoor: boolean | undefined): void {
    server.on('request', (request, response) =>
      this.#receive(request as IncomingMessage, response as ServerResponse, { atAdminDoor })
    )
    server.on('checkContinue', (request, response) =>
      this.#receive(request as IncomingMessage, response as ServerResponse, {
        atAdminDoor,
        expectContinue: true,
        refusal: /^100-continue$/i.test(request.headers.expect as string) ? undefined : expectationFailed()
      })
    )
    server.on('checkExpectation', (request, response) =>
      this.#receive(request as IncomingMessage, response as ServerResponse, {
        atAdminDoor,
        refusal: expectationFailed()
      })
    )
    server.on('upgrade', (request: IncomingMessage, socket: Socket, head: Buffer) =>
      this.#upgrade(request, socket, { atAdminDoor, upgrade: { socket, head } })
    )
    // A tunnel to wherever the client likes. Over HTTP/2 it is a request like others, and has a response.
    server.on('connect', (request: IncomingMessage, carrier: Socket | ServerResponse) => {
      const refusal = methodNotOffered()
      if ('writeHead' in carrier) this.#receive(request, carrier, { atAdminDoor, refusal })
      else
        this.#upgrade(request, carrier, { atAdminDoor, refusal, upgrade: { socket: carrier, head: Buffer.alloc(0) } })
    })
    server.on('clientError', (error: ClientError, socket: Socket) => this.#malformed(error, socket))
  }

  /**
   * A connection to the door that `exchange` came through, as from its client but within the process. What is written there is
   * read by Node's parser, looked at, routed, limited and counted like anything that comes from outside.
   */
  connect({ peer, atAdminDoor, id }: Exchange): Duplex {
    const [near, far] = duplexPair()
    // What Node and plugins look at on a socket.
    const socket = Object.assign(far, { remoteAddress: peer.address }) as Socket & { [kPeer]?: Peer }
    if (peer.protocol === 'https') Object.assign(socket, { encrypted: true })
    const within = new Peer(socket, this.#proxies, id)
    within.turns = new Turns(socket, this.#door)
    socket[kPeer] = within
    // Either end alone would never hear that the other one was destroyed.
    near.on('error', () => {}).once('close', () => far.destroy())
    far
      .on('error', () => {})
      .once('close', () => {
        if (!far.writableFinished) near.destroy()
      })
    this.#innerServer(atAdminDoor).emit('connection', socket)
    return near
  }

  /** A server that never listens; by the door that it stands for. */
  #innerServer(atAdminDoor: boolean | undefined): Server {
    let server = this.#inner.get(atAdminDoor)
    if (server === undefined) {
      server = http.createServer(this.#httpOptions)
      server.maxHeadersCount = 0
      this.#serve(server, atAdminDoor)
      this.#inner.set(atAdminDoor, server)
    }
    return server
  }

  /** HTTP/2 for those who offer it by ALPN, HTTP/1.1 for the others. */
  #createHttp2Server(options: SecureServerOptions): Http2SecureServer {
    const { limits, timeouts } = this.#settings
    const server = http2().createSecureServer({
      ...options,
      allowHTTP1: true,
      maxHeaderListPairs: limits.headers + PSEUDO_FIELDS,
      settings: {
        enablePush: false,
        maxConcurrentStreams: HTTP2_STREAMS,
        maxHeaderListSize: limits.header_bytes
      },
      // What a service sends twice goes on as it came, as it does on HTTP/1.1.
      strictSingleValueFields: false
    })
    // Node overwrites the option of this name.
    ;(server as { shouldUpgradeCallback?: typeof isWebSocket }).shouldUpgradeCallback = isWebSocket
    server.on('session', session => {
      this.#sessions.add(session)
      session.on('close', () => this.#sessions.delete(session))
      // Streams that are open may go on, however long they are silent; further ones find a new connection.
      session.setTimeout(timeouts.idle, () => session.close())
      if (this.#draining) session.close()
    })
    return server
  }

  /** Where the certificate is, its key, and the authorities of client certificates. */
  get certificateFiles(): string[] {
    const { tls } = this.#settings
    return tls === undefined ? [] : [tls.cert, tls.key, ...(tls.client_ca === undefined ? [] : [tls.client_ca])]
  }

  /** Reads the certificate again; connections opened from now on get the new one. @throws when it is not good */
  reloadCertificate(): void {
    const { tls } = this.#settings
    if (tls === undefined) return
    const context = readCertificate(tls)
    const expiry = expiryOf(tls.cert)
    // Throws for a key that does not belong to the certificate, and keeps the one before.
    for (const server of this.#servers) if ('setSecureContext' in server) server.setSecureContext(context)
    this.#runtime.metrics.certificateExpiry = expiry
  }

  #admit(socket: Socket): void {
    const address = network(plainAddress(socket.remoteAddress ?? ''))
    const open = (this.#perAddress.get(address) ?? 0) + 1
    if (open > this.#settings.limits.connections_per_ip) {
      this.#runtime.metrics.connectionsRefused.inc({ reason: 'limit_per_ip' })
      socket.destroy()
      return
    }
    this.#perAddress.set(address, open)
    socket.once('close', () => {
      const left = (this.#perAddress.get(address) ?? 1) - 1
      if (left === 0) this.#perAddress.delete(address)
      else this.#perAddress.set(address, left)
    })
  }

  #receive(request: IncomingMessage, response: ServerResponse, arrival: Arrival): void {
    const { clock, requestId } = this.#runtime
    const peer = this.#peerOf(request)
    const exchange = new Exchange(request, response, peer, requestId(), clock.monotonic())
    attach(exchange)
    exchange.atAdminDoor = arrival.atAdminDoor
    exchange.expectContinue = arrival.expectContinue === true
    exchange.refusal = arrival.refusal
    exchange.upgrade = arrival.upgrade
    if (peer.turns === undefined) this.#begin(exchange)
    else peer.turns.take(exchange)
  }

  /** It is the request's turn: it is looked at, and goes to the current generation. */
  #begin(exchange: Exchange): void {
    const { response, upgrade } = exchange
    if (upgrade !== undefined) response.assignSocket(upgrade.socket)
    response.on('close', onClose)
    if (this.#draining) response.shouldKeepAlive = false
    try {
      checkAtDoor(exchange, this.#settings, this.#proxies)
    } catch (error) {
      exchange.refusal ??= error as GatewayError
    }
    // Node loses what comes in one piece with an upgrade to something else, so the connection cannot go on.
    if (exchange.refusal !== undefined || (exchange.offersUpgrade && upgrade === undefined)) exchange.endConnection()
    else if (exchange.http2 && exchange.uploading) this.#limitUpload(exchange)
    this.current.enter(exchange)
  }

  /** What Node does for HTTP/1 alone: a request has to be there in time. */
  #limitUpload(exchange: Exchange): void {
    const { request: timeout } = this.#settings.timeouts
    if (timeout === 0) return
    exchange.uploadDeadline = new Deadline(exchange)
    this.#runtime.deadlines.set(exchange.uploadDeadline, timeout)
    exchange.request.on('end', onUploaded)
  }

  /** Every policy runs before an upgrade: the request takes the same walk, with a response bound to the raw socket. */
  #upgrade(request: IncomingMessage, socket: Socket, arrival: Arrival): void {
    socket.on('error', () => socket.destroy())
    const response = new http.ServerResponse(request)
    response.shouldKeepAlive = false
    // What Node does for responses of its own.
    response.on('finish', () => {
      response.detachSocket(socket)
      lingerAtEnd(socket)
      socket.destroySoon()
      response.emit('close')
    })
    this.#receive(request, response, arrival)
  }

  /** What is no HTTP, or too much of it: one short answer, one line, and the connection is over. */
  #malformed(error: ClientError, socket: Socket): void {
    const refusal = refusalOf(error)
    const { turns } = this.#peerOf({ socket })
    // Nobody is there, or somebody who never meant to send a request.
    const silent = refusal === undefined || socket.bytesRead === 0
    // A client that goes away in the middle has changed its mind; that is no attack.
    const gone = error.code === 'HPE_INVALID_EOF_STATE' && turns?.busy
    if (silent || gone || !socket.writable) socket.destroy()
    else turns?.spoil(refusal)
  }

  #turnAway(socket: Socket, refusal: GatewayError): void {
    const { clock, log, metrics, requestId } = this.#runtime
    const id = requestId()
    const { statusCode, reason } = refusal
    const client = plainAddress(socket.remoteAddress ?? '')
    metrics.endpoint(UNKNOWN).of('').observe(statusCode, 0)
    log.info({ request_id: id, client, reason, status_code: statusCode }, 'request refused')
    lingerAtEnd(socket)
    socket.write(answerTo(refusal, this.current.snapshot, { requestId: id, now: clock.now() }))
    socket.destroySoon()
  }

  /** What is known of the connection; of the session, for HTTP/2. */
  #peerOf(request: { readonly socket: Socket; readonly stream?: { readonly session?: ServerHttp2Session } }): Peer {
    const session = request.stream?.session
    const carrier = (session ?? request.socket) as { [kPeer]?: Peer }
    let peer = carrier[kPeer]
    if (peer === undefined) {
      peer = new Peer((session?.socket ?? request.socket) as Socket | TLSSocket, this.#proxies)
      if (session === undefined) peer.turns = new Turns(request.socket, this.#door)
      carrier[kPeer] = peer
    }
    return peer
  }
}

/** How a request came in, besides what it says itself. */
interface Arrival {
  readonly atAdminDoor: boolean | undefined
  readonly expectContinue?: boolean
  readonly refusal?: GatewayError | undefined
  readonly upgrade?: Upgrade
}

/**
 * Reads a request's fields and target into `exchange`, wherever the request may belong.
 * @throws {GatewayError} for what a client may not send
 */
export function checkAtDoor(exchange: Exchange, { limits }: ServerSettings, proxies: TrustedProxies): void {
  const { request, upgrade } = exchange
  if (request.httpVersionMajor !== 1 && !exchange.http2) throw refuse('bad_request', { reason: 'http_version' })
  if ((request.url ?? '').length > limits.url_bytes) throw refuse('uri_too_long', { reason: 'uri_too_long' })
  if (request.rawHeaders.length > limits.headers * 2) throw refuse('headers_too_large', { reason: 'too_many_fields' })
  exchange.readFields(proxies)
  if (request.httpVersion === '1.0' && exchange.chunked) throw refuse('bad_request', { reason: 'chunked_in_http_1_0' })
  if (exchange.method === 'TRACE') throw methodNotOffered()
  exchange.readTarget()
  if (exchange.host === '' && request.httpVersion !== '1.0') throw refuse('bad_request', { reason: 'no_host' })
  if (upgrade !== undefined && (exchange.contentLength > 0 || exchange.chunked))
    throw refuse('bad_request', { reason: 'upgrade_with_body' })
  if (upgrade !== undefined && request.headers['sec-websocket-version'] !== '13')
    throw refuse('bad_request', { reason: 'websocket_version', headers: ['sec-websocket-version', '13'] })
}

export function methodNotOffered(): GatewayError {
  return refuse('method_not_allowed', {
    reason: 'method_not_offered',
    headers: ['allow', 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS']
  })
}

export function expectationFailed(): GatewayError {
  return refuse('expectation_failed', { reason: 'expectation' })
}

function onUploaded(this: IncomingMessage): void {
  exchangeOf(this).uploadDeadline?.cancel()
}

/** One listener for all responses: the end of every walk, whoever wrote the answer and however it ended. */
function onClose(this: ServerResponse): void {
  const exchange = exchangeOf(this)
  // A stream of HTTP/2 that its client has closed counts as finished, but not as ended.
  exchange.aborted ||= !exchange.tunnelled && !(this.writableFinished && this.writableEnded)
  exchange.uploadDeadline?.cancel()
  exchange.onGone?.gone()
  exchange.generation?.leave(exchange)
  exchange.peer.turns?.ended()
}

const kPeer = Symbol('peer')

function readCertificate({ cert, key, client_ca: ca }: NonNullable<ServerSettings['tls']>): SecureContextOptions {
  return { cert: readFileSync(cert), key: readFileSync(key), ...(ca === undefined ? {} : { ca: readFileSync(ca) }) }
}

/** Whether a request that offers an upgrade offers one that may be accepted. */
export function isWebSocket({ method, headers }: IncomingMessage): boolean {
  return method === 'GET' && headers.upgrade?.toLowerCase() === 'websocket'
}

/**
 * Takes no further connections; resolves when the last one has ended. Those that wait for a request stay, unlike with
 * `http.Server.close`: a request may be on its way on them, and its answer is the place to say that it was the last.
 */
function stopListening(server: AnyServer): Promise<void> {
  return new Promise(resolve => {
    net.Server.prototype.close.call(server, () => {
      // What is left to close are the server's own timers.
      server.close()
      resolve()
    })
  })
}
