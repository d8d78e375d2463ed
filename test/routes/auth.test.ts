import t, { type Test } from 'tap'
import { FakeClock } from '../support/clock.ts'
import { noPostgres, onBoth, ownStorage } from '../support/database.ts'
import { addAlice, startAccounts, startSilentWebSockets } from '../support/logins.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { addUser } from '../support/users.ts'

const MINUTE = 60_000
const DAY = 86_400_000
const claimsOf = (jwt: string) => JSON.parse(Buffer.from(jwt.split('.')[1] as string, 'base64url').toString())

onBoth(
  t,
  'IDN-01 IDN-13 C-01 a login answers tokens for an hour and who it is, in exactly these fields',
  async (t, kind) => {
    const clock = new FakeClock()
    const { post, call, database, upstream } = await startAccounts(t, kind, { clock })
    const id = await addAlice(database, { tier: 'gold' })
    const answer = await post('/auth/login', { username: 'Alice@example.com', password: 'correct horse' })
    t.equal(answer.status, 200)
    t.equal(answer.headers['cache-control'], 'no-store')
    const { access_token, refresh_token, ...rest } = answer.json
    t.same(rest, {
      token_type: 'bearer',
      expires_in: 3600,
      user: { id, username: 'alice', first_name: 'Alice', last_name: null, roles: ['reader'] }
    })
    t.match(refresh_token, /^srt_[\w-]{64}$/)
    const now = clock.now() / 1000
    t.match(claimsOf(access_token), {
      sub: id,
      name: 'Alice',
      roles: ['reader'],
      permissions: ['orders.read'],
      tier: 'gold',
      iat: now,
      exp: now + 3600,
      ver: 0,
      jti: /^[\w-]{36}$/,
      sid: /^[\w-]{36}$/
    })
    t.equal((await call('/orders/1', { token: access_token })).status, 200)
    t.match(upstream.last().headers, { 'x-user-id': id, 'x-user-name': 'Alice', 'x-user-roles': 'reader' })
    clock.advance(3600_000)
    t.match((await call('/orders/1', { token: access_token })).json, { error: { code: 'expired_token' } })
  }
)

onBoth(
  t,
  'IDN-01 IDN-11 H-121 who is wrong, unknown or inactive gets the same 401; bad bodies say what is bad',
  async (t, kind) => {
    const { post, database, lines } = await startAccounts(t, kind)
    await addAlice(database)
    await addUser(database, { username: 'gone', active: false })
    const wrong = await post('/auth/login', { username: 'alice', password: 'hunter2hunter2' })
    t.match(wrong, {
      status: 401,
      json: { error: { code: 'invalid_credentials', message: 'Invalid credentials provided.' } }
    })
    for (const body of [
      { username: 'nobody', password: 'hunter2hunter2' },
      { username: 'gone', password: 'correct horse' }
    ]) {
      const { status, json } = await post('/auth/login', body)
      const same = ({ error: { code, message, details } }: { error: Record<string, unknown> }) => ({
        code,
        message,
        details
      })
      t.equal(status, 401)
      t.same(same(json), same(wrong.json))
    }
    for (const body of [
      {},
      { username: 'alice' },
      { username: 'alice', password: ['hunter2hunter2'] },
      { username: 'a', password: 'x'.repeat(2000) },
      { username: 'a', password: 'b', hunter2hunter2: 1 }
    ]) {
      const { status, json } = await post('/auth/login', body)
      t.equal(status, 422)
      t.equal(json.error.code, 'validation_error')
    }
    t.notOk(JSON.stringify(lines()).includes('hunter2'), 'nothing of it is in the log')
  }
)

