import http from 'node:http'

// A service that works on so many requests side by side, each in so many milliseconds; the others wait for their turn, as they
// would for a thread or a connection to a database. Run as `limited.ts port workers milliseconds`.
const [port = 0, workers = 1, ms = 0] = process.argv.slice(2).map(Number)
const waiting: http.ServerResponse[] = []
let busy = 0

const server = http.createServer({ keepAliveTimeout: 600_000 }, (_request, response) => {
  waiting.push(response)
  work()
})

function work(): void {
  if (busy === workers) return
  const response = waiting.shift()
  if (response === undefined) return
  busy++
  setTimeout(() => {
    busy--
    response.writeHead(200, { 'content-length': 2 }).end('ok')
    work()
  }, ms)
}

server.listen(port, '127.0.0.1')
