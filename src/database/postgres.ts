import {
  type CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  PostgresAdapter,
  PostgresDialect,
  PostgresIntrospector,
  PostgresQueryCompiler,
  type QueryResult
} from 'kysely'
import pg from 'pg'
import type { Logger } from 'pino'
import { DatabaseError } from './database-error.ts'

/** Connections to the server; requests that need more wait for one. */
const CONNECTIONS = 10
/** How long it may take to get a connection, in milliseconds. */
const CONNECT_MS = 2000
/** How long one statement may take, in milliseconds; reports are the longest. */
const STATEMENT_MS = 10_000

/**
 * Kysely's dialect for a PostgreSQL server. Errors are {@link DatabaseError}s.
 * @param url `postgres://user:password@host/database?sslmode=verify-full&sslrootcert=/ca.pem`
 * @param options `patient`: statements take as long as they take, as those of migrations may
 */
export function postgresDialect(url: string, log: Logger, { patient = false } = {}): Dialect {
  const types = new pg.TypeOverrides()
  // Counts and times fit in a double; JSON stays text, as it is in SQLite.
  types.setTypeParser(pg.types.builtins.INT8, Number)
  types.setTypeParser(pg.types.builtins.NUMERIC, Number)
  types.setTypeParser(pg.types.builtins.JSONB, text => text)
  const pool = new pg.Pool({
    connectionString: url,
    max: CONNECTIONS,
    connectionTimeoutMillis: CONNECT_MS,
    ...(patient ? {} : { statement_timeout: STATEMENT_MS, query_timeout: STATEMENT_MS + 1000 }),
    keepAlive: true,
    allowExitOnIdle: true,
    application_name: 'sallyport',
    types
  })
  // A connection that is lost while somebody has it fails what they ask of it next; without this it would end the process, too.
  pool.on('connect', client => client.on('error', () => {}))
  pool.on('error', error => log.warn({ err: error }, 'a connection to PostgreSQL has been lost'))
  return {
    createDriver: () => new PostgresDriver(new PostgresDialect({ pool }).createDriver()),
    createQueryCompiler: () => new PostgresQueryCompiler(),
    createAdapter: () => new PostgresAdapter(),
    createIntrospector: db => new PostgresIntrospector(db)
  }
}

/** Kysely's own driver, with errors in our words. */
class PostgresDriver implements Driver {
  readonly #driver: Driver
  readonly #wrapped = new WeakMap<DatabaseConnection, Wrapped>()

  constructor(driver: Driver) {
    this.#driver = driver
  }

  init(): Promise<void> {
    return this.#driver.init()
  }

  async acquireConnection(): Promise<DatabaseConnection> {
    const connection = await inOurWords(this.#driver.acquireConnection())
    const known = this.#wrapped.get(connection)
    if (known !== undefined) return known
    const wrapped = new Wrapped(connection)
    this.#wrapped.set(connection, wrapped)
    return wrapped
  }

  beginTransaction(connection: Wrapped, settings: Parameters<Driver['beginTransaction']>[1]): Promise<void> {
    return inOurWords(this.#driver.beginTransaction(connection.inner, settings))
  }

  commitTransaction(connection: Wrapped): Promise<void> {
    return inOurWords(this.#driver.commitTransaction(connection.inner))
  }

  rollbackTransaction(connection: Wrapped): Promise<void> {
    return inOurWords(this.#driver.rollbackTransaction(connection.inner))
  }

  releaseConnection(connection: Wrapped): Promise<void> {
    return this.#driver.releaseConnection(connection.inner)
  }

  destroy(): Promise<void> {
    return this.#driver.destroy()
  }
}

class Wrapped implements DatabaseConnection {
  readonly inner: DatabaseConnection

  constructor(inner: DatabaseConnection) {
    this.inner = inner
  }

  executeQuery<R>(query: CompiledQuery): Promise<QueryResult<R>> {
    return inOurWords(this.inner.executeQuery<R>(query))
  }

  streamQuery(): never {
    throw new Error('rows are not streamed')
  }
}

async function inOurWords<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer
  } catch (error) {
    throw postgresError(error as Error & { code?: string })
  }
}

/** SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html */
function postgresError(error: Error & { code?: string }): DatabaseError {
  const { code = '' } = error
  const options = { cause: error }
  if (code === '23505') return new DatabaseError('duplicate', error.message, options)
  if (code === '23503') return new DatabaseError('reference', error.message, options)
  if (code === '28P01' || code === '28000' || code === '3D000')
    return new DatabaseError('unusable', error.message, options)
  // Without a SQLSTATE it is the connection: refused, reset, timed out. 08: connection; 53: resources; 57: operator's doing.
  if (!/^[0-9A-Z]{5}$/.test(code) || /^(?:08|53|57|58|25006)/.test(code))
    return new DatabaseError('unreachable', `PostgreSQL cannot be reached: ${error.message || code}`, options)
  return new DatabaseError('query', error.message, options)
}
