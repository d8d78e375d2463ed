import type { Exchange } from './exchange.ts'
import { connectionTokens, mayListFields, OWNS, RESPONSE, responseRule } from './headers.ts'

/**
 * The fields of a service's answer on their way to the client: the service's own but for hop-by-hop ones and those that the
 * route's policies speak for, then what the policies add.
 * @param raw names and values in turn
 */
export function answerFields(exchange: Exchange, status: number, raw: readonly Buffer[]): string[] {
  const out: string[] = []
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
  for (const block of exchange.blocks) block.appendTo(out, taken)
  for (let i = 0; i < exchange.fields.length; i++) out.push(exchange.fields[i] as string)
  return out
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
