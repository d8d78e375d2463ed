import * as openid from 'openid-client'
import t from 'tap'
import { onBoth, ownStorage } from '../support/database.ts'
import { startGateway } from '../support/gateway.ts'
import { discover, documentOf, refusal, SECRET, startOAuth } from '../support/oauth.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'

const boss = token({ sub: 'root', roles: ['admin'] })

const machine = {
  id: 'machine',
  name: 'Machine',
  secret: SECRET,
  grant_types: ['client_credentials'],
  scopes: ['orders.read', 'orders.write']
}

onBoth(t, 'IDN-29 a service gets a token for itself, which the gateway takes for what it may do', async (t, kind) => {
  const { issuer, call, upstream } = await startOAuth(t, { kind, clients: [machine] })
  const config = await discover(issuer, 'machine', SECRET)
  const { access_token, expires_in, scope } = await openid.clientCredentialsGrant(config, { scope: 'orders.read' })
  t.match({ expires_in, scope }, { expires_in: 3600, scope: 'orders.read' })
  t.equal((await call('/read', { token: access_token })).status, 200)
  t.equal((await call('/write', { token: access_token })).status, 403)
  t.equal((await call('/staff', { token: access_token })).status, 403)
  t.equal(upstream.seen.at(-1)?.headers['x-client-id'], 'machine')

  const all = await openid.clientCredentialsGrant(config)
  t.equal((await call('/write', { token: all.access_token })).status, 200, 'all that it may, unless it asks for less')
  t.match(await refusal(openid.clientCredentialsGrant(config, { scope: 'orders.delete' })), { error: 'invalid_scope' })
})

onBoth(t, 'IDN-29 C-36 clients are made, changed and forgotten by the API; a secret is shown once', async (t, kind) => {
  const { issuer, call } = await startOAuth(t, { kind, clients: [machine] })
  const admin = (method: string, path: string, body?: object) =>
    call(`/admin/oauth${path}`, {
      method,
      token: boss,
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } })
    })
  const settings = { name: 'Cron', grant_types: ['client_credentials'], scopes: ['orders.read'] }
  t.equal((await call('/admin/oauth/clients')).status, 401)
  const made = await admin('POST', '/clients', settings)
  t.equal(made.status, 201)
  const { client_id, client_secret } = made.json
  t.match(made.json, { ...settings, source: 'database', token_endpoint_auth_method: 'client_secret_basic' })
  const read = await admin('GET', `/clients/${client_id}`)
  t.equal(read.status, 200)
  t.notMatch(read.text, client_secret)
  t.notMatch(read.text, 'secret_hash')
  t.strictSame(
    (await admin('GET', '/clients')).json.data.map((client: { client_id: string }) => client.client_id),
    ['machine', client_id]
  )

  const config = await discover(issuer, client_id, client_secret)
  const { access_token } = await openid.clientCredentialsGrant(config)
  t.equal((await call('/read', { token: access_token })).status, 200)
  t.match(await refusal(openid.clientCredentialsGrant(await discover(issuer, client_id, 'wrong'))), { status: 401 })

  const other = (await admin('POST', `/clients/${client_id}/secret`)).json.client_secret
  t.match(await refusal(openid.clientCredentialsGrant(config)), { status: 401 })
  await openid.clientCredentialsGrant(await discover(issuer, client_id, other))

  const changed = await admin('PUT', `/clients/${client_id}`, { ...settings, grant_types: ['password'] })
  t.equal(changed.status, 200)
  t.equal(changed.json.advisories.length, 1)
  t.equal((await admin('PUT', '/clients/machine', settings)).status, 409, 'that of the configuration is changed there')
  const wrong = await admin('PUT', `/clients/${client_id}`, { ...settings, grant_types: ['authorization_code'] })
  t.equal(wrong.status, 422)
  t.match(wrong.text, 'redirect_uris')
  t.equal((await admin('DELETE', `/clients/${client_id}`)).status, 204)
  t.equal((await admin('GET', `/clients/${client_id}`)).status, 404)
  t.equal((await call('/read', { token: access_token })).status, 401, 'what it was given is taken back')

  const { data } = (await call('/admin/audit?per_page=100', { token: boss })).json
  const actions = data.map(({ action }: { action: string }) => action)
  for (const what of ['create', 'secret', 'update', 'delete']) t.ok(actions.includes(`oauth_client.${what}`), what)
  t.notMatch(JSON.stringify(data), client_secret)
})

onBoth(t, 'IDN-15 a token of OAuth is taken back on every node, and stays so over a restart', async (t, kind) => {
  const storage = kind === 'postgres' ? await ownStorage(t, kind) : undefined
  const first = await startOAuth(t, { kind, clients: [machine], ...(storage && { storage }) })
  const { issuer, call } = first
  const config = await discover(issuer, 'machine', SECRET)
  const { access_token } = await openid.clientCredentialsGrant(config)
  const second = storage && (await startGateway(t, documentOf(first.upstream.url, issuer, storage)))
  if (second) t.equal((await second.call('/read', { token: access_token })).status, 200)
  t.match(await openid.tokenIntrospection(config, access_token), {
    active: true,
    client_id: 'machine',
    scope: 'orders.read orders.write'
  })
  const [, payload = ''] = access_token.split('.')
  const { jti } = JSON.parse(Buffer.from(payload, 'base64url').toString())
  t.same(await openid.tokenIntrospection(config, jti), { active: false }, 'its id alone is worth nothing')
  const forged = `${access_token.split('.', 2).join('.')}.${Buffer.alloc(64).toString('base64url')}`
  t.same(await openid.tokenIntrospection(config, forged), { active: false })

  await openid.tokenRevocation(config, access_token)
  t.equal((await call('/read', { token: access_token })).status, 401)
  t.match(await openid.tokenIntrospection(config, access_token), { active: false })
  if (!second) return
  await until(async () => (await second.call('/read', { token: access_token })).status === 401)
  const third = await startGateway(t, documentOf(first.upstream.url, issuer, storage))
  t.equal((await third.call('/read', { token: access_token })).status, 401)
})

onBoth(t, 'IDN-32 keys are replaced without a token being lost, on every node', async (t, kind) => {
  const storage = kind === 'postgres' ? await ownStorage(t, kind) : undefined
  const { issuer, call, upstream } = await startOAuth(t, { kind, clients: [machine], ...(storage && { storage }) })
  const config = await discover(issuer, 'machine', SECRET)
  const before = (await openid.clientCredentialsGrant(config)).access_token
  const second = storage && (await startGateway(t, documentOf(upstream.url, issuer, storage)))
  const rotated = await call('/admin/oauth/keys/rotate', { method: 'POST', token: boss })
  t.equal(rotated.status, 200)
  const after = (await openid.clientCredentialsGrant(config)).access_token
  t.match(Buffer.from(after.split('.')[0] as string, 'base64url').toString(), rotated.json.kid)
  const nodes = second ? [call, second.call] : [call]
  for (const call of nodes) for (const token of [before, after]) t.equal((await call('/read', { token })).status, 200)
  const { keys } = (await call('/oauth/jwks')).json
  t.equal(keys.length, 2)
  t.notOk(keys.some((key: object) => 'd' in key))
})
