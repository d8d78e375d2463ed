import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import { type GatewayError, refuse } from '../errors.ts'
import type { Consumer } from '../identity/consumer.ts'
import { NORMAL, type Priority } from '../overload/priority.ts'
import type { RequestView } from '../routing/table.ts'
import type { EndpointSeries } from '../telemetry/metrics.ts'
import type { Deadline } from '../upstream/deadline.ts'
import type { Target } from '../upstream/target.ts'
import { connectionTokens, type HeaderBlock, isProtected, mayListFields, REQUEST, requestRule } from './headers.ts'
import { lingerAtEnd } from './linger.ts'
import { canonicalEnd, canonicalise, matchable } from './path.ts'
import { clientBehind, forwardingFields, isHost, type Peer, type TrustedProxies } from './peer.ts'
import type { Route } from './route.ts'
import type { AnswerTap } from './tap.ts'

/** What the walk needs of Fastify's reply, so that rooms need not know Fastify. */
export interface ReplyPort {
  hijack(): unknown
  send(payload: unknown): unknown
}

/** The raw socket of an upgrade, and the bytes that came with its head. */
export interface Upgrade {
  readonly socket: Socket
  readonly head: Buffer
}

/**
 * One request and its answer, from the door to the log line. Every concern that has something to say about a request writes
 * it here; nothing outlives the response.
 */
export class Exchange implements RequestView {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly peer: Peer
  /** In every answer and log line, and told to the service. */
  id: string
  /** Monotonic milliseconds. */
  readonly startedAt: number

  readonly method: string
  /** Canonical path: matched, authorised and forwarded. */
  path = '/'
  matchPath = '/'
  /** The path holds `%2F`, which a route has to allow. */
  encodedSlash = false
  /** `?` and the query as it came, or ''. */
  search = ''
  host = ''
  /** From which it comes, by ISO 3166-1; '' where nobody knows, or wants to. */
  country = ''
  /** The caller's address: the peer's, or what a trusted proxy says. */
  client: string

  route: Route | undefined
  /** How important it is when there is too much of everything. */
  priority: Priority = NORMAL
  /** It is one of those under way that the process's own limit is about. */
  counted = false
  /** The service that it goes to, once that is decided. */
  target: Target | undefined
  /** Set when the door refuses the request; the answer is made by the same code as any other refusal. */
  refusal: GatewayError | undefined
  upgrade: Upgrade | undefined
  /** Whether it came in by the administration's own listener; undefined in a process that has none. */
  atAdminDoor: boolean | undefined
  reply: ReplyPort | undefined
  /** The answer was 101, and bytes have flowed since. */
  tunnelled = false
  expectContinue = false
  /** For the whole of its body to be here; Node itself sees to that for HTTP/1. */
  uploadDeadline: Deadline | undefined
  /** Told when the client has its answer or has gone. */
  onGone: { gone(): void } | undefined

  consumer: Consumer | undefined
  authorization = ''
  apiKey = ''
  origin = ''
  clientId = ''
  contentType = ''
  /** -1 when the request does not say. */
  contentLength = -1
  chunked = false
  acceptsTrailers = false
  /** To another protocol, of which WebSocket is the only one that is ever accepted. */
  offersUpgrade = false
  /** The next three are what a trusted proxy says; '' from anybody else. */
  #forwardedFor = ''
  #forwardedProto = ''
  #forwardedHost = ''
  #via = ''
  #rawHost = ''
  #query: URLSearchParams | undefined
  /** A field that goes on has an underscore in its name. */
  #underscores = false

  /** Request fields that go on to the service, flat. */
  readonly upstreamFields: string[] = []
  /** Constant blocks of response fields that policies append. */
  readonly blocks: HeaderBlock[] = []
  /** Response fields of this answer alone, flat. */
  readonly fields: string[]
  /** Bits of {@link import('./headers.ts').OWNS}. */
  owns = 0

