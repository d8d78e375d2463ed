import { type ChildProcess, spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Test } from 'tap'
import { stringify } from 'yaml'
import { ROOT } from './config.ts'
import { SECRET } from './tokens.ts'

export interface GatewayProcess {
  readonly child: ChildProcess
  readonly port: number
  /** Lines of the log so far, parsed. */
  lines(): Record<string, unknown>[]
  /** Everything it has written, to the log and elsewhere. */
  text(): string
  /** Resolves with its exit code when it has ended, and all that it wrote has been read. */
  readonly ended: Promise<number | null>
}

export interface ProcessOptions {
  /** How far its wall clock is ahead, in milliseconds. */
  readonly aheadMs?: number
  readonly env?: Readonly<Record<string, string>>
  /** Further arguments. */
  readonly args?: readonly string[]
}

/** Writes a configuration for {@link startProcess}; write to it again and it is reloaded. */
export function writeConfiguration(t: Test, document: object): { file: string; configure(document: object): void } {
  const folder = t.testdir({})
  const file = join(folder, 'gateway.yaml')
  const base = {
    server: { host: '127.0.0.1', port: 0, timeouts: { drain: '1s' } },
    storage: { database: false, data_dir: join(folder, 'data') },
    identity: { jwt: { secret: SECRET } }
  }
  const configure = ({ storage, ...next }: { storage?: object }): void =>
    writeFileSync(file, stringify({ ...base, storage: { ...base.storage, ...storage }, ...next }))
  configure(document)
  return { file, configure }
}

/** Starts a gateway in a process of its own, as a user would, and waits until it listens; ends with the test. */
export async function startProcess(
  t: Test,
  file: string,
  { aheadMs = 0, env = {}, args: further = [] }: ProcessOptions = {}
): Promise<GatewayProcess> {
  const shift = `data:text/javascript,const now=Date.now;Date.now=()=>now()+${aheadMs}`
  const args = [
    ...(aheadMs === 0 ? [] : ['--import', shift]),
    join(ROOT, 'src', 'main.ts'),
    'start',
    '-c',
    file,
    ...further
  ]
  const child = spawn(process.execPath, args, {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env }
  })
  t.teardown(() => child.kill('SIGKILL'))
  const text: string[] = []
  let errors = ''
  child.stderr.on('data', chunk => {
    errors += chunk
  })
  const ended = new Promise<number | null>(resolve => child.once('close', resolve))
  const listening = new Promise<number>((resolve, reject) => {
    ended.then(code => reject(new Error(`the gateway ended with ${code}\n${text.join('\n')}${errors}`)))
    createInterface({ input: child.stdout }).on('line', line => {
      text.push(line)
      if (line.includes('sallyport is listening')) resolve(Number(new URL(JSON.parse(line).address).port))
    })
  })
  const port = await listening
  return { child, port, lines: () => text.map(line => JSON.parse(line)), text: () => text.join('\n') + errors, ended }
}
