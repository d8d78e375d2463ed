import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import pg from 'pg'
import { pino } from 'pino'
import { openDatabase, SQLITE_FILE } from '../../src/database/database.ts'
import { systemClock } from '../../src/runtime/clock.ts'

export interface Templates {
  /** Tells the tests where they are. */
  readonly env: Readonly<Record<string, string>>
  remove(): Promise<void>
}

/**
 * Makes the databases that those of the tests are copies of, once per run: taking every step of the tables for each test costs
 * more than most tests do.
 */
export async function prepareTemplates(folder: string, server: string | undefined): Promise<Templates> {
  const log = pino({ level: 'silent' })
  const fill = async (storage: Parameters<typeof openDatabase>[0]): Promise<void> =>
    (await openDatabase(storage, { clock: systemClock, log })).close()
  await fill({ data_dir: folder })
  const sqlite = { TEST_SQLITE_TEMPLATE: join(folder, SQLITE_FILE) }
  if (server === undefined) return { env: sqlite, remove: async () => {} }
  const name = `template_${randomBytes(6).toString('hex')}`
  await onServer(server, `create database ${name}`)
  const url = new URL(server)
  url.pathname = `/${name}`
  await fill({ data_dir: folder, database_url: url.href })
  return { env: { ...sqlite, TEST_POSTGRES_TEMPLATE: name }, remove: () => onServer(server, `drop database ${name}`) }
}

/** One command, as the superuser of a server. */
export async function onServer(url: string, command: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(command)
  await client.end()
}