onBoth(t, 'IDN-03 IDN-11 a refresh gives the next tokens, with what the user may do by now', async (t, kind) => {
  const clock = new FakeClock()
  const { post, call, database, login } = await startAccounts(t, kind, { clock })
  const id = await addAlice(database)
  const first = await login()
  clock.advance(2 * 60 * MINUTE)
  await database.db.updateTable('roles').set({ permissions: '["orders.write"]' }).execute()
  const second = await post('/auth/refresh', { refresh_token: first.refresh_token })
  t.equal(second.status, 200)
  t.match(second.json, { token_type: 'bearer', expires_in: 3600, user: { id, roles: ['reader'] } })
  t.not(second.json.refresh_token, first.refresh_token)
  const [before, after] = [claimsOf(first.access_token), claimsOf(second.json.access_token)]
  t.equal(after.sid, before.sid)
  t.not(after.jti, before.jti)
  t.same(after.permissions, ['orders.write'])
  t.equal((await call('/api/x', { token: second.json.access_token })).status, 200)
  clock.advance(30 * DAY)
  const late = await post('/auth/refresh', { refresh_token: second.json.refresh_token })
  t.match(late, { status: 401, json: { error: { code: 'authentication_failed' } } }, 'after thirty days it is over')
})

onBoth(t, 'IDN-03 OBS-33 a refresh token that is shown again ends its session, however old it is', async (t, kind) => {
  const { post, call, database, login, lines } = await startAccounts(t, kind)
  await addAlice(database)
  for (const age of [1, 3]) {
    const first = await login()
    let newest = first
    for (let i = 0; i < age; i++) newest = (await post('/auth/refresh', { refresh_token: newest.refresh_token })).json
    t.equal((await call('/api/x', { token: newest.access_token })).status, 200)
    t.equal((await post('/auth/refresh', { refresh_token: first.refresh_token })).status, 401)
    t.equal(
      (await post('/auth/refresh', { refresh_token: newest.refresh_token })).status,
      401,
      'the newest is over, too'
    )
    t.equal((await call('/api/x', { token: newest.access_token })).status, 401)
    t.equal((await call('/api/x', { token: first.access_token })).status, 401)
  }
  const { db } = database
  const reuse = db
    .selectFrom('audit_log')
    .select('action')
    .where('outcome', '=', 'denied')
    .where('action', '!=', 'access')
  t.same(await reuse.execute(), [{ action: 'session.reuse' }, { action: 'session.reuse' }])
  t.match(
    lines().find(({ reason }) => reason === 'refresh_token_reuse'),
    { level: 40, client_ip: '127.0.0.1' }
  )
})

onBoth(t, 'IDN-03 of many refreshes of one token at once exactly one wins', async (t, kind) => {
  const { post, database, login } = await startAccounts(t, kind)
  await addAlice(database)
  const { refresh_token } = await login()
  const all = await Promise.all(Array.from({ length: 12 }, () => post('/auth/refresh', { refresh_token })))
  t.equal(all.filter(({ status }) => status === 200).length, 1)
  t.equal(all.filter(({ status }) => status === 401).length, 11)
  const sessions = await database.db.selectFrom('sessions').select('revoked_for').execute()
  t.same(sessions, [{ revoked_for: 'reuse' }])
})

t.test('IDN-03 what is no refresh token, or nobody’s, is refused', async t => {
  const { post } = await startAccounts(t, 'sqlite')
  for (const refresh_token of ['', 'x', 'srt_', `srt_${'A'.repeat(64)}`, `srt_${'A'.repeat(65)}`, token()])
    t.equal((await post('/auth/refresh', { refresh_token })).status, 401, refresh_token)
  t.equal((await post('/auth/refresh', { refresh_token: 'A'.repeat(5000) })).status, 422)
  t.equal((await post('/auth/refresh', {})).status, 422)
})

onBoth(
  t,
  'IDN-02 IDN-15 a logout ends the session: its access token and its refresh token, and no other',
  async (t, kind) => {
    const { post, call, database, login } = await startAccounts(t, kind)
    const id = await addAlice(database)
    const [one, other] = [await login(), await login()]
    t.equal((await post('/auth/logout', {}, one.access_token)).status, 204)
    t.match((await call('/api/x', { token: one.access_token })).json, {
      error: { code: 'authentication_failed', details: 'The session has ended.' }
    })
    t.equal((await post('/auth/refresh', { refresh_token: one.refresh_token })).status, 401)
    t.equal((await call('/api/x', { token: other.access_token })).status, 200)
    t.equal(
      (await post('/auth/logout', { refresh_token: other.refresh_token })).status,
      204,
      'also by the refresh token'
    )
    t.equal((await call('/api/x', { token: other.access_token })).status, 401)
    t.equal((await post('/auth/logout')).status, 401)
    t.equal(
      (await post('/auth/logout', { refresh_token: `srt_${'A'.repeat(64)}` })).status,
      204,
      'unknown ones are over anyway'
    )
    const audit = await database.db
      .selectFrom('audit_log')
      .select(['actor', 'target'])
      .where('action', '=', 'logout')
      .execute()
    t.same(audit, Array(2).fill({ actor: `user:${id}`, target: `user:${id}` }))
  }
)

