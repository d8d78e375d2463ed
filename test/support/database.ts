import { randomBytes } from 'node:crypto'
import { constants, copyFileSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { pino } from 'pino'
import type { Test } from 'tap'
import { type Database, openDatabase, SQLITE_FILE } from '../../src/database/database.ts'
import { type Clock, systemClock } from '../../src/runtime/clock.ts'
import { onServer } from './database-templates.ts'
import { startFaultProxy } from './fault-proxy.ts'

/** Why the tests that need a PostgreSQL are skipped, for tap; false when there is one. */
export const noPostgres =
  process.env.TEST_DATABASE_URL === undefined && 'no PostgreSQL: set TEST_DATABASE_URL, or see test/README.md'

export const KINDS = ['sqlite', 'postgres'] as const

interface OwnStorage {
  readonly database: true
  readonly data_dir: string
  readonly database_url?: string
}

/**
 * Settings of a database of the test's own, with all its tables and nothing in them: a file in a folder, or a new database on
 * the run's server, dropped at the end. It is a copy of what the run has prepared (database-templates.ts); without it there are no tables yet.
 */
export async function ownStorage(t: Test, kind: Database['kind'], folder = t.testdir({})): Promise<OwnStorage> {
  const data_dir = join(folder, 'data')
  const { TEST_POSTGRES_TEMPLATE, TEST_SQLITE_TEMPLATE } = process.env
  if (kind === 'postgres')
    return { database: true, data_dir, database_url: await ownPostgres(t, TEST_POSTGRES_TEMPLATE) }
  if (TEST_SQLITE_TEMPLATE !== undefined) {
    mkdirSync(data_dir, { recursive: true })
    copyFileSync(TEST_SQLITE_TEMPLATE, join(data_dir, SQLITE_FILE), constants.COPYFILE_EXCL)
  }
  return { database: true, data_dir }
}

/** The same without tables, as a first start finds it. */
export async function emptyStorage(t: Test, kind: Database['kind']): Promise<OwnStorage> {
  const data_dir = join(t.testdir({}), 'data')
  return { database: true, data_dir, ...(kind === 'postgres' && { database_url: await ownPostgres(t) }) }
}

/** The URL of a new database on the run's PostgreSQL. */
async function ownPostgres(t: Test, template = 'template1'): Promise<string> {
  const server = process.env.TEST_DATABASE_URL as string
  const name = `test_${randomBytes(6).toString('hex')}`
  await onServer(server, `create database ${name} template ${template} strategy file_copy`)
  t.teardown(() => onServer(server, `drop database ${name} with (force)`))
  const url = new URL(server)
  url.pathname = `/${name}`
  return url.href
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
