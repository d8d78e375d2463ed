import type { KeyObject } from 'node:crypto'
import http, { type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'

export interface KeyServer {
  readonly url: string
  /** Requests that have come. */
  readonly fetches: number
  /** Publishes these keys from now on, by their names. */
  publish(keys: Readonly<Record<string, KeyObject>>): void
  /** Answers each request like this from now on. */
  answer(how: (response: ServerResponse) => void): void
  /** Stops listening and cuts every connection. */
  crash(): Promise<void>
  /** Listens again at the same port. */
  revive(): Promise<void>
}

/** An issuer's key set behind a URL, for as long as the test runs. */
export async function startKeyServer(t: Test, keys: Readonly<Record<string, KeyObject>>): Promise<KeyServer> {
  let fetches = 0
  let how: (response: ServerResponse) => void = () => {}
  const publish: KeyServer['publish'] = next => {
    const set = { keys: Object.entries(next).map(([kid, key]) => ({ ...key.export({ format: 'jwk' }), kid })) }
    how = response => response.setHeader('content-type', 'application/json').end(JSON.stringify(set))
  }
  publish(keys)
  const server = http.createServer((_request, response) => {
    fetches++
    response.on('error', () => {})
    how(response)
  })
  const listen = (port: number): Promise<void> => new Promise(resolve => server.listen(port, '127.0.0.1', resolve))
  await listen(0)
  const { port } = server.address() as AddressInfo
  const crash = (): Promise<void> =>
    new Promise(resolve => {
      server.close(() => resolve())
      server.closeAllConnections()
    })
  t.teardown(() => (server.listening ? crash() : undefined))
  return {
    url: `http://127.0.0.1:${port}/keys`,
    get fetches() {
      return fetches
    },
    publish,
    answer: next => {
      how = next
    },
    crash,
    revive: () => listen(port)
  }
}
