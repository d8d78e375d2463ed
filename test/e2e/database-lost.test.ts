import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sql } from 'kysely'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { type Database, openDatabase } from '../../src/database/database.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { makeCertificate } from '../support/certificates.ts'
import { ROOT } from '../support/config.ts'
import { noPostgres, ownStorage } from '../support/database.ts'
import { type Answer, startGateway, type TestGateway } from '../support/gateway.ts'
import { startPostgresServer } from '../support/postgres-server.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

const admin = token({ roles: ['admin'] })
const log = pino({ level: 'silent' })

const user = (name: string) => ({
  id: crypto.randomUUID(),
  username: name,
  username_key: name,
  email: `${name}@example.com`,
  email_key: `${name}@example.com`,
  active: true,
  created_at: 1,
  updated_at: 1
})

/** A gateway with a route that needs no database, and `ask`, which does. */
async function start(t: Test, storage: object): Promise<TestGateway & { database: Database; ask(): Promise<Answer> }> {
  const upstream = await startUpstream(t)
  const started = await startGateway(t, {
    storage: { database: true, ...storage },
    services: { s: { url: upstream.url } },
    routes: [{ path: '/proxied', service: 's' }]
  })
  const database = started.gateway.runtime.database as Database
  return { ...started, database, ask: () => started.call('/admin/audit', { token: admin }) }
}

/** Requests that need no database go on, others are told to come again, and whoever looks sees why. */
async function isLost(t: Test, { call, ask }: Awaited<ReturnType<typeof start>>): Promise<void> {
  const refused = await ask()
  t.equal(refused.status, 503)
  t.match(refused.json, { error: { code: 'service_unavailable' } })
  t.match(refused.headers['retry-after'], /^\d+$/)
  t.equal((await call('/proxied', { token: admin })).status, 200)
  t.equal((await call('/proxied')).status, 401)
  t.equal((await call('/health')).status, 200)
  t.equal((await call('/health/readiness')).status, 200)
  const health = await call('/health/dependencies')
  t.match(health.json, { status: 'degraded', dependencies: { database: { status: 'down' } } })
  t.notMatch(health.text, /127\.0\.0\.1|postgres:/)
}

t.test(
  'STO-03 TST-09 PostgreSQL stops and starts again: what needs it waits for it, nothing else does',
  { skip: noPostgres, timeout: 120_000 },
  async t => {
    const server = await startPostgresServer()
    t.teardown(() => server.remove())
    const gateway = await start(t, { database_url: server.url })
    const { database, ask, call } = gateway
    t.equal((await ask()).status, 200)

    let inside = (): void => {}
    const begun = new Promise<void>(resolve => {
      inside = resolve
    })
    let goOn = (): void => {}
    const stopped = new Promise<void>(resolve => {
      goOn = resolve
    })
    const transaction = database.transaction(async trx => {
      await trx.insertInto('users').values(user('lost')).execute()
      inside()
      await stopped
      await trx.insertInto('users').values(user('lost-too')).execute()
    })
    const failed = t.rejects(transaction, { code: 'unreachable' }, 'a transaction that is under way fails')
    await begun
    await server.stop()
    goOn()
    await failed
    await isLost(t, gateway)

    await server.start()
    await until(async () => (await ask()).status === 200)
    await database.changes.poll()
    t.match((await call('/health/dependencies')).json, {
      dependencies: { database: { status: 'ok', kind: 'postgres' } }
    })
    t.strictSame(
      await database.db.selectFrom('users').select('id').where('username', 'like', 'lost%').execute(),
      [],
      'nothing of it is there'
    )
    await database.transaction(async trx => void (await trx.insertInto('users').values(user('found')).execute()))
  }
)

t.test(
  'STO-03 more is asked at once than there are connections: all of it is answered',
  { skip: noPostgres },
  async t => {
    const { database } = await start(t, await ownStorage(t, 'postgres'))
    await Promise.all(
      Array.from({ length: 60 }, (_, i) =>
        database.transaction(
          async trx =>
            void (await trx
              .insertInto('users')
              .values(user(`u${i}`))
              .execute())
        )
      )
    )
    t.ok((await connections(database)) <= 10)
    const { count } = await database.db
      .selectFrom('users')
      .select(({ fn }) => fn.countAll().as('count'))
      .where('username', 'like', 'u%')
      .executeTakeFirstOrThrow()
    t.ok(Number(count) >= 60)
  }
)

