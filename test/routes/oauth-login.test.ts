import * as openid from 'openid-client'
import t from 'tap'
import type { Database } from '../../src/database/database.ts'
import { endSessionsOf } from '../../src/database/sessions.ts'
import { findUser, raiseTokenVersion, type User } from '../../src/database/users.ts'
import { Accounts } from '../../src/identity/accounts.ts'
import { hotp, stepOf } from '../../src/identity/totp.ts'
import { onBoth } from '../support/database.ts'
import {
  addUser,
  Browser,
  discover,
  type OAuthGateway,
  PASSWORD,
  refusal,
  SECRET,
  startOAuth
} from '../support/oauth.ts'

const CALLBACK = 'https://app.example.com/callback'

const app = {
  id: 'app',
  name: 'The <App>',
  token_endpoint_auth_method: 'none',
  redirect_uris: [CALLBACK],
  scopes: ['openid', 'profile', 'email', 'offline_access', 'roles', 'orders.read', 'orders.write']
}

interface Asked {
  readonly url: URL
  readonly verifier: string
  readonly state: string
  readonly nonce: string
}

async function ask(config: openid.Configuration, more: Record<string, string> = {}): Promise<Asked> {
  const verifier = openid.randomPKCECodeVerifier()
  const state = openid.randomState()
  const nonce = openid.randomNonce()
  const url = openid.buildAuthorizationUrl(config, {
    redirect_uri: CALLBACK,
    scope: 'openid profile roles orders.read',
    code_challenge: await openid.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    state,
    nonce,
    ...more
  })
  return { url, verifier, state, nonce }
}

function exchange(config: openid.Configuration, callback: URL, { verifier, state, nonce }: Asked) {
  return openid.authorizationCodeGrant(config, callback, {
    pkceCodeVerifier: verifier,
    expectedState: state,
    expectedNonce: nonce
  })
}

/** Alice logs in at a browser of her own and lets the app have what it asks for. */
async function logIn(gateway: OAuthGateway, more: Record<string, string> = {}, browser = new Browser(gateway)) {
  const config = await discover(gateway.issuer, 'app')
  const asked = await ask(config, more)
  const callback = await browser.agree(asked.url, 'alice')
  const tokens = await exchange(config, callback, asked)
  return { config, asked, browser, callback, tokens }
}

const ROLES = { staff: ['orders.read', 'orders.cancel'] }

onBoth(
  t,
  'IDN-27 IDN-31 a user logs in, agrees, and the app acts in its name for as long as it refreshes',
  async (t, kind) => {
    const gateway = await startOAuth(t, { kind, clients: [app] })
    const alice = await addUser(gateway, 'alice', { roles: ROLES })
    const { call, upstream } = gateway
    const { config, tokens } = await logIn(gateway)
    t.match(tokens.claims(), { sub: alice, preferred_username: 'alice', name: 'Alice' })
    t.equal((await call('/read', { token: tokens.access_token })).status, 200)
    t.equal((await call('/staff', { token: tokens.access_token })).status, 200)
    t.equal((await call('/write', { token: tokens.access_token })).status, 403)
    const { headers } = upstream.seen.at(-1) as { headers: object }
    t.match(headers, { 'x-user-id': alice, 'x-user-name': 'Alice', 'x-user-permissions': 'orders.read' })
    t.match(await openid.fetchUserInfo(config, tokens.access_token, alice), { sub: alice, name: 'Alice' })

    const next = await openid.refreshTokenGrant(config, tokens.refresh_token as string)
    t.not(next.refresh_token, tokens.refresh_token)
    t.equal((await call('/read', { token: next.access_token })).status, 200)
    t.match(await refusal(openid.refreshTokenGrant(config, tokens.refresh_token as string)), { error: 'invalid_grant' })
    t.match(
      await refusal(openid.refreshTokenGrant(config, next.refresh_token as string)),
      { error: 'invalid_grant' },
      'a used one was shown: the whole family is over'
    )
    t.equal((await call('/read', { token: next.access_token })).status, 401)
  }
)

