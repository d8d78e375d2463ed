import { createHash } from 'node:crypto'
import { type GatewayError, refuse } from '../src/errors.ts'
import { definePolicy } from '../src/policy.ts'
import { bodyTooLarge, collectUpTo } from '../src/proxy/body.ts'
import type { Exchange } from '../src/proxy/exchange.ts'
import { answerWith } from '../src/proxy/fallback.ts'
import { AnswerCopy, type AnswerTap, type KeptAnswer, tapInto } from '../src/proxy/tap.ts'
import { duration, size, Type } from '../src/schema.ts'
import { type Store, StoreUnreachable } from '../src/store/store.ts'

/** The largest answer that is kept, in bytes. */
const LARGEST_ANSWER = 262_144
/** How long the first request may be under way beyond its deadline before its key is free again, in milliseconds. */
const GRACE_MS = 60_000
/** Answers that mean "not now": whoever gets one may try again. */
const TRY_AGAIN: ReadonlySet<number> = new Set([408, 425, 429])

/** What is kept under a key: the request, and its answer once there is one. */
interface Entry {
  readonly request: string
  /** 0 while it is under way. */
  readonly status: number
  /** Undefined while there is none, and if it was too large to keep. */
  readonly answer?: { readonly fields: readonly string[]; readonly body: string }
}

interface Terms {
  readonly ttlMs: number
  /** How long the first request may take. */
  readonly leaseMs: number
  readonly mayRetry: boolean
}

/**
 * Does once what is asked for several times under one `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): who
 * asks again gets the answer of the first time.
 */
export default definePolicy({
  name: 'idempotency',
  schema: Type.Object(
    {
      methods: Type.Array(Type.String({ pattern: '^[A-Z]+$' }), {
        description: 'Methods whose `Idempotency-Key` counts.',
        default: ['POST', 'PATCH']
      }),
      required: Type.Boolean({ description: 'Refuse such requests without a key.', default: false }),
      ttl: duration({ description: 'How long an answer is kept.', default: '24h', positive: true }),
      max_body: size({ description: 'Largest body of a request with a key.', default: '1mb', positive: true }),
      retry: Type.Boolean({
        description: 'The service knows the key itself: `retry` may send such a request to it again.',
        default: false
      })
    },
    { description: 'What is sent again with the same `Idempotency-Key` is answered again rather than done again.' }
  ),
  compile({ methods, required, ttl, max_body, retry }, { route, runtime }) {
    if (route === undefined) return undefined
    const store = runtime.answers
    const scope = route.id
    const mostMs = Math.max(route.timeoutMs, route.totalMs)
    // Without any deadline nobody can say when it is over, so the key is not free before an answer would be forgotten.
    const terms: Terms = { ttlMs: ttl, leaseMs: mostMs === 0 ? ttl : mostMs + GRACE_MS, mayRetry: retry }
    const concerned = new Set(methods)
    const guards = new WeakMap<Exchange, Guard>()
    return {
      onRequest({ exchange }, _reply, done) {
        if (!concerned.has(exchange.method)) return done()
        const sent = exchange.header('idempotency-key')
        if (sent === undefined) return done(required ? NO_KEY : undefined)
        const key = readKey(sent)
        if (key === undefined) return done(BAD_KEY)
        if (exchange.contentLength > max_body) return done(bodyTooLarge(max_body))
        collectUpTo(exchange, max_body, body => {
          if (body === undefined) return done(bodyTooLarge(max_body))
          exchange.body = body
          const guard = new Guard(store, storeKey(scope, exchange, key), fingerprint(exchange, body), terms)
          guards.set(exchange, guard)
          guard.enter(exchange).then(
            answered => (answered ? undefined : done()),
            error => done(error instanceof StoreUnreachable ? STORE_LOST : error)
          )
        })
      },
      onResponse({ exchange }, _reply, done) {
        // Somebody after this has refused it.
        if (exchange.target === undefined) guards.get(exchange)?.ended(false)
        done()
      }
    }
  }
})

/** One request with a key, from the question whether it has been there before to its answer. */
class Guard implements AnswerTap {
  readonly #store: Store
  readonly #key: string
  readonly #request: string
  readonly #terms: Terms
  readonly #copy: AnswerCopy
  #first = false
  #status = 0

  constructor(store: Store, key: string, request: string, terms: Terms) {
    this.#store = store
    this.#key = key
    this.#request = request
    this.#terms = terms
    this.#copy = new AnswerCopy(LARGEST_ANSWER, answer => this.#keep(answer))
  }

