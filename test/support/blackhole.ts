import { spawn } from 'node:child_process'
import { once } from 'node:events'
import net from 'node:net'
import type { Test } from 'tap'

/** A process that listens and never accepts: once its queue is full, further connections neither come about nor fail. */
const PROGRAM = `
  const server = require('node:net').createServer()
  server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
    require('node:fs').writeSync(1, String(server.address().port) + '\\n')
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
  })`

/** An address at which packets vanish, as behind a firewall that drops them; for as long as the test runs. */
export async function startBlackhole(t: Test): Promise<{ url: string; port: number }> {
  const child = spawn(process.execPath, ['-e', PROGRAM], { stdio: ['ignore', 'pipe', 'inherit'] })
  const sockets: net.Socket[] = []
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    child.kill('SIGKILL')
  })
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  const port = Number(line)
  for (let full = false; !full; ) {
    const socket = net.connect({ port, host: '127.0.0.1' }).on('error', () => {})
    sockets.push(socket)
    full = await Promise.race([
      once(socket, 'connect').then(() => false),
      new Promise<boolean>(resolve => setTimeout(() => resolve(true), 300))
    ])
  }
  return { url: `http://127.0.0.1:${port}`, port }
}
