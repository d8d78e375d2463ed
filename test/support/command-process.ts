import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { Test } from 'tap'
import { ROOT } from './config.ts'

export interface Started {
  readonly child: ChildProcess
  /** Everything written so far. */
  output(): string
  /** The line that says where it listens. */
  listening: Promise<Record<string, string>>
  exit: Promise<number | null>
}

/** Runs a command line as a user would; it ends with the test. */
export function start(t: Test, command: string, args: readonly string[], { cwd = ROOT } = {}): Started {
  const child = spawn(command, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] })
  t.teardown(() => child.kill('SIGKILL'))
  let text = ''
  child.stderr?.on('data', chunk => {
    text += chunk
  })
  const listening = new Promise<Record<string, string>>(resolve => {
    createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', line => {
      text += `${line}\n`
      if (line.includes('sallyport is listening')) resolve(JSON.parse(line))
    })
  })
  const exit = new Promise<number | null>(resolve => child.on('close', resolve))
  return { child, output: () => text, listening, exit }
}
