import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type Command, type Invocation, UsageError } from '../cli.ts'
import { ConfigError } from '../config/problem.ts'
import type { Snapshot } from '../config/snapshot.ts'
import { type Connection, connect, SQLITE_FILE } from '../database/database.ts'
import { DatabaseError } from '../database/database-error.ts'
import { loadConfiguration } from '../gateway.ts'
import { createLog } from '../telemetry/log.ts'
import { sourcesOf } from './quickstart.ts'

const migrate: Command = {
  summary: 'Brings the database up to date, as a start does; with --to, carries an SQLite database over to PostgreSQL',
  options: {
    to: {
      type: 'string',
      value: 'postgres://…',
      description: 'An empty PostgreSQL database that gets all that the SQLite database holds'
    }
  },
  async run(invocation) {
    const { snapshot } = await loadConfiguration(sourcesOf(invocation))
    const { storage, document } = snapshot
    if (!storage.database) throw ConfigError.at(document, ['storage', 'database'], 'is off: there is no database')
    const { to } = invocation.values
    if (to !== undefined && storage.database_url)
      throw new UsageError('--to carries an SQLite database over, and this configuration has storage.database_url')
    const file = join(storage.data_dir, SQLITE_FILE)
    if (to !== undefined && !existsSync(file))
      throw new UsageError(`${file} is not there: nothing is to be carried over`)
    const source = await opened(storage, snapshot)
    try {
      await (to === undefined
        ? bringUpToDate(source, invocation)
        : carry(source, targetOf(String(to)), snapshot, invocation))
    } catch (error) {
      throw error instanceof DatabaseError ? new UsageError(error.message) : error
    } finally {
      await source.db.destroy()
    }
    return 0
  }
}

async function bringUpToDate({ kind, db }: Connection, { json }: Invocation): Promise<void> {
  const { migrate } = await import('../database/migrate.ts')
  const steps = await migrate(db, kind)
  const done = steps.length === 0 ? 'is up to date' : `has been brought up to date: ${steps.join(', ')}`
  process.stdout.write(json ? `${JSON.stringify({ database: kind, steps })}\n` : `the database (${kind}) ${done}\n`)
}

async function carry(source: Connection, url: string, snapshot: Snapshot, { json }: Invocation): Promise<void> {
  const { carryOver } = await import('../database/carry.ts')
  const target = await opened({ ...snapshot.storage, database_url: url }, snapshot)
  try {
    const rows = await carryOver(source, target)
    const { host, pathname } = new URL(url)
    const shown = `postgres://${host}${pathname}`
    if (json) return void process.stdout.write(`${JSON.stringify({ to: shown, rows: Object.fromEntries(rows) })}\n`)
    const width = Math.max(...[...rows.keys()].map(name => name.length))
    for (const [table, count] of rows) process.stdout.write(`${table.padEnd(width)}  ${count}\n`)
    process.stdout.write(
      `all of it is in ${shown} now; give it to the gateways as storage.database_url (DATABASE_URL). The SQLite database stays as it is.\n`
    )
  } finally {
    await target.db.destroy()
  }
}

function targetOf(url: string): string {
  if (/^postgres(ql)?:\/\//.test(url) && URL.canParse(url)) return url
  throw new UsageError('--to: write postgres://user:password@host:5432/database')
}

async function opened(storage: Snapshot['storage'], { logging }: Snapshot): Promise<Connection> {
  const { logger } = await createLog({ ...logging, level: 'silent', format: 'json' })
  try {
    return await connect(storage, logger, { patient: true })
  } catch (error) {
    throw error instanceof DatabaseError ? new UsageError(error.message) : error
  }
}

export default migrate
