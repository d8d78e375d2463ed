import { type ChildProcess, spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import net from 'node:net'
import { join } from 'node:path'
import { findProgram } from './debian.ts'
import { freePort } from './free-port.ts'

/** Where a redis-server is; undefined when there is no way. */
export function findRedisServer(): string | undefined {
  return process.env.REDIS_SERVER ?? findProgram('redis-server')
}

export interface RedisServer {
  readonly process: ChildProcess
  readonly port: number
  readonly url: string
}

/** Starts a server that keeps nothing, on a free port or the given one, and waits until it answers. */
export async function startRedisServer(
  program: string,
  at?: number,
  settings: readonly string[] = []
): Promise<RedisServer> {
  const port = at ?? (await freePort())
  return launch(program, port, [
    '--port',
    String(port),
    '--bind',
    '127.0.0.1',
    '--save',
    '',
    '--appendonly',
    'no',
    ...settings
  ])
}

/** Starts a sentinel on a free port. @param folder where it keeps what it knows @param settings lines of its configuration */
export async function startSentinel(
  program: string,
  folder: string,
  settings: readonly string[]
): Promise<RedisServer> {
  const port = await freePort()
  const file = join(folder, 'sentinel.conf')
  writeFileSync(file, [`port ${port}`, 'bind 127.0.0.1', ...settings, ''].join('\n'))
  return launch(program, port, [file, '--sentinel'])
}

async function launch(program: string, port: number, args: readonly string[]): Promise<RedisServer> {
  const child = spawn(program, args, { stdio: 'ignore' })
  for (let i = 0; i < 200; i++) {
    if (await answers(port)) return { process: child, port, url: `redis://127.0.0.1:${port}` }
    await new Promise(resolve => setTimeout(resolve, 25))
  }
  child.kill('SIGKILL')
  throw new Error(`${program} does not answer at port ${port}`)
}

function answers(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = net.connect(port, '127.0.0.1', () => socket.write('PING\r\n'))
    socket.on('data', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
  })
}
