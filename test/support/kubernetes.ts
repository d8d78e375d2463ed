import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Test } from 'tap'
import type { EndpointSlice } from '../../src/discovery/kubernetes.ts'
import { startLoopback } from './loopback-server.ts'

interface Event {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR'
  readonly object: object
  readonly version: number
}

/**
 * A stand-in for the API server of Kubernetes, written from the document of its API (EndpointSlice v1; efficient detection of
 * changes): one collection that is listed and watched, with resource versions that are forgotten after a while.
 */
export async function startKubernetes(t: Test) {
  const slices = new Map<string, EndpointSlice>()
  const watchers = new Set<ServerResponse>()
  const state = {
    version: 100,
    /** Older versions are forgotten: 410. */
    oldest: 0,
    events: [] as Event[],
    asked: [] as IncomingMessage[],
    token: undefined as string | undefined,
    lists: 0
  }
  const server = await startLoopback(t, (request, response) => {
    state.asked.push(request)
    response.setHeader('content-type', 'application/json')
    if (state.token !== undefined && request.headers.authorization !== `Bearer ${state.token}`)
      return response.writeHead(401).end(JSON.stringify(status(401)))
    const { searchParams } = new URL(request.url as string, 'http://k8s')
    if (searchParams.get('watch') === null) {
      state.lists++
      const metadata = { resourceVersion: String(state.version) }
      return response.end(JSON.stringify({ kind: 'EndpointSliceList', metadata, items: [...slices.values()] }))
    }
    const from = Number(searchParams.get('resourceVersion'))
    // The server may say so in either way.
    if (from < state.oldest && state.oldest % 2 === 1) return response.writeHead(410).end(JSON.stringify(status(410)))
    response.writeHead(200)
    response.flushHeaders()
    if (from < state.oldest) return response.end(line({ type: 'ERROR', object: status(410), version: 0 }))
    for (const event of state.events) if (event.version > from) response.write(line(event))
    watchers.add(response)
    response.on('close', () => watchers.delete(response))
  })
  const tell = (type: Event['type'], object: object): void => {
    const event = { type, object, version: state.version }
    state.events.push(event)
    for (const watcher of watchers) watcher.write(line(event))
  }
  return {
    ...server,
    state,
    put(name: string, slice: Omit<EndpointSlice, 'metadata'>): void {
      state.version++
      const type = slices.has(name) ? 'MODIFIED' : 'ADDED'
      const object = { metadata: { name, resourceVersion: String(state.version) }, ...slice }
      slices.set(name, object)
      tell(type, object)
    },
    delete(name: string): void {
      state.version++
      const object = { ...slices.get(name), metadata: { name, resourceVersion: String(state.version) } }
      slices.delete(name)
      tell('DELETED', object)
    },
    bookmark(): void {
      state.version++
      tell('BOOKMARK', { kind: 'EndpointSlice', metadata: { resourceVersion: String(state.version) } })
    },
    /** Ends all watches, as `timeoutSeconds` does. */
    endWatches(): void {
      for (const watcher of watchers) watcher.end()
    },
    /** Forgets everything before now. @param parity in which of two ways that is said */
    compact(parity: 0 | 1): void {
      state.version += 2
      state.oldest = state.version - ((state.version + parity) % 2)
      state.events = []
    }
  }
}

function line({ type, object }: Event): string {
  return `${JSON.stringify({ type, object })}\n`
}

function status(code: number): object {
  return { kind: 'Status', apiVersion: 'v1', status: 'Failure', code }
}
