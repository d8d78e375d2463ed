import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import net, { type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { pinned } from './cores.ts'
import { treeOf } from './cpu.ts'

export interface Started {
  readonly pid: number
  readonly port: number
  readonly child: ChildProcess
  /** What it wrote to its standard error last. */
  lastWords(): string
}

const ROOT = join(import.meta.dirname, '..')
const running = new Set<Started>()
let folder: string | undefined

/** A folder for configurations and the like; gone when this process is. */
export function scratch(): string {
  folder ??= mkdtempSync(join(tmpdir(), 'sallyport-bench-'))
  return folder
}

/** What the measured processes see of our environment: nothing that would configure them. */
function environment(): NodeJS.ProcessEnv {
  const { PATH, LANG } = process.env
  return { PATH, LANG, NODE_ENV: 'production', HOME: scratch() }
}

/**
 * Starts a process on a core of its own, with its standard output going nowhere. It is ended when this process ends,
 * however that comes about.
 * @param port where it is going to listen
 */
export function start(core: number, command: readonly string[], port: number, env: NodeJS.ProcessEnv = {}): Started {
  const [program, ...args] = pinned(core, command) as [string, ...string[]]
  const errors = join(scratch(), `stderr-${port}`)
  const sink = openSync('/dev/null', 'w')
  const stderr = openSync(errors, 'w')
  const child = spawn(program, args, {
    cwd: ROOT,
    env: { ...environment(), ...env },
    stdio: ['ignore', sink, stderr]
  })
  closeSync(sink)
  closeSync(stderr)
  child.on('error', () => {})
  const started: Started = {
    pid: child.pid ?? 0,
    port,
    child,
    lastWords: () => readFileSync(errors, 'utf8').trim().split('\n').slice(-12).join('\n')
  }
  running.add(started)
  return started
}

/** Waits until `started` takes connections. @throws with its last words when it ends, or takes longer than 20 s */
export async function accepting(started: Started): Promise<Started> {
  for (const until = Date.now() + 20_000; Date.now() < until; ) {
    if (started.child.exitCode !== null || started.child.signalCode !== null || started.pid === 0) break
    if (await connects(started.port)) return started
    await pause(20)
  }
  await stop(started)
  throw new Error(`does not start: ${started.lastWords() || 'it said nothing'}`)
}

function connects(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = net.connect(port, '127.0.0.1')
    socket.on('connect', () => resolve(true))
    socket.on('error', () => resolve(false))
    socket.on('connect', () => socket.destroy())
  })
}

/** Ends a process and what it has started. */
export async function stop(started: Started): Promise<void> {
  if (!running.has(started)) return
  const { child } = started
  if (child.exitCode === null && child.signalCode === null && started.pid !== 0) {
    const tree = treeOf(started.pid)
    const ended = new Promise(resolve => child.once('exit', resolve))
    child.kill('SIGTERM')
    await Promise.race([ended, pause(2000, undefined, { ref: false })])
    kill(tree)
  }
  running.delete(started)
}

function kill(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // It has gone by itself.
    }
  }
}

/** Ends everything that was started and still runs. */
export async function stopRest(): Promise<void> {
  await Promise.all([...running].map(stop))
}

/** Ends everything that was started, without waiting: for when this process is about to end itself. */
function stopAll(): void {
  for (const { pid } of running) if (pid !== 0) kill(treeOf(pid))
  running.clear()
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true })
}

/** Whatever ends this process ends what it has started. */
export function cleanUpAtTheEnd(): void {
  process.on('exit', stopAll)
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(130))
}

/** A port of 127.0.0.1 that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = net.createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => server.close(resolve))
  return port
}
