import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import net, { type AddressInfo, type Socket } from 'node:net'
import type { Test } from 'tap'

/** A request as it reached the service. */
export interface Seen {
  readonly method: string
  readonly url: string
  readonly headers: IncomingMessage['headers']
  readonly rawHeaders: string[]
  readonly body: string
}

export interface Upstream {
  readonly url: string
  readonly port: number
  readonly seen: Seen[]
  /** The last request that came. */
  last(): Seen
  close(): Promise<void>
  /** Stops listening and cuts every connection, as a crash would. */
  crash(): Promise<void>
  /** Listens again at the same port. */
  revive(): Promise<void>
}

type Handler = (request: IncomingMessage, response: ServerResponse, body: string) => void

/** A service that answers 200 with what it got, or whatever `handler` does; for as long as the test runs. */
export async function startUpstream(t: Test, handler?: Handler, name = 'a'): Promise<Upstream> {
  const seen: Seen[] = []
  const server = http.createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
    const chunks: Buffer[] = []
    request.on('error', () => {})
    request.on('data', chunk => chunks.push(chunk))
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString('latin1')
      seen.push({
        method: request.method as string,
        url: request.url as string,
        headers: request.headers,
        rawHeaders: request.rawHeaders,
        body
      })
      if (handler !== undefined) return handler(request, response, body)
      const text = JSON.stringify({
        from: name,
        method: request.method,
        url: request.url,
        headers: request.headers,
        body
      })
      response.writeHead(200, {
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(text),
        'x-from': name
      })
      response.end(text)
    })
  })
  const sockets = new Set<Socket>()
  server.on('connection', socket => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
  })
  const listen = (port: number): Promise<void> =>
    new Promise((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve))
  await listen(0)
  const { port } = server.address() as AddressInfo
  const stop = (): Promise<void> =>
    new Promise(resolve => {
      server.close(() => resolve())
      for (const socket of sockets) socket.destroy()
    })
  t.teardown(() => (server.listening ? stop() : undefined))
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    seen,
    last: () => seen.at(-1) as Seen,
    close: stop,
    crash: stop,
    revive: () => listen(port)
  }
}

/** A service that speaks bytes: `script` gets each connection with what has come on it so far. */
export async function startRawUpstream(
  t: Test,
  script: (socket: Socket, received: string) => void
): Promise<{ url: string; port: number; connections: () => number }> {
  let connections = 0
  const sockets = new Set<Socket>()
  const server = net.createServer(socket => {
    connections++
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
    let received = ''
    socket.on('data', chunk => {
      received += chunk.toString('latin1')
      script(socket, received)
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { url: `http://127.0.0.1:${port}`, port, connections: () => connections }
}

/** A service whose `handler` sees each request when its head is there, and does with it what it likes. */
export async function startService(
  t: Test,
  handler: (request: IncomingMessage, response: ServerResponse) => void
): Promise<{ url: string; port: number; server: http.Server; connections: () => number }> {
  let connections = 0
  const server = http.createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
    request.on('error', () => {})
    response.on('error', () => {})
    handler(request, response)
  })
  server.on('connection', () => connections++)
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  return { url: `http://127.0.0.1:${port}`, port, server, connections: () => connections }
}
