import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { sql } from 'kysely'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { type Connection, connect, type Database, openDatabase } from '../../../src/database/database.ts'
import { migrate, STEPS, type Step } from '../../../src/database/migrate.ts'
import { systemClock } from '../../../src/runtime/clock.ts'
import { ROOT } from '../../support/config.ts'
import { emptyStorage, onBoth } from '../../support/database.ts'
import { columnsOf, dump, fillTables } from '../../support/fill-tables.ts'

const log = pino({ level: 'silent' })

async function connected(t: Test, kind: Database['kind']): Promise<Connection> {
  const connection = await connect(await emptyStorage(t, kind), log)
  t.teardown(() => connection.db.destroy())
  return connection
}

onBoth(t, 'STO-01 an upgrade from every earlier state keeps every row', async (t, kind) => {
  for (const step of Object.keys(STEPS)) {
    const { db } = await connected(t, kind)
    await migrate(db, kind, step)
    await fillTables(db, kind, 3)
    const columns = await columnsOf(db, kind)
    const before = await dump(db, kind, columns)
    t.ok([...before.values()].every(rows => rows.length >= 3))
    await migrate(db, kind)
    const after = await dump(db, kind, columns)
    for (const [table, rows] of before)
      for (const row of rows) t.ok(after.get(table)?.includes(row), `${step}: ${table} ${row}`)
    t.strictSame(await migrate(db, kind), [], 'once is enough')
  }
})

onBoth(t, 'STO-01 the tables are those that tables.ts describes', async (t, kind) => {
  const { db } = await connected(t, kind)
  await migrate(db, kind)
  const described = [...readFileSync(join(ROOT, 'src/database/tables.ts'), 'utf8').matchAll(/^ {2}(\w+): \w+Table$/gm)]
  t.strictSame(
    [...new Set((await columnsOf(db, kind)).map(({ table }) => table))].sort(),
    described.map(([, name]) => name).sort()
  )
})

onBoth(t, 'STO-01 a step that fails leaves nothing half done, and can be taken again', async (t, kind) => {
  const { db } = await connected(t, kind)
  await migrate(db, kind)
  const before = await columnsOf(db, kind)
  let fails = true
  const step: Step = async db => {
    await db.schema.createTable('later').addColumn('id', 'integer').execute()
    await db.schema.alterTable('users').addColumn('later', 'integer').execute()
    await sql`delete from roles`.execute(db)
    if (fails) await sql`select * from nowhere`.execute(db)
  }
  await sql`insert into roles (id, name, permissions, created_at, updated_at)
    values ('7d444840-9dc0-41d2-b16c-1f6f2d5d7d4b', 'r', '[]', 1, 1)`.execute(db)
  const steps = { ...STEPS, '998-before': async () => {}, '999-later': step }
  await t.rejects(migrate(db, kind, undefined, steps), {
    code: 'unusable',
    message: /^the database cannot be brought up to date: .*nowhere/
  })
  t.strictSame(await columnsOf(db, kind), before)
  t.equal((await db.selectFrom('roles').selectAll().where('name', '=', 'r').execute()).length, 1)
  fails = false
  t.strictSame(await migrate(db, kind, undefined, steps), ['998-before', '999-later'])
})

onBoth(t, 'STO-01 a database that a newer gateway has used is refused with a sentence', async (t, kind) => {
  const storage = await emptyStorage(t, kind)
  const { db } = await connect(storage, log)
  await migrate(db, kind, undefined, { ...STEPS, '999-future': async () => {} })
  await db.destroy()
  await t.rejects(openDatabase(storage, { clock: systemClock, log }), {
    code: 'unusable',
    message: 'the database has been used by a newer Sallyport (999-future); use that one, or a copy from before'
  })
})
