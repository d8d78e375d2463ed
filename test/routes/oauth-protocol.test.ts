import * as oauth from 'oauth4webapi'
import t, { type Test } from 'tap'
import { onBoth } from '../support/database.ts'
import { addUser, Browser, PASSWORD, refusal, SECRET, startOAuth } from '../support/oauth.ts'

const CALLBACK = 'https://app.example.com/callback'

const insecure = { [oauth.allowInsecureRequests]: true } as const

/** What the issuer says of itself. */
async function discover(issuer: string): Promise<oauth.AuthorizationServer> {
  const url = new URL(issuer)
  return oauth.processDiscoveryResponse(url, await oauth.discoveryRequest(url, insecure))
}

const machine = {
  id: 'machine',
  name: 'Machine',
  secret: SECRET,
  grant_types: ['client_credentials'],
  scopes: ['orders.read']
}

onBoth(
  t,
  'IDN-29 IDN-15 a client of oauth4webapi finds its way, gets a token, asks about it and takes it back',
  async (t, kind) => {
    const { issuer, call } = await startOAuth(t, { kind, clients: [machine] })
    const as = await discover(issuer)
    const client = { client_id: 'machine' }
    const secret = oauth.ClientSecretBasic(SECRET)
    const given = await oauth.clientCredentialsGrantRequest(as, client, secret, { scope: 'orders.read' }, insecure)
    const { access_token } = await oauth.processClientCredentialsResponse(as, client, given)
    const read = (token: string) => new Request('http://api.example', { headers: { authorization: `Bearer ${token}` } })
    t.match(
      await oauth.validateJwtAccessToken(as, read(access_token), issuer, insecure),
      { iss: issuer, aud: issuer, client_id: 'machine', sub: 'machine', scope: 'orders.read' },
      'RFC 9068, signed with a key that is published'
    )
    t.equal((await call('/read', { token: access_token })).status, 200)
    const ask = async () => {
      const response = await oauth.introspectionRequest(as, client, secret, access_token, insecure)
      return oauth.processIntrospectionResponse(as, client, response)
    }
    t.match(await ask(), { active: true, client_id: 'machine', scope: 'orders.read', iss: issuer, aud: issuer })
    const revoked = await oauth.revocationRequest(as, client, secret, access_token, insecure)
    await oauth.processRevocationResponse(revoked)
    t.same(await ask(), { active: false })
    t.equal((await call('/read', { token: access_token })).status, 401)
    const unknown = await oauth.revocationRequest(as, client, secret, 'made up', insecure)
    await oauth.processRevocationResponse(unknown)
    const wrong = oauth
      .clientCredentialsGrantRequest(as, client, oauth.ClientSecretBasic('wrong'), {}, insecure)
      .then(response => oauth.processClientCredentialsResponse(as, client, response))
    t.match(await refusal(wrong), { status: 401 })
  }
)

onBoth(t, 'IDN-27 IDN-31 a public client of oauth4webapi logs a user in with PKCE and refreshes', async (t, kind) => {
  const app = {
    id: 'app',
    name: 'App',
    token_endpoint_auth_method: 'none',
    redirect_uris: [CALLBACK],
    scopes: ['openid', 'profile', 'orders.read']
  }
  const gateway = await startOAuth(t, { kind, clients: [app] })
  const alice = await addUser(gateway, 'alice', { roles: { staff: ['orders.read'] } })
  const { issuer, call } = gateway
  const as = await discover(issuer)
  const client = { client_id: 'app' }
  const verifier = oauth.generateRandomCodeVerifier()
  const state = oauth.generateRandomState()
  const nonce = oauth.generateRandomNonce()
  const url = new URL(as.authorization_endpoint as string)
  url.search = new URLSearchParams({
    client_id: 'app',
    redirect_uri: CALLBACK,
    response_type: 'code',
    scope: 'openid profile orders.read',
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    state,
    nonce
  }).toString()
  const back = await new Browser(gateway).agree(url, 'alice')
  const params = oauth.validateAuthResponse(as, client, back, state)
  const none = oauth.None()
  const answer = await oauth.authorizationCodeGrantRequest(as, client, none, params, CALLBACK, verifier, insecure)
  const tokens = await oauth.processAuthorizationCodeResponse(as, client, answer, {
    expectedNonce: nonce,
    requireIdToken: true
  })
  await oauth.validateApplicationLevelSignature(as, answer, insecure)
  t.match(oauth.getValidatedIdTokenClaims(tokens), { sub: alice, iss: issuer, aud: 'app' })
  t.equal((await call('/read', { token: tokens.access_token })).status, 200)
  const told = await oauth.userInfoRequest(as, client, tokens.access_token, insecure)
  t.match(await oauth.processUserInfoResponse(as, client, alice, told), { name: 'Alice' })
  const next = await oauth.processRefreshTokenResponse(
    as,
    client,
    await oauth.refreshTokenGrantRequest(as, client, none, tokens.refresh_token as string, insecure)
  )
  t.equal((await call('/read', { token: next.access_token })).status, 200)
  const again = oauth
    .authorizationCodeGrantRequest(as, client, none, params, CALLBACK, verifier, insecure)
    .then(response => oauth.processAuthorizationCodeResponse(as, client, response))
  t.match(await refusal(again), { error: 'invalid_grant' })
})

