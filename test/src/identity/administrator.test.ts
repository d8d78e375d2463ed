import t from 'tap'
import { ensureAdministrator } from '../../../src/identity/administrator.ts'
import { noPostgres, onBoth, openTestDatabase, ownStorage } from '../../support/database.ts'
import { startAccounts } from '../../support/logins.ts'
import { addUser, CHEAP } from '../../support/users.ts'

onBoth(
  t,
  'H-121 the first start makes an administrator, whose password is shown once and has to be replaced',
  async (t, kind) => {
    const { login, lines, database, post, call } = await startAccounts(t, kind)
    const [said, ...further] = lines().filter(({ password }) => password !== undefined)
    t.match(said, { level: 40, username: 'admin', password: /^[a-z2-9]{24}$/ })
    t.same(further, [])
    const { access_token, user } = await login('admin', said?.password as string)
    t.match(user, { roles: ['admin'], must_change_password: true })
    t.equal((await call('/admin/routes', { token: access_token })).status, 403)
    const body = { current_password: said?.password, new_password: 'a better password' }
    const changed = await post('/auth/change-password', body, access_token)
    t.equal((await call('/admin/routes', { token: changed.json.access_token })).status, 200)
    const audit = await database.db.selectFrom('audit_log').selectAll().where('action', '=', 'user.create').execute()
    t.match(audit, [{ actor: 'gateway', outcome: 'changed' }])
    t.notOk(JSON.stringify(audit).includes(said?.password as string))
  }
)

t.test('the environment may give the first password, which is shown nowhere and stays', async t => {
  const env = { SALLYPORT_ADMIN_PASSWORD: 'from the environment' }
  const { login, lines, call } = await startAccounts(t, 'sqlite', { env })
  const { access_token } = await login('admin', 'from the environment')
  t.equal((await call('/admin/routes', { token: access_token })).status, 200)
  t.match(
    lines().find(({ username }) => username === 'admin'),
    { level: 30, password: undefined }
  )
  t.notOk(JSON.stringify(lines()).includes('from the environment'))
})

onBoth(t, 'where there are users no administrator is made, nor where there are no accounts', async (t, kind) => {
  const database = await openTestDatabase(t, kind)
  const { passwords, clock } = { passwords: { hash: async () => 'x' } as never, clock: { now: () => 1 } as never }
  const runtime = { database, passwords, clock }
  const identity = { local: false, password: CHEAP } as never
  t.equal(await ensureAdministrator(runtime, { identity }), undefined)
  await addUser(database)
  t.equal(
    await ensureAdministrator(runtime, { identity: { ...(identity as object), local: true } as never }),
    undefined
  )
})

t.test(
  'CLU-01 two gateways that start at once on one database make one administrator',
  { skip: noPostgres },
  async t => {
    const storage = await ownStorage(t, 'postgres')
    const gateways = await Promise.all([1, 2, 3].map(() => startAccounts(t, 'postgres', { storage })))
    const [one] = gateways
    const users = await one?.database.db.selectFrom('users').select('username').execute()
    t.same(users, [{ username: 'admin' }])
    t.equal(gateways.filter(({ lines }) => lines().some(({ password }) => password !== undefined)).length, 1)
  }
)
