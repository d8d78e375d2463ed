import type { Worker } from 'node:cluster'

/** A connection as the process that accepts it has it. */
interface Connection {
  close(): void
}
/** What `node:cluster` sends a worker with a connection, and what comes back once the worker has taken it. */
interface Handover {
  readonly act?: string
  readonly seq?: number
  readonly ack?: number
}

/**
 * Closes the connections that a worker was sent and has not taken when it ends. Node forgets them without closing them, and their
 * clients would wait for an answer for as long as they like.
 */
export function closeUntaken(worker: Pick<Worker, 'process' | 'once'>): void {
  const untaken = new Map<number, Connection>()
  const child = worker.process
  const send = child.send.bind(child) as (...args: unknown[]) => boolean
  child.send = (message: Handover, connection?: unknown, ...rest: unknown[]): boolean => {
    if (message.act === 'newconn' && message.seq !== undefined && connection !== undefined)
      untaken.set(message.seq, connection as Connection)
    return send(message, connection, ...rest)
  }
  child.on('internalMessage', ({ ack }: Handover) => {
    if (ack !== undefined) untaken.delete(ack)
  })
  worker.once('exit', () => {
    for (const connection of untaken.values()) connection.close()
    untaken.clear()
  })
}
