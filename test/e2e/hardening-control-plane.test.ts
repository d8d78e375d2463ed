import t from 'tap'
import { onBoth } from '../support/database.ts'
import { addUser, startOAuth } from '../support/oauth.ts'
import { token } from '../support/tokens.ts'

const app = {
  id: 'app',
  name: 'App',
  token_endpoint_auth_method: 'none',
  redirect_uris: ['https://app.example.com/callback'],
  scopes: ['openid']
}
const FORM = { 'content-type': 'application/x-www-form-urlencoded' }

onBoth(t, 'H-47 what no database keeps is refused by name, wherever it is said', async (t, kind) => {
  const { call } = await startOAuth(t, { kind, clients: [app] })
  const boss = token({ sub: 'root', roles: ['admin'] })
  const send = (path: string, body: object) =>
    call(path, {
      method: 'POST',
      token: boss,
      body: JSON.stringify(body),
      headers: { 'content-type': 'application/json' }
    })
  const service = { name: 'orders2', base_url: 'http://orders.invalid' }
  for (const [path, bodyOf] of [
    ['/auth/login', text => ({ username: text, password: 'x' })],
    ['/admin/users', text => ({ username: 'bob', email: 'bob@example.com', first_name: text })],
    ['/admin/users', text => ({ username: 'bob', email: 'bob@example.com', roles: [text] })],
    ['/admin/roles', text => ({ name: 'clerk', description: text })],
    ['/admin/roles', text => ({ name: 'clerk', permissions: [text] })],
    ['/admin/revocations', text => ({ jti: text, seconds: 10 })],
    ['/admin/oauth/clients', text => ({ name: text, grant_types: ['client_credentials'], scopes: ['a'] })],
    ['/services', text => ({ ...service, tags: [text] })],
    ['/services', text => ({ ...service, retry_config: { [text]: 1 } })],
    ['/services', text => ({ ...service, endpoints: [{ path: '/x', description: text }] })]
  ] as const satisfies [string, (text: string) => object][])
    for (const text of ['a\u0000b', '\ud800']) {
      const { status, json } = await send(path, bodyOf(text))
      t.equal(status, 422, `${path} ${JSON.stringify(bodyOf(text))}`)
      t.match(json.error.details, 'holds U+0000, or half a character')
    }
  t.equal((await call('/token', { method: 'POST', headers: FORM, body: 'username=a%00b&password=x' })).status, 400)

  const asked = `client_id=app&redirect_uri=${encodeURIComponent(app.redirect_uris[0] as string)}&response_type=code`
  for (const parameter of ['state=a%00b', 'nonce=%00', 'client_id=%00', 'login_hint=%00'])
    t.equal((await call(`/oauth/authorize?${asked}&${parameter}`)).status, 400, parameter)
  const form = 'grant_type=client_credentials'
  t.equal((await call('/oauth/token', { method: 'POST', headers: FORM, body: `${form}&client_id=a%00b` })).status, 400)
  const authorization = `Basic ${Buffer.from('a%00b:x').toString('base64')}`
  const basic = { method: 'POST', headers: { ...FORM, authorization }, body: form }
  t.match((await call('/oauth/token', basic)).json, { error: /^invalid_/ })
})

t.test('H-47 a body nested without end is refused; what is in it is read once', async t => {
  const gateway = await startOAuth(t, { clients: [app] })
  await addUser(gateway, 'alice')
  const boss = token({ sub: 'root', roles: ['admin'] })
  const post = (path: string, body: string) =>
    gateway.call(path, { method: 'POST', token: boss, body, headers: { 'content-type': 'application/json' } })
  for (const [open, close] of [
    ['[', ']'],
    ['{"a":', '}']
  ] as const) {
    const deep = `${open.repeat(100_000)}1${close.repeat(100_000)}`
    const { status, json } = await post(
      '/services',
      `{"name":"deep","base_url":"http://x.invalid","health_check":${deep}}`
    )
    t.equal(status, 422)
    t.match(json.error.details, /^health_check.* is nested deeper than 32 levels$/)
    t.equal((await post('/auth/login', deep)).status, 422)
  }
  for (const [body, status] of [
    ['{"__proto__":{"x":1},"username":"a","password":"b"}', 400],
    ['{"constructor":{"prototype":{"x":1}},"username":"a","password":"b"}', 400],
    ['{"username":["alice"],"password":{"a":1}}', 422],
    ['{"username":1e999,"password":"x"}', 422],
    ['null', 422],
    ['[]', 422]
  ] as const)
    t.equal((await post('/auth/login', body)).status, status, body)
  t.notOk('x' in {})
})
