import { isUtf8 } from 'node:buffer'
import type { IncomingHttpHeaders } from 'node:http'
import { refuse } from '../errors.ts'
import { REQUEST, requestRule } from '../proxy/headers.ts'

/** One request of a batch, as its caller writes it. */
export interface SubRequest {
  readonly id?: string
  readonly method: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  /** Text as it is to be sent; anything else is sent as JSON. */
  readonly body?: unknown
}

/** What came of it. */
export interface SubAnswer {
  readonly id: string
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

/** What a sub-request says for itself: who asks, if not the batch's caller, and whatever is meant for the service. */
const OWN: ReadonlySet<number> = new Set([
  REQUEST.FORWARD,
  REQUEST.UNDERSCORE,
  REQUEST.HOST,
  REQUEST.AUTHORIZATION,
  REQUEST.API_KEY,
  REQUEST.CONTENT_TYPE,
  REQUEST.COOKIE
])

/** What is known of the way by which the batch came, which is its sub-requests' way too: nobody inside it has a say in that. */
const OF_THE_WAY: ReadonlySet<number> = new Set([
  REQUEST.FORWARDED_FOR,
  REQUEST.FORWARDED_PROTO,
  REQUEST.FORWARDED_HOST,
  REQUEST.VIA,
  REQUEST.CLIENT_ID,
  REQUEST.ORIGIN
])

/** What a sub-request has of the batch as long as it says nothing else: the same program asks, within the same trace. */
const UNLESS_NAMED = /^(?:user-agent|traceparent|tracestate|baggage|b3|x-b3-[a-z]+)$/

const NAME = /^[!#$%&'*+.^_`|~0-9a-zA-Z-]+$/
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/

/**
 * The fields of a sub-request: its own, and what it has of the batch. With a credential of its own it has none of the batch's.
 * @param batch raw fields of the batch's own request, flat
 * @param place of the sub-request, for what is wrong with it
 * @param proxyField a further field that only a proxy in front may speak, in lower case
 * @throws {GatewayError} 422 for a field that no sub-request may have
 */
export function fieldsOf(
  { headers, body }: SubRequest,
  batch: readonly string[],
  place: string,
  proxyField?: string
): Map<string, string> {
  const fields = new Map<string, string>()
  for (const [name, value] of Object.entries(headers)) {
    const key = name.toLowerCase()
    const fault = fields.has(key) ? 'is there twice' : key === proxyField ? NOT_ITS_OWN : faultOf(key, value)
    if (fault !== undefined) throw invalid(`${place}.headers.${name}`, fault)
    fields.set(key, value)
  }
  const isKnown = fields.has('authorization') || fields.has('x-api-key')
  const own = new Set(fields.keys())
  for (let i = 0; i < batch.length; i += 2) {
    const name = (batch[i] as string).toLowerCase()
    const value = batch[i + 1] as string
    const rule = requestRule(name)
    if (rule === REQUEST.HOST || rule === REQUEST.AUTHORITY) {
      if (!own.has('host')) fields.set('host', value)
    } else if (rule === REQUEST.AUTHORIZATION || rule === REQUEST.API_KEY) {
      if (!isKnown) fields.set(name, value)
    } else if (OF_THE_WAY.has(rule) || name === proxyField || (UNLESS_NAMED.test(name) && !own.has(name))) {
      const before = fields.get(name)
      fields.set(name, before === undefined ? value : `${before}, ${value}`)
    }
  }
  if (body !== undefined && typeof body !== 'string' && !fields.has('content-type'))
    fields.set('content-type', 'application/json')
  return fields
}

const NOT_ITS_OWN = 'is for the connection, a proxy in front or the gateway to say'

function faultOf(name: string, value: string): string | undefined {
  if (!NAME.test(name) || !VALUE.test(value)) return 'is no header field'
  return OWN.has(requestRule(name)) ? undefined : NOT_ITS_OWN
}

/** @throws {GatewayError} 422 for two sub-requests of one id */
export function idsOf(requests: readonly SubRequest[]): string[] {
  const ids = requests.map(({ id }, i) => id ?? String(i))
  const seen = new Set<string>()
  for (const [i, id] of ids.entries()) {
    if (seen.has(id)) throw invalid(`[${i}].id`, `"${id}" is another one's already`)
    seen.add(id)
  }
  return ids
}

function invalid(field: string, message: string): Error {
  return refuse('validation_error', {
    details: `${field} ${message}`,
    fields: [{ field, message, type: 'schema' }]
  })
}

/** The bytes to send; undefined for none. */
export function bodyOf({ body }: SubRequest): string | undefined {
  return body === undefined || typeof body === 'string' ? body : JSON.stringify(body)
}

/** 200 when all is well, else 207: somebody has to look at the single answers. */
export function statusOf(answers: readonly SubAnswer[]): 200 | 207 {
  return answers.every(({ status }) => status < 400) ? 200 : 207
}

/** Said of a connection that nobody but the gateway has seen. */
const OF_THE_CONNECTION = new Set(['connection', 'keep-alive', 'transfer-encoding', 'trailer'])

/**
 * The answers as JSON, in the order asked. JSON bodies are put in as they came, to the digit and the space: reading and writing them
 * anew would lose what a JavaScript number does not hold.
 */
export function answersAsJson(answers: readonly SubAnswer[]): string {
  return `[${answers.map(answerAsJson).join(',')}]`
}

function answerAsJson({ id, status, headers, body }: SubAnswer): string {
  const shown = Object.fromEntries(Object.entries(headers).filter(([name]) => !OF_THE_CONNECTION.has(name)))
  const start = `{"id":${JSON.stringify(id)},"status":${status},"headers":${JSON.stringify(shown)}`
  if (body.length === 0) return `${start}}`
  if (headers['content-encoding'] !== undefined || !isUtf8(body))
    return `${start},"body":"${body.toString('base64')}","body_encoding":"base64"}`
  const text = body.toString()
  const isJson = JSON_TYPE.test(headers['content-type'] ?? '') && parses(text)
  return `${start},"body":${isJson ? text : JSON.stringify(text)}}`
}

const JSON_TYPE = /^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i

function parses(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}
