import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { styleText } from 'node:util'
import type { Backends } from '../../examples/backends.ts'
import { type Command, type Invocation, VERSION } from '../cli.ts'
import { Siblings, WORKER } from '../cluster/siblings.ts'
import type { ConfigSources } from '../config/document.ts'
import { formatProblem } from '../config/problem.ts'
import type { Snapshot } from '../config/snapshot.ts'
import { DatabaseError } from '../database/database-error.ts'
import { Gateway, type Loaded, loadConfiguration, shortVersion } from '../gateway.ts'
import { localKey } from '../identity/authenticator.ts'
import { createLog } from '../telemetry/log.ts'
import { signToken } from '../token.ts'
import { describeRoute } from './describe.ts'
import { forgetSecret, sourcesOf } from './quickstart.ts'

/** The same signal again so soon is npm passing on what the terminal has sent already, in milliseconds. */
const ECHO_MS = 1000
/** How often a parent that is gone is noticed, in milliseconds. */
const PARENT_MS = 500
const QUICKSTART_PORTS = 20

const start: Command = {
  summary: 'Serves a configuration; without one, a quickstart with sample services',
  options: {
    workers: {
      type: 'string',
      value: 'n',
      description: 'Processes that serve the port together, or "auto" for one per processor'
    }
  },
  async run(invocation) {
    const backends = invocation.configured ? undefined : await startSamples()
    const sources = withWorkers(invocation, {
      ...sourcesOf(invocation),
      env: { ...invocation.sources.env, ...backends?.env }
    })
    const loaded = await loadConfiguration(sources)
    const workers = workersOf(loaded.snapshot)
    if (process.env[WORKER] !== undefined) return serveAsWorker(sources, loaded)
    if (workers > 1) return supervise(loaded.snapshot, workers)
    const isQuickstart = backends !== undefined
    const gateway = await open(sources, loaded, {
      port: isQuickstart && invocation.values.port === undefined && !process.env.PORT,
      folder: isQuickstart && !process.env.DATA_DIR && !sources.overrides.some(([path]) => path === 'storage.data_dir'),
      forgets: isQuickstart
    })
    keepTheLog(gateway)
    gateway.watch()
    // Whoever reads that it listens may send a signal at once.
    const stopped = untilStopped(gateway, backends)
    await announce(gateway, invocation, backends)
    return stopped
  }
}

function withWorkers({ values }: Invocation, sources: ConfigSources): ConfigSources {
  const { workers } = values
  if (workers === undefined) return sources
  const wanted = /^\d+$/.test(String(workers)) ? Number(workers) : workers
  return { ...sources, overrides: [...sources.overrides, ['server.workers', wanted, '--workers']] }
}

function workersOf({ server: { workers } }: Snapshot): number {
  return workers === 'auto' ? availableParallelism() : workers
}

/** Serves as one of several processes. */
async function serveAsWorker(sources: ConfigSources, loaded: Loaded): Promise<number> {
  const siblings = new Siblings(process)
  try {
    const gateway = await Gateway.start(sources, { loaded, siblings })
    keepTheLog(gateway)
    gateway.watch()
    const stopped = untilStopped(gateway)
    siblings.ready(noticeOf(gateway))
    return await stopped
  } finally {
    siblings.close()
  }
}

/** Has several processes serve; this one looks after them. Returns the exit code. */
async function supervise(snapshot: Snapshot, workers: number): Promise<number> {
  const { Supervisor } = await import('../cluster/supervise.ts')
  const log = await createLog(snapshot.logging)
  const supervisor = new Supervisor(log)
  const stopped = new Promise<number>(resolve => {
    onStop(signal => {
      log.logger.info({ signal, workers }, 'stopping')
      void supervisor.stop().then(() => resolve(0))
    })
  })
  process.on('SIGHUP', () => supervisor.signal('SIGHUP'))
  process.on('exit', () => log.sink.flush())
  const notice = await supervisor.start(workers)
  // What was wrong has been said by the worker.
  if (notice === undefined) return 1
  log.logger.info({ ...notice, workers }, 'sallyport is listening')
  return stopped
}

async function startSamples(): Promise<Backends> {
  const { startBackends } = await import('../../examples/backends.ts')
  return startBackends()
}

/**
 * In the quickstart neither a port nor a data folder that is taken is a reason to stop: the next free port will do, with a
 * folder of its own, so that several quickstarts run side by side. What the command line or the environment names stays.
 */
