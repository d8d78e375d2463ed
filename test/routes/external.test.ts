import t, { type Test } from 'tap'
import type { Database } from '../../src/database/database.ts'
import { createRole } from '../../src/database/roles.ts'
import { onBoth, ownStorage } from '../support/database.ts'
import { freePort } from '../support/free-port.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { addUser, Browser, type OAuthGateway, SECRET, startOAuth } from '../support/oauth.ts'
import { startOpenIdProvider } from '../support/openid-provider.ts'
import { addUser as addAccount } from '../support/users.ts'

interface Pair {
  /** Where people have their accounts: a gateway, too. */
  readonly provider: OAuthGateway
  /** The one that relies on it. */
  readonly gateway: TestGateway
  /** Begins a login, and goes through with it at the provider. */
  begin(username: string): Promise<{ path: string; cookie: string }>
}

async function start(t: Test, kind: Database['kind'] = 'sqlite', settings: object = {}): Promise<Pair> {
  const port = await freePort()
  const redirect_uri = `http://127.0.0.1:${port}/auth/external/corp/callback`
  const scopes = ['openid', 'profile', 'email']
  const client = { id: 'gateway', name: 'Gateway', secret: SECRET, redirect_uris: [redirect_uri], scopes }
  const provider = await startOAuth(t, { clients: [client] })
  const corp = {
    name: 'corp',
    issuer: provider.issuer,
    client_id: 'gateway',
    client_secret: SECRET,
    redirect_uri,
    scopes,
    roles_claim: 'preferred_username',
    roles: { alice: ['staff', 'nobody made this one'] },
    ...settings
  }
  const gateway = await startGateway(t, {
    server: { port },
    storage: await ownStorage(t, kind, t.testdir({})),
    identity: { providers: [corp] },
    services: { orders: { url: provider.upstream.url } },
    routes: [{ path: '/staff', service: 'orders', required_roles: ['staff'] }]
  })
  const begin: Pair['begin'] = async username => {
    const { status, headers } = await gateway.call('/auth/external/corp')
    t.equal(status, 302)
    const [set = ''] = headers['set-cookie'] ?? []
    t.match(set, /; Path=\/auth\/external\/corp\/callback; Max-Age=600; HttpOnly; SameSite=Lax$/)
    const back = await new Browser(provider).agree(headers.location as string, username)
    return { path: back.pathname + back.search, cookie: set.split(';')[0] as string }
  }
  return { provider, gateway, begin }
}

const withRole = async ({ gateway }: TestGateway, name: string): Promise<void> => {
  const database = gateway.runtime.database as Database
  const now = Date.now()
  await database.transaction(trx => createRole(trx, { name, description: undefined, permissions: ['a'] }, now))
}

onBoth(t, 'IDN-32 who logs in elsewhere has an account here, and the roles that its claims map to', async (t, kind) => {
  const { provider, gateway, begin } = await start(t, kind)
  await addUser(provider, 'alice')
  await withRole(gateway, 'staff')
  const { path, cookie } = await begin('alice')
  const answer = await gateway.call(path, { headers: { cookie } })
  t.equal(answer.status, 200)
  t.match(answer.json, { token_type: 'bearer', user: { first_name: 'Alice', roles: ['staff'] } })
  t.equal((await gateway.call('/staff', { token: answer.json.access_token })).status, 200)
  const refreshed = await gateway.call('/auth/refresh', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ refresh_token: answer.json.refresh_token })
  })
  t.equal(refreshed.status, 200)

  const again = await begin('alice')
  const second = await gateway.call(again.path, { headers: { cookie: again.cookie } })
  t.equal(second.json.user.id, answer.json.user.id, 'the same user as before')
  const database = gateway.gateway.runtime.database as Database
  const users = await database.db
    .selectFrom('users')
    .select(['email', 'password_hash'])
    .where('id', '=', second.json.user.id)
    .execute()
  t.match(
    users,
    [{ email: /@external\.invalid$/, password_hash: null }],
    'an address that nobody has verified is not kept'
  )
})