t.test('IDN-02 IDN-15 a token of no session is taken back by a logout all the same', async t => {
  const { post, call } = await startAccounts(t, 'sqlite')
  const foreign = token({ jti: 'x7' })
  t.equal((await call('/api/x', { token: foreign })).status, 200)
  t.equal((await post('/auth/logout', {}, foreign)).status, 204)
  t.equal((await call('/api/x', { token: foreign })).status, 401)
})

onBoth(
  t,
  'IDN-04 IDN-06 IDN-08 C-33 C-34 C-35 a user sees its own profile, and changes what is its own',
  async (t, kind) => {
    const { call, database, login } = await startAccounts(t, kind)
    const id = await addAlice(database)
    await addUser(database, { username: 'bob' })
    const { access_token } = await login()
    const profile = {
      id,
      username: 'alice',
      email: 'alice@example.com',
      first_name: 'Alice',
      last_name: null,
      roles: ['reader'],
      permissions: ['orders.read'],
      tier: null,
      active: true,
      must_change_password: false,
      created_at: '2023-11-14T22:13:20.000Z',
      updated_at: '2023-11-14T22:13:20.000Z'
    }
    t.same((await call('/auth/profile', { token: access_token })).json, profile)
    t.same((await call('/users/me', { token: access_token })).json, profile)
    const put = (body: object) =>
      call('/auth/profile', {
        method: 'PUT',
        token: access_token,
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body)
      })
    const changed = await put({ email: 'Alice@example.org', first_name: null, last_name: 'Liddell' })
    t.match(changed.json, { email: 'Alice@example.org', first_name: null, last_name: 'Liddell', username: 'alice' })
    t.not(changed.json.updated_at, profile.updated_at)
    t.match(await put({ email: 'BOB@example.com' }), { status: 409, json: { error: { code: 'conflict' } } })
    for (const body of [{ email: 'no address' }, { roles: ['admin'] }, { username: 'eve' }, { active: true }])
      t.equal((await put(body)).status, 422, JSON.stringify(body))
    t.equal((await login('alice@EXAMPLE.org')).user.id, id)
    const [entry] = await database.db.selectFrom('audit_log').selectAll().where('action', '=', 'user.update').execute()
    t.match(entry, { actor: `user:${id}`, outcome: 'changed' })
    t.match(JSON.parse(entry?.before as string), { last_name: null })
    t.match(JSON.parse(entry?.after as string), { last_name: 'Liddell' })
  }
)

t.test('IDN-06 who is not logged in is a 401, and who is no user of ours a 404 "User not found"', async t => {
  const { call } = await startAccounts(t, 'sqlite')
  t.equal((await call('/users/me')).status, 401)
  for (const sub of ['alice', '6f1f9c1e-7c3a-4ab3-9b29-000000000000'])
    t.match(await call('/users/me', { token: token({ sub }) }), {
      status: 404,
      json: { error: { message: 'User not found' } }
    })
})

