import { randomUUID } from 'node:crypto'
import { pino } from 'pino'
import t from 'tap'
import { writeAudit } from '../../../src/database/audit.ts'
import type { Change } from '../../../src/database/changes.ts'
import { openDatabase } from '../../../src/database/database.ts'
import { DatabaseError, isDuplicate } from '../../../src/database/database-error.ts'
import { systemClock } from '../../../src/runtime/clock.ts'
import { emptyStorage, onBoth, openTestDatabase, ownStorage } from '../../support/database.ts'

const options = { clock: systemClock, log: pino({ level: 'silent' }) }

const user = (username: string) => ({
  id: randomUUID(),
  username,
  username_key: username,
  email: `${username}@example.com`,
  email_key: `${username}@example.com`,
  password_hash: null,
  first_name: null,
  last_name: null,
  tier: null,
  active: true,
  created_at: 1_700_000_000_123,
  updated_at: 1_700_000_000_123
})

onBoth(t, 'STO-01 what is written is read back in the same shapes', async (t, kind) => {
  const { db } = await openTestDatabase(t, kind)
  const alice = user('alice')
  await db.insertInto('users').values(alice).execute()
  const row = await db.selectFrom('users').selectAll().where('active', '=', true).executeTakeFirstOrThrow()
  t.match(row, { id: alice.id, created_at: 1_700_000_000_123, password_hash: null, token_version: 0 })
  t.equal(Boolean(row.active), true)
  t.equal(Boolean(row.must_change_password), false)
  await db
    .insertInto('roles')
    .values({ id: randomUUID(), name: 'r', description: null, permissions: '["a","b"]', created_at: 1, updated_at: 1 })
    .execute()
  const { permissions } = await db.selectFrom('roles').select('permissions').executeTakeFirstOrThrow()
  t.same(JSON.parse(permissions), ['a', 'b'])
  const { count } = await db
    .selectFrom('users')
    .select(({ fn }) => fn.countAll().as('count'))
    .executeTakeFirstOrThrow()
  t.equal(count, 1)
})

onBoth(t, 'STO-01 what is there already is refused as such, on both', async (t, kind) => {
  const { db } = await openTestDatabase(t, kind)
  await db.insertInto('users').values(user('alice')).execute()
  await t.rejects(
    db
      .insertInto('users')
      .values({ ...user('alice') })
      .execute(),
    { code: 'duplicate' }
  )
  const error = await db
    .insertInto('users')
    .values(user('alice'))
    .execute()
    .catch((error: unknown) => error)
  t.ok(isDuplicate(error))
  const orphan = { id: randomUUID(), user_id: randomUUID(), role_id: randomUUID(), created_at: 1 }
  await t.rejects(db.insertInto('user_roles').values(orphan).execute(), { code: 'reference' })
})

onBoth(t, 'STO-01 a transaction is all or nothing, and the next one is not held up', async (t, kind) => {
  const database = await openTestDatabase(t, kind)
  const failing = database.transaction(async transaction => {
    await transaction.insertInto('users').values(user('alice')).execute()
    throw new Error('on purpose')
  })
  await t.rejects(failing, { message: 'on purpose' })
  await Promise.all(
    ['bob', 'carol', 'dave'].map(name =>
      database.transaction(async transaction => {
        await transaction.insertInto('users').values(user(name)).execute()
        await writeAudit(transaction, [
          { at: 1, actor: 'test', action: 'user.create', target: `user:${name}`, outcome: 'changed', after: { name } }
        ])
      })
    )
  )
  const names = await database.db.selectFrom('users').select('username').orderBy('username').execute()
  t.same(names, [{ username: 'bob' }, { username: 'carol' }, { username: 'dave' }])
  const entries = await database.db.selectFrom('audit_log').select('after').execute()
  t.same(entries.map(({ after }) => JSON.parse(after as string)).length, 3)
})

onBoth(t, 'STO-01 changes are told here before the transaction resolves, in their order', async (t, kind) => {
  const database = await openTestDatabase(t, kind)
  const told: Change[] = []
  database.changes.on('user', changes => void told.push(...changes))
  await database.transaction(async (_, changed) => {
    changed.push({ kind: 'user', subject: 'a' }, { kind: 'other', subject: 'b' }, { kind: 'user', subject: 'c' })
  })
  t.same(
    told.map(({ subject }) => subject),
    ['a', 'c']
  )
  await Promise.all(
    Array.from({ length: 20 }, (_, i) =>
      database.transaction(async (_, changed) => void changed.push({ kind: 'user', subject: `n${i}` }))
    )
  )
  t.equal(told.length, 22, 'each once')
})

onBoth(
  t,
  'STO-01 C-29 a change that somebody could not follow for want of the database is told again',
  async (t, kind) => {
    const database = await openTestDatabase(t, kind)
    let away: Error | undefined = new DatabaseError('unreachable', 'gone')
    const told: string[] = []
    database.changes.on('user', changes => {
      if (away !== undefined) throw away
      told.push(...changes.map(({ subject }) => subject))
    })
    const change = (subject: string) =>
      database.transaction(async (_, changed) => void changed.push({ kind: 'user', subject }))
    await change('a')
    t.equal(database.changes.error, 'unreachable')
    away = undefined
    await database.changes.poll()
    t.same(told, ['a'])
    t.equal(database.changes.error, undefined)

    away = new Error('a mistake')
    await change('b')
    away = undefined
    await change('c')
    t.same(told, ['a', 'c'], 'a mistake would be made again for ever')
  }
)

t.test('STO-01 changes reach another node', { skip: process.env.TEST_DATABASE_URL === undefined }, async t => {
  const storage = await ownStorage(t, 'postgres')
  const [one, other] = await Promise.all([openDatabase(storage, options), openDatabase(storage, options)])
  t.teardown(() => Promise.all([one.close(), other.close()]))
  const told: Change[] = []
  other.changes.on('user', changes => void told.push(...changes))
  await one.transaction(async (_, changed) => void changed.push({ kind: 'user', subject: 'a' }))
  await other.changes.poll()
  t.match(told, [{ kind: 'user', subject: 'a' }])
})

t.test('STO-01 a second gateway on the same folder is refused with a sentence', async t => {
  const storage = await ownStorage(t, 'sqlite')
  const first = await openDatabase(storage, options)
  await t.rejects(openDatabase(storage, options), {
    code: 'busy',
    message: /in use by another gateway; stop it, or give/
  })
  await first.close()
  const second = await openDatabase(storage, options)
  await second.close()
})

t.test(
  'STO-01 several nodes bring a new database up to date at once',
  { skip: process.env.TEST_DATABASE_URL === undefined },
  async t => {
    const storage = await emptyStorage(t, 'postgres')
    const nodes = await Promise.all(Array.from({ length: 4 }, () => openDatabase(storage, options)))
    t.teardown(() => Promise.all(nodes.map(node => node.close())))
    for (const node of nodes) t.match(await node.check(), { kind: 'postgres' })
  }
)

t.test('STO-01 a folder or a server that cannot be used is named', async t => {
  const file = t.testdir({ file: 'not a folder' })
  await t.rejects(openDatabase({ data_dir: `${file}/file/x` }, options), {
    code: 'unusable',
    message: /cannot be made \(ENOTDIR\)/
  })
  await t.rejects(openDatabase({ database_url: 'postgres://a:b@127.0.0.1:1/x', data_dir: '' }, options), {
    code: 'unreachable'
  })
})
