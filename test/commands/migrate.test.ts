import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { stringify } from 'yaml'
import { STEPS } from '../../src/database/migrate.ts'
import { runCommand } from '../support/commands.ts'
import { ROOT } from '../support/config.ts'
import { emptyStorage, noPostgres } from '../support/database.ts'
import { startProcess, writeConfiguration } from '../support/gateway-process.ts'

const all = Object.keys(STEPS).join(', ')

async function migrate(file: string, ...args: string[]): Promise<{ status: number | null; text: string }> {
  const env = { PATH: process.env.PATH }
  const { status, stdout, stderr } = await runCommand(t, { args: ['migrate', '-c', file, ...args], cwd: ROOT, env })
  return { status, text: stdout + stderr }
}

t.test('STO-01 migrate says which steps it has taken, once', async t => {
  const { file, configure } = writeConfiguration(t, { storage: { database: true } })
  t.strictSame(await migrate(file), { status: 0, text: `the database (sqlite) has been brought up to date: ${all}\n` })
  t.strictSame(await migrate(file), { status: 0, text: 'the database (sqlite) is up to date\n' })
  t.strictSame(await migrate(file, '--json'), { status: 0, text: '{"database":"sqlite","steps":[]}\n' })
  configure({})
  t.match(await migrate(file), { status: 1, text: /storage\.database +is off: there is no database/ })
})

t.test('STO-01 migrate --to says what is in the way, and never a password', async t => {
  const { file, configure } = writeConfiguration(t, { storage: { database: true } })
  const unreachable = 'postgres://sallyport:p4ssw0rd@127.0.0.1:1/x'
  t.match(await migrate(file, '--to', unreachable), {
    status: 1,
    text: /sallyport.db is not there: nothing is to be carried over/
  })
  await migrate(file)
  for (const [target, sentence] of [
    [unreachable, /ECONNREFUSED/],
    ['mysql://root:p4ssw0rd@host/x', /^--to: write postgres:\/\/user:password@host:5432\/database$/m],
    ['postgres://root:p4ssw0rd@ho st:x', /^--to: write postgres:/m]
  ] as const) {
    const { status, text } = await migrate(file, '--to', target)
    t.equal(status, 1)
    t.match(text, sentence)
    t.notMatch(text, /p4ssw0rd/)
  }
  const { child, ended } = await startProcess(t, file)
  t.match(await migrate(file, '--to', unreachable), { status: 1, text: /is in use by another gateway; stop it/ })
  child.kill('SIGTERM')
  await ended
  configure({ storage: { database: true, database_url: unreachable } })
  t.match(await migrate(file, '--to', unreachable), { status: 1, text: /--to carries an SQLite database over/ })
})

t.test('STO-01 migrate --to carries everything over, and the gateway goes on there', { skip: noPostgres }, async t => {
  const { database_url: url = '' } = await emptyStorage(t, 'postgres')
  const { file, configure } = writeConfiguration(t, { storage: { database: true } })
  await migrate(file)
  const { status, text } = await migrate(file, '--to', url)
  t.equal(status, 0, text)
  t.match(text, /^users +\d+$/m)
  const { host, pathname, password } = new URL(url)
  t.match(text, `all of it is in postgres://${host}${pathname} now`)
  t.notMatch(text, `:${password}@`)
  t.match(await migrate(file, '--to', url), { status: 1, text: /the database is not empty, it has the table/ })
  configure({ storage: { database: true, database_url: url } })
  t.strictSame(await migrate(file), { status: 0, text: 'the database (postgres) is up to date\n' })
  const { port } = await startProcess(t, file)
  const health = await (await fetch(`http://127.0.0.1:${port}/health/dependencies`)).json()
  t.match(health, { dependencies: { database: { status: 'ok', kind: 'postgres' } } })
})

t.test('STO-01 H-121 a password that PostgreSQL refuses is not shown', { skip: noPostgres }, async t => {
  const { database_url = '' } = await emptyStorage(t, 'postgres')
  const folder = t.testdir({})
  const url = new URL(database_url)
  url.username = 'nobody'
  url.password = 'p4ssw0rd'
  url.pathname = '/there-is-no-such-database'
  writeFileSync(join(folder, 'gateway.yaml'), stringify({ storage: { database_url: url.href } }))
  const { status, text } = await migrate(join(folder, 'gateway.yaml'))
  t.equal(status, 1)
  t.notMatch(text, /p4ssw0rd/)
})
