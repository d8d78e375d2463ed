import { createHash } from 'node:crypto'
import { once } from 'node:events'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type WebSocket, WebSocketServer } from 'ws'

/** Pieces of a stream, and the pause between them. */
const STREAM_PIECES = 8
const STREAM_PAUSE_MS = 30
const FLAP_MS = 700

/** What has come to any instance of any service: how often, by nonce. */
export type Deliveries = Map<string, number>

/** A body of so many bytes that no other nonce has. */
export function bodyOf(nonce: string, bytes: number): Buffer {
  return Buffer.alloc(bytes, `${nonce}.`)
}

/** What a service says of a body that it has got. */
export function receiptOf(nonce: string, body: Buffer): string {
  return `${nonce} ${body.length} ${createHash('sha256').update(body).digest('hex')}`
}

/** What an event stream says from its beginning to its end. */
export function streamOf(nonce: string): string[] {
  return Array.from({ length: STREAM_PIECES }, (_, i) => `data: ${nonce} ${i + 1}/${STREAM_PIECES}\n\n`)
}

/**
 * One instance of a service. Whatever it is asked, its answer can be told from every other: it is made of the nonce that the
 * request brought. What must not come twice it counts when it arrives, whether or not an answer ever does.
 */
export class ChaosService {
  readonly #deliveries: Deliveries
  readonly #server: http.Server
  readonly #sockets = new WebSocketServer({ noServer: true })
  /** Its health check goes wrong every other moment, and nothing else does. */
  flapping = false
  /** Each order that it has taken has a number, so that an answer that is given again can be told from another one. */
  static #orders = 0

  constructor(deliveries: Deliveries) {
    this.#deliveries = deliveries
    this.#server = http.createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
      request.on('error', () => {})
      response.on('error', () => {})
      this.#answer(request, response)
    })
    this.#server.on('upgrade', (request, socket, head) => {
      const nonce = nonceOf(request)
      this.#sockets.handleUpgrade(request, socket, head, webSocket => echo(webSocket, nonce))
    })
  }

  /** @returns its port */
  async listen(): Promise<number> {
    await once(this.#server.listen(0, '127.0.0.1'), 'listening')
    return (this.#server.address() as AddressInfo).port
  }

  close(): void {
    this.#server.close()
    this.#server.closeAllConnections()
    for (const socket of this.#sockets.clients) socket.terminate()
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    if (request.url === '/health') {
      const isIll = this.flapping && Math.floor(performance.now() / FLAP_MS) % 2 === 0
      return void response.writeHead(isIll ? 503 : 200).end()
    }
    const nonce = nonceOf(request)
    const { searchParams } = new URL(request.url ?? '', 'http://x')
    if (searchParams.has('once')) this.#deliveries.set(nonce, (this.#deliveries.get(nonce) ?? 0) + 1)
    response.setHeader('x-nonce', nonce)
    if (searchParams.has('stream')) return void stream(response, nonce)
    const bytes = searchParams.get('bytes')
    if (bytes !== null) {
      const body = bodyOf(nonce, Number(bytes))
      return void response.writeHead(200, { 'content-length': body.length }).end(body)
    }
    const chunks: Buffer[] = []
    request.on('data', chunk => chunks.push(chunk))
    request.on('end', () => {
      response.setHeader('x-order', ++ChaosService.#orders)
      response.end(receiptOf(nonce, Buffer.concat(chunks)))
    })
  }
}

function nonceOf({ url = '' }: IncomingMessage): string {
  return new URL(url, 'http://x').searchParams.get('nonce') ?? ''
}

async function stream(response: ServerResponse, nonce: string): Promise<void> {
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  for (const piece of streamOf(nonce)) {
    if (response.destroyed) return
    response.write(piece)
    await new Promise(resolve => setTimeout(resolve, STREAM_PAUSE_MS))
  }
  response.end()
}

/** Says everything back, with the nonce by which it was opened. */
function echo(webSocket: WebSocket, nonce: string): void {
  webSocket.on('error', () => {})
  webSocket.on('message', message => webSocket.send(`${nonce} ${message}`))
}
