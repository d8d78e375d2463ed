import type { Exchange } from './exchange.ts'
import { connectionTokens, mayListFields, OWNS, RESPONSE, responseRule } from './headers.ts'

/**
 * The fields of a service's answer on their way to the client: the service's own but for hop-by-hop ones and those that the
 * route's policies speak for, then what the policies add.
 * @param raw names and values in turn
 */
export function answerFields(exchange: Exchange, status: number, raw: readonly Buffer[]): string[] {
  const fields: string[] = []
  const taken = takeFields(exchange, status, raw, fields)
  for (const block of exchange.blocks) block.appendTo(fields, taken)
  for (let i = 0; i < exchange.fields.length; i++) fields.push(exchange.fields[i] as string)
  return fields
}

/**
 * Writes the head of a service's answer, with the fields of {@link answerFields}. Node looks at every letter of every field; the
 * policies' constants, half of all, have been looked at when they were compiled, and are put behind what it has made of the
 * others.
 * @throws what `writeHead` does, for fields that cannot be written; the head is not written then
 */
export function writeHead(exchange: Exchange, status: number, raw: readonly Buffer[]): void {
  const { response } = exchange
  if (exchange.http2) {
    exchange.answeredFields = answerFields(exchange, status, raw)
    response.writeHead(status, http2Fields(exchange.answeredFields))
    return
  }
  const fields: string[] = []
  const taken = takeFields(exchange, status, raw, fields)
  let constants = ''
  for (const block of exchange.blocks) {
    if (block.collidesWith(taken)) block.appendTo(fields, taken)
    else constants += block.text
  }
  for (let i = 0; i < exchange.fields.length; i++) fields.push(exchange.fields[i] as string)
  response.writeHead(status, fields)
  const head = response as unknown as { _header: string }
  if (constants !== '') head._header = `${head._header.slice(0, -2)}${constants}\r\n`
  exchange.answeredFields = fields
  exchange.answeredConstants = constants
}

/** Appends the service's fields to `out`. @returns the security fields that it has set, as bits of `SECURITY_HEADERS` */
function takeFields(exchange: Exchange, status: number, raw: readonly Buffer[], out: string[]): number {
  let taken = 0
  let listed: Set<string> | undefined
  let trailer = ''
  exchange.answeredLength = -1
  for (let i = 0; i < raw.length; i += 2) {
    const name = latin1(raw[i])
    const value = latin1(raw[i + 1])
    const rule = responseRule(name)
    switch (rule) {
      case RESPONSE.FORWARD:
      case RESPONSE.CONTENT_TYPE:
        out.push(name, value)
        break
      case RESPONSE.DROP:
        break
      case RESPONSE.CONTENT_LENGTH:
        // Neither has a body (RFC 9110 section 8.6).
        if (status === 204 || status === 101) break
        exchange.answeredLength = Number(value)
        out.push(name, value)
        break
      case RESPONSE.CONNECTION:
        if (mayListFields(value)) listed = new Set([...(listed ?? []), ...connectionTokens(value)])
        break
      case RESPONSE.TRAILER:
        trailer = trailer === '' ? value : `${trailer}, ${value}`
        break
      case RESPONSE.CORS:
        if ((exchange.owns & OWNS.CORS) === 0) out.push(name, value)
        break
      case RESPONSE.RATE_LIMIT:
        if ((exchange.owns & OWNS.RATE_LIMIT) === 0) out.push(name, value)
        break
      default:
        taken |= 1 << (rule - RESPONSE.SECURITY)
        out.push(name, value)
    }
  }
  if (listed !== undefined) dropListed(out, listed)
  if (trailer !== '' && exchange.acceptsTrailers && isChunked(exchange, status)) out.push('trailer', trailer)
  return taken
}

/** Whether the answer goes to the client in chunks, the only ones that trailers can follow (RFC 9112 section 7.1.2). */
function isChunked({ answeredLength, method }: Exchange, status: number): boolean {
  return answeredLength === -1 && status >= 200 && status !== 204 && status !== 304 && method !== 'HEAD'
}

function dropListed(fields: string[], listed: ReadonlySet<string>): void {
  for (let i = fields.length - 2; i >= 0; i -= 2) {
    if (listed.has((fields[i] as string).toLowerCase())) fields.splice(i, 2)
  }
}

/** Field bytes as HTTP has them; shorter than `toString('latin1')`, which looks the encoding up each time. */
export function latin1(bytes: Buffer | undefined): string {
  return (bytes as Buffer & { latin1Slice(): string }).latin1Slice()
}

/** Trailers may not change how a message is framed, routed or authenticated (RFC 9110 section 6.5.1). */
const TRAILER_FORBIDDEN = new Set(['host', 'authorization', 'cookie', 'set-cookie', 'cache-control', 'location'])

/** What a service puts behind its answer; what the gateway has a say in as a header is no trailer either. */
export function addTrailers({ response, http2 }: Exchange, raw: Buffer[]): void {
  const fields: string[] = []
  for (let i = 0; i < raw.length; i += 2) {
    const name = latin1(raw[i])
    if (responseRule(name) === RESPONSE.FORWARD && !TRAILER_FORBIDDEN.has(name.toLowerCase()))
      fields.push(name, latin1(raw[i + 1]))
  }
  response.addTrailers(http2 ? (http2Fields(fields) as never) : pairs(fields))
}

function pairs(fields: readonly string[]): [string, string][] {
  const list: [string, string][] = []
  for (let i = 0; i < fields.length; i += 2) list.push([fields[i] as string, fields[i + 1] as string])
  return list
}

/** HTTP/2 takes an object, which holds a field that comes several times as a list. */
function http2Fields(fields: readonly string[]): Record<string, string | string[]> {
  // Without a prototype: `constructor` is a name like any other.
  const object: Record<string, string | string[]> = Object.create(null)
  for (let i = 0; i < fields.length; i += 2) {
    const name = (fields[i] as string).toLowerCase()
    const value = fields[i + 1] as string
    const present = object[name]
    if (present === undefined) object[name] = value
    else if (Array.isArray(present)) present.push(value)
    else object[name] = [present, value]
  }
  return object
}
