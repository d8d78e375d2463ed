import http, { type ClientRequest, type IncomingMessage } from 'node:http'
import { WebSocket } from 'ws'
import { token } from '../tokens.ts'
import { bodyOf, receiptOf, streamOf } from './service.ts'

/** What requests there are, and how many of a hundred. */
const KINDS = {
  get: 50,
  large: 6,
  stream: 5,
  post: 15,
  keyed: 6,
  put: 10,
  upload: 3,
  websocket: 3,
  /** Goes away in the middle of its answer. */
  leaver: 2
} as const

export type Kind = keyof typeof KINDS

/** How a request ended. Everything but `right` and `wrong` its client could see had failed. */
export type Outcome = 'right' | 'left' | 'cut' | 'unconnected' | 'silent' | 'wrong' | `status ${number}`

export interface Done {
  readonly kind: Kind
  readonly service: string
  readonly nonce: string
  /** Monotonic, in milliseconds. */
  readonly from: number
  readonly to: number
  readonly outcome: Outcome
  /** What was wrong, or what is known of it. */
  readonly details: string
}

const SMALL_BYTES = 300
const LARGE_BYTES = 100_000
const UPLOAD_PIECES = 6
const UPLOAD_PIECE_BYTES = 16_384
const UPLOAD_PAUSE_MS = 20
const ECHOES = 3
/** Longer than any of the gateway's own limits: who has no answer by then never gets one. */
const SILENCE_MS = 45_000
/** Refusals that are the gateway's right when services fail; any other status is a wrong answer. */
const REFUSALS: ReadonlySet<number> = new Set([502, 503, 504])

/** Asks the gateway, and looks at every answer. */
export class Load {
  readonly #port: number
  readonly #services: readonly string[]
  readonly #random: () => number
  readonly #onDone: (done: Done) => void
  readonly #agent = new http.Agent({ keepAlive: true, maxSockets: 1024, scheduling: 'lifo' })
  readonly #bearer = `Bearer ${token('chaos')}`
  #made = 0
  #under = 0

  constructor(port: number, services: readonly string[], random: () => number, onDone: (done: Done) => void) {
    this.#port = port
    this.#services = services
    this.#random = random
    this.#onDone = onDone
  }

  /** Requests that have no outcome yet. */
  get underWay(): number {
    return this.#under
  }

  /** An open loop: so many requests a second, whatever becomes of them. */
  async run(perSecond: number, ms: number): Promise<void> {
    const since = performance.now()
    const all = Math.round((perSecond * ms) / 1000)
    for (let sent = 0; sent < all; ) {
      const due = Math.min(all, Math.floor(((performance.now() - since) / 1000) * perSecond))
      for (; sent < due; sent++) this.#start()
      await new Promise(resolve => setTimeout(resolve, 4))
    }
  }

  /** Waits until everything has its outcome, and closes what is idle. */
  async settle(): Promise<void> {
    while (this.#under > 0) await new Promise(resolve => setTimeout(resolve, 20))
    this.#agent.destroy()
  }

  async #start(): Promise<void> {
    const kind = this.#draw()
    const service = this.#services[Math.floor(this.#random() * this.#services.length)] as string
    const nonce = `${kind}-${(this.#made++).toString(36)}-${Math.floor(this.#random() * 2 ** 32).toString(36)}`
    this.#under++
    const from = performance.now()
    let outcome: Outcome
    let details = ''
    try {
      const result = await (kind === 'websocket' ? this.#talk(service, nonce) : this.#ask(kind, service, nonce))
      outcome = result.outcome
      details = result.details ?? ''
    } catch (error) {
      const { code = '', message } = error as NodeJS.ErrnoException
      outcome = code === 'ECONNREFUSED' ? 'unconnected' : message === 'silent' ? 'silent' : 'cut'
      details = `${code} ${message}`
    }
    this.#under--
    this.#onDone({ kind, service, nonce, from, to: performance.now(), outcome, details })
  }

  #draw(): Kind {
    let at = this.#random() * 100
    for (const [kind, share] of Object.entries(KINDS) as [Kind, number][]) {
      at -= share
      if (at < 0) return kind
    }
    return 'get'
  }

