import type { Clock } from '../runtime/clock.ts'
import type { FallbackConfig, StaticAnswer } from '../upstream/fallback-settings.ts'
import type { Target } from '../upstream/target.ts'
import { latin1, writeHead } from './answer.ts'
import type { Exchange } from './exchange.ts'
import { AnswerCopy, type KeptAnswer, tapInto } from './tap.ts'

/** What a route has in place of a failure, in the order in which it is asked. */
export interface Fallback {
  readonly on: ReadonlySet<number>
  readonly cache: LastAnswers | undefined
  readonly target: Target | undefined
  readonly answer: KeptAnswer | undefined
}

export function compileFallback(
  route: { readonly service: string },
  { on, service, answer }: FallbackConfig,
  cache: LastAnswers | undefined,
  targetOf: (name: string) => Target
): Fallback {
  return {
    on: new Set(on),
    cache,
    // What stands under the defaults is also for the routes of the service that stands in for the others.
    target: service === undefined || service === route.service ? undefined : targetOf(service),
    answer: answer && kept(answer)
  }
}

function kept({ status, fields, body }: StaticAnswer): KeptAnswer {
  return { status, fields: fields.map(field => Buffer.from(field, 'latin1')), body: Buffer.from(body, 'base64') }
}

/**
 * Answers with what has been kept, as if the service had just sent it.
 * @throws what `writeHead` does, for fields that cannot be written
 */
export function answerWith(exchange: Exchange, { status, fields, body }: KeptAnswer): void {
  // What is left of the body would have to be read and thrown away before the connection could be used again.
  if (exchange.uploading) exchange.endConnection()
  const { response } = exchange
  writeHead(exchange, status, fields)
  exchange.reply?.hijack()
  if (exchange.method === 'HEAD') response.end()
  else {
    exchange.bytesOut += body.length
    response.end(body)
  }
}

/** The largest answer that is kept, in bytes. */
const LARGEST = 1_000_000
/** What all routes together keep at most, in bytes: there may be thousands of them. */
const MOST_BYTES = 128 * 1024 * 1024

/** What each text and buffer takes besides what is in it, in bytes, more or less: small answers are mostly that. */
const PIECE_BYTES = 100

/** What the last answers of all routes take. */
export interface Kept {
  bytes: number
}

interface Entry {
  readonly answer: KeptAnswer
  /** Monotonic milliseconds. */
  readonly at: number
  readonly bytes: number
  /** What the answer depends on, and how the request was in that (`Vary`): names and values in turn. */
  readonly vary: readonly string[]
}

/**
 * The last good answer to each GET of a route, up to a size: the least recently used go first. What a cache that is shared may not
 * keep (RFC 9111 section 3) is not kept; what was for one caller is for that one only.
 */
export class LastAnswers {
  readonly #clock: Clock
  readonly #maxAgeMs: number
  readonly #maxBytes: number
  readonly #entries = new Map<string, Entry>()
  readonly #ofAll: Kept
  #bytes = 0

  /** @param ofAll shared by those of all routes */
  constructor({ maxAgeMs, bytes }: { maxAgeMs: number; bytes: number }, clock: Clock, ofAll: Kept) {
    this.#clock = clock
    this.#ofAll = ofAll
    this.#maxAgeMs = maxAgeMs
    this.#maxBytes = bytes
  }

  /** Keeps the answer to a request that is about to be forwarded, if it may. */
  follow(exchange: Exchange): void {
    if (exchange.method !== 'GET' || exchange.header('range') !== undefined) return
    const keep = (answer: KeptAnswer | undefined): void => {
      if (answer !== undefined) this.#keep(exchange, answer)
    }
    const largest = Math.min(LARGEST, this.#maxBytes)
    tapInto(exchange, new AnswerCopy(largest, keep, (status, fields) => mayKeep(exchange, status, fields)))
  }

  #keep(exchange: Exchange, answer: KeptAnswer): void {
    const key = keyOf(exchange)
    this.#drop(key)
    const vary = listOf(fieldOf(answer.fields, 'vary')).flatMap(name => [name, exchange.header(name) ?? ''])
    const bytes = [key, answer.body, ...answer.fields, ...vary].reduce(
      (sum, { length }) => sum + length + PIECE_BYTES,
      0
    )
    this.#entries.set(key, { answer, at: this.#clock.monotonic(), bytes, vary })
    this.#count(bytes)
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes <= this.#maxBytes && this.#ofAll.bytes <= MOST_BYTES) break
      this.#drop(oldest)
    }
  }

  #count(bytes: number): void {
    this.#bytes += bytes
    this.#ofAll.bytes += bytes
  }

  /** Forgets all of it. */
  close(): void {
    this.#count(-this.#bytes)
    this.#entries.clear()
  }

  /** The last answer to such a request, with its `Age`. */
  find(exchange: Exchange): KeptAnswer | undefined {
    if (exchange.method !== 'GET' && exchange.method !== 'HEAD') return undefined
    const key = keyOf(exchange)
    const entry = this.#entries.get(key)
    if (entry === undefined) return undefined
    const age = this.#clock.monotonic() - entry.at
    if (age > this.#maxAgeMs) {
      this.#drop(key)
      return undefined
    }
    const { vary, answer } = entry
    for (let i = 0; i < vary.length; i += 2)
      if ((exchange.header(vary[i] as string) ?? '') !== vary[i + 1]) return undefined
    this.#entries.delete(key)
    this.#entries.set(key, entry)
    const fields = without(answer.fields, 'age')
    return { ...answer, fields: [...fields, Buffer.from('age'), Buffer.from(String(Math.floor(age / 1000)))] }
  }

  #drop(key: string): void {
    const entry = this.#entries.get(key)
    if (entry === undefined) return
    this.#entries.delete(key)
    this.#count(-entry.bytes)
  }
}

/** Whoever is known has answers of his own. */
function keyOf({ host, path, search, consumer }: Exchange): string {
  return `${consumer?.key ?? ''}\n${host}${path}${search}`
}

/** Whether an answer may be given again, to the same caller at least. */
function mayKeep(exchange: Exchange, status: number, fields: readonly Buffer[]): boolean {
  // What stands in for a service is no answer of its.
  if (exchange.fallback !== '') return false
  if (status !== 200 || fieldOf(fields, 'set-cookie') !== '') return false
  const control = listOf(fieldOf(fields, 'cache-control'))
  if (control.some(directive => /^(no-store|private)\b/.test(directive))) return false
  if (listOf(fieldOf(fields, 'vary')).includes('*')) return false
  if (listOf(exchange.header('cache-control') ?? '').includes('no-store')) return false
  // A credential that only the service understands: nobody here knows whose answer it is.
  const unknown =
    exchange.consumer === undefined &&
    (exchange.authorization !== '' || exchange.apiKey !== '' || exchange.header('cookie') !== undefined)
  return !unknown || control.includes('public')
}

/** The value of a field, or those of several of its name as a list; '' if there is none. */
function fieldOf(fields: readonly Buffer[], name: string): string {
  const values: string[] = []
  for (let i = 0; i < fields.length; i += 2)
    if (latin1(fields[i]).toLowerCase() === name) values.push(latin1(fields[i + 1]))
  return values.join(',')
}

function without(fields: readonly Buffer[], name: string): Buffer[] {
  return fields.filter((_, i) => latin1(fields[i - (i % 2)]).toLowerCase() !== name)
}

function listOf(value: string): string[] {
  return value
    .toLowerCase()
    .split(',')
    .map(item => item.trim())
    .filter(item => item !== '')
}