onBoth(
  t,
  'IDN-05 a change of the password ends all other sessions; this one goes on with new tokens',
  async (t, kind) => {
    const { post, call, database, login, lines } = await startAccounts(t, kind)
    await addAlice(database)
    const [mine, other] = [await login(), await login()]
    const change = (current_password: string, new_password: string) =>
      post('/auth/change-password', { current_password, new_password }, mine.access_token)
    t.match((await change('wrong', 'battery staple')).json, {
      error: { code: 'validation_error', details: 'current_password is not the password' }
    })
    for (const bad of ['short', 'correct horse', 'ALICE@example.com'])
      t.equal((await change('correct horse', bad)).status, 422, bad)
    t.equal((await call('/api/x', { token: other.access_token })).status, 200, 'nothing has happened yet')

    const answer = await change('correct horse', 'battery staple')
    t.match(answer, { status: 200, json: { token_type: 'bearer', user: { username: 'alice' } } })
    t.equal((await call('/api/x', { token: answer.json.access_token })).status, 200)
    t.equal((await post('/auth/refresh', { refresh_token: answer.json.refresh_token })).status, 200)
    for (const { access_token, refresh_token } of [mine, other]) {
      t.equal((await call('/api/x', { token: access_token })).status, 401)
      t.equal((await post('/auth/refresh', { refresh_token })).status, 401)
    }
    await t.rejects(login())
    await login('alice', 'battery staple')
    const said = JSON.stringify([lines(), await database.db.selectFrom('audit_log').selectAll().execute()])
    for (const secret of ['battery', 'correct horse', '$argon2', mine.refresh_token, mine.access_token])
      t.notOk(said.includes(secret), `H-121 ${secret.slice(0, 8)}`)
    t.ok(said.includes('password.change'))
  }
)

t.test('IDN-05 only a login can change the password', async t => {
  const { post, database } = await startAccounts(t, 'sqlite')
  const sub = await addAlice(database)
  const body = { current_password: 'correct horse', new_password: 'battery staple' }
  t.equal((await post('/auth/change-password', body, token({ sub }))).status, 401)
  t.equal((await post('/auth/change-password', body)).status, 401)
})

