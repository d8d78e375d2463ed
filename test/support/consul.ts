import { EventEmitter, once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import type { Test } from 'tap'
import { startLoopback } from './loopback-server.ts'

/**
 * A stand-in for an agent of Consul, written from the document of its API (Health: list instances for service; blocking
 * queries): it holds a query with `index` back until there is a newer one or `wait` is over.
 */
export async function startConsul(t: Test) {
  const changed = new EventEmitter().setMaxListeners(0)
  const state = { index: 1, entries: [] as object[], asked: [] as IncomingMessage[], status: 200, noIndex: false }
  const server = await startLoopback(t, async (request, response) => {
    state.asked.push(request)
    const { searchParams } = new URL(request.url as string, 'http://consul')
    const index = Number(searchParams.get('index') ?? 0)
    if (index > 0 && index === state.index) await once(changed, 'change')
    response.writeHead(state.status, {
      'content-type': 'application/json',
      ...(!state.noIndex && { 'x-consul-index': String(state.index) })
    })
    response.end(JSON.stringify(state.entries))
  })
  return {
    ...server,
    state,
    /** A new list, and the next index unless there is another one. */
    set(entries: object[], index = state.index + 1): void {
      state.entries = entries
      state.index = index
      changed.emit('change')
    }
  }
}

/** An entry of `/v1/health/service/…` as Consul writes it, shortened. */
export function consulEntry(host: string, port: number, service: object = {}, node: object = {}): object {
  return {
    Node: { ID: '40e4a748', Node: 'foobar', Address: '10.1.10.12', Datacenter: 'dc1', Meta: {}, ...node },
    Service: {
      ID: `orders-${host}-${port}`,
      Service: 'orders',
      Tags: ['primary'],
      Address: host,
      Port: port,
      Meta: {},
      Weights: { Passing: 1, Warning: 1 },
      ...service
    },
    Checks: [{ Node: 'foobar', CheckID: 'service:orders', Status: 'passing' }]
  }
}