/** A client that signs its own assertions, and what it takes to send one of them more than once. */
async function signing(t: Test, kind: 'sqlite' | 'postgres') {
  const { privateKey, publicKey } = await oauth.generateKeyPair('ES256', { extractable: true })
  const jwk = { ...(await crypto.subtle.exportKey('jwk', publicKey)), kid: 'k1', alg: 'ES256', use: 'sig' }
  const cron = {
    id: 'cron',
    name: 'Cron',
    token_endpoint_auth_method: 'private_key_jwt',
    jwks: { keys: [jwk] },
    grant_types: ['client_credentials'],
    scopes: ['orders.read']
  }
  const gateway = await startOAuth(t, { kind, clients: [cron] })
  const as = await discover(gateway.issuer)
  const client = { client_id: 'cron' }
  let sent = ''
  const request = (authentication: oauth.ClientAuth, isSent: boolean): Promise<Response> =>
    oauth.clientCredentialsGrantRequest(
      as,
      client,
      authentication,
      {},
      {
        ...insecure,
        [oauth.customFetch]: async (url, { body, ...options }) => {
          sent = String(body)
          return isSent ? fetch(url, { ...options, body: sent } as RequestInit) : new Response()
        }
      }
    )
  const ask = async (authentication: oauth.ClientAuth): Promise<oauth.TokenEndpointResponse> =>
    oauth.processClientCredentialsResponse(as, client, await request(authentication, true))
  /** Makes a request that nobody has seen, for {@link again}. */
  const take = (authentication: oauth.ClientAuth): Promise<Response> => request(authentication, false)
  /** Sends the last request once more, as somebody would who has seen it. */
  const again = () =>
    gateway.call('/oauth/token', {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: sent
    })
  return { ...gateway, privateKey, ask, again, take }
}

onBoth(
  t,
  'IDN-29 H-67 private_key_jwt: a client proves itself by what it signs, once, for this issuer, with its own key',
  async (t, kind) => {
    const { privateKey, ask, again, call } = await signing(t, kind)
    const key = { key: privateKey, kid: 'k1' }
    const { access_token } = await ask(oauth.PrivateKeyJwt(key))
    t.equal((await call('/read', { token: access_token })).status, 200)
    t.match(
      await again(),
      { status: 401, json: { error: 'invalid_client' } },
      'what was seen on its way is worth nothing'
    )

    const { privateKey: foreign } = await oauth.generateKeyPair('ES256')
    const now = Math.floor(Date.now() / 1000)
    const wrong: [string, oauth.ClientAuth][] = [
      ['another key', oauth.PrivateKeyJwt({ key: foreign, kid: 'k1' })],
      ['an unknown key', oauth.PrivateKeyJwt({ key: foreign, kid: 'k2' })],
      ['a secret', oauth.ClientSecretBasic(SECRET)],
      ['nothing', oauth.None()],
      ['for another issuer', modified(key, payload => Object.assign(payload, { aud: 'https://other.example' }))],
      ['over', modified(key, payload => Object.assign(payload, { exp: now - 120, iat: now - 180, nbf: now - 180 }))],
      ['of another client', modified(key, payload => Object.assign(payload, { iss: 'machine', sub: 'machine' }))]
    ]
    for (const [name, authentication] of wrong)
      t.match(await refusal(ask(authentication)), { status: /^40[01]$/ }, name)
  }
)

function modified(
  key: oauth.PrivateKey,
  change: (payload: Record<string, oauth.JsonValue | undefined>) => void
): oauth.ClientAuth {
  return oauth.PrivateKeyJwt(key, { [oauth.modifyAssertion]: (_header, payload) => change(payload) })
}

onBoth(t, 'H-67 of many who show one assertion at once, one gets a token', async (t, kind) => {
  const { privateKey, again, take } = await signing(t, kind)
  await take(oauth.PrivateKeyJwt({ key: privateKey, kid: 'k1' }))
  const answers = await Promise.all(Array.from({ length: 8 }, again))
  t.same(answers.map(({ status }) => status).sort(), [200, 401, 401, 401, 401, 401, 401, 401])
})

t.test(
  'H-43 IDN-18 whoever calls with a key of the database or a token of OAuth is told by the gateway alone',
  async t => {
    const gateway = await startOAuth(t, { clients: [machine] })
    const { issuer, call, upstream } = gateway
    await addUser(gateway, 'alice', { roles: { staff: ['orders.read'] } })
    const post = (path: string, body: object, token?: string) =>
      call(path, {
        method: 'POST',
        token,
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body)
      })
    const { access_token } = (await post('/auth/login', { username: 'alice', password: PASSWORD })).json
    const { id, key } = (await post('/api-keys', { name: 'Import' }, access_token)).json
    const as = await discover(issuer)
    const client = { client_id: 'machine' }
    const given = await oauth.clientCredentialsGrantRequest(as, client, oauth.ClientSecretBasic(SECRET), {}, insecure)
    const token = (await oauth.processClientCredentialsResponse(as, client, given)).access_token
    const names =
      'X-User,X-User-Id,X-USER-NAME,x_user_roles,X-User_Permissions,X-Client-ID,x_client_id,X-Auth-Method,X-Consumer-Id'
    const forged = Object.fromEntries(names.split(',').map(name => [name, 'forged']))
    for (const [credential, told] of [
      [{ 'x-api-key': key }, { 'x-client-id': id, 'x-user-name': 'Import', 'x-user-roles': 'staff' }],
      [{ authorization: `Bearer ${token}` }, { 'x-client-id': 'machine', 'x-user-permissions': 'orders.read' }],
      [{ authorization: `Bearer ${access_token}` }, { 'x-user-roles': 'staff', 'x-user-permissions': 'orders.read' }]
    ] as const) {
      t.equal((await call('/any', { headers: { ...forged, ...credential } })).status, 200)
      const { headers } = upstream.last()
      t.match(headers, told)
      t.notMatch(JSON.stringify(headers), 'forged')
      t.notMatch(JSON.stringify(headers), Object.values(credential)[0], 'nor is the credential passed on')
    }
  }
)
