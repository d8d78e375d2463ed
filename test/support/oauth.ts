import * as openid from 'openid-client'
import type { Test } from 'tap'
import type { Database } from '../../src/database/database.ts'
import { createUser, ensureRole } from '../../src/database/users.ts'
import { ownStorage } from './database.ts'
import { freePort } from './free-port.ts'
import { type Answer, type GatewayOptions, startGateway, type TestGateway } from './gateway.ts'
import { startUpstream, type Upstream } from './upstream.ts'

export interface OAuthGateway extends TestGateway {
  readonly issuer: string
  readonly upstream: Upstream
}

/** Routes that want some token, or one that may do something; a second node has the same. */
export function documentOf(
  upstream: string,
  issuer: string,
  storage: object,
  oauth: object = {},
  identity: object = {}
): object {
  return {
    storage,
    identity: { ...identity, oauth: { issuer, ...oauth } },
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
    identity = {},
    more = {},
    ...options
  }: GatewayOptions & {
    clients?: readonly object[]
    kind?: Database['kind']
    storage?: object
    settings?: object
    identity?: object
    more?: object
  } = {}
): Promise<OAuthGateway> {
  const upstream = await startUpstream(t)
  const port = await freePort()
  const issuer = `http://127.0.0.1:${port}/oauth`
  const given = storage ?? (await ownStorage(t, kind, t.testdir({})))
  const gateway = await startGateway(
    t,
    { server: { port }, ...documentOf(upstream.url, issuer, given, { clients, ...settings }, identity), ...more },
    options
  )
  return { ...gateway, issuer, upstream }
}

/** A secret that all clients of the tests have. */
export const SECRET = 'a secret of the tests, long enough to be one'

/** A password that all users of the tests have. */
export const PASSWORD = 'correct horse battery staple'

/** Makes a user of these roles and permissions in the gateway's database. */
export async function addUser(
  { gateway: { runtime } }: OAuthGateway,
  username: string,
  { roles = {} }: { roles?: Record<string, readonly string[]> } = {}
): Promise<string> {
  const database = runtime.database as Database
  const passwordHash = await runtime.passwords.hash(PASSWORD, { memory_kib: 64, passes: 1 })
  return database.transaction(async transaction => {
    const roleIds: string[] = []
    for (const [name, permissions] of Object.entries(roles))
      roleIds.push(await ensureRole(transaction, { name, description: name, permissions }, Date.now()))
    const user = { username, email: `${username}@example.com`, firstName: 'Alice', passwordHash, roleIds }
    return createUser(transaction, user, Date.now())
  })
}

/** A browser as far as OAuth needs one: keeps cookies, follows redirects within the gateway, fills in forms. */
export class Browser {
  readonly #call: TestGateway['call']
  readonly #origin: string
  readonly cookies = new Map<string, { value: string; path: string }>()
  /** Every path that was asked for. */
  readonly visited: string[] = []

  constructor({ call, issuer }: Pick<OAuthGateway, 'call' | 'issuer'>) {
    this.#call = call
    this.#origin = new URL(issuer).origin
  }

  /** Goes on until there is a page, or until it leads elsewhere; then that is the answer. */
  async open(
    url: URL | string,
    form?: Record<string, string>
  ): Promise<{ page: string; status: number; url: URL; headers: Answer['headers'] }> {
    let at = new URL(url, this.#origin)
    let body = form === undefined ? undefined : new URLSearchParams(form).toString()
    for (;;) {
      if (at.origin !== this.#origin) return { page: '', status: 0, url: at, headers: {} }
      const path = at.pathname + at.search
      this.visited.push(path)
      const cookie = [...this.cookies]
        .filter(([, { path }]) => at.pathname === path || at.pathname.startsWith(path === '/' ? path : `${path}/`))
        .map(([name, { value }]) => `${name}=${value}`)
        .join('; ')
      const headers: Record<string, string> = { accept: 'text/html', ...(cookie === '' ? {} : { cookie }) }
      if (body !== undefined) headers['content-type'] = 'application/x-www-form-urlencoded'
      const answer = await this.#call(path, {
        method: body === undefined ? 'GET' : 'POST',
        headers,
        ...(body === undefined ? {} : { body })
      })
      this.#keep(answer)
      const { location } = answer.headers
      if (location === undefined) return { page: answer.text, status: answer.status, url: at, headers: answer.headers }
      at = new URL(location, at)
      body = undefined
    }
  }

  #keep({ headers }: Answer): void {
    for (const line of headers['set-cookie'] ?? []) {
      const [pair = '', ...attributes] = line.split(';').map(part => part.trim())
      const name = pair.slice(0, pair.indexOf('='))
      const value = pair.slice(name.length + 1)
      const path = attributes.find(attribute => /^path=/i.test(attribute))?.slice(5) ?? '/'
      if (value === '' || attributes.some(attribute => /^expires=Thu, 01 Jan 1970/i.test(attribute)))
        this.cookies.delete(name)
      else this.cookies.set(name, { value, path })
    }
  }

  /** Opens an address and answers whatever is asked, until it leads elsewhere. @returns where to */
  async agree(url: URL | string, username: string): Promise<URL> {
    let { page, url: at } = await this.open(url)
    for (let i = 0; i < 5 && at.origin === this.#origin; i++) {
      const action = /action="([^"]+)"/.exec(page)?.[1]
      if (action === undefined) throw new Error(`there is no form in ${page}`)
      const form = page.includes('name="password"') ? { username, password: PASSWORD, do: 'login' } : { do: 'allow' }
      const next = await this.open(action, form)
      page = next.page
      at = next.url
    }
    return at
  }
}

/** What a client knows of the gateway once it has asked. @param secret undefined for apps, which have none */
export function discover(issuer: string, id: string, secret?: string): Promise<openid.Configuration> {
  const authentication = secret === undefined ? openid.None() : openid.ClientSecretBasic(secret)
  return openid.discovery(new URL(issuer), id, {}, authentication, { execute: [openid.allowInsecureRequests] })
}

/** What is said against a request. */
export async function refusal(request: Promise<unknown>): Promise<object> {
  try {
    await request
  } catch (error) {
    return error as object
  }
  throw new Error('it was not refused')
}
