import t, { type Test } from 'tap'
import type { Database } from '../../../src/database/database.ts'
import { DatabaseError } from '../../../src/database/database-error.ts'
import { Registrations } from '../../../src/discovery/registrations.ts'
import { FakeClock } from '../../support/clock.ts'
import { KINDS, noPostgres, openTestDatabase } from '../../support/database.ts'
import { captureLog } from '../../support/gateway.ts'

const given = (id: string, ttl = 30) => ({
  service: 'orders',
  id,
  url: `http://10.0.0.1:80/${id}`,
  weight: 1,
  zone: null,
  ttl_ms: ttl * 1000,
  owner: 'user:robot'
})
const audit = () =>
  ({ at: 0, actor: 'user:robot', action: 'instance.register', target: 'service:orders', outcome: 'changed' }) as const

/** One gateway's registrations, by a clock of its own. */
async function node(t: Test, database: Database) {
  const clock = new FakeClock()
  const registrations = new Registrations(database, { clock, log: captureLog().log.logger })
  const changes: string[][] = []
  registrations.onChange = service => changes.push(registrations.instancesOf(service).map(({ id }) => id))
  await registrations.open()
  t.teardown(() => registrations.close())
  /** Lets time pass, as a gateway that looks every five seconds has it. */
  const pass = async (seconds: number): Promise<void> => {
    for (let i = 0; i < seconds; i += 5) {
      clock.advance(5000)
      await registrations.look()
    }
  }
  return { clock, registrations, changes, pass, ids: () => registrations.of('orders').map(({ id }) => id) }
}

for (const kind of KINDS) {
  const skip = { skip: kind === 'postgres' && noPostgres }

  t.test(`REG-15 one that is not heard of for its time is let go of (${kind})`, skip, async t => {
    const database = await openTestDatabase(t, kind)
    const { registrations, pass, ids, changes } = await node(t, database)
    await registrations.register(given('a', 30), audit)
    await registrations.register(given('b', 60), audit)
    await pass(30)
    t.strictSame(ids(), ['a', 'b'])
    await registrations.renew('orders', 'a')
    await pass(30)
    t.strictSame(ids(), ['a', 'b'])
    await pass(5)
    t.strictSame(ids(), [])
    t.strictSame(changes, [['a'], ['a', 'b'], ['b'], []])
    t.equal(await registrations.renew('orders', 'a'), undefined)
  })

  t.test(
    `REG-15 H-128 what is said to another gateway counts here, whatever its clock says (${kind})`,
    skip,
    async t => {
      const database = await openTestDatabase(t, kind)
      const [one, two] = [await node(t, database), await node(t, database)]
      one.clock.set(0)
      two.clock.set(Date.UTC(2040, 0, 1))
      await one.registrations.register(given('a'), audit)
      t.strictSame(two.ids(), ['a'])
      for (let i = 0; i < 5; i++) {
        await one.pass(20)
        await two.registrations.renew('orders', 'a')
        await two.pass(20)
        await one.registrations.renew('orders', 'a')
      }
      t.strictSame([one.ids(), two.ids()], [['a'], ['a']])
      await two.pass(40)
      t.strictSame([one.ids(), two.ids()], [[], []], 'whoever sees it first')
    }
  )
}

t.test('REG-15 one that is renewed at the last moment stays', async t => {
  const database = await openTestDatabase(t, 'sqlite')
  const other = await node(t, database)
  let moments = 0
  const racing: Database = {
    ...database,
    async transaction(work) {
      moments++
      await other.registrations.renew('orders', 'a')
      return database.transaction(work)
    }
  }
  await other.registrations.register(given('a'), audit)
  const { pass, ids } = await node(t, racing)
  await pass(35)
  t.equal(moments, 1)
  t.strictSame([ids(), other.ids()], [['a'], ['a']])
  await pass(30)
  t.equal(moments, 1, 'its time begins anew')
})

t.test('H-124 while the database cannot be asked nobody is let go of, nor at once when it is back', async t => {
  const database = await openTestDatabase(t, 'sqlite')
  let down = false
  const lost = new DatabaseError('unreachable', 'no')
  const flaky = {
    ...database,
    get db() {
      if (down) throw lost
      return database.db
    }
  } as Database
  const { registrations, pass, ids } = await node(t, flaky)
  await registrations.register(given('a'), audit)
  down = true
  await pass(600)
  t.strictSame(ids(), ['a'])
  down = false
  await pass(5)
  t.strictSame(ids(), ['a'], 'it has had no way to be heard')
  await pass(30)
  t.strictSame(ids(), ['a'])
  await pass(5)
  t.strictSame(ids(), [])
})

t.test('H-124 an outage of the database lets go of nobody, however short his time and the outage are', async t => {
  const database = await openTestDatabase(t, 'sqlite')
  let down = false
  const flaky = {
    ...database,
    get db() {
      if (down) throw new DatabaseError('unreachable', 'no')
      return database.db
    }
  } as Database
  const { registrations, clock, pass, ids } = await node(t, flaky)
  await registrations.register(given('a', 5), audit)
  down = true
  await pass(5)
  down = false
  await pass(5)
  t.strictSame(ids(), ['a'], 'the gateway has looked in vain')
  down = true
  clock.advance(4000)
  await t.rejects(registrations.renew('orders', 'a'), { code: 'unreachable' })
  down = false
  clock.advance(2000)
  await registrations.look()
  t.strictSame(ids(), ['a'], 'he has spoken in vain')
  await pass(10)
  t.strictSame(ids(), [])
})

t.test('H-124 a gateway that stood still for a while lets go of nobody for that', async t => {
  const { registrations, clock, ids } = await node(t, await openTestDatabase(t, 'sqlite'))
  await registrations.register(given('a'), audit)
  clock.advance(3_600_000)
  await registrations.look()
  t.strictSame(ids(), ['a'])
})

t.test('H-124 rows that are gone without anybody having said so take nobody away', async t => {
  const database = await openTestDatabase(t, 'sqlite')
  const { registrations, pass, ids } = await node(t, database)
  await registrations.register(given('a'), audit)
  await database.db.deleteFrom('registrations').execute()
  await pass(60)
  t.strictSame(ids(), ['a'])
  t.equal(await registrations.renew('orders', 'a'), undefined, 'it learns of it, and registers again')
  await registrations.register(given('a'), audit)
  await pass(30)
  t.strictSame(ids(), ['a'])
})

t.test('REG-15 a service has so many and no more', async t => {
  const database = await openTestDatabase(t, 'sqlite')
  const { registrations } = await node(t, database)
  const row = { ...given('x'), beats: 1, created_at: 0, renewed_at: 0 }
  for (let i = 0; i < 10; i++)
    await database.db
      .insertInto('registrations')
      .values(Array.from({ length: 100 }, (_, j) => ({ ...row, id: `${i}-${j}` })))
      .execute()
  t.equal(await registrations.register(given('one more'), audit), 'full')
  t.match(await registrations.register(given('0-0'), audit), { isNew: false })
})
