import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import pg from 'pg'
import { pino } from 'pino'
import type { Test } from 'tap'
import { type Database, openDatabase } from '../../src/database/database.ts'
import { type Clock, systemClock } from '../../src/runtime/clock.ts'
import { startFaultProxy } from './fault-proxy.ts'

/** Why the tests that need a PostgreSQL are skipped, for tap; false when there is one. */
export const noPostgres =
  process.env.TEST_DATABASE_URL === undefined && 'no PostgreSQL: set TEST_DATABASE_URL, or see test/README.md'

export const KINDS = ['sqlite', 'postgres'] as const

/** Settings of a database of the test's own: a folder, or a new database on the run's server, dropped at the end. */
export async function ownStorage(
  t: Test,
  kind: Database['kind'],
  folder = t.testdir({})
): Promise<{ database: true; data_dir: string; database_url?: string }> {
  const data_dir = join(folder, 'data')
  return { database: true, data_dir, ...(kind === 'sqlite' ? {} : { database_url: await ownPostgres(t) }) }
}

/** The URL of a new, empty database on the run's PostgreSQL. */
async function ownPostgres(t: Test): Promise<string> {
  const server = process.env.TEST_DATABASE_URL as string
  const name = `test_${randomBytes(6).toString('hex')}`
  await onServer(server, `create database ${name}`)
  t.teardown(() => onServer(server, `drop database ${name} with (force)`))
  const url = new URL(server)
  url.pathname = `/${name}`
  return url.href
}

async function onServer(url: string, command: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(command)
  await client.end()
}

/** A database of the test's own, with all its tables, for as long as the test runs. */
export async function openTestDatabase(t: Test, kind: Database['kind'], clock: Clock = systemClock): Promise<Database> {
  const database = await openDatabase(await ownStorage(t, kind), { clock, log: pino({ level: 'silent' }) })
  t.teardown(() => database.close())
  return database
}

/** Runs the same tests on both databases; the one that is not to be had is skipped. */
export function onBoth(t: Test, name: string, test: (t: Test, kind: Database['kind']) => Promise<void>): void {
  for (const kind of KINDS) t.test(`${name} (${kind})`, { skip: kind === 'postgres' && noPostgres }, t => test(t, kind))
}

/** A PostgreSQL of the test's own, directly and behind a proxy that can keep it away. */
export async function ownStorageBehind(t: Test, folder?: string) {
  const direct = await ownStorage(t, 'postgres', folder)
  const url = new URL(direct.database_url as string)
  const proxy = await startFaultProxy(t, Number(url.port))
  url.port = String(proxy.port)
  url.hostname = '127.0.0.1'
  return { direct, storage: { ...direct, database_url: url.href }, proxy }
}
