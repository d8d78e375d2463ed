import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import * as openid from 'openid-client'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { type Database, openDatabase } from '../../src/database/database.ts'
import { raiseTokenVersion } from '../../src/database/users.ts'
import { acquireAuthorizationServer } from '../../src/identity/oauth2/server.ts'
import { SigningKeys } from '../../src/identity/oauth2/signing-keys.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { FakeClock } from '../support/clock.ts'
import { noPostgres, onBoth, ownStorage, ownStorageBehind } from '../support/database.ts'
import { freePort } from '../support/free-port.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import {
  addUser,
  Browser,
  discover,
  documentOf,
  type OAuthGateway,
  refusal,
  SECRET,
  startOAuth
} from '../support/oauth.ts'
import { startUpstream } from '../support/upstream.ts'

const CALLBACK = 'https://app.example.com/callback'
const MINUTE_MS = 60_000

const machine = {
  id: 'machine',
  name: 'Machine',
  secret: SECRET,
  grant_types: ['client_credentials'],
  scopes: ['orders.read']
}
const app = {
  id: 'app',
  name: 'App',
  token_endpoint_auth_method: 'none',
  redirect_uris: [CALLBACK],
  scopes: ['openid', 'roles', 'orders.read']
}
const clients = [machine, app]

/** Two gateways of one database that start at once; the issuer's name leads to the first. */
async function startTwo(t: Test): Promise<[OAuthGateway, TestGateway]> {
  const storage = await ownStorage(t, 'postgres')
  const upstream = await startUpstream(t)
  const port = await freePort()
  const issuer = `http://127.0.0.1:${port}/oauth`
  const document = documentOf(upstream.url, issuer, storage, { clients })
  const start = (name: string, server: object): Promise<TestGateway> => {
    const folder = join(t.testdirName, name)
    mkdirSync(folder, { recursive: true })
    return startGateway(t, { ...document, ...server }, { folder })
  }
  const [first, second] = await Promise.all([start('first', { server: { port } }), start('second', {})])
  return [{ ...first, issuer, upstream }, second]
}

/** A client whose own requests go to this node, whatever name the issuer has. */
async function clientOf(issuer: string, id: string, port: number, secret?: string): Promise<openid.Configuration> {
  const config = await discover(issuer, id, secret)
  config[openid.customFetch] = (url, options) => {
    const at = new URL(url)
    at.port = String(port)
    return fetch(at, options as RequestInit)
  }
  return config
}

async function ask(config: openid.Configuration) {
  const verifier = openid.randomPKCECodeVerifier()
  const url = openid.buildAuthorizationUrl(config, {
    redirect_uri: CALLBACK,
    scope: 'openid roles orders.read',
    code_challenge: await openid.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256'
  })
  return { url, verifier }
}

t.test('IDN-27 IDN-31 a flow begun on one node goes on at the other, step by step', { skip: noPostgres }, async t => {
  const [first, second] = await startTwo(t)
  const { issuer } = first
  await addUser(first, 'alice', { roles: { staff: ['orders.read'] } })
  const nodes = [first, second]
  let step = 0
  const turns = (): TestGateway => nodes[step++ % 2] as TestGateway
  const browser = new Browser({ issuer, call: (path, options) => turns().call(path, options) })
  const config = await clientOf(issuer, 'app', second.port)
  const { url, verifier } = await ask(config)
  const callback = await browser.agree(url, 'alice')
  t.ok(step >= 5, 'each step was another node’s')
  const tokens = await openid.authorizationCodeGrant(config, callback, { pkceCodeVerifier: verifier })
  for (const { call } of nodes) t.equal((await call('/read', { token: tokens.access_token })).status, 200)
  const there = await clientOf(issuer, 'app', first.port)
  const next = await openid.refreshTokenGrant(there, tokens.refresh_token as string)
  for (const { call } of nodes) t.equal((await call('/staff', { token: next.access_token })).status, 200)
  t.match(await refusal(openid.refreshTokenGrant(config, tokens.refresh_token as string)), { error: 'invalid_grant' })
  t.match(
    await refusal(openid.authorizationCodeGrant(there, callback, { pkceCodeVerifier: verifier })),
    { error: 'invalid_grant' },
    'a code is good once, wherever it is shown'
  )
})