  /** The service's instance that answered, or was tried last. */
  instance = ''
  attempts = 0
  /** Milliseconds between handing all of the request to an instance and its answer's head; -1 when none came. */
  upstreamMs = -1
  bytesIn = 0
  bytesOut = 0
  /** The code of the refusal, if the gateway made the answer. */
  errorCode = ''
  /** What was answered in place of a failure, if anything: see `src/proxy/fallback.ts`. */
  fallback: 'cached' | 'service' | 'static' | '' = ''
  /** For the log alone: why. */
  reason = ''
  /** The configuration that it belongs to, from the door to its end. */
  generation: { leave(exchange: Exchange): void } | undefined
  /** Its neighbours among the requests of that generation. */
  previous: Exchange | undefined
  next: Exchange | undefined
  readonly http2: boolean
  /** The client went away, or was cut off, before its answer was complete. */
  aborted = false
  /** Of the whole exchange, once it is over. */
  durationMs = 0
  /** The length that the service's answer announced; -1 when it did not. */
  answeredLength = -1
  /** The fields sent with a service's answer. */
  answeredFields: readonly string[] | undefined
  /** Further ones that are the same for every answer, as they stand in its head. */
  answeredConstants = ''
  series: EndpointSeries | undefined
  /** The whole of its body, if a policy has had to look at it. */
  body: Buffer | undefined
  /** Its answer is of use without its client, too: once it is sent, it goes on to its end. */
  persists = false
  /** The service does it but once, however often it is sent. */
  repeatable = false
  /** Sees the service's answer pass by; set before the request is forwarded, with {@link import('./tap.ts').tapInto}. */
  tap: AnswerTap | undefined

  constructor(request: IncomingMessage, response: ServerResponse, peer: Peer, id: string, startedAt: number) {
    this.request = request
    this.response = response
    this.peer = peer
    this.id = id
    this.startedAt = startedAt
    this.method = request.method as string
    // Nobody is kept from writing HTTP/2.0 on an HTTP/1 connection.
    this.http2 = request.httpVersionMajor === 2 && 'stream' in request
    this.client = peer.address
    this.fields = ['x-request-id', id]
  }

