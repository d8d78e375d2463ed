import { createHash } from 'node:crypto'
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import type { InstanceAddress } from './gateway.ts'

/** Says over HTTP where the instances of a service are, when it says anything. */
export class Directory {
  readonly #server = http.createServer((request, response) => this.#answer(request, response))
  #list = ''
  /** Nobody gets an answer. */
  isAway = false

  async listen(): Promise<void> {
    await once(this.#server.listen(0, '127.0.0.1'), 'listening')
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/`
  }

  publish(instances: readonly InstanceAddress[]): void {
    this.#list = JSON.stringify({ instances })
  }

  close(): void {
    this.#server.close()
    this.#server.closeAllConnections()
  }

  #answer(request: http.IncomingMessage, response: http.ServerResponse): void {
    if (this.isAway) return void request.socket.destroy()
    const etag = `"${createHash('sha1').update(this.#list).digest('hex')}"`
    response.setHeader('etag', etag)
    if (request.headers['if-none-match'] === etag) response.writeHead(304).end()
    else response.setHeader('content-type', 'application/json').end(this.#list)
  }
}
