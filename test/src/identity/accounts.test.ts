import { randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import type { Database } from '../../../src/database/database.ts'
import { passwordHashOf } from '../../../src/database/users.ts'
import { loadConfiguration } from '../../../src/gateway.ts'
import { Accounts } from '../../../src/identity/accounts.ts'
import { Runtime } from '../../../src/runtime/runtime.ts'
import { FakeClock } from '../../support/clock.ts'
import { onBoth, openTestDatabase } from '../../support/database.ts'
import { captureLog } from '../../support/gateway.ts'
import { addUser, CHEAP } from '../../support/users.ts'

const attempt = (clientIp = '192.0.2.1') => ({ clientIp, requestId: randomUUID() })

async function start(t: Test, kind: Database['kind'], password: object = CHEAP) {
  const clock = new FakeClock()
  const { log, lines } = captureLog()
  const database = await openTestDatabase(t, kind, clock)
  const runtime = new Runtime({ log, clock, database })
  t.teardown(() => runtime.deadlines.stop())
  const { snapshot } = await loadConfiguration({
    files: [],
    env: {},
    overrides: [],
    document: { identity: { jwt: { secret: 'x'.repeat(40) }, password } }
  })
  const accounts = new Accounts(runtime, snapshot)
  const tried = (name: string, password: string, from?: string): Promise<string> =>
    accounts.verifyPassword(name, password, attempt(from)).then(
      ({ kind }) => kind,
      error => error.reason
    )
  return { accounts, clock, database, lines, tried }
}

onBoth(
  t,
  'IDN-01 IDN-11 a user is known by name or address in any case, with what its roles permit',
  async (t, kind) => {
    const { accounts, database, tried } = await start(t, kind)
    const id = await addUser(database, {
      username: 'Alice',
      roles: { reader: ['orders.read'], writer: ['orders.read', 'orders.write'] },
      tier: 'gold'
    })
    const verdict = await accounts.verifyPassword('alice', 'correct horse', attempt())
    t.match(verdict, {
      kind: 'user',
      user: {
        id,
        username: 'Alice',
        roles: ['reader', 'writer'],
        permissions: ['orders.read', 'orders.write'],
        tier: 'gold',
        active: true,
        mustChangePassword: false
      }
    })
    t.equal(await tried('ALICE@example.COM', 'correct horse'), 'user')
    t.equal(await tried('alice', 'Correct horse'), 'wrong_password')
    t.equal(await tried('nobody', 'correct horse'), 'unknown_user')
    await addUser(database, { username: 'gone', active: false })
    t.equal(await tried('gone', 'correct horse'), 'inactive')
  }
)

onBoth(
  t,
  'IDN-19 OBS-33 H-121 each login is logged and audited with reason, address and request, and without secrets',
  async (t, kind) => {
    const { accounts, database, lines } = await start(t, kind)
    const id = await addUser(database, { username: 'alice' })
    const from = (requestId: string) => ({ clientIp: '192.0.2.7', requestId })
    await accounts.verifyPassword('alice', 'correct horse', from('r1'))
    await t.rejects(accounts.verifyPassword('alice', 'hunter2hunter2', from('r2')), { code: 'invalid_credentials' })
    await t.rejects(accounts.verifyPassword('my own password', 'x', from('r3')), { code: 'invalid_credentials' })
    const rows = await database.db.selectFrom('audit_log').selectAll().orderBy('seq').execute()
    t.match(rows, [
      {
        actor: `user:${id}`,
        action: 'login',
        target: `user:${id}`,
        outcome: 'allowed',
        details: null,
        request_id: 'r1'
      },
      { actor: 'anonymous', target: `user:${id}`, outcome: 'denied', details: 'wrong_password', request_id: 'r2' },
      { target: 'user:unknown', outcome: 'denied', details: 'unknown_user', client_ip: '192.0.2.7', request_id: 'r3' }
    ])
    t.match(
      lines().filter(({ msg }) => String(msg).startsWith('login')),
      [
        { msg: 'login', user: id, client_ip: '192.0.2.7', request_id: 'r1' },
        { msg: 'login refused', user: id, reason: 'wrong_password' },
        { msg: 'login refused', reason: 'unknown_user', request_id: 'r3' }
      ]
    )
    const hash = await passwordHashOf(database.db, id)
    const said = JSON.stringify([rows, lines()])
    for (const secret of ['correct horse', 'hunter2', 'my own password', '$argon2id', hash as string])
      t.notOk(said.includes(secret), secret)
  }
)

onBoth(t, 'IDN-09 a login hashes the password anew when another cost is wanted', async (t, kind) => {
  const { database, tried } = await start(t, kind, { memory_kib: 128, passes: 2 })
  const id = await addUser(database, { username: 'alice' })
  t.match(await passwordHashOf(database.db, id), /m=64,t=1/)
  t.equal(await tried('alice', 'wrong'), 'wrong_password')
  t.match(await passwordHashOf(database.db, id), /m=64,t=1/, 'a wrong one changes nothing')
  t.equal(await tried('alice', 'correct horse'), 'user')
  t.match(await passwordHashOf(database.db, id), /m=128,t=2/)
  t.equal(await tried('alice', 'correct horse'), 'user')
})

onBoth(
  t,
  'IDN-01 one address has ten tries at an account, and then two a minute; others are not held up',
  async (t, kind) => {
    const { clock, database, tried, accounts } = await start(t, kind)
    await addUser(database, { username: 'alice' })
    await addUser(database, { username: 'bob' })
    const tries = await Promise.all(Array.from({ length: 12 }, () => tried('alice', 'wrong')))
    t.equal(tries.filter(reason => reason === 'wrong_password').length, 10)
    t.equal(tries.filter(reason => reason === 'login_throttled').length, 2)
    t.equal(await tried('alice', 'correct horse'), 'login_throttled', 'and the right one is not looked at')
    t.equal(await tried('ALICE@example.com', 'correct horse'), 'login_throttled', 'by whatever name')
    await t.rejects(accounts.verifyPassword('alice', 'x', attempt()), {
      code: 'rate_limit_exceeded',
      headers: ['retry-after', '30']
    })
    t.equal(await tried('bob', 'correct horse'), 'user')
    t.equal(await tried('alice', 'correct horse', '198.51.100.1'), 'user')
    clock.advance(30_000)
    t.equal(await tried('alice', 'correct horse'), 'user')
  }
)

onBoth(
  t,
  'IDN-01 many addresses get twenty tries at an account, while its owner gets in from where he has before',
  async (t, kind) => {
    const { clock, database, tried } = await start(t, kind)
    const user_id = await addUser(database, { username: 'alice' })
    const session = { family_hash: 'f', refresh_hash: 'r', refreshed_at: 1, expires_at: 2, created_at: 1 }
    await database.db
      .insertInto('sessions')
      .values({ id: randomUUID(), user_id, client_ip: '2001:db8:0:1::7', user_agent: null, ...session })
      .execute()
    const tries: string[] = []
    for (let i = 0; i < 24; i++) tries.push(await tried('alice', 'wrong', `198.51.100.${i}`))
    t.equal(tries.filter(reason => reason === 'wrong_password').length, 20)
    t.equal(await tried('alice', 'correct horse', '203.0.113.1'), 'login_throttled')
    t.equal(await tried('alice', 'correct horse', '2001:db8:0:1::8'), 'user', 'a neighbour in the same network')
    clock.advance(30_000)
    t.equal(await tried('alice', 'correct horse', '203.0.113.1'), 'user', 'it delays, and never locks')
  }
)

onBoth(t, 'IDN-01 names that nobody has are limited as those that somebody has', async (t, kind) => {
  const { tried } = await start(t, kind)
  const tries: string[] = []
  for (let i = 0; i < 22; i++) tries.push(await tried(i % 2 ? 'nobody' : 'NOBODY', 'x', `198.51.100.${i}`))
  t.equal(tries.filter(reason => reason === 'unknown_user').length, 20)
  const one: string[] = []
  for (let i = 0; i < 102; i++) one.push(await tried(`name${i}`, 'x'))
  t.equal(one.filter(reason => reason === 'login_throttled').length, 2, 'one address has a hundred tries in all')
})