t.test('H-67 IDN-32 an answer to anything but the question of this browser is refused', async t => {
  const { provider, gateway, begin } = await start(t)
  await addUser(provider, 'alice')
  const mine = await begin('alice')
  const other = await begin('alice')
  const [, header = '', payload = ''] = /=([^.]+)\.([^.]+)\./.exec(mine.cookie) ?? []
  for (const [name, path, cookie] of [
    ['no cookie', mine.path, undefined],
    ['the cookie of another login', mine.path, other.cookie],
    ['an unsigned cookie', mine.path, `sallyport_external=${header}.${payload}.`],
    ['another state', mine.path.replace(/state=[^&]+/, 'state=x'), mine.cookie],
    ['another issuer', mine.path.replace(/iss=[^&]+/, 'iss=https%3A%2F%2Fother.example'), mine.cookie],
    ['no issuer', mine.path.replace(/&?iss=[^&]+/, ''), mine.cookie],
    ['no code', mine.path.replace(/code=[^&]+/, 'error=access_denied'), mine.cookie],
    [
      'the code of another login',
      mine.path.replace(/code=[^&]+/, /code=[^&]+/.exec(other.path)?.[0] as string),
      mine.cookie
    ]
  ] as const) {
    const { status, json } = await gateway.call(path, { headers: cookie === undefined ? {} : { cookie } })
    t.equal(status, 401, name)
    t.equal(json.error.code, 'invalid_credentials', name)
  }
  t.equal((await gateway.call(mine.path, { headers: { cookie: mine.cookie } })).status, 200)
  t.equal((await gateway.call(mine.path, { headers: { cookie: mine.cookie } })).status, 401, 'a second time')
  const token = mine.cookie.slice('sallyport_external='.length)
  t.equal((await gateway.call('/staff', { token })).status, 401, 'the cookie is no token')
  t.equal((await gateway.call('/auth/external/nobody')).status, 404)
})

t.test('IDN-32 IDN-11 a provider that is away is a 503, and who is not active here is not let in', async t => {
  const { provider, gateway, begin } = await start(t)
  await addUser(provider, 'alice')
  const first = await begin('alice')
  const { id } = (await gateway.call(first.path, { headers: { cookie: first.cookie } })).json.user
  const database = gateway.gateway.runtime.database as Database
  await database.db.updateTable('users').set({ active: false }).where('id', '=', id).execute()
  const second = await begin('alice')
  t.equal((await gateway.call(second.path, { headers: { cookie: second.cookie } })).status, 401)
  const third = await begin('alice')
  await provider.gateway.close(0)
  t.equal((await gateway.call(third.path, { headers: { cookie: third.cookie } })).status, 503)

  const away = await start(t, 'sqlite', { issuer: `http://127.0.0.1:${await freePort()}/oauth` })
  t.equal((await away.gateway.call('/auth/external/corp')).status, 503)
})

onBoth(
  t,
  'IDN-32 an e-mail address links nobody to an account that is there already: 409, and nothing is made',
  async (t, kind) => {
    const port = await freePort()
    const provider = await startOpenIdProvider(t, 'gateway')
    const corp = {
      name: 'corp',
      issuer: provider.issuer,
      client_id: 'gateway',
      client_secret: SECRET,
      redirect_uri: `http://127.0.0.1:${port}/auth/external/corp/callback`
    }
    const gateway = await startGateway(t, {
      server: { port },
      storage: await ownStorage(t, kind, t.testdir({})),
      identity: { providers: [corp] }
    })
    const database = gateway.gateway.runtime.database as Database
    const alice = await addAccount(database, { username: 'alice' })
    const logIn = async (claims: object) => {
      const { headers } = await gateway.call('/auth/external/corp')
      const { searchParams } = new URL(headers.location as string)
      const code = provider.codeFor({ nonce: searchParams.get('nonce'), ...claims })
      const [cookie = ''] = (headers['set-cookie']?.[0] ?? '').split(';')
      return gateway.call(`/auth/external/corp/callback?code=${code}&state=${searchParams.get('state')}`, {
        headers: { cookie }
      })
    }
    const users = () => database.db.selectFrom('users').select('id').orderBy('id').execute()
    const before = await users()
    const taken = await logIn({ sub: '1', email: 'Alice@Example.com', email_verified: true })
    t.match(taken, { status: 409, json: { error: { code: 'conflict' } } })
    t.same(await users(), before)
    t.same(await database.db.selectFrom('external_identities').selectAll().execute(), [])

    const unverified = await logIn({ sub: '1', email: 'alice@example.com', email_verified: false })
    t.equal(unverified.status, 200, 'an address that nobody has verified is nobody’s')
    t.not(unverified.json.user.id, alice)
    const other = await logIn({ sub: '2', email: 'bob@example.com', email_verified: true })
    t.equal(other.status, 200)
    const made = database.db.selectFrom('users').select('id').where('email', '=', 'bob@example.com')
    t.same(await made.execute(), [{ id: other.json.user.id }])
    const both = await Promise.all(
      [3, 3, 3, 3].map(sub => logIn({ sub: `${sub}`, email: 'c@example.com', email_verified: true }))
    )
    t.same(
      both.map(({ status }) => status),
      [200, 200, 200, 200],
      'the first logins of one person'
    )
    t.equal(new Set(both.map(({ json }) => json.user.id)).size, 1)
  }
)
