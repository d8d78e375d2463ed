import http from 'node:http'
import { WebSocketServer } from 'ws'

// A service for what nginx cannot be asked to do: large bodies, WebSockets that echo; and small answers where there is no
// nginx. Run as `upstream.ts port json`.
const [port, body = ''] = process.argv.slice(2)
const piece = Buffer.alloc(65536, 'a')

const server = http.createServer({ keepAliveTimeout: 600_000 }, (request, response) => {
  const size = Number(new URL(request.url as string, 'http://localhost').searchParams.get('size') ?? 0)
  if (request.method === 'POST') count(request, response)
  else if (size > 0) pour(response, size)
  else response.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length }).end(body)
})

/** Answers with how many bytes came. */
function count(request: http.IncomingMessage, response: http.ServerResponse): void {
  let bytes = 0
  request.on('data', chunk => {
    bytes += chunk.length
  })
  request.on('end', () => response.end(String(bytes)))
}

/** Answers with `size` bytes, as fast as they are taken. */
function pour(response: http.ServerResponse, size: number): void {
  response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': size })
  let left = size
  const more = (): void => {
    while (left > 0) {
      const next = left < piece.length ? piece.subarray(0, left) : piece
      left -= next.length
      if (!response.write(next)) {
        response.once('drain', more)
        return
      }
    }
    response.end()
  }
  more()
}

const sockets = new WebSocketServer({ server, perMessageDeflate: false })
sockets.on('connection', socket => {
  socket.on('message', (message, binary) => socket.send(message, { binary }))
})
server.listen(Number(port), '127.0.0.1')
