import type { ConnectionOptions } from 'node:tls'
import { Agent, type Dispatcher } from 'undici'
import type { Leases } from '../runtime/leases.ts'
import { DiscoveryError } from './discovery.ts'

/** The longest document that is read, in bytes: ten thousand instances and more. */
const LONGEST = 8 * 1024 * 1024
const CONNECT_MS = 5000
/** How long an unused connection is kept, in milliseconds: from one question to the next. */
const KEEP_ALIVE_MS = 30_000

/** How long an answer may take unless said otherwise, in milliseconds. */
const PATIENCE_MS = 10_000

export interface Question {
  readonly method?: Dispatcher.HttpMethod
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  readonly signal: AbortSignal
  /** How long it may take, all of it, in milliseconds. */
  readonly patienceMs?: number
}

export interface Reply {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: AsyncIterable<Buffer>
}

/** Connections to those who know where services are: kept, and shared by all who ask with the same certificates. */
export class HttpClient {
  readonly #agent: Agent
  readonly #release: () => void

  constructor(tls: ConnectionOptions | undefined, leases: Leases) {
    const key = `discovery:${JSON.stringify(tls ?? null)}`
    this.#agent = leases.acquire(
      key,
      () =>
        new Agent({
          connect: { ...tls, timeout: CONNECT_MS } as Agent.Options['connect'] & object,
          keepAliveTimeout: KEEP_ALIVE_MS,
          // How long an answer may take is the question's to say.
          headersTimeout: 0,
          bodyTimeout: 0
        }),
      agent => void agent.destroy()
    )
    this.#release = () => leases.release(key)
  }

  close(): void {
    this.#release()
  }

  /** The head of an answer, whatever its status. Redirects are not followed. */
  async ask(url: string, { signal, patienceMs = PATIENCE_MS, ...question }: Question): Promise<Reply> {
    const { origin, pathname, search } = new URL(url)
    const patience = new Patience(signal, patienceMs)
    try {
      const { statusCode, headers, body } = await this.#agent.request({
        origin,
        path: pathname + search,
        method: question.method ?? 'GET',
        headers: { 'user-agent': 'sallyport', accept: 'application/json', ...question.headers },
        body: question.body ?? null,
        signal: patience.signal
      })
      body.once('close', () => patience.end())
      return { status: statusCode, headers, body }
    } catch (error) {
      patience.end()
      throw error
    }
  }
}

/**
 * Aborts with another signal or after a time, and leaves nothing behind when it is over: what `AbortSignal.any` and
 * `AbortSignal.timeout` make lasts as long as the other signal, and until the time has come.
 */
class Patience {
  readonly #stop: AbortSignal
  readonly #controller = new AbortController()
  readonly #timer: NodeJS.Timeout
  readonly #abort = (): void => this.#controller.abort(this.#stop.reason)

  constructor(stop: AbortSignal, ms: number) {
    this.#stop = stop
    stop.addEventListener('abort', this.#abort)
    if (stop.aborted) this.#abort()
    const late = (): void => this.#controller.abort(new DOMException('no answer in time', 'TimeoutError'))
    this.#timer = setTimeout(late, ms).unref()
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  end(): void {
    clearTimeout(this.#timer)
    this.#stop.removeEventListener('abort', this.#abort)
  }
}

/** @throws {DiscoveryError} for another answer than 200, and for what is no JSON */
export async function jsonOf({ status, body }: Reply): Promise<unknown> {
  const text = await textOf(body)
  if (status !== 200)
    throw new DiscoveryError(`HTTP_${status}`, `answers ${status}${text === '' ? '' : `: ${text.slice(0, 200)}`}`)
  return parseJson(text)
}

/** Whether an answer has taken longer than it might. */
export function isTimeout(error: unknown): boolean {
  return (error as Error).name === 'TimeoutError'
}

/** @throws {DiscoveryError} */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw invalid('is no JSON')
  }
}

export function invalid(message: string): DiscoveryError {
  return new DiscoveryError('INVALID', `the answer ${message}`)
}

/** The lines of a stream that ends with its connection or by itself. */
export async function* linesOf(body: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of body) {
    rest += decoder.decode(chunk, { stream: true })
    if (rest.length > LONGEST) throw invalid(`has a line of more than ${LONGEST} characters`)
    const lines = rest.split('\n')
    rest = lines.pop() as string
    for (const line of lines) if (line.trim() !== '') yield line
  }
  if (rest.trim() !== '') yield rest
}

async function textOf(body: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of body) {
    bytes += chunk.length
    if (bytes > LONGEST) throw invalid(`is larger than ${LONGEST} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}