async function open(sources: ConfigSources, loaded: Loaded, moves: Moves): Promise<Gateway> {
  const { server, storage } = loaded.snapshot
  const prepare = moves.forgets ? ({ storage }: Snapshot): void => forgetSecret(storage.data_dir) : undefined
  for (let next = server.port; ; next++) {
    const overrides: [string, unknown, string][] = []
    if (next !== server.port) {
      if (moves.port) overrides.push(['server.port', next, '--port'])
      if (moves.folder) overrides.push(['storage.data_dir', join(storage.data_dir, String(next)), '--set'])
    }
    const moved = { ...sources, overrides: [...sources.overrides, ...overrides] }
    try {
      return await Gateway.start(moved, {
        ...(next === server.port && { loaded }),
        ...(prepare !== undefined && { prepare })
      })
    } catch (error) {
      const taken = takenBy(error)
      const mayMove = taken === 'port' ? moves.port : taken === 'folder' && moves.folder && moves.port
      if (!mayMove || next - server.port >= QUICKSTART_PORTS) throw error
      process.stderr.write(
        `${taken === 'port' ? `port ${next} is in use` : `another quickstart is at work`}, taking ${next + 1}\n`
      )
    }
  }
}

/** What a start may look for elsewhere. */
interface Moves {
  readonly port: boolean
  readonly folder: boolean
  /** Whether each start signs its tokens with a secret of its own. */
  readonly forgets: boolean
}

function takenBy(error: unknown): 'port' | 'folder' | undefined {
  if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return 'port'
  const { cause } = error as Error
  return cause instanceof DatabaseError && cause.code === 'busy' ? 'folder' : undefined
}

function addressOf({ snapshot: { server }, port }: Gateway): string {
  return `http${server.tls === undefined ? '' : 's'}://${server.host === '0.0.0.0' ? '127.0.0.1' : server.host}:${port}`
}

/** What there is to say of a gateway that listens. */
function noticeOf(gateway: Gateway): Record<string, unknown> {
  const { snapshot, runtime } = gateway
  return {
    address: addressOf(gateway),
    generation: snapshot.version,
    routes: snapshot.routes.length,
    files: snapshot.files,
    store: runtime.store.kind
  }
}

/** Says what is served, once it is: a page on a terminal, else one JSON line. */
async function announce(gateway: Gateway, invocation: Invocation, backends: Backends | undefined): Promise<void> {
  const { snapshot, runtime } = gateway
  const address = addressOf(gateway)
  for (const problem of snapshot.warnings) runtime.log.warn(formatProblem(problem))
  // The quickstart's secret is meant to be a new one at each run.
  const notice = backends === undefined ? localKey(snapshot)?.notice : undefined
  if (notice !== undefined) runtime.log.warn(notice)
  if (!runtime.pretty) {
    const token = backends === undefined ? undefined : await quickstartToken(gateway)
    runtime.log.info({ ...noticeOf(gateway), token }, 'sallyport is listening')
    return
  }
  const files = invocation.configured ? (invocation.values.config as string[]).join(' ') : 'examples/quickstart.yaml'
  const lines = [
    `${styleText('bold', `sallyport ${VERSION}`)}  ${address}   configuration ${files} (${shortVersion(snapshot)})   store ${runtime.store.kind}`,
    ''
  ]
  const shown = snapshot.routes.filter(route => route.enabled).slice(0, 8)
  const width = Math.max(...shown.map(route => route.label.length), 10)
  for (const route of shown) {
    const instances = runtime.services.get(route.service)?.instances.length ?? 0
    lines.push(
      `  ${route.label.padEnd(width)}  ${route.service.padEnd(9)} ${instances} instance${instances === 1 ? ' ' : 's'}  ${describeRoute(route, snapshot)}`
    )
  }
  if (snapshot.routes.length > shown.length)
    lines.push(`  … and ${snapshot.routes.length - shown.length} more: npm run routes`)
  const [documentation] = snapshot.paths.documentation || []
  const docs = documentation === undefined ? '' : `   API ${address}${documentation.replace(/\/$/, '')}/docs`
  lines.push(`  metrics ${snapshot.paths.metrics}   health ${snapshot.paths.health}${docs}`)
  if (backends !== undefined) lines.push('', ...(await tryThis(gateway, address)))
  process.stdout.write(`${lines.join('\n')}\n`)
}