  /** A trusted proxy in front has named the request already (C-23). */
  #rename(id: string): void {
    this.id = id
    this.fields[1] = id
  }

  /** A client that goes away before there was an answer gets the status that nginx made customary, in figures only. */
  get status(): number {
    return this.aborted && !this.response.headersSent ? 499 : this.response.statusCode
  }

  header(name: string): string | undefined {
    const value = this.request.headers[name]
    return Array.isArray(value) ? value.join(', ') : value
  }

  /** The fields of the answer, flat, as far as they are known: those of a service's answer only while somebody traces. */
  responseFields(): readonly string[] {
    if (this.answeredFields === undefined)
      return Object.entries(this.response.getHeaders()).flatMap(([name, value]) => [name, String(value)])
    const constants = this.answeredConstants.split('\r\n').slice(0, -1)
    return [...this.answeredFields, ...constants.flatMap(line => /^(.+?): (.*)$/.exec(line)?.slice(1) ?? [])]
  }

  query(name: string): string | undefined {
    this.#query ??= new URLSearchParams(this.search)
    return this.#query.get(name) ?? undefined
  }

  /** Whether a browser asks beforehand what it may send (Fetch standard section 3.2.2). */
  get isPreflight(): boolean {
    return this.method === 'OPTIONS' && this.origin !== '' && this.header('access-control-request-method') !== undefined
  }

  /** Whether the client has come by TLS, to us or to a trusted proxy in front. */
  get secure(): boolean {
    return (this.#forwardedProto || this.peer.protocol) === 'https'
  }

  /** Says something to the service under a name (in lower case) under which nobody else may say anything. */
  setUpstreamField(name: string, value: string): void {
    this.dropUpstreamField(name)
    this.upstreamFields.push(name, value)
  }

  /** Keeps a field (in lower case, with dashes) that its client has sent from the service, with underscores too (H-7). */
  dropUpstreamField(name: string): void {
    if (this.#underscores || this.request.headers[name] !== undefined)
      this.#keepOnly(other => other.replaceAll('_', '-') !== name)
  }

  /** The request that a preflight asks about, for the route table. */
  asPreflighted(): RequestView {
    const { matchPath, host, country } = this
    const method = this.header('access-control-request-method') as string
    return { method, matchPath, host, country, header: name => this.header(name), query: name => this.query(name) }
  }

  /** Takes a parameter out of the query, so that it goes no further, and returns its values, however its name was spelled. */
  takeQuery(name: string): string[] {
    if (this.search === '') return []
    const taken: string[] = []
    const kept = this.search
      .slice(1)
      .split('&')
      .filter(pair => {
        const [[key, value] = ['', '']] = [...new URLSearchParams(pair)]
        if (key === name) taken.push(value)
        return key !== name
      })
    if (taken.length > 0) this.search = kept.join('&') === '' ? '' : `?${kept.join('&')}`
    return taken
  }

  /** Takes what follows `name` out of the offered WebSocket subprotocols; the others go on. */
  takeSubprotocolAfter(name: string): string | undefined {
    const fields = this.upstreamFields
    for (let i = 0; i < fields.length; i += 2) {
      if (fields[i]?.toLowerCase() !== 'sec-websocket-protocol') continue
      const offered = (fields[i + 1] as string).split(',').map(protocol => protocol.trim())
      const at = offered.indexOf(name)
      if (at === -1 || at + 1 >= offered.length) continue
      const [taken] = offered.splice(at + 1, 1)
      fields[i + 1] = offered.join(', ')
      return taken
    }
    return undefined
  }

  /**
   * Reads the request target. @throws {GatewayError} 400 for one that two parsers could read in two ways.
   */
  readTarget(): void {
    let target = this.request.url as string
    if (target.charCodeAt(0) !== 0x2f) target = this.#originForm(target)
    const end = canonicalEnd(target)
    if (end >= 0) {
      this.path = end === target.length ? target : target.slice(0, end)
      this.search = end === target.length ? '' : target.slice(end)
    } else {
      const query = target.indexOf('?')
      const canonical = canonicalise(query === -1 ? target : target.slice(0, query))
      if (typeof canonical === 'string')
        throw refuse('bad_request', { reason: canonical, details: 'The path is not acceptable.' })
      this.path = canonical.path
      this.search = query === -1 ? '' : target.slice(query)
      this.encodedSlash = canonical.encodedSlash
    }
    if (this.search !== '' && !isQuery(this.search)) {
      throw refuse('bad_request', {
        reason: 'bad_query',
        details: 'The query holds a character that must be percent-encoded.'
      })
    }
    this.matchPath = matchable(this.path)
  }

  /** The absolute form names a host too; it has to be the one in `Host` (RFC 9112 section 3.2.2, H-15). */
  #originForm(target: string): string {
    const [start, authority] = ABSOLUTE_FORM.exec(target) ?? []
    if (start === undefined || authority === undefined) throw refuse('bad_request', { reason: 'not_a_path' })
    if (this.#rawHost === '' && this.request.httpVersion === '1.0') this.#setHost(authority)
    if (authority.toLowerCase() !== this.#rawHost.toLowerCase())
      throw refuse('bad_request', { reason: 'absolute_form_with_other_host' })
    const rest = target.slice(start.length)
    return rest.startsWith('/') ? rest : `/${rest}`
  }

  /**
   * One pass over the request fields: what goes on to the service is copied, what the gateway needs is picked up.
   * @throws {GatewayError} 400 for fields that contradict each other.
   */
  readFields(proxies: TrustedProxies): void {
    const raw = this.request.rawHeaders
    const out = this.upstreamFields
    let rawHost: string | undefined
    let authority: string | undefined
    let typed = false
    let connection = ''
    let cookie = ''
    for (let i = 0; i < raw.length; i += 2) {
      const name = raw[i] as string
      const value = raw[i + 1] as string
      switch (requestRule(name)) {
        case REQUEST.FORWARD:
          out.push(name, value)
          break
        case REQUEST.DROP:
          break
        case REQUEST.HOST:
          if (rawHost !== undefined) throw refuse('bad_request', { reason: 'two_hosts' })
          rawHost = value
          break
        case REQUEST.AUTHORITY:
          authority = value
          break
        case REQUEST.CONNECTION:
          connection = connection === '' ? value : `${connection},${value}`
          break
        case REQUEST.AUTHORIZATION:
          if (this.authorization !== '') throw refuse('bad_request', { reason: 'two_authorizations' })
          this.authorization = value
          break
        case REQUEST.API_KEY:
          if (this.apiKey !== '') throw refuse('bad_request', { reason: 'two_api_keys' })
          this.apiKey = value
          break
        case REQUEST.ORIGIN:
          this.origin = value
          out.push(name, value)
          break
        case REQUEST.CONTENT_TYPE:
          if (typed) throw refuse('bad_request', { reason: 'two_content_types' })
          typed = true
          this.contentType = value
          out.push(name, value)
          break
        case REQUEST.CONTENT_LENGTH:
          this.contentLength = Number(value)
          if (!Number.isSafeInteger(this.contentLength)) throw refuse('payload_too_large', { reason: 'content_length' })
          break
        case REQUEST.TRANSFER_ENCODING:
          // Any other coding would be taken off on the way, and a list is read in more than one way (RFC 9112 section 6.1).
          if (this.chunked || !isChunked(value)) throw refuse('bad_request', { reason: 'transfer_encoding' })
          this.chunked = true
          break
        case REQUEST.UPGRADE:
          this.offersUpgrade = true
          break
        case REQUEST.FRAMING_LOOK_ALIKE:
          throw refuse('bad_request', { reason: 'framing_look_alike' })
        case REQUEST.TE:
          this.acceptsTrailers ||= this.request.httpVersion !== '1.0' && /(?:^|,)\s*trailers\s*(?:,|;|$)/i.test(value)
          break
        case REQUEST.FORWARDED_FOR:
          if (this.peer.trusted)
            this.#forwardedFor = this.#forwardedFor === '' ? value : `${this.#forwardedFor}, ${value}`
          break
        case REQUEST.FORWARDED_PROTO:
          // Many a proxy passes these two on as its client has sent them, and they become part of a field.
          if (this.peer.trusted && /^https?$/i.test(value)) this.#forwardedProto = value
          break
        case REQUEST.FORWARDED_HOST:
          if (this.peer.trusted && isHost(value)) this.#forwardedHost = value
          break
        case REQUEST.CLIENT_ID:
          this.clientId = value
          break
        case REQUEST.COOKIE:
          cookie = cookie === '' ? value : `${cookie}; ${value}`
          break
        case REQUEST.REQUEST_ID:
          if (this.peer.trusted && REQUEST_ID.test(value)) this.#rename(value)
          break
        case REQUEST.VIA:
          this.#via = this.#via === '' ? value : `${this.#via}, ${value}`
          break
        case REQUEST.UNDERSCORE:
          this.#underscores = true
          out.push(name, value)
          break
      }
    }
    // HTTP/2 has no chunks; what says neither its length nor that it ends with its head is a body all the same.
    if (this.http2 && this.contentLength === -1) this.chunked = !streamOf(this.request).endAfterHeaders
    // Crumbs of HTTP/2 have to be put together for HTTP/1.1 (RFC 9113 section 8.2.3).
    if (cookie !== '') out.push('cookie', cookie)
    if (authority !== undefined) rawHost = theHost(authority, rawHost)
    if (rawHost !== undefined) this.#setHost(rawHost)
    if (mayListFields(connection)) this.#dropConnectionFields(connection)
    if (this.acceptsTrailers) out.push('te', 'trailers')
    if (this.#underscores) this.#dropLookAlikes()
    if (this.#forwardedFor !== '') this.client = clientBehind(this.peer.address, this.#forwardedFor, proxies)
  }

  #setHost(raw: string): void {
    this.host = this.peer.hostOf(raw)
    this.#rawHost = raw
  }

  /** Fields that `Connection` lists end here, unless the services rely on them (H-23, CVE-2026-33805). */
  #dropConnectionFields(connection: string): void {
    const listed = new Set(connectionTokens(connection))
    for (const name of listed) {
      if (isProtected(name)) throw refuse('bad_request', { reason: 'protected_field_in_connection' })
    }
    this.#keepOnly(name => !listed.has(name))
  }

  /** `X_Tenant` next to `X-Tenant`: one name to a CGI-like server, so only the dashed one goes on (H-7). */
  #dropLookAlikes(): void {
    const names = new Set(this.upstreamFields.filter((_, i) => i % 2 === 0).map(name => name.toLowerCase()))
    this.#keepOnly(name => !name.includes('_') || !names.has(name.replaceAll('_', '-')))
  }

  #keepOnly(keep: (name: string) => boolean): void {
    const fields = this.upstreamFields
    let kept = 0
    for (let i = 0; i < fields.length; i += 2) {
      if (!keep((fields[i] as string).toLowerCase())) continue
      fields[kept++] = fields[i] as string
      fields[kept++] = fields[i + 1] as string
    }
    fields.length = kept
  }

  /**
   * Appends to `out` who calls. A credential that the gateway has verified goes no further unless the route says so; one
   * that it has not looked at is between the client and the service.
   */
  appendCredentials(out: string[], forward: boolean): void {
    const { consumer } = this
    if (consumer !== undefined)
      for (let i = 0; i < consumer.identityFields.length; i++) out.push(consumer.identityFields[i] as string)
    if (consumer !== undefined && !forward) return
    if (this.authorization !== '') out.push('authorization', this.authorization)
    if (this.apiKey !== '') out.push('x-api-key', this.apiKey)
  }

  /** Appends to `out` where the request comes from: `X-Forwarded-*`, `Forwarded`, `Via`, the request's id. */
  appendForwarding(out: string[], pseudonym: string): void {
    const { peer } = this
    const relayed = this.#forwardedFor !== '' || this.#forwardedProto !== '' || this.#forwardedHost !== ''
    const fields = relayed
      ? forwardingFields(
          this.client,
          this.#forwardedFor === '' ? peer.address : `${this.#forwardedFor}, ${peer.address}`,
          this.#forwardedProto || peer.protocol,
          this.#forwardedHost || this.#rawHost
        )
      : peer.forwardingFields(this.#rawHost)
    for (let i = 0; i < fields.length; i++) out.push(fields[i] as string)
    out.push('via', this.#via === '' ? pseudonym : `${this.#via}, ${pseudonym}`, 'x-request-id', this.id)
  }

  /** Whether the client is still sending: the request has a body, and not all of it is here. */
  get uploading(): boolean {
    return (this.chunked || this.contentLength > 0) && !this.request.complete
  }

  /**
   * Ends the connection with this answer, since the rest of the request's body will not be read. The client gets its
   * answer even so: what it still sends is thrown away for a while (RFC 9112 section 9.6).
   */
  endConnection(): void {
    if (this.response.headersSent) return
    if (this.http2) {
      // There the stream ends rather than the connection, once all of the answer is on its way (RFC 9113 section 8.1).
      const stream = streamOf(this.response)
      stream.once('finish', () => {
        // Not before the frame that says that this is all; and what nobody has read must not keep the stream.
        if (!this.uploading) return
        setImmediate(() => {
          stream.close(HTTP2.NO_ERROR)
          stream.destroy()
        })
      })
      return
    }
    this.response.shouldKeepAlive = false
    lingerAtEnd(this.request.socket)
  }

  /**
   * Gives up what is under way and answers with `refusal`, since the client has spoiled its own request. What has been begun
   * at a service is aborted there, never completed.
   */
  fail(refusal: GatewayError): void {
    if (this.generation === undefined) this.refusal = refusal
    if (this.generation === undefined || this.response.writableEnded) return
    this.onGone?.gone()
    if (this.response.headersSent) {
      this.reason = refusal.reason ?? refusal.code
      this.cut()
    } else {
      this.endConnection()
      this.reply?.send(refusal)
    }
  }

  /** Its body has taken too long. */
  expired(): void {
    this.fail(refuse('request_timeout', { reason: 'slow_request' }))
  }

  /** Cuts the client off, in a way that it cannot take for the end of its answer (RFC 9112 section 8). */
  cut(): void {
    this.aborted = true
    // An HTTP/2 stream that is merely destroyed looks complete to the other side.
    if (this.http2) streamOf(this.response).close(HTTP2.INTERNAL_ERROR)
    else this.response.destroy()
  }

  /** Whether its client has come by TLS, to us or to a trusted proxy in front. */
  get isSecure(): boolean {
    return (this.#forwardedProto || this.peer.protocol).toLowerCase() === 'https'
  }

  /** Whether this request has been here before (RFC 9110 section 7.6.3). */
  hasPassed(pseudonym: string): boolean {
    return this.#via !== '' && this.#via.split(',').some(hop => hop.trim() === pseudonym)
  }
}

/** `http://orders.example.com:8080`, at the start of what only proxies are sent. */
const ABSOLUTE_FORM = /^https?:\/\/([^/?#]+)/i

/** Why a stream ends (RFC 9113 section 7). */
const HTTP2 = { NO_ERROR: 0, INTERNAL_ERROR: 2 } as const

function isChunked(coding: string): boolean {
  return coding === 'chunked' || coding.toLowerCase() === 'chunked'
}

/** In HTTP/2 there may be both, and they have to be the same (RFC 9113 section 8.3.1). */
function theHost(authority: string, host: string | undefined): string {
  if (host !== undefined && host.toLowerCase() !== authority.toLowerCase())
    throw refuse('bad_request', { reason: 'two_hosts' })
  return authority
}

/** Ids that are taken over from a proxy: nothing that could be more than a word in a log or a header. */
const REQUEST_ID = /^[A-Za-z0-9._:-]{1,128}$/

/** A query may hold what RFC 3986 allows, and the few characters that browsers leave raw. */
function isQuery(search: string): boolean {
  for (let i = 0; i < search.length; i++) {
    const code = search.charCodeAt(i)
    if (code <= 0x20 || code >= 0x7f || code === 0x23) return false
  }
  return true
}

function streamOf(request: object): ServerHttp2Stream {
  return (request as { stream: ServerHttp2Stream }).stream
}

const kExchange = Symbol('exchange')

interface Carrier {
  [kExchange]?: Exchange
}

/** The exchange that a raw request or response belongs to. */
export function exchangeOf(carrier: object): Exchange {
  return (carrier as Carrier)[kExchange] as Exchange
}

/** Ties an exchange to its raw request and response. */
export function attach(exchange: Exchange): void {
  ;(exchange.request as Carrier)[kExchange] = exchange
  ;(exchange.response as Carrier)[kExchange] = exchange
}
