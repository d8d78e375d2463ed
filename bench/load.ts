import { spawn } from 'node:child_process'
import { CORE, pinned } from './cores.ts'
import { ownCpu, total } from './cpu.ts'

/** What to ask, and how hard. */
export interface Load {
  readonly url: string
  readonly connections: number
  readonly seconds: number
  readonly headers: Readonly<Record<string, string>>
  /** A script of wrk's that makes the requests instead. */
  readonly script?: string | undefined
  /** It is to use only what processor time others leave. */
  readonly background?: boolean
}

/** What came of it. */
export interface Outcome {
  readonly requests: number
  /** Answers other than 2xx and 3xx, and failures of sockets. */
  readonly errors: number
  /** Milliseconds. */
  readonly p50: number
  readonly p99: number
  /** Processor seconds of the load generator itself. */
  readonly cpu: number
}

/** Sends requests over kept connections, each as soon as the answer before it is there (closed loop). @throws when wrk fails */
export async function wrk({ url, connections, seconds, headers, script, background }: Load): Promise<Outcome> {
  const before = total(ownCpu())
  const [program, ...args] = pinned(CORE.load, [
    ...(background ? ['nice', '-n', '19'] : []),
    'wrk',
    '-t1',
    `-c${connections}`,
    `-d${seconds}s`,
    '--latency',
    // With a thousand connections in a queue, the last of them waits for longer than wrk's two seconds.
    '--timeout=10s',
    ...Object.entries(headers).flatMap(([name, value]) => ['-H', `${name}: ${value}`]),
    ...(script === undefined ? [] : ['-s', script]),
    url
  ]) as [string, ...string[]]
  const output = await outputOf(program, args)
  const requests = Number(/(\d+) requests in/.exec(output)?.[1] ?? Number.NaN)
  if (Number.isNaN(requests)) throw new Error(`wrk said: ${output.trim()}`)
  const sockets = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(output)
  const refused = Number(/Non-2xx or 3xx responses: (\d+)/.exec(output)?.[1] ?? 0)
  return {
    requests,
    errors: refused + (sockets === null ? 0 : sockets.slice(1).reduce((sum, n) => sum + Number(n), 0)),
    p50: milliseconds(/50%\s+(\S+)/.exec(output)?.[1]),
    p99: milliseconds(/99%\s+(\S+)/.exec(output)?.[1]),
    cpu: total(ownCpu()) - before
  }
}

function outputOf(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    child.stdout.on('data', chunk => {
      output += chunk
    })
    child.stderr.on('data', chunk => {
      output += chunk
    })
    const end = (): void => void child.kill('SIGKILL')
    process.once('exit', end)
    child.on('error', reject)
    child.on('close', () => {
      process.off('exit', end)
      resolve(output)
    })
  })
}

const UNITS: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1000, m: 60_000 }

/** `1.67ms`, as wrk writes times, in milliseconds. */
function milliseconds(text: string | undefined): number {
  const [, amount, unit = ''] = /^([\d.]+)([a-z]+)$/.exec(text ?? '') ?? []
  return Number(amount) * (UNITS[unit] ?? Number.NaN)
}