t.test(
  'IDN-27 IDN-11 who logs out on one node, or has other roles, has no tokens on the other once it has looked',
  { skip: noPostgres },
  async t => {
    const [first, second] = await startTwo(t)
    const { issuer } = first
    const alice = await addUser(first, 'alice', { roles: { staff: ['orders.read'] } })
    const config = await discover(issuer, 'app')
    const database = first.gateway.runtime.database as Database
    const browser = new Browser(first)
    const status = async ({ call }: TestGateway, token: string): Promise<number> =>
      (await call('/staff', { token })).status
    const login = async () => {
      const { url, verifier } = await ask(config)
      const callback = await browser.agree(url, 'alice')
      const tokens = await openid.authorizationCodeGrant(config, callback, { pkceCodeVerifier: verifier })
      t.equal(await status(second, tokens.access_token), 200)
      return tokens
    }
    const over = async (
      { access_token, refresh_token }: Awaited<ReturnType<typeof login>>,
      error: object | undefined
    ): Promise<void> => {
      // What the second node does by itself each second.
      await second.gateway.runtime.database?.changes.poll()
      for (const node of [first, second]) t.equal(await status(node, access_token), 401)
      const there = await clientOf(issuer, 'app', second.port)
      const next = openid.refreshTokenGrant(there, refresh_token as string)
      if (error === undefined) t.equal(await status(second, (await next).access_token), 403, 'it is no staff any more')
      else t.match(await refusal(next), error)
    }

    const before = await login()
    const out = await browser.open(`${issuer}/logout`)
    const xsrf = /name="xsrf" value="([^"]+)"/.exec(out.page)?.[1] as string
    await browser.open(`${issuer}/logout/confirm`, { xsrf, logout: 'yes' })
    await over(before, { error: 'invalid_grant' })

    const during = await login()
    await database.transaction(async (transaction, changed) => {
      await transaction.deleteFrom('user_roles').where('user_id', '=', alice).execute()
      await raiseTokenVersion(transaction, changed, [alice], Date.now())
    })
    await over(during, undefined)
  }
)

t.test('IDN-32 of many nodes that make the first keys at once, one’s are kept', { skip: noPostgres }, async t => {
  const storage = await ownStorage(t, 'postgres')
  const log = pino({ level: 'silent' })
  const nodes = await Promise.all(
    Array.from({ length: 6 }, async () => {
      const database = await openDatabase(storage, { clock: systemClock, log })
      t.teardown(() => database.close())
      return new SigningKeys({ database, clock: systemClock, log, maxAgeMs: MINUTE_MS, lifeMs: MINUTE_MS })
    })
  )
  await Promise.all(nodes.map(keys => keys.open()))
  const [first] = nodes as [SigningKeys]
  for (const { signing, cookies } of nodes) {
    t.same(
      signing.map(({ kid }) => kid),
      [first.signing[0]?.kid]
    )
    t.same(cookies, first.cookies)
    t.equal(signing[0]?.retiredAt, undefined)
  }
  await Promise.all(nodes.map(keys => keys.rotate()))
  for (const keys of nodes) await keys.open()
  for (const { signing } of nodes) t.equal(signing.length, 2, 'and of many who replace them, too')
})

t.test(
  'IDN-29 two gateways that start at once on an empty database trust each other’s tokens',
  { skip: noPostgres },
  async t => {
    const [first, second] = await startTwo(t)
    const tokens = await Promise.all(
      [first, second].map(async ({ port }) =>
        openid.clientCredentialsGrant(await clientOf(first.issuer, 'machine', port, SECRET))
      )
    )
    for (const { access_token } of tokens)
      for (const { call } of [first, second]) t.equal((await call('/read', { token: access_token })).status, 200)
  }
)