/** Lines that work when they are pasted. */
async function tryThis(gateway: Gateway, address: string): Promise<string[]> {
  const token = await quickstartToken(gateway)
  return [
    ...howToAdminister(gateway, address),
    `try:  TOKEN=${token}`,
    `  curl ${address}/public/hello                                            # 200, the instances take turns`,
    `  curl -H "Authorization: Bearer $TOKEN" ${address}/api/v1/orders`,
    `  curl -i ${address}/api/v1/orders                                        # 401`,
    `  curl -i -H "Authorization: Bearer $TOKEN" ${address}/api/v1/reports/today   # 403`,
    `  for i in 1 2 3 4; do curl -s -o /dev/null -w '%{http_code}\\n' ${address}/limited; done   # 429`,
    `  curl -X POST ${address}/public/crash; curl ${address}/public/hello; curl ${address}/public/hello   # one instance is gone, nobody notices`,
    `  curl -i -N --max-time 1 -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: c2FsbHlwb3J0IGlzIG9wZQ==' "${address}/ws/echo?access_token=$TOKEN"`,
    '  npm run explain -- /api/v1/orders                                       # why a request is routed, allowed, limited'
  ]
}

/** Its own first password has to be replaced before anything else is allowed. */
function howToAdminister({ firstAdministrator, snapshot: { identity, paths } }: Gateway, address: string): string[] {
  if (!identity.local || paths.auth === false) return []
  const password = firstAdministrator?.password
  if (password === undefined)
    return [
      `administration: log in as admin at POST ${address}${paths.auth}/login; once its password is lost, stop this and make another one: npm run admin -- create --help`
    ]
  const curl = `curl -s -H 'Content-Type: application/json'`
  const accessToken = `sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/'`
  return [
    `administration: the first password of admin is ${password}, and has to be replaced: write yours, of 8 characters at least, for "…"`,
    `  ADMIN=$(${curl} -d '{"username":"admin","password":"${password}"}' ${address}${paths.auth}/login | ${accessToken})`,
    `  ADMIN=$(${curl} -H "Authorization: Bearer $ADMIN" -d '{"current_password":"${password}","new_password":"…"}' ${address}${paths.auth}/change-password | ${accessToken})`,
    `  curl -H "Authorization: Bearer $ADMIN" ${address}${paths.auth}/profile`
  ]
}

/** Good for an hour, and for as long as this run's secret is. */
function quickstartToken(gateway: Gateway): Promise<string> {
  return signToken(gateway.snapshot, { subject: 'alice', roles: ['user'], seconds: 3600 })
}

/** However the process ends, what has been logged is written; a bug that ends it has a line of its own. */
function keepTheLog({ runtime: { log, sink } }: Gateway): void {
  process.on('exit', () => sink.flush())
  process.on('uncaughtException', error => {
    log.fatal({ err: error }, 'the gateway has failed')
    process.exit(1)
  })
}

/** Waits for a signal, then lets requests end. Returns the exit code. */
function untilStopped(gateway: Gateway, backends?: Backends): Promise<number> {
  process.on('SIGHUP', () => {
    gateway.reload().catch(() => {})
  })
  return new Promise(resolve => {
    onStop(signal => {
      const waiting = gateway.server.inFlight
      gateway.runtime.log.info(
        { signal, in_flight: waiting },
        waiting === 0 ? 'stopping' : `stopping; waiting for ${waiting} request${waiting === 1 ? '' : 's'}`
      )
      gateway.close().then(async () => {
        await backends?.close()
        resolve(0)
      })
    })
  })
}

/** Calls `stop` at the first signal to end; a second one, a while later, ends the process at once. */
function onStop(stop: (signal: string) => void): void {
  let stoppingSince: number | undefined
  const signalled = (signal: string): void => {
    const now = Date.now()
    if (stoppingSince !== undefined) {
      if (now - stoppingSince > ECHO_MS) process.exit(1)
      return
    }
    stoppingSince = now
    clearInterval(parent)
    stop(signal)
  }
  process.on('SIGTERM', signalled)
  process.on('SIGINT', signalled)
  // Under npm the signal may end npm's shell and leave us behind; then the parent changes, once.
  const born = process.ppid
  const parent = setInterval(() => {
    if (process.env.npm_lifecycle_event !== undefined && process.ppid !== born) signalled('parent gone')
  }, PARENT_MS).unref()
}

export default start
