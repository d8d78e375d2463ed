import type { Socket } from 'node:net'

/** How long a client may still send what nobody reads, in milliseconds. */
const LINGER_MS = 5000

/**
 * Makes the end of `socket` a lingering one. Closing a socket on which unread bytes lie makes the kernel reset the
 * connection, and the reset may reach the client before it has read its answer; so this side says that it is done, and
 * throws away what comes until the client closes too, or its time is up.
 */
export function lingerAtEnd(socket: Socket): void {
  // What Node calls once the last answer on a connection has been written.
  socket.destroySoon = linger
}

function linger(this: Socket): void {
  if (this.destroyed) return
  const patience = setTimeout(() => this.destroy(), LINGER_MS).unref()
  this.on('close', () => clearTimeout(patience))
  // Takes the bytes away from the parser too: a request behind this one is not to be answered, so not to be acted on.
  this.removeAllListeners('data')
  this.on('data', () => {})
  this.resume()
  this.end()
}
