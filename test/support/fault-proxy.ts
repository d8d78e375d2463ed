import net, { type AddressInfo, type Socket } from 'node:net'
import type { Test } from 'tap'

/** What goes wrong between the gateway and a service. Bytes are those of the answer unless the fault says otherwise. */
export type Fault =
  | { readonly kind: 'none' }
  /** Nobody listens. */
  | { readonly kind: 'refuse' }
  /** Accepts a connection and resets it. */
  | { readonly kind: 'reset-on-accept' }
  /** Takes the request, and resets the connection instead of answering. */
  | { readonly kind: 'reset-on-request' }
  /** Takes everything and says nothing. */
  | { readonly kind: 'silence' }
  /** Answers what is no HTTP. */
  | { readonly kind: 'garbage' }
  /** Passes so many bytes on, then resets the connection. */
  | { readonly kind: 'reset-after'; readonly bytes: number }
  /** Passes so many bytes on, then ends the connection as if that were all. */
  | { readonly kind: 'end-after'; readonly bytes: number }
  /** Passes so many bytes on, then nothing more. */
  | { readonly kind: 'stall-after'; readonly bytes: number }
  /** Reads so many bytes of the request, then no more. */
  | { readonly kind: 'stall-request'; readonly bytes: number }

export interface FaultProxy {
  readonly url: string
  readonly port: number
  /** Connections so far. */
  connections(): number
  /** Connections that are open. */
  open(): number
  /** What goes wrong from now on, on new connections and on those that are open. */
  set(fault: Fault): Promise<void>
}

/** Stands between the gateway and the service at `to`, and lets go wrong what it is told to; for as long as the test runs. */
export async function startFaultProxy(t: Test, to: number, first: Fault = { kind: 'none' }): Promise<FaultProxy> {
  let fault = first
  let connections = 0
  const clients = new Set<Socket>()

  const server = net.createServer({ noDelay: true }, client => {
    connections++
    clients.add(client)
    client.on('error', () => {})
    client.on('close', () => clients.delete(client))
    if (fault.kind === 'reset-on-accept') {
      client.resetAndDestroy()
      return
    }
    join(client)
  })

  function join(client: Socket): void {
    const service = net.connect({ port: to, host: '127.0.0.1', noDelay: true })
    let answered = 0
    let asked = 0
    service.on('error', () => client.destroy())
    service.on('close', () => client.end())
    client.on('close', () => service.destroy())
    client.on('data', chunk => {
      asked += chunk.length
      if (fault.kind === 'reset-on-request') client.resetAndDestroy()
      else if (fault.kind === 'garbage') client.end('SSH-2.0-\u0000no HTTP at all\r\n\r\n')
      else if (fault.kind === 'stall-request' && asked >= fault.bytes) client.pause()
      else if (fault.kind !== 'silence' && !service.write(chunk)) {
        client.pause()
        service.once('drain', () => client.resume())
      }
    })
    service.on('data', chunk => {
      const { kind } = fault
      if (kind !== 'reset-after' && kind !== 'end-after' && kind !== 'stall-after') {
        if (!client.write(chunk)) {
          service.pause()
          client.once('drain', () => service.resume())
        }
        return
      }
      const rest = fault.kind === kind ? Math.max(0, fault.bytes - answered) : 0
      answered += chunk.length
      if (chunk.length < rest || kind === 'stall-after') {
        client.write(chunk.subarray(0, rest))
        return
      }
      service.removeAllListeners('close').destroy()
      client.write(chunk.subarray(0, rest), () => {
        if (kind === 'reset-after') client.resetAndDestroy()
        else client.end()
      })
    })
  }

  const listen = (port: number): Promise<void> =>
    new Promise((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve))
  await listen(0)
  const { port } = server.address() as AddressInfo
  const stop = (): void => {
    server.close()
    for (const client of clients) client.resetAndDestroy()
  }
  const set = async (next: Fault): Promise<void> => {
    fault = next
    if (next.kind === 'refuse') stop()
    else if (!server.listening) await listen(port)
  }
  if (first.kind === 'refuse') stop()
  t.teardown(stop)
  return { url: `http://127.0.0.1:${port}`, port, connections: () => connections, open: () => clients.size, set }
}
