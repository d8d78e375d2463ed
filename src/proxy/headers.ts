/**
 * What happens to each header field on its way through: one look-up per field, in both directions.
 * RFC 9110 section 7.6.1 (hop-by-hop), section 6.5.1 (trailers); RFC 9112 section 6 (framing).
 */

import { http } from '../runtime/node.ts'

/** What becomes of a request field. Everything from {@link REQUEST.HOST} on is also picked up for the gateway's own use. */
export const REQUEST = {
  FORWARD: 0,
  /** Hop-by-hop, or a name under which only the gateway may speak to a service. */
  DROP: 1,
  /** Has an underscore: dropped when another field has the same name with a dash, or when that name is not FORWARD. */
  UNDERSCORE: 2,
  HOST: 3,
  CONNECTION: 4,
  CONTENT_LENGTH: 5,
  TRANSFER_ENCODING: 6,
  TE: 7,
  EXPECT: 8,
  UPGRADE: 9,
  AUTHORIZATION: 10,
  API_KEY: 11,
  ORIGIN: 12,
  REQUEST_ID: 13,
  FORWARDED_FOR: 14,
  FORWARDED_PROTO: 15,
  FORWARDED_HOST: 16,
  VIA: 17,
  CONTENT_TYPE: 18,
  CLIENT_ID: 19,
  COOKIE: 20,
  /** What HTTP/2 has for `Host`. */
  AUTHORITY: 21,
  /** `Transfer_Encoding`, `Content.Length`: nobody means well who writes that. */
  FRAMING_LOOK_ALIKE: 22
} as const

const requestRules = new Map<string, number>([
  ['host', REQUEST.HOST],
  [':authority', REQUEST.AUTHORITY],
  [':method', REQUEST.DROP],
  [':path', REQUEST.DROP],
  [':scheme', REQUEST.DROP],
  ['connection', REQUEST.CONNECTION],
  ['content-length', REQUEST.CONTENT_LENGTH],
  ['transfer-encoding', REQUEST.TRANSFER_ENCODING],
  ['te', REQUEST.TE],
  ['expect', REQUEST.EXPECT],
  ['upgrade', REQUEST.UPGRADE],
  ['authorization', REQUEST.AUTHORIZATION],
  ['x-api-key', REQUEST.API_KEY],
  ['origin', REQUEST.ORIGIN],
  ['x-request-id', REQUEST.REQUEST_ID],
  ['x-forwarded-for', REQUEST.FORWARDED_FOR],
  ['x-forwarded-proto', REQUEST.FORWARDED_PROTO],
  ['x-forwarded-host', REQUEST.FORWARDED_HOST],
  ['via', REQUEST.VIA],
  ['content-type', REQUEST.CONTENT_TYPE],
  ['x-client-id', REQUEST.CLIENT_ID],
  ['cookie', REQUEST.COOKIE],
  ...rules(REQUEST.DROP, [
    'keep-alive',
    'proxy-connection',
    'proxy-authorization',
    'proxy-authenticate',
    'trailer',
    'http2-settings',
    // The caller's place on the network and on the door, said by the gateway alone.
    'forwarded',
    'x-forwarded',
    'x-real-ip',
    'x-client-ip',
    'x-cluster-client-ip',
    'true-client-ip',
    'x-original-url',
    'x-rewrite-url',
    'x-original-forwarded-for',
    // Of copies that nobody waits for.
    'x-mirrored',
    // The caller's identity, likewise (IDN-18).
    'x-user',
    'x-user-id',
    'x-user-name',
    'x-user-roles',
    'x-user-permissions',
    'x-auth-method'
  ])
])

/** Names a client may not have removed by listing them in `Connection` (CVE-2026-33805): 400 instead. */
const PROTECTED = new Set([
  'authorization',
  'x-api-key',
  'cookie',
  'host',
  'content-length',
  'content-type',
  'origin',
  'via',
  'forwarded',
  'x-request-id',
  'traceparent',
  'tracestate'
])

/** Whether `Connection` may not list `name` (in lower case), because a service trusts what it finds there. */
export function isProtected(name: string): boolean {
  return (
    PROTECTED.has(name) || name.startsWith('x-user') || name.startsWith('x-forwarded') || name.startsWith('x-consumer')
  )
}

/** Spellings seen so far. Bounded, since clients choose the names; the usual ones are there from the start. */
const spellings = new Map<string, number>(usualSpellings(requestRules))
const MAX_SPELLINGS = 2000

function usualSpellings(rules: ReadonlyMap<string, number>): [string, number][] {
  return [...rules].flatMap(([name, rule]) => [
    [name, rule] as [string, number],
    [name.replace(/(^|-)[a-z]/g, letter => letter.toUpperCase()), rule] as [string, number]
  ])
}

/** What becomes of the request field `name`, in whatever case it came: one of {@link REQUEST}. */
export function requestRule(name: string): number {
  const known = spellings.get(name)
  if (known !== undefined) return known
  const rule = classify(name.toLowerCase())
  if (spellings.size < MAX_SPELLINGS && name.length <= 64) spellings.set(name, rule)
  return rule
}

function classify(name: string): number {
  const rule = requestRules.get(name)
  if (rule !== undefined) return rule
  if (/^(?:transferencoding|contentlength)$/.test(name.replace(/[^a-z]/g, ''))) return REQUEST.FRAMING_LOOK_ALIKE
  if (/^x-(?:consumer|authenticated|forwarded)-/.test(name)) return REQUEST.DROP
  if (!name.includes('_')) return REQUEST.FORWARD
  return classify(name.replaceAll('_', '-')) === REQUEST.FORWARD ? REQUEST.UNDERSCORE : REQUEST.DROP
}

