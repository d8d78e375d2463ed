import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream, readdirSync, readlinkSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { SECRET } from '../contenders/contender.ts'
import { residentMb } from '../cpu.ts'
import { Directory } from './directory.ts'

const ROOT = join(import.meta.dirname, '..', '..')
/** So that what is left in the heap can be told from what has not been collected yet. */
const COLLECT = "data:text/javascript,process.on('SIGUSR2',()=>globalThis.gc())"

/** What a gateway holds at one moment. */
export interface Sample {
  readonly descriptors: number
  readonly sockets: number
  readonly residentMb: number
  /** What is in use after a full collection, if there was one. */
  readonly heapMb: number
}

export interface InstanceAddress {
  readonly id: string
  readonly url: string
}

/** Instances of a service, or who is to be asked for them. */
export type Whereabouts = readonly InstanceAddress[] | Directory

/** What changes in the configuration while the gateway runs. */
export interface Changing {
  /** By service. */
  readonly services: ReadonlyMap<string, Whereabouts>
  /** How many further routes there are, which nobody asks for. */
  readonly others: number
}

/** A gateway in a process of its own, as `npm start` starts it, with everything switched on that keeps it up. */
export class ChaosGateway {
  readonly #folder: string
  readonly #storage: object
  readonly port: number
  #child: ChildProcess | undefined
  /** What it wrote at level `error` and above, by what it says; requests that it answered with a 5xx apart. */
  readonly complaints = new Map<string, number>()
  readonly #reasons = new Map<string, string>()

  constructor(folder: string, port: number, storage: object) {
    this.#folder = folder
    this.#storage = storage
    this.port = port
  }

  /** Whether it is still the process that was started. */
  get isAlive(): boolean {
    return this.#child?.exitCode === null && this.#child.signalCode === null
  }

  get pid(): number {
    return this.#child?.pid ?? 0
  }

  /** Why it refused the request of this id. */
  reasonOf(nonce: string): string {
    return this.#reasons.get(nonce) ?? ''
  }

  async start(changing: Changing): Promise<void> {
    this.configure(changing)
    const args = ['--max-semi-space-size=16', '--expose-gc', '--import', COLLECT]
    const child = spawn(process.execPath, [...args, 'src/main.ts', '-c', this.#file], {
      cwd: ROOT,
      env: { PATH: process.env.PATH },
      stdio: ['ignore', 'pipe', 'pipe']
    })
    this.#child = child
    const log = createWriteStream(join(this.#folder, 'gateway.log'))
    child.stderr.pipe(log, { end: false })
    createInterface({ input: child.stdout }).on('line', line => {
      log.write(`${line}\n`)
      this.#read(line)
    })
    while (!(await this.#isReady())) {
      if (!this.isAlive) throw new Error(`the gateway has not started; see ${this.#folder}/gateway.log`)
      await new Promise(resolve => setTimeout(resolve, 50))
    }
  }

  async #isReady(): Promise<boolean> {
    try {
      return (await fetch(`http://127.0.0.1:${this.port}/health/readiness`)).ok
    } catch {
      return false
    }
  }

  /** Writes the configuration as an editor does; the gateway follows its file. */
  configure(changing: Changing): void {
    writeFileSync(`${this.#file}.new`, JSON.stringify(this.#document(changing), undefined, 2))
    renameSync(`${this.#file}.new`, this.#file)
  }

  /** What it holds, after a full collection. */
  async sample(): Promise<Sample> {
    this.#child?.kill('SIGUSR2')
    await new Promise(resolve => setTimeout(resolve, 1000))
    return { ...this.look(), heapMb: (await this.metric('nodejs_heap_size_used_bytes')) / 2 ** 20 }
  }

  /** The value of a metric without labels; not a number when it cannot be had. */
  async metric(name: string): Promise<number> {
    try {
      const text = await (await fetch(`http://127.0.0.1:${this.port}/metrics`)).text()
      return Number(new RegExp(`^${name} (\\S+)`, 'm').exec(text)?.[1] ?? Number.NaN)
    } catch {
      return Number.NaN
    }
  }

  /** What can be seen of it from outside. */
  look(): Omit<Sample, 'heapMb'> {
    const folder = `/proc/${this.pid}/fd`
    const kinds = readdirSync(folder).map(name => {
      try {
        return readlinkSync(`${folder}/${name}`)
      } catch {
        return ''
      }
    })
    return {
      descriptors: kinds.length,
      sockets: kinds.filter(kind => kind.startsWith('socket:')).length,
      residentMb: residentMb([this.pid])
    }
  }

  async stop(): Promise<void> {
    if (!this.isAlive) return
    const gone = once(this.#child as ChildProcess, 'exit')
    this.#child?.kill('SIGTERM')
    await gone
  }

  get #file(): string {
    return join(this.#folder, 'gateway.json')
  }

  #read(line: string): void {
    if (!line.startsWith('{"level":50') && !line.startsWith('{"level":60')) return
    const { request_id: id, status_code: status, reason, error, msg, err } = JSON.parse(line)
    if (status !== undefined) {
      this.#reasons.set(id, `${error ?? ''} ${reason ?? ''}`.trim())
      if (this.#reasons.size > 10_000) this.#reasons.delete(this.#reasons.keys().next().value as string)
      return
    }
    const what = `${msg ?? ''} ${err?.code ?? ''}`.trim()
    this.complaints.set(what, (this.complaints.get(what) ?? 0) + 1)
  }

  #document({ services, others }: Changing): object {
    const names = [...services.keys()]
    return {
      server: { host: '127.0.0.1', port: this.port, trusted_proxies: ['loopback'] },
      // A machine that has others to serve, too, may be slow now and then.
      storage: { redis_timeout: '1s', data_dir: join(this.#folder, 'data'), ...this.#storage },
      identity: { jwt: { secret: SECRET } },
      // Access lines of what failed, and nothing of what did not; instances and breakers that change.
      logging: { format: 'json', level: 'warn' },
      registry: { allow: ['loopback'] },
      defaults: {
        timeout: '5s',
        timeouts: { connect: '1s', first_byte: '2s', idle: '5s' },
        retry: { attempts: 2, retry_on: ['connect', 'reset', 'timeout', 502, 503] },
        circuit_breaker: {
          per: 'instance',
          failure_threshold: 3,
          error_rate: 0.2,
          window: '3s',
          minimum_calls: 10,
          recovery_timeout: '2s',
          success_threshold: 2
        },
        concurrency: 500,
        idempotency: { ttl: '10m' }
      },
      services: Object.fromEntries(
        [...services].map(([name, where]) => [
          name,
          {
            ...(where instanceof Directory
              ? { discovery: { http: { url: where.url, interval: '500ms' }, allow: ['loopback'] } }
              : { instances: where }),
            health_check: { path: '/health', interval_seconds: 0.5, timeout_seconds: 1 },
            outlier_detection: {
              consecutive_errors: 3,
              error_percent: 15,
              minimum_requests: 10,
              window: '5s',
              ejection_time: '5s',
              max_ejection_percent: 70
            },
            pool: { connections: 256 }
          }
        ])
      ),
      routes: [
        ...names.flatMap(name => [
          { id: name, path: `/api/${name}/**`, service: name, rate_limit: { requests_per_minute: 10_000_000 } },
          { id: `ws-${name}`, path: `/ws/${name}`, service: name, websocket: true }
        ]),
        ...Array.from({ length: others }, (_, i) => ({ path: `/other/${i}/**`, service: names[i % names.length] }))
      ]
    }
  }
}