onBoth(
  t,
  'H-122 IDN-24 an application with some scope manages nothing of the account: no key, no profile, no password',
  async (t, kind) => {
    const gateway = await startOAuth(t, { kind, clients: [app] })
    await addUser(gateway, 'alice', { roles: { admin: [] } })
    const send = (method: string, path: string, token: string, body?: object) =>
      gateway.call(path, {
        method,
        token,
        ...(body && { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } })
      })
    const login = await send('POST', '/auth/login', '', { username: 'alice', password: PASSWORD })
    const key = (await send('POST', '/api-keys', login.json.access_token, { name: 'hers' })).json
    const attempts = async (token: string) => {
      const asked = [
        ['GET', '/api-keys'],
        ['POST', '/api-keys', { name: 'x' }],
        ['GET', `/api-keys/${key.id}`],
        ['PUT', `/api-keys/${key.id}`, { name: 'x', expires_in_days: 3000 }],
        ['POST', `/api-keys/${key.id}/rotate`, {}],
        ['DELETE', `/api-keys/${key.id}`],
        ['GET', '/auth/profile'],
        ['GET', '/users/me'],
        ['PUT', '/auth/profile', { email: 'mallory@example.com' }],
        ['POST', '/auth/change-password', { current_password: PASSWORD, new_password: 'another one altogether' }],
        ['POST', '/auth/mfa/enroll', { password: PASSWORD }],
        ['POST', '/auth/mfa/verify', { code: '123456' }],
        ['POST', '/auth/mfa/disable', { password: PASSWORD, code: '123456' }]
      ] as const
      const answers: string[] = []
      for (const [method, path, body] of asked)
        answers.push(`${(await send(method, path, token, body)).status} ${method} ${path}`)
      return answers.filter(answer => !answer.startsWith('403'))
    }
    const { tokens } = await logIn(gateway, { scope: 'openid orders.read' })
    t.same(await attempts(tokens.access_token), [])
    const use = await gateway.call('/any', { headers: { 'x-api-key': key.key } })
    t.equal(use.status, 200, 'the key is what it was')

    const full = await logIn(gateway, { scope: 'openid roles' })
    t.equal((await send('GET', '/api-keys', full.tokens.access_token)).status, 200, 'the scope says: everything')
    t.equal((await send('PUT', '/auth/profile', full.tokens.access_token, { last_name: 'M' })).status, 403)
  }
)

onBoth(
  t,
  'H-67 a code is good once: shown again, what it gave is taken back; of many at once, none keeps anything',
  async (t, kind) => {
    const gateway = await startOAuth(t, { kind, clients: [app] })
    await addUser(gateway, 'alice', { roles: ROLES })
    const { config, asked, callback, tokens, browser } = await logIn(gateway)
    t.equal((await gateway.call('/read', { token: tokens.access_token })).status, 200)
    t.match(await refusal(exchange(config, callback, asked)), { error: 'invalid_grant' })
    t.equal((await gateway.call('/read', { token: tokens.access_token })).status, 401)
    t.match(await refusal(openid.refreshTokenGrant(config, tokens.refresh_token as string)), { error: 'invalid_grant' })

    const again = await ask(config)
    const next = await browser.agree(again.url, 'alice')
    const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => exchange(config, next, again)))
    const given = outcomes.flatMap(outcome => (outcome.status === 'fulfilled' ? [outcome.value] : []))
    t.ok(given.length <= 1, `${given.length} of 8`)
    for (const { access_token } of given)
      t.equal((await gateway.call('/read', { token: access_token })).status, 401, 'the others have shown it again')
  }
)