onBoth(
  t,
  'IDN-32 a key is replaced when it is old; its tokens are good until they end, and then it is gone',
  async (t, kind) => {
    const clock = new FakeClock(Date.now())
    const gateway = await startOAuth(t, {
      kind,
      clock,
      clients,
      settings: { key_age: '1h' },
      identity: { jwt: { access_minutes: 24 * 60 } }
    })
    const { issuer, call, gateway: node } = gateway
    const acquired = acquireAuthorizationServer(node.snapshot.identity, node.runtime)
    if (acquired === undefined) throw new Error('there is no OAuth')
    t.teardown(() => node.runtime.leases.release(acquired.key))
    const { server } = acquired
    const config = await discover(issuer, 'machine', SECRET)
    const give = async (): Promise<string> => (await openid.clientCredentialsGrant(config)).access_token
    const kidOf = (token: string): string =>
      JSON.parse(Buffer.from(token.split('.')[0] as string, 'base64url').toString()).kid
    const published = async (): Promise<string[]> =>
      (await call('/oauth/jwks')).json.keys.map(({ kid }: { kid: string }) => kid)
    const status = async (token: string): Promise<number> => (await call('/read', { token })).status

    const old = await give()
    clock.advance(59 * MINUTE_MS)
    await server.maintain()
    t.same(await published(), [kidOf(old)], 'it is not old yet')
    clock.advance(MINUTE_MS)
    await server.maintain()
    const young = await give()
    t.not(kidOf(young), kidOf(old))
    t.same(new Set(await published()), new Set([kidOf(young), kidOf(old)]))
    t.equal(await status(old), 200)
    t.equal(await status(young), 200)
    t.match(await openid.tokenIntrospection(config, old), { active: true })

    clock.advance(23 * 60 * MINUTE_MS - 2 * MINUTE_MS)
    await server.maintain()
    t.equal(await status(old), 200, 'to its last minute')
    clock.advance(4 * MINUTE_MS)
    t.equal(await status(old), 401)
    t.ok((await published()).includes(kidOf(old)), 'it was replaced less than such a life ago')
    clock.advance(60 * MINUTE_MS)
    await server.maintain()
    t.notOk((await published()).includes(kidOf(old)), 'nothing alive was signed with it')
    const rows = await (node.runtime.database as Database).db.selectFrom('oauth_artifacts').select('id').execute()
    t.same(rows, [], 'nor is anything kept of what it signed')
  }
)

t.test(
  'STO-03 IDN-27 while the database is away nobody gets tokens, those that are out are good, and it comes back by itself',
  { skip: noPostgres },
  async t => {
    const { storage, proxy } = await ownStorageBehind(t)
    const gateway = await startOAuth(t, { storage, clients })
    const { issuer, call } = gateway
    await addUser(gateway, 'alice', { roles: { staff: ['orders.read'] } })
    const config = await discover(issuer, 'machine', SECRET)
    const { access_token } = await openid.clientCredentialsGrant(config)
    const browser = new Browser(gateway)
    const flow = await ask(await discover(issuer, 'app'))
    const login = await browser.open(flow.url)
    await proxy.set({ kind: 'refuse' })

    const basic = Buffer.from(`machine:${encodeURIComponent(SECRET)}`).toString('base64')
    const headers = { authorization: `Basic ${basic}`, 'content-type': 'application/x-www-form-urlencoded' }
    for (const [path, form] of [
      ['token', 'grant_type=client_credentials'],
      ['introspect', `token=${access_token}`],
      ['revoke', `token=${access_token}`]
    ] as const)
      t.match(
        await call(`/oauth/${path}`, { method: 'POST', headers, body: form }),
        { status: 503, json: { error: 'temporarily_unavailable' } },
        path
      )
    const asked = await new Browser(gateway).open(flow.url)
    t.equal(asked.url.searchParams.get('error'), 'temporarily_unavailable', 'the app is told')
    const action = /action="([^"]+)"/.exec(login.page)?.[1] as string
    t.equal((await browser.open(action)).status, 503)
    t.equal((await browser.open(action, { username: 'alice', password: 'x', do: 'login' })).status, 503)
    t.equal((await call('/oauth/jwks')).status, 200)
    t.equal((await call('/read', { token: access_token })).status, 200)

    await proxy.set({ kind: 'none' })
    t.match(await openid.tokenIntrospection(config, access_token), { active: true }, 'what failed has not been done')
    const { access_token: next } = await openid.clientCredentialsGrant(config)
    t.equal((await call('/read', { token: next })).status, 200)
    const callback = await browser.agree(login.url, 'alice')
    t.ok(callback.searchParams.has('code'), 'and who was logging in goes on')
  }
)
