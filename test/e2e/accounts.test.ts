import t from 'tap'
import { noPostgres, onBoth, ownStorage, ownStorageBehind } from '../support/database.ts'
import { type Answer, call } from '../support/gateway.ts'
import { startProcess, writeConfiguration } from '../support/gateway-process.ts'
import { type AccountsGateway, startAccounts } from '../support/logins.ts'
import { SECRET } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { addUser, CHEAP } from '../support/users.ts'

const post = (port: number, path: string, body: object, token?: string): Promise<Answer> =>
  call(port, path, {
    method: 'POST',
    token,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body)
  })

onBoth(t, 'IDN-02 IDN-03 IDN-05 kill -9 after an answer loses nothing of what it said', async (t, kind) => {
  const storage = await ownStorage(t, kind)
  const identity = { jwt: { secret: SECRET }, password: CHEAP, admin_password: 'the first password' }
  const { file } = writeConfiguration(t, { storage, identity })
  const first = await startProcess(t, file)
  const login = async (port: number, password: string) =>
    (await post(port, '/auth/login', { username: 'admin', password })).json
  const [over, mine] = [await login(first.port, 'the first password'), await login(first.port, 'the first password')]
  await post(first.port, '/auth/logout', {}, over.access_token)
  const body = { current_password: 'the first password', new_password: 'the second password' }
  const changed = await post(first.port, '/auth/change-password', body, mine.access_token)
  t.equal(changed.status, 200)
  const next = (await post(first.port, '/auth/refresh', { refresh_token: changed.json.refresh_token })).json
  first.child.kill('SIGKILL')
  await first.ended

  const { port } = await startProcess(t, file)
  const status = async (token: string): Promise<number> => (await call(port, '/users/me', { token })).status
  t.equal(await status(over.access_token), 401, 'what was over is over')
  t.equal(await status(mine.access_token), 401)
  t.equal(await status(next.access_token), 200, 'and what was good is good')
  t.equal((await post(port, '/auth/refresh', { refresh_token: next.refresh_token })).status, 200)
  for (const { refresh_token } of [over, mine, changed.json])
    t.equal((await post(port, '/auth/refresh', { refresh_token })).status, 401)
  t.match(await login(port, 'the second password'), { token_type: 'bearer' })
  t.match(await login(port, 'the first password'), { error: { code: 'invalid_credentials' } })
})

t.test(
  'IDN-01 IDN-03 CLU-01 hundreds of logins, refreshes and logouts at once on two gateways leave a consistent database',
  { skip: noPostgres },
  async t => {
    const storage = await ownStorage(t, 'postgres')
    // What one address may ask is not what this is about.
    const more = { server: { trusted_proxies: ['loopback'] } }
    const gateways = await Promise.all([1, 2].map(() => startAccounts(t, 'postgres', { storage, more })))
    const [one, other] = gateways as [AccountsGateway, AccountsGateway]
    const USERS = 40
    for (let i = 0; i < USERS; i++) await addUser(one.database, { username: `user${i}` })
    const from = (i: number) => ({ 'x-forwarded-for': `10.${i >> 8}.${i & 255}.1`, 'content-type': 'application/json' })
    const ask = (gateway: AccountsGateway, i: number, path: string, body: object, token?: string) =>
      gateway.call(path, { method: 'POST', headers: from(i), body: JSON.stringify(body), token })
    const kinds = { good: 0, ended: 0, stolen: 0 }
    let last = 0
    const worker = async (): Promise<void> => {
      for (let i = last++; i < 240; i = last++) {
        const [here, there] = i % 2 ? [one, other] : [other, one]
        const { json } = await ask(here, i, '/auth/login', { username: `user${i % USERS}`, password: 'correct horse' })
        const refreshed = await ask(there, i, '/auth/refresh', { refresh_token: json.refresh_token })
        t.equal(refreshed.status, 200)
        if (i % 3 === 0) {
          kinds.ended++
          t.equal((await ask(here, i, '/auth/logout', {}, refreshed.json.access_token)).status, 204)
        } else if (i % 3 === 1) {
          kinds.stolen++
          const both = [here, there].map(gateway =>
            ask(gateway, i, '/auth/refresh', { refresh_token: refreshed.json.refresh_token })
          )
          t.same((await Promise.all(both)).map(({ status }) => status).sort(), [200, 401])
        } else kinds.good++
      }
    }
    await Promise.all(Array.from({ length: 100 }, worker))
    const rows = await one.database.db
      .selectFrom('sessions')
      .select(['revoked_for', ({ fn }) => fn.countAll<number>().as('count')])
      .groupBy('revoked_for')
      .execute()
    const count = (reason: string | null) => rows.find(row => row.revoked_for === reason)?.count
    t.same([count(null), count('logout'), count('reuse')], [kinds.good, kinds.ended, kinds.stolen])
    const audit = await one.database.db
      .selectFrom('audit_log')
      .select(['action', ({ fn }) => fn.countAll<number>().as('count')])
      .where('action', 'in', ['login', 'logout', 'session.reuse'])
      .groupBy('action')
      .execute()
    const audited = Object.fromEntries(audit.map(({ action, count }) => [action, count]))
    t.same(audited, { login: 240, logout: kinds.ended, 'session.reuse': kinds.stolen })
    const known = kinds.ended + kinds.stolen
    await until(() => gateways.every(({ gateway }) => gateway.runtime.live.size === known), 'both know what has ended')
  }
)

t.test(
  'STO-01 IDN-03 while the database is away tokens are good and logins wait; nothing is lost by it',
  { skip: noPostgres },
  async t => {
    const { storage, proxy } = await ownStorageBehind(t)
    const { post, call, login, database } = await startAccounts(t, 'postgres', { storage })
    await addUser(database, { username: 'alice' })
    const { access_token, refresh_token } = await login()
    await proxy.set({ kind: 'refuse' })
    t.equal((await call('/api/x', { token: access_token })).status, 200)
    const asked: [string, object, string?][] = [
      ['/auth/login', { username: 'alice', password: 'correct horse' }],
      ['/auth/refresh', { refresh_token }],
      ['/auth/logout', {}, access_token],
      ['/auth/change-password', { current_password: 'correct horse', new_password: 'battery staple' }, access_token]
    ]
    for (const [path, body, token] of asked)
      t.match(await post(path, body, token), { status: 503, json: { error: { code: 'service_unavailable' } } }, path)
    await proxy.set({ kind: 'none' })
    t.equal((await post('/auth/refresh', { refresh_token })).status, 200, 'it comes back by itself')
    t.equal((await call('/api/x', { token: access_token })).status, 200, 'and what was not answered has not been done')
  }
)