t.test(
  'H-67 without PKCE by S256, or with another redirect_uri, nothing happens and nobody is sent anywhere',
  async t => {
    const gateway = await startOAuth(t, { clients: [app] })
    const config = await discover(gateway.issuer, 'app')
    const browser = new Browser(gateway)
    for (const [name, changes, error] of [
      ['no challenge', { code_challenge: undefined, code_challenge_method: undefined }, 'invalid_request'],
      ['plain', { code_challenge_method: 'plain' }, 'invalid_request'],
      ['a method that is not said', { code_challenge_method: undefined }, 'invalid_request'],
      ['a bare token', { response_type: 'token' }, 'unsupported_response_type'],
      ['a flow of others', { response_type: 'id_token token' }, 'invalid_request']
    ] as const) {
      const { url } = await ask(config)
      for (const [key, value] of Object.entries(changes))
        if (value === undefined) url.searchParams.delete(key)
        else url.searchParams.set(key, value)
      const at = (await browser.open(url)).url
      const answer = new URLSearchParams(at.hash === '' ? at.search : at.hash.slice(1))
      t.equal(at.origin + at.pathname, CALLBACK, name)
      t.equal(answer.get('error'), error, name)
      t.equal(answer.get('iss'), gateway.issuer, 'RFC 9207')
      t.notOk(answer.has('code'))
    }
    for (const redirect of [
      'https://app.example.com/callback/',
      'https://app.example.com/callback?x=1',
      'https://app.example.com/Callback',
      'https://APP.example.com/callback',
      'https://app.example.com:443/callback',
      'https://app.example.com/callback#x',
      'https://app.example.com/callback/../callback',
      'https://app.example.com@evil.example/callback',
      'http://app.example.com/callback',
      'https://evil.example/callback'
    ]) {
      const { url } = await ask(config, { redirect_uri: redirect })
      const { url: at, status, page } = await browser.open(url)
      t.equal(at.origin, new URL(gateway.issuer).origin, redirect)
      t.equal(status, 400, redirect)
      t.match(page, 'invalid_redirect_uri', redirect)
    }
  }
)

t.test('H-67 an answer of somebody else, or to another question, is not taken', async t => {
  const gateway = await startOAuth(t, { clients: [app] })
  await addUser(gateway, 'alice', { roles: ROLES })
  const config = await discover(gateway.issuer, 'app')
  const browser = new Browser(gateway)
  const asked = await ask(config)
  const callback = await browser.agree(asked.url, 'alice')
  t.equal(callback.searchParams.get('iss'), gateway.issuer)
  const mixedUp = new URL(callback)
  mixedUp.searchParams.set('iss', 'https://other.example.com')
  t.match(await refusal(exchange(config, mixedUp, asked)), { cause: { message: /"iss"/ } })
  t.match(await refusal(exchange(config, callback, { ...asked, state: 'another' })), { cause: { message: /"state"/ } })
  const other = openid.randomPKCECodeVerifier()
  t.match(await refusal(exchange(config, callback, { ...asked, verifier: other })), { error: 'invalid_grant' })
  const { access_token } = await exchange(config, callback, asked)
  t.equal((await gateway.call('/read', { token: access_token })).status, 200, 'what others try takes nothing away')
})

t.test('IDN-27 a question is answered by the browser that was asked, and by no other', async t => {
  const gateway = await startOAuth(t, { clients: [app] })
  await addUser(gateway, 'alice')
  const config = await discover(gateway.issuer, 'app')
  const browser = new Browser(gateway)
  const { page, headers, url } = await browser.open((await ask(config)).url)
  t.match(page, 'The &#60;App&#62;')
  t.match(headers['content-security-policy'], /^default-src 'none';.*form-action 'self' https:\/\/app\.example\.com;/)
  t.match(headers['cache-control'], 'no-store')
  t.ok(
    [...browser.cookies.values()].every(({ path }) => path.startsWith('/oauth')),
    'no service sees its cookies'
  )
  const action = url.pathname
  const form = { username: 'alice', password: PASSWORD, do: 'login' }
  t.equal((await new Browser(gateway).open(action, form)).status, 404)
  const forged = await gateway.call(action, {
    headers: { cookie: `sallyport_interaction=${action.split('/').at(-1)}` }
  })
  t.equal(forged.status, 404, 'its cookie is signed')

  const wrong = await browser.open(action, { ...form, password: 'wrong' })
  t.equal(wrong.status, 403)
  t.match(wrong.page, /role="alert">That is not right/)
  t.match(wrong.page, 'value="alice"')
  const refused = await browser.open(action, { do: 'cancel' })
  t.equal(refused.url.searchParams.get('error'), 'access_denied')
})