  /** @returns whether it has been answered; false lets it go on. @throws {GatewayError} {StoreUnreachable} */
  async enter(exchange: Exchange): Promise<boolean> {
    const { leaseMs, mayRetry } = this.#terms
    if (await this.#store.add(this.#key, JSON.stringify({ request: this.#request, status: 0 }), leaseMs)) {
      this.#first = true
      tapInto(exchange, this)
      exchange.persists = true
      exchange.repeatable = mayRetry
      return false
    }
    const known = await this.#store.get(this.#key)
    // It has failed between the two questions: whoever asks next is the first.
    if (known === undefined) throw UNDER_WAY
    const { request, status, answer } = read(known)
    if (request !== this.#request) throw ANOTHER_REQUEST
    if (status === 0) throw UNDER_WAY
    if (answer === undefined) throw tooLargeToKeep(status)
    exchange.fields.push('idempotent-replayed', 'true')
    answerWith(exchange, {
      status,
      fields: answer.fields.map(field => Buffer.from(field, 'latin1')),
      body: Buffer.from(answer.body, 'base64')
    })
    return true
  }

  head(status: number, fields: readonly Buffer[]): void {
    this.#status = status
    this.#copy.head(status, fields)
  }

  chunk(chunk: Buffer): void {
    this.#copy.chunk(chunk)
  }

  ended(complete: boolean): void {
    if (!this.#first) return
    this.#first = false
    if (complete && this.#status < 500 && !TRY_AGAIN.has(this.#status)) this.#copy.ended(true)
    // Nobody knows what has been done: the caller may ask again.
    else this.#store.delete(this.#key).catch(ignore)
  }

  #keep(answer: KeptAnswer | undefined): void {
    const entry: Entry = {
      request: this.#request,
      status: this.#status,
      ...(answer && {
        answer: {
          fields: answer.fields.map(field => field.toString('latin1')),
          body: answer.body.toString('base64')
        }
      })
    }
    this.#store.set(this.#key, JSON.stringify(entry), this.#terms.ttlMs).catch(ignore)
  }
}

/** @throws {GatewayError} for what is no entry: nobody knows whether it has been done, so it is not done again (H-82) */
function read(text: string): Entry {
  try {
    const entry = JSON.parse(text) as Entry
    if (typeof entry.request === 'string' && Number.isInteger(entry.status)) return entry
  } catch {}
  throw UNREADABLE
}

/** The store was lost while the request was under way: its key stays taken until the lease ends. */
function ignore(): void {}

const NO_KEY = refuse('bad_request', { reason: 'no_idempotency_key', details: 'An Idempotency-Key is needed here.' })
const BAD_KEY = refuse('bad_request', {
  reason: 'bad_idempotency_key',
  details: 'Write Idempotency-Key: "…", with 1 to 255 printable characters.'
})
const ANOTHER_REQUEST = refuse('validation_error', {
  reason: 'idempotency_key_reused',
  details: 'This Idempotency-Key belongs to another request.'
})
const UNDER_WAY: GatewayError = refuse('conflict', {
  reason: 'idempotency_key_under_way',
  details: 'The first request with this Idempotency-Key is under way.',
  headers: ['retry-after', '1']
})
const UNREADABLE = refuse('conflict', {
  reason: 'idempotency_answer_unreadable',
  details: 'What is kept under this Idempotency-Key cannot be read; nothing has been done now.'
})
const STORE_LOST = refuse('service_unavailable', { reason: 'store lost', headers: ['retry-after', '1'] })

function tooLargeToKeep(status: number): GatewayError {
  return refuse('conflict', {
    reason: 'idempotency_answer_not_kept',
    details: `This has been done, and answered with ${status}; the answer was too large to be kept.`
  })
}

/** A string of structured fields (RFC 8941 section 3.3.3), or, as many write it, without the quotes. */
function readKey(value: string): string | undefined {
  const quoted = /^"((?:[ !#-[\]-~]|\\["\\]){1,255})"$/.exec(value)
  if (quoted !== null) return quoted[1]
  return /^[!#-+\--:<-~]{1,255}$/.test(value) ? value : undefined
}

/**
 * Whoever is unknown is told from others by his address, and by a credential that only the service understands: a key that
 * somebody else has guessed is of no use to him.
 */
function storeKey(route: string, { consumer, client, authorization, apiKey }: Exchange, key: string): string {
  const whose = consumer?.key ?? `ip:${client}\n${authorization}\n${apiKey}`
  return `idempotency:${createHash('sha256').update(`${whose}\n${route}\n${key}`).digest('base64url')}`
}

function fingerprint({ method, path, search, contentType }: Exchange, body: Buffer): string {
  return createHash('sha256').update(`${method} ${path}${search}\n${contentType}\n`).update(body).digest('base64url')
}
