import { createHash } from 'node:crypto'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import type { Database } from '../../src/database/database.ts'
import { ownStorage } from './database.ts'
import { type Answer, type GatewayOptions, startGateway, type TestGateway } from './gateway.ts'
import { startUpstream, type Upstream } from './upstream.ts'
import { addUser } from './users.ts'

export interface AccountsGateway extends TestGateway {
  readonly database: Database
  readonly upstream: Upstream
  post(path: string, body?: object, token?: string): Promise<Answer>
  /** Logs in; the answer's body. */
  login(username?: string, password?: string): Promise<Login>
}

/** What a login answers. */
export interface Login {
  readonly access_token: string
  readonly refresh_token: string
  readonly token_type: string
  readonly expires_in: number
  readonly user: Record<string, unknown> & { readonly id: string }
}

/** Where a database is, as a configuration says it. */
export type Storage = Awaited<ReturnType<typeof ownStorage>>

/** A gateway with accounts and one service: `/api/**` for whoever is known, `/orders/**` for the permission `orders.read`. */
export async function startAccounts(
  t: Test,
  kind: Database['kind'],
  { storage, more = {}, ...options }: GatewayOptions & { storage?: Storage; more?: object } = {}
): Promise<AccountsGateway> {
  const upstream = await startUpstream(t)
  const { database_url } = storage ?? (await ownStorage(t, kind))
  const gateway = await startGateway(
    t,
    {
      storage: { database: true, ...(database_url !== undefined && { database_url }) },
      services: { orders: { url: upstream.url } },
      routes: [
        { path: '/api/**', service: 'orders' },
        { path: '/orders/**', service: 'orders', permissions: ['orders.read'] }
      ],
      ...more
    },
    options
  )
  const post = (path: string, body: object = {}, token?: string): Promise<Answer> =>
    gateway.call(path, {
      method: 'POST',
      token,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body)
    })
  return {
    ...gateway,
    database: gateway.gateway.runtime.database as Database,
    upstream,
    post,
    async login(username = 'alice', password = 'correct horse') {
      const answer = await post('/auth/login', { username, password })
      if (answer.status !== 200) throw new Error(`${answer.status} ${answer.text}`)
      return answer.json
    }
  }
}

/** Alice, who may read orders. Returns her id. */
export function addAlice(database: Database, more: Parameters<typeof addUser>[1] = {}): Promise<string> {
  return addUser(database, { username: 'alice', firstName: 'Alice', roles: { reader: ['orders.read'] }, ...more })
}

function acceptOf(key: string): string {
  return createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
}

/** A service that takes every WebSocket and says nothing on it; requests get an empty 200. */
export async function startSilentWebSockets(t: Test): Promise<string> {
  const server = http.createServer((_request, response) => void response.end())
  server.on('upgrade', (request, socket) => {
    const key = request.headers['sec-websocket-key'] as string
    socket.on('error', () => {})
    socket.on('end', () => socket.end())
    socket.resume()
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${acceptOf(key)}\r\n\r\n`
    )
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}