async function connections({ db }: Database): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    select count(*) as count from pg_stat_activity
    where application_name = 'sallyport' and datname = current_database()`.execute(db)
  return rows[0]?.count as number
}

t.test(
  'STO-01 SEC-01 TLS to PostgreSQL: checked against the given authority, and refused when it is another’s',
  { skip: noPostgres, timeout: 120_000 },
  async t => {
    const authority = makeCertificate({ name: 'Test CA', authority: true })
    const stranger = makeCertificate({ name: 'Stranger', authority: true })
    const folder = t.testdir({ 'ca.pem': authority.cert, 'stranger.pem': stranger.cert })
    const server = await startPostgresServer(makeCertificate({ name: 'db', hosts: ['127.0.0.1'], issuer: authority }))
    t.teardown(() => server.remove())
    const open = (query: string, host = '127.0.0.1') =>
      openDatabase(
        { data_dir: folder, database_url: `${server.url.replace('127.0.0.1', host)}?${query}` },
        { clock: systemClock, log }
      )
    const database = await open(`sslmode=verify-full&sslrootcert=${join(folder, 'ca.pem')}`)
    const { rows } = await sql<{ ssl: boolean }>`select ssl from pg_stat_ssl where pid = pg_backend_pid()`.execute(
      database.db
    )
    t.strictSame(rows, [{ ssl: true }])
    await database.close()
    for (const [query, host] of [
      [`sslmode=verify-full&sslrootcert=${join(folder, 'stranger.pem')}`],
      ['sslmode=verify-full'],
      [`sslmode=verify-full&sslrootcert=${join(folder, 'ca.pem')}`, 'localhost']
    ] as const)
      await t.rejects(open(query, host), { code: 'unreachable', message: /certificate|altnames/i }, query)
    await t.rejects(open(`sslmode=verify-full&sslrootcert=${join(folder, 'not-there.pem')}`), {
      code: 'unreachable',
      message: /not-there\.pem/
    })
  }
)

t.test('STO-01 SQLite on a full disk: writes are refused until there is room, reads are not', async t => {
  const { database, call } = await start(t, {})
  const { db } = database
  await sql`pragma max_page_count = 1`.execute(db)
  const fill = async (): Promise<void> => {
    for (let i = 0; i < 5000; i++)
      await database.transaction(
        async trx =>
          void (await trx
            .insertInto('users')
            .values(user(`fill${i}`))
            .execute())
      )
  }
  await t.rejects(fill(), { code: 'unreachable', message: /full \(the disk is full\)/ })
  const register = (name: string): Promise<Answer> =>
    call('/services', {
      method: 'POST',
      token: admin,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ name, base_url: 'http://192.0.2.10:8080', description: 'x'.repeat(500) })
    })
  const answers: Answer[] = []
  for (let i = 0; i < 60 && answers.at(-1)?.status !== 503; i++) answers.push(await register(`full-${i}`))
  const refused = answers.at(-1) as Answer
  t.equal(refused.status, 503, 'what fits into the pages that there are is still taken')
  t.match(refused.json, { error: { code: 'service_unavailable' } })
  t.equal((await call('/proxied', { token: admin })).status, 200)
  t.equal((await call('/services', { token: admin })).status, 200)
  await sql`pragma max_page_count = 1000000`.execute(db)
  const late = await register('room')
  t.equal(late.status, 201, late.text)
})

t.test('STO-01 SQLite: a file that is damaged while it is used ends nothing but what needs it', async t => {
  const storage = await ownStorage(t, 'sqlite')
  const before = await openDatabase(storage, { clock: systemClock, log })
  for (let i = 0; i < 400; i++)
    await before.db
      .insertInto('users')
      .values({ ...user(`u${i}`), first_name: 'x'.repeat(3000) })
      .execute()
  await before.close()
  const database = await openDatabase(storage, { clock: systemClock, log })
  const file = join(storage.data_dir, 'sallyport.db')
  const handle = openSync(file, 'r+')
  const { size } = statSync(file)
  for (let at = 8 * 4096; at < size; at += 4096) writeSync(handle, Buffer.alloc(4096, 0xff), 0, 4096, at)
  closeSync(handle)
  await t.rejects(database.db.selectFrom('users').selectAll().execute(), {
    code: 'unreachable',
    message: /malformed \(put a copy back, see docs\/storage.md\)/
  })
  await database.close()
})

t.test('STO-01 SQLite: what is no database is named at the start', async t => {
  const storage = await ownStorage(t, 'sqlite')
  const database = await openDatabase(storage, { clock: systemClock, log })
  await database.close()
  t.strictSame(readdirSync(storage.data_dir), ['sallyport.db'], 'a clean stop leaves one file')
  writeFileSync(join(storage.data_dir, 'sallyport.db'), 'this is no database, whatever its name may say '.repeat(100))
  await t.rejects(openDatabase(storage, { clock: systemClock, log }), {
    code: 'unusable',
    message: /sallyport\.db cannot be used: file is not a database \(put a copy back, see docs\/storage\.md\)$/
  })
})

t.test('STO-01 SQLite: a folder that may not be written is a sentence, and no start', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-readonly-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  mkdirSync(join(folder, 'data'))
  writeFileSync(join(folder, 'gateway.yaml'), 'server: { host: 127.0.0.1, port: 0 }')
  chmodSync(join(folder, 'data'), 0o555)
  chmodSync(folder, 0o755)
  // Nothing is closed to root.
  const nobody = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {}
  const args = [
    join(ROOT, 'src', 'main.ts'),
    '-c',
    'gateway.yaml',
    '--set',
    'identity.jwt.secret=a secret of the tests, long enough'
  ]
  const { status, stderr } = spawnSync(process.execPath, args, {
    cwd: folder,
    encoding: 'utf8',
    env: { PATH: process.env.PATH },
    ...nobody
  })
  t.equal(status, 1)
  t.match(
    stderr,
    /data\/sallyport\.db cannot be used: unable to open database file \(the gateway’s user has to be able to write the folder/
  )
  t.notMatch(stderr, /\.ts:\d+:\d+\)?$/m, 'no stack')
})