onBoth(t, 'IDN-07 IDN-30 POST /token takes the form of OAuth, and answers as OAuth does', async (t, kind) => {
  const { call, database } = await startAccounts(t, kind)
  await addAlice(database)
  const token = (form: Record<string, string> | string) =>
    call('/token', {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams(form).toString()
    })
  const good = await token({ grant_type: 'password', username: 'alice', password: 'correct horse', scope: '' })
  t.equal(good.status, 200)
  t.same(Object.keys(good.json).sort(), ['access_token', 'expires_in', 'refresh_token', 'token_type'])
  t.match(good.headers, { 'cache-control': 'no-store' })
  t.equal((await call('/orders/1', { token: good.json.access_token })).status, 200)
  t.equal((await token({ username: 'alice', password: 'correct horse' })).status, 200, 'as seed 001 sends it')
  const next = await token({ grant_type: 'refresh_token', refresh_token: good.json.refresh_token })
  t.equal(next.status, 200)
  for (const [form, error] of [
    [{ grant_type: 'password', username: 'alice', password: 'wrong' }, 'invalid_grant'],
    [{ grant_type: 'password', username: 'nobody', password: 'wrong' }, 'invalid_grant'],
    [{ grant_type: 'refresh_token', refresh_token: good.json.refresh_token }, 'invalid_grant'],
    [{ grant_type: 'password', username: 'alice' }, 'invalid_request'],
    [{ grant_type: 'refresh_token' }, 'invalid_request'],
    ['username=alice&username=bob&password=x', 'invalid_request'],
    [{ grant_type: 'authorization_code', code: 'x' }, 'unsupported_grant_type']
  ] as const)
    t.match(await token(form as never), { status: 400, json: { error } }, JSON.stringify(form))
  const json = { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' }
  t.equal((await call('/token', json)).status, 415)
})

onBoth(t, 'IDN-11 IDN-15 C-01 whoever must change the password first may do nothing else', async (t, kind) => {
  const { post, call, database, login } = await startAccounts(t, kind)
  await addAlice(database, { mustChangePassword: true, roles: { admin: ['*'] } })
  const { access_token, refresh_token, user } = await login()
  t.equal(user.must_change_password, true)
  for (const path of ['/api/x', '/orders/1', '/admin/routes', '/gateway/status'])
    t.match(
      await call(path, { token: access_token }),
      { status: 403, json: { error: { code: 'password_change_required' } } },
      path
    )
  t.equal((await call('/auth/profile', { token: access_token })).json.must_change_password, true)
  const next = (await post('/auth/refresh', { refresh_token })).json
  t.equal((await call('/api/x', { token: next.access_token })).status, 403, 'neither after a refresh')
  const body = { current_password: 'correct horse', new_password: 'battery staple' }
  const changed = await post('/auth/change-password', body, next.access_token)
  t.equal((await call('/admin/routes', { token: changed.json.access_token })).status, 200)
  t.equal(changed.json.user.must_change_password, undefined)
  const again = await login('alice', 'battery staple')
  t.equal((await post('/auth/logout', {}, again.access_token)).status, 204)
})

/** A WebSocket through a gateway, and how it ends. */
async function openWebSocket(
  t: Test,
  port: number,
  token: string
): Promise<Promise<{ code: number; reason: string }>[]> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`, { headers: { authorization: `Bearer ${token}` } } as never)
  t.teardown(() => socket.close())
  const closed = new Promise<{ code: number; reason: string }>(resolve =>
    socket.addEventListener('close', ({ code, reason }) => resolve({ code, reason }))
  )
  await new Promise((resolve, reject) => {
    socket.addEventListener('open', resolve)
    socket.addEventListener('error', reject)
  })
  return [closed]
}

onBoth(
  t,
  'IDN-15 H-116 a logout closes the WebSockets of its session with 4401 at once, and no others',
  async (t, kind) => {
    const url = await startSilentWebSockets(t)
    const more = { services: { chat: { url } }, routes: [{ path: '/ws', service: 'chat', websocket: true }] }
    const { port, post, database, login, gateway } = await startAccounts(t, kind, { more })
    await addAlice(database)
    const [mine, other] = [await login(), await login()]
    const [closed] = await openWebSocket(t, port, mine.access_token)
    const [still] = await openWebSocket(t, port, other.access_token)
    let open = true
    still?.then(() => {
      open = false
    })
    await post('/auth/logout', {}, mine.access_token)
    t.same(await closed, { code: 4401, reason: 'session over' })
    t.equal(open, true)
    await until(() => gateway.server.inFlight === 1)
  }
)

t.test(
  'IDN-15 IDN-37 OBS-33 two gateways on one database: what one ends is over at the other, WebSockets and all',
  { skip: noPostgres },
  async t => {
    const url = await startSilentWebSockets(t)
    const storage = await ownStorage(t, 'postgres')
    const more = { services: { chat: { url } }, routes: [{ path: '/**', service: 'chat', websocket: true }] }
    const one = await startAccounts(t, 'postgres', { storage, more })
    const other = await startAccounts(t, 'postgres', { storage, more })
    await addAlice(one.database)
    const status = async (token: string): Promise<number> => (await other.call('/x', { token })).status
    const [loggedOut, changed] = [await one.login(), await one.login()]
    const sockets = [
      await openWebSocket(t, other.port, loggedOut.access_token),
      await openWebSocket(t, other.port, changed.access_token)
    ]
    t.equal(await status(loggedOut.access_token), 200)
    await one.post('/auth/logout', {}, loggedOut.access_token)
    await until(async () => (await status(loggedOut.access_token)) === 401)
    t.same(await sockets[0]?.[0], { code: 4401, reason: 'session over' })
    t.equal(await status(changed.access_token), 200)
    const body = { current_password: 'correct horse', new_password: 'battery staple' }
    const answer = await one.post('/auth/change-password', body, changed.access_token)
    await until(async () => (await status(changed.access_token)) === 401)
    t.same(await sockets[1]?.[0], { code: 4401, reason: 'session over' })
    t.equal(await status(answer.json.access_token), 200)
    t.equal((await other.post('/auth/refresh', { refresh_token: answer.json.refresh_token })).status, 200)
  }
)

t.test('IDN-06 IDN-07 the document says it in the words of seed 001', async t => {
  const { call } = await startAccounts(t, 'sqlite')
  const { paths, components } = (await call('/openapi.json')).json
  const { summary, tags, responses } = paths['/users/me'].get
  t.same([summary, tags], ['Get current user', ['Users']])
  t.match(responses, { 401: { description: 'Not authenticated' }, 404: { description: 'User not found' } })
  t.match(components.securitySchemes.password, { type: 'oauth2', flows: { password: { tokenUrl: 'token' } } })
  t.ok(paths['/token'].post.requestBody.content['application/x-www-form-urlencoded'])
})
