import type { Test } from 'tap'
import type { Database } from '../../src/database/database.ts'
import { ownStorage } from './database.ts'
import { freePort } from './free-port.ts'
import { type GatewayOptions, startGateway, type TestGateway } from './gateway.ts'
import { startUpstream, type Upstream } from './upstream.ts'

export interface OAuthGateway extends TestGateway {
  readonly issuer: string
  readonly upstream: Upstream
}

/** Routes that want some token, or one that may do something; a second node has the same. */
export function documentOf(upstream: string, issuer: string, storage: object, oauth: object = {}): object {
  return {
    storage,
    identity: { oauth: { issuer, ...oauth } },
    services: { orders: { url: upstream } },
    routes: [
      { path: '/any', service: 'orders' },
      { path: '/read', service: 'orders', permissions: ['orders.read'] },
      { path: '/write', service: 'orders', permissions: ['orders.write'] },
      { path: '/staff', service: 'orders', required_roles: ['staff'] }
    ]
  }
}

/** A gateway that gives out tokens, with routes that want some: on a port that its issuer names. */
export async function startOAuth(
  t: Test,
  {
    clients = [],
    kind = 'sqlite',
    storage,
    settings = {},
    more = {},
    ...options
  }: GatewayOptions & {
    clients?: readonly object[]
    kind?: Database['kind']
    storage?: object
    settings?: object
    more?: object
  } = {}
): Promise<OAuthGateway> {
  const upstream = await startUpstream(t)
  const port = await freePort()
  const issuer = `http://127.0.0.1:${port}/oauth`
  const given = storage ?? (await ownStorage(t, kind, t.testdir({})))
  const gateway = await startGateway(
    t,
    { server: { port }, ...documentOf(upstream.url, issuer, given, { clients, ...settings }), ...more },
    options
  )
  return { ...gateway, issuer, upstream }
}
