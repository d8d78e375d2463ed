import { duration, type Static, size, Type } from '../schema.ts'

/** A field name (RFC 9110 section 5.1). */
const FIELD_NAME = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"

/** `fallback:`, under `defaults`, a service or a route (RES-06, RES-17). */
export const fallback = Type.Union(
  [
    Type.Literal(false),
    Type.Object({
      on: Type.Array(Type.Integer({ minimum: 500, maximum: 599 }), {
        description: 'What it stands in for: answers of the gateway and of the service with these statuses.',
        default: [502, 503, 504]
      }),
      cached: Type.Optional(
        Type.Union(
          [
            Type.Boolean(),
            Type.Object({
              max_age: duration({ description: 'How old an answer may be.', default: '1h', positive: true }),
              size: size({ description: 'What is kept at most, for each route.', default: '10mb', positive: true })
            })
          ],
          { description: 'First of all, the last good answer to the same GET, if it may be kept.' }
        )
      ),
      service: Type.Optional(
        Type.String({ description: 'Else the answer of this service, if the request may be sent to another one.' })
      ),
      status: Type.Integer({
        description: 'Else an answer of this status …',
        default: 200,
        minimum: 200,
        maximum: 599
      }),
      headers: Type.Record(Type.String(), Type.String({ pattern: '^[\\t\\x20-\\x7e]*$' }), {
        description: '… with these fields …',
        default: {}
      }),
      body: Type.Optional(Type.Unknown({ description: '… and this body: text, or what becomes JSON;' })),
      file: Type.Optional(Type.String({ description: 'or the content of this file, up to 1 MB.' }))
    })
  ],
  { description: 'What is answered in place of a failure.' }
)

export type FallbackSettings = Static<typeof fallback>

/** What a route answers in place of a failure. */
export interface FallbackConfig {
  readonly on: readonly number[]
  readonly cached: { readonly maxAgeMs: number; readonly bytes: number } | undefined
  readonly service: string | undefined
  readonly answer: StaticAnswer | undefined
}

/** An answer that is always the same. */
export interface StaticAnswer {
  readonly status: number
  /** Names and values in turn. */
  readonly fields: readonly string[]
  /** Base64, since a configuration is plain data. */
  readonly body: string
}

/** The largest file that is read, in bytes. */
export const LARGEST_FILE = 1_000_000

/** @param content of the file, if there is one: undefined also if it cannot be read */
export function fallbackConfig(
  settings: FallbackSettings | undefined,
  content: Buffer | undefined
): FallbackConfig | undefined {
  if (settings === undefined || settings === false) return undefined
  const { on, cached, service } = settings
  return {
    on,
    cached:
      cached === undefined || cached === false
        ? undefined
        : cached === true
          ? { maxAgeMs: 3_600_000, bytes: 10_000_000 }
          : { maxAgeMs: cached.max_age, bytes: cached.size },
    service,
    answer: answerOf(settings, content)
  }
}

function answerOf(
  { status, headers, body, file }: Exclude<FallbackSettings, false>,
  content: Buffer | undefined
): StaticAnswer | undefined {
  if (body === undefined && file === undefined) return undefined
  const bytes = content ?? Buffer.from(typeof body === 'string' ? body : JSON.stringify(body ?? ''))
  const names = new Set(Object.keys(headers).map(name => name.toLowerCase()))
  const fields = Object.entries(headers).flat()
  if (!names.has('content-type'))
    fields.push('content-type', file === undefined ? typeOf(body) : (TYPES[file.split('.').at(-1) as string] ?? BINARY))
  if (!names.has('cache-control')) fields.push('cache-control', 'no-store')
  fields.push('content-length', String(bytes.length))
  return { status, fields, body: bytes.toString('base64') }
}

function typeOf(body: unknown): string {
  return typeof body === 'string' ? 'text/plain; charset=utf-8' : 'application/json'
}

const BINARY = 'application/octet-stream'
const TYPES: Readonly<Record<string, string>> = {
  html: 'text/html; charset=utf-8',
  json: 'application/json',
  txt: 'text/plain; charset=utf-8',
  xml: 'application/xml',
  svg: 'image/svg+xml'
}

/** What of a fallback contradicts itself: the key, and what is wrong with it. */
export function fallbackTrouble(settings: FallbackSettings | undefined): [key: string, message: string][] {
  if (settings === undefined || settings === false) return []
  const { body, file, headers, service, cached } = settings
  const trouble: [string, string][] = []
  if (body !== undefined && file !== undefined) trouble.push(['file', 'stands beside "body"; keep one of them'])
  if (body === undefined && file === undefined && service === undefined && !cached)
    trouble.push(['on', 'has nothing to answer with: give "body", "file", "service" or "cached"'])
  for (const name of Object.keys(headers)) {
    if (!new RegExp(FIELD_NAME).test(name)) trouble.push([`headers.${name}`, 'is no name of a header field'])
    else if (FRAMING.has(name.toLowerCase())) trouble.push([`headers.${name}`, 'is for the gateway to say'])
  }
  return trouble
}

const FRAMING = new Set(['content-length', 'transfer-encoding', 'connection', 'trailer', 'upgrade', 'keep-alive'])