t.test('IDN-27 who has agreed is not asked again, and logging out ends it all', async t => {
  const gateway = await startOAuth(t, { clients: [app] })
  await addUser(gateway, 'alice', { roles: ROLES })
  const { browser, config, tokens } = await logIn(gateway)
  const asked = await ask(config)
  const { url } = await browser.open(asked.url)
  const second = await exchange(config, url, asked)
  t.equal((await gateway.call('/read', { token: second.access_token })).status, 200)
  const more = await ask(config, { scope: 'openid orders.write' })
  t.match((await browser.open(more.url)).page, 'orders.write', 'but for what is new')

  const out = await browser.open(`${gateway.issuer}/logout`)
  t.match(out.page, 'Log out?')
  const xsrf = /name="xsrf" value="([^"]+)"/.exec(out.page)?.[1] as string
  t.match((await browser.open(`${gateway.issuer}/logout/confirm`, { xsrf, logout: 'yes' })).page, 'Done')
  for (const { access_token, refresh_token } of [tokens, second]) {
    t.equal((await gateway.call('/read', { token: access_token })).status, 401)
    t.match(await refusal(openid.refreshTokenGrant(config, refresh_token as string)), { error: 'invalid_grant' })
  }
  t.match((await browser.open((await ask(config)).url)).page, 'name="password"')
})

t.test(
  'IDN-27 IDN-11 who is deactivated, or whose sessions are ended, has no tokens and no login any more',
  async t => {
    const gateway = await startOAuth(t, { clients: [app] })
    const alice = await addUser(gateway, 'alice', { roles: ROLES })
    const { config, tokens, browser } = await logIn(gateway)
    const database = gateway.gateway.runtime.database as Database
    await database.transaction(async (transaction, changed) => {
      await endSessionsOf(transaction, alice, 'password', Date.now())
      await raiseTokenVersion(transaction, changed, [alice], Date.now())
    })
    t.equal((await gateway.call('/read', { token: tokens.access_token })).status, 401)
    t.match(await refusal(openid.refreshTokenGrant(config, tokens.refresh_token as string)), { error: 'invalid_grant' })
    const asked = await ask(config)
    t.match((await browser.open(asked.url)).page, 'name="password"', 'the login has ended, too')
    const next = await exchange(config, await browser.agree(asked.url, 'alice'), asked)
    t.equal((await gateway.call('/read', { token: next.access_token })).status, 200, 'and can begin again')

    await database.db.updateTable('users').set({ active: false }).where('id', '=', alice).execute()
    t.match(await refusal(openid.refreshTokenGrant(config, next.refresh_token as string)), { error: 'invalid_grant' })
    t.match((await browser.open((await ask(config)).url)).page, 'name="password"')
  }
)

onBoth(
  t,
  'IDN-28 C-36 the implicit flow is for clients that list it: an ID token and an access token in the fragment',
  async (t, kind) => {
    const page = { ...app, id: 'page', grant_types: ['implicit'] }
    const gateway = await startOAuth(t, { kind, clients: [page] })
    await addUser(gateway, 'alice', { roles: ROLES })
    const config = await discover(gateway.issuer, 'page')
    const { url } = await ask(config, { response_type: 'id_token token' })
    const fragment = new URLSearchParams((await new Browser(gateway).agree(url, 'alice')).hash.slice(1))
    t.ok(fragment.has('id_token'))
    t.notOk(fragment.has('code'))
    t.equal((await gateway.call('/read', { token: fragment.get('access_token') as string })).status, 200)
    t.equal(
      (await gateway.call('/read', { token: fragment.get('id_token') as string })).status,
      401,
      'is for the client alone'
    )
  }
)