/** What becomes of a response field. */
export const RESPONSE = {
  FORWARD: 0,
  DROP: 1,
  CONNECTION: 2,
  CONTENT_LENGTH: 3,
  CONTENT_TYPE: 4,
  TRAILER: 5,
  /** Spoken by the gateway alone where the route has such a policy; see {@link OWNS}. */
  CORS: 6,
  RATE_LIMIT: 7,
  /** From here on: a field of {@link SECURITY_HEADERS}, by its place in that list. The service's own value stands. */
  SECURITY: 32
} as const

/** Groups of response fields that a policy of the route speaks for, so that a service's own are dropped. Bits. */
export const OWNS = { CORS: 1, RATE_LIMIT: 2 } as const

/** The fields that the security-headers policy may set: all that helmet knows. */
export const SECURITY_HEADERS = [
  'content-security-policy',
  'content-security-policy-report-only',
  'cross-origin-embedder-policy',
  'cross-origin-opener-policy',
  'cross-origin-resource-policy',
  'origin-agent-cluster',
  'referrer-policy',
  'strict-transport-security',
  'x-content-type-options',
  'x-dns-prefetch-control',
  'x-download-options',
  'x-frame-options',
  'x-permitted-cross-domain-policies',
  'x-xss-protection'
] as const

const responseRules = new Map<string, number>([
  ['connection', RESPONSE.CONNECTION],
  ['content-length', RESPONSE.CONTENT_LENGTH],
  ['content-type', RESPONSE.CONTENT_TYPE],
  ['trailer', RESPONSE.TRAILER],
  ...rules(RESPONSE.DROP, [
    'keep-alive',
    'proxy-connection',
    'proxy-authenticate',
    'te',
    'transfer-encoding',
    'upgrade',
    'x-request-id'
  ]),
  ...rules(RESPONSE.CORS, [
    'access-control-allow-credentials',
    'access-control-allow-headers',
    'access-control-allow-methods',
    'access-control-allow-origin',
    'access-control-expose-headers',
    'access-control-max-age'
  ]),
  ...rules(RESPONSE.RATE_LIMIT, [
    'ratelimit',
    'ratelimit-limit',
    'ratelimit-policy',
    'ratelimit-remaining',
    'ratelimit-reset',
    'x-ratelimit-limit',
    'x-ratelimit-remaining',
    'x-ratelimit-reset',
    'x-ratelimit-warning'
  ]),
  ...SECURITY_HEADERS.map((name, bit): [string, number] => [name, RESPONSE.SECURITY + bit])
])

function rules(rule: number, names: readonly string[]): [string, number][] {
  return names.map(name => [name, rule])
}

const responseSpellings = new Map<string, number>(usualSpellings(responseRules))

/** What becomes of the response field `name`, in whatever case it came: one of {@link RESPONSE}. */
export function responseRule(name: string): number {
  const known = responseSpellings.get(name)
  if (known !== undefined) return known
  const rule = responseRules.get(name.toLowerCase()) ?? RESPONSE.FORWARD
  if (responseSpellings.size < MAX_SPELLINGS && name.length <= 64) responseSpellings.set(name, rule)
  return rule
}

/** Values of `Connection` that list no field. */
const usualConnections = new Set(['keep-alive', 'Keep-Alive', 'close', 'Close', 'upgrade', 'Upgrade'])

/** Whether a `Connection` field may list other fields; nearly none does. */
export function mayListFields(connection: string): boolean {
  return connection !== '' && !usualConnections.has(connection)
}

/** The names that a `Connection` field lists, in lower case (RFC 9110 section 7.6.1). */
export function connectionTokens(value: string): string[] {
  return value
    .split(',')
    .map(token => token.trim().toLowerCase())
    .filter(token => token !== '')
}

/** A constant list of response fields, flat as `writeHead` takes it, that policies append to an answer. */
export class HeaderBlock {
  /** `[name, value, name, value, …]` */
  readonly fields: readonly string[]
  /** The same as it stands in a head: `name: value\r\n…` */
  readonly text: string
  /** The security fields in it, as bits of {@link SECURITY_HEADERS}. */
  readonly mask: number

  /** @throws {TypeError} for what no header field may hold */
  constructor(fields: readonly string[]) {
    this.fields = Object.freeze([...fields])
    let text = ''
    let mask = 0
    for (let i = 0; i < fields.length; i += 2) {
      const [name, value] = [fields[i] as string, fields[i + 1] as string]
      http.validateHeaderName(name)
      http.validateHeaderValue(name, value)
      text += `${name}: ${value}\r\n`
      const rule = responseRule(name)
      if (rule >= RESPONSE.SECURITY) mask |= 1 << (rule - RESPONSE.SECURITY)
    }
    this.text = text
    this.mask = mask
  }

  /** Whether the service has set one of its security fields itself. @param taken bits of those that it has set */
  collidesWith(taken: number): boolean {
    return (this.mask & taken) !== 0
  }

  /** Appends the fields to `out`, but for those security fields that the service has set itself (`taken`). */
  appendTo(out: string[], taken: number): void {
    const { fields } = this
    if (!this.collidesWith(taken)) {
      for (let i = 0; i < fields.length; i++) out.push(fields[i] as string)
      return
    }
    for (let i = 0; i < fields.length; i += 2) {
      const bit = responseRule(fields[i] as string) - RESPONSE.SECURITY
      if (bit < 0 || (taken & (1 << bit)) === 0) out.push(fields[i] as string, fields[i + 1] as string)
    }
  }
}

/** Sets `fields`, flat as they are everywhere here, on an answer that Fastify sends. */
export function setFields(
  reply: { header(name: string, value: string): unknown },
  fields: readonly string[] = []
): void {
  for (let i = 0; i < fields.length; i += 2) reply.header(fields[i] as string, fields[i + 1] as string)
}
