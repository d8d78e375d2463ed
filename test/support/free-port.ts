import net from 'node:net'

/** Linux hands out ports from 32768 on by itself, so one from below that is still free when it is used. */
const FIRST = 12_000
const COUNT = 20_000
/** Test files run at the same time: each begins somewhere else. */
let next = (process.pid * 101) % COUNT

/** A port on which nobody listens. */
export async function freePort(): Promise<number> {
  for (;;) {
    next = (next + 1) % COUNT
    const port = FIRST + next
    if (await isFree(port)) return port
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const server = net.createServer()
    server.on('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}
