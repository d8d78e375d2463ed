import net from 'node:net'

/** What came back on a connection until it was closed. */
export interface RawAnswer {
  readonly text: string
  /** The first status; 0 when nothing was answered. */
  readonly status: number
  /** The gateway closed the connection. */
  readonly closed: boolean
}

/**
 * Sends bytes as they are (latin1) and collects what comes back, until the connection is closed or nothing more has come
 * for a while after the first answer.
 */
export function raw(
  port: number,
  bytes: string | string[],
  { quietMs = 150, patienceMs = 3000 } = {}
): Promise<RawAnswer> {
  return new Promise(resolve => {
    const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true })
    let text = ''
    let quiet: NodeJS.Timeout | undefined
    const end = (closed: boolean): void => {
      clearTimeout(quiet)
      clearTimeout(patience)
      socket.destroy()
      resolve({ text, status: Number(/^HTTP\/1\.[01] (\d{3})/.exec(text)?.[1] ?? 0), closed })
    }
    const patience = setTimeout(() => end(false), patienceMs)
    socket.on('error', () => end(true))
    socket.on('end', () => end(true))
    socket.on('close', () => end(true))
    socket.on('data', chunk => {
      text += chunk.toString('latin1')
      clearTimeout(quiet)
      quiet = setTimeout(() => end(false), quietMs)
    })
    for (const part of [bytes].flat()) socket.write(part, 'latin1')
  })
}
