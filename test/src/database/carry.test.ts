import { pino } from 'pino'
import t, { type Test } from 'tap'
import { carryOver } from '../../../src/database/carry.ts'
import { type Connection, connect } from '../../../src/database/database.ts'
import { migrate } from '../../../src/database/migrate.ts'
import { emptyStorage, noPostgres } from '../../support/database.ts'
import { type Column, columnsOf, dump, fillTables } from '../../support/fill-tables.ts'

const log = pino({ level: 'silent' })

/** An SQLite database full of rows, an empty PostgreSQL database, and the columns that it is going to have. */
async function prepared(t: Test, rows: number): Promise<{ source: Connection; target: Connection; columns: Column[] }> {
  const [model, source, target] = (await Promise.all(
    (['postgres', 'sqlite', 'postgres'] as const).map(async kind => {
      const connection = await connect(await emptyStorage(t, kind), log, { patient: true })
      t.teardown(() => connection.db.destroy())
      return connection
    })
  )) as [Connection, Connection, Connection]
  await migrate(model.db, 'postgres')
  const columns = await columnsOf(model.db, 'postgres')
  await migrate(source.db, 'sqlite')
  await fillTables(source.db, 'sqlite', rows, columns)
  return { source, target, columns }
}

t.test('STO-01 everything is carried over, and numbers go on from where they were', { skip: noPostgres }, async t => {
  const { source, target, columns } = await prepared(t, 700)
  const carried = await carryOver(source, target)
  const tables = [...new Set(columns.map(({ table }) => table))].sort()
  t.strictSame([...carried.keys()].sort(), tables)
  for (const table of tables) t.ok((carried.get(table) as number) >= 700, table)
  const [here, there] = [await dump(source.db, 'sqlite', columns), await dump(target.db, 'postgres', columns)]
  for (const table of tables) t.strictSame(there.get(table), here.get(table), table)

  const next = { kind: 'user', subject: 'a', at: 1 }
  const [{ seq: inSource }, { seq: inTarget }] = (await Promise.all(
    [source, target].map(({ db }) => db.insertInto('changes').values(next).returning('seq').executeTakeFirstOrThrow())
  )) as [{ seq: number }, { seq: number }]
  t.equal(inTarget, inSource)
  t.strictSame(await migrate(target.db, 'postgres'), [], 'it is up to date')
})

t.test('STO-01 only an empty database gets anything, and once', { skip: noPostgres }, async t => {
  const { source, target } = await prepared(t, 1)
  await carryOver(source, target)
  await t.rejects(carryOver(source, target), {
    code: 'unusable',
    message: 'the database is not empty, it has the table "api_keys"; make a new one'
  })
})

t.test('STO-01 what does not arrive takes everything back', { skip: noPostgres }, async t => {
  const { source, target } = await prepared(t, 1)
  const { id } = await source.db.selectFrom('api_requests').select('id').executeTakeFirstOrThrow()
  await source.db.updateTable('api_requests').set({ id: 'no UUID' }).where('id', '=', id).execute()
  await t.rejects(carryOver(source, target), { code: 'query', message: /uuid/ })
  t.strictSame(await columnsOf(target.db, 'postgres'), [], 'it is as empty as before')
  await source.db.updateTable('api_requests').set({ id }).where('id', '=', 'no UUID').execute()
  await carryOver(source, target)
})