  async #ask(kind: Kind, service: string, nonce: string): Promise<Result> {
    const { result, response } = await this.#once(kind, service, nonce)
    if (kind !== 'keyed' || result.outcome !== 'right') return result
    // Somebody whose answer has been lost asks again, with the same key, and is told the same.
    const again = await this.#once(kind, service, nonce)
    if (again.result.outcome !== 'right') return again.result
    const [first, second] = [response, again.response].map(({ headers }) => headers['x-order'])
    return first === second ? result : { outcome: 'wrong', details: `order ${second} instead of ${first}, by one key` }
  }

  async #once(kind: Kind, service: string, nonce: string): Promise<{ result: Result; response: IncomingMessage }> {
    const query = new URLSearchParams({ nonce })
    if (kind === 'post' || kind === 'keyed' || kind === 'upload') query.set('once', '')
    if (kind === 'get') query.set('bytes', String(SMALL_BYTES))
    if (kind === 'large' || kind === 'leaver') query.set('bytes', String(LARGE_BYTES))
    if (kind === 'stream') query.set('stream', '')
    const method = { post: 'POST', keyed: 'POST', upload: 'POST', put: 'PUT' }[kind as string] ?? 'GET'
    const request = http.request({
      host: '127.0.0.1',
      port: this.#port,
      path: `/api/${service}/things?${query}`,
      method,
      agent: this.#agent,
      headers: {
        authorization: this.#bearer,
        'x-request-id': nonce,
        ...(kind === 'keyed' && { 'idempotency-key': nonce })
      }
    })
    const sent = await send(request, kind, nonce)
    const response = await sent.response
    const result =
      kind === 'leaver' ? await leave(response) : judge(response, await readAll(response), kind, nonce, sent.body)
    return { result, response }
  }

  #talk(service: string, nonce: string): Promise<Result> {
    return new Promise((resolve, reject) => {
      const url = `ws://127.0.0.1:${this.#port}/ws/${service}?nonce=${nonce}`
      const socket = new WebSocket(url, { headers: { authorization: this.#bearer, 'x-request-id': nonce } })
      const timer = setTimeout(() => end(new Error('silent')), SILENCE_MS)
      const end = (result: Result | Error): void => {
        clearTimeout(timer)
        if (result instanceof Error) {
          socket.terminate()
          reject(result)
        } else resolve(result)
      }
      let echoes = 0
      let isWrong = ''
      socket.on('unexpected-response', (_, response) => {
        response.resume()
        end(refused(response))
        socket.terminate()
      })
      socket.on('error', end)
      socket.on('open', () => socket.send('0'))
      socket.on('message', message => {
        if (String(message) !== `${nonce} ${echoes}`) isWrong = `echo ${message}`
        if (++echoes === ECHOES || isWrong !== '') socket.close(1000)
        else socket.send(String(echoes))
      })
      socket.on('close', code => {
        if (isWrong !== '') end({ outcome: 'wrong', details: isWrong })
        else end({ outcome: echoes === ECHOES && code === 1000 ? 'right' : 'cut', details: `closed with ${code}` })
      })
    })
  }
}

interface Result {
  readonly outcome: Outcome
  readonly details?: string
}

/** Sends the request with what it has for a body; the answer may begin before that has ended. */
async function send(
  request: ClientRequest,
  kind: Kind,
  nonce: string
): Promise<{ response: Promise<IncomingMessage>; body: Buffer }> {
  const response = new Promise<IncomingMessage>((resolve, reject) => {
    request.on('response', resolve)
    request.on('error', reject)
    request.setTimeout(SILENCE_MS, () => request.destroy(new Error('silent')))
  })
  response.catch(() => {})
  if (kind !== 'upload') {
    const body = kind === 'post' || kind === 'keyed' || kind === 'put' ? bodyOf(nonce, SMALL_BYTES) : Buffer.alloc(0)
    request.end(body)
    return { response, body }
  }
  const piece = bodyOf(nonce, UPLOAD_PIECE_BYTES)
  for (let i = 0; i < UPLOAD_PIECES && !request.destroyed; i++) {
    request.write(piece)
    await new Promise(resolve => setTimeout(resolve, UPLOAD_PAUSE_MS))
  }
  request.end()
  return { response, body: Buffer.concat(Array.from({ length: UPLOAD_PIECES }, () => piece)) }
}

/** The whole answer. @throws when it was cut off, which is what its framing says and not what is in it */
async function readAll(response: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk)
  return Buffer.concat(chunks)
}

async function leave(response: IncomingMessage): Promise<Result> {
  if (response.statusCode !== 200) {
    response.resume()
    return refused(response)
  }
  response.on('error', () => {})
  await new Promise(resolve => response.once('data', resolve).once('close', resolve))
  response.destroy()
  return { outcome: 'left' }
}

function refused({ statusCode: status = 0 }: IncomingMessage, text = ''): Result {
  if (REFUSALS.has(status)) return { outcome: `status ${status}` }
  return { outcome: 'wrong', details: `status ${status} ${text.slice(0, 200)}` }
}

/** Whether a complete answer is the one that belongs to this request. */
function judge(response: IncomingMessage, answer: Buffer, kind: Kind, nonce: string, sent: Buffer): Result {
  if (response.statusCode !== 200) return refused(response, answer.toString())
  const expected =
    kind === 'get'
      ? bodyOf(nonce, SMALL_BYTES)
      : kind === 'large'
        ? bodyOf(nonce, LARGE_BYTES)
        : Buffer.from(kind === 'stream' ? streamOf(nonce).join('') : receiptOf(nonce, sent))
  if (answer.equals(expected) && response.headers['x-nonce'] === nonce) return { outcome: 'right' }
  const [got, wanted] = [answer, expected].map(body => `${body.length} bytes "${body.toString('latin1', 0, 60)}"`)
  return { outcome: 'wrong', details: `${got} instead of ${wanted}` }
}