onBoth(t, 'IDN-30 C-36 the password grant is for clients that list it', async (t, kind) => {
  const legacy = {
    id: 'legacy',
    name: 'Legacy',
    secret: SECRET,
    grant_types: ['password', 'refresh_token'],
    scopes: ['orders.read']
  }
  const gateway = await startOAuth(t, {
    kind,
    clients: [legacy, { ...legacy, id: 'modern', grant_types: ['client_credentials'] }]
  })
  const alice = await addUser(gateway, 'alice', { roles: ROLES })
  const config = await discover(gateway.issuer, 'legacy', SECRET)
  const login = { username: 'alice', password: PASSWORD }
  const tokens = await openid.genericGrantRequest(config, 'password', login)
  t.equal((await gateway.call('/read', { token: tokens.access_token })).status, 200)
  t.match(gateway.upstream.seen.at(-1)?.headers, { 'x-user-id': alice })
  t.equal((await gateway.call('/staff', { token: tokens.access_token })).status, 403, 'it may not ask for roles')
  const next = await openid.refreshTokenGrant(config, tokens.refresh_token as string)
  t.equal((await gateway.call('/read', { token: next.access_token })).status, 200)
  t.match(await refusal(openid.genericGrantRequest(config, 'password', { ...login, password: 'wrong' })), {
    error: 'invalid_grant'
  })
  t.match(await refusal(openid.genericGrantRequest(config, 'password', { ...login, scope: 'orders.write' })), {
    error: 'invalid_scope'
  })
  const modern = await discover(gateway.issuer, 'modern', SECRET)
  t.match(await refusal(openid.genericGrantRequest(modern, 'password', login)), { status: 400 })
})

/** Gives a user a second factor. @returns one of its recovery codes */
async function enrol({ gateway }: OAuthGateway, userId: string): Promise<string> {
  const { runtime, snapshot } = gateway
  const accounts = new Accounts(runtime, snapshot)
  const user = (await findUser((runtime.database as Database).db, userId)) as User
  const attempt = { clientIp: '127.0.0.1', requestId: 'enrolment' }
  const { secret } = await accounts.enrolSecondFactor(user, PASSWORD, attempt)
  const bits = [...secret].map(letter =>
    'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(letter).toString(2).padStart(5, '0')
  )
  const bytes = Buffer.from((bits.join('').match(/.{8}/g) ?? []).map(byte => Number.parseInt(byte, 2)))
  const codes = await accounts.confirmSecondFactor(user, hotp(bytes, stepOf(Date.now())), attempt)
  return codes[0] as string
}

t.test('IDN-10 who has a second factor is asked for it, and cannot go round it by the password grant', async t => {
  const legacy = { id: 'legacy', name: 'Legacy', secret: SECRET, grant_types: ['password'], scopes: ['orders.read'] }
  const gateway = await startOAuth(t, { clients: [app, legacy] })
  const alice = await addUser(gateway, 'alice', { roles: ROLES })
  const recovery = await enrol(gateway, alice)
  const config = await discover(gateway.issuer, 'app')
  const browser = new Browser(gateway)
  const asked = await ask(config)
  const { url } = await browser.open(asked.url)
  const second = await browser.open(url, { username: 'alice', password: PASSWORD, do: 'login' })
  t.equal(second.status, 200)
  const challenge = /name="challenge" value="([^"]+)"/.exec(second.page)?.[1] as string
  const wrong = await browser.open(url, { challenge, code: '000000', do: 'code' })
  t.equal(wrong.status, 403)
  t.match(wrong.page, /role="alert">That is not right/)
  t.match(wrong.page, challenge, 'the same challenge looks at another code')
  t.match((await browser.open(url, { challenge: 'made up', code: recovery, do: 'code' })).page, 'name="password"')
  const consent = await browser.open(url, { challenge, code: recovery, do: 'code' })
  t.match(consent.page, 'Allow access?')
  const back = await browser.open(consent.url, { do: 'allow' })
  const { access_token } = await exchange(config, back.url, asked)
  t.equal((await gateway.call('/read', { token: access_token })).status, 200)

  const login = { username: 'alice', password: PASSWORD }
  const refused = await refusal(
    openid.genericGrantRequest(await discover(gateway.issuer, 'legacy', SECRET), 'password', login)
  )
  t.match(refused, { error: 'invalid_grant' })
})
