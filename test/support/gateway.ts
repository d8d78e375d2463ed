import { writeFileSync } from 'node:fs'
import http, { type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { pino } from 'pino'
import type { Test } from 'tap'
import { stringify } from 'yaml'
import { databaseOf, Gateway, loadConfiguration } from '../../src/gateway.ts'
import type { Signals } from '../../src/overload/signals.ts'
import type { Clock } from '../../src/runtime/clock.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import type { Pause } from '../../src/runtime/pause.ts'
import { Runtime } from '../../src/runtime/runtime.ts'
import type { Store } from '../../src/store/store.ts'
import { LOG_OPTIONS } from '../../src/telemetry/log.ts'
import { SECRET } from './tokens.ts'

export interface TestGateway {
  readonly gateway: Gateway
  readonly port: number
  /** The configuration's file; write to it and call `gateway.reload()`. */
  readonly file: string
  /** Lines of the log so far, parsed. */
  lines(): Record<string, unknown>[]
  /** The access line of a request, once it has been written. */
  line(match: Partial<Record<string, unknown>>): Promise<Record<string, unknown>>
  configure(document: object | string): void
  call(path: string, options?: CallOptions): Promise<Answer>
}

export interface CallOptions {
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Buffer
  readonly token?: string | undefined
  readonly agent?: http.Agent | false
}

export interface Answer {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly rawHeaders: string[]
  readonly text: string
  // biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came.
  readonly json: any
}

export interface GatewayOptions {
  readonly clock?: Clock
  readonly store?: Store
  readonly env?: Record<string, string>
  readonly random?: () => number
  readonly pause?: Pause
  /** What there is of memory and descriptors. */
  readonly signals?: Signals
  /** Where it keeps its data, for one that goes on where another has ended; a folder of its own if not given. */
  readonly dataDir?: string
  /** Further files in the folder of the configuration, as `t.testdir` takes them. */
  readonly files?: Parameters<Test['testdir']>[0]
  /** A folder that is there already, for several gateways of one test, or one after the other. */
  readonly folder?: string
}

/** Settings that every test's gateway starts from: a free port, a known secret, no waiting at the end, nothing kept, cheap passwords. */
const BASE = {
  server: { host: '127.0.0.1', port: 0, timeouts: { drain: '2s' } },
  storage: { database: false },
  identity: { jwt: { secret: SECRET }, password: { memory_kib: 64, passes: 1 } }
}

/** Starts a gateway on a free port, for as long as the test runs. @param document YAML text, or what becomes YAML */
export async function startGateway(
  t: Test,
  document: object | string,
  options: GatewayOptions = {}
): Promise<TestGateway> {
  const folder = options.folder ?? t.testdir(options.files ?? {})
  const file = join(folder, 'gateway.yaml')
  const base = join(folder, 'base.yaml')
  writeFileSync(base, stringify(BASE))
  const configure = (next: object | string): void =>
    writeFileSync(file, typeof next === 'string' ? next : stringify(next))
  configure(document)
  const { log, lines } = captureLog()
  const data: [string, unknown, string] = ['storage.data_dir', options.dataDir ?? join(folder, 'data'), 'test']
  const sources = { files: [base, file], env: options.env ?? {}, overrides: [data] }
  const loaded = await loadConfiguration(sources)
  const clock = options.clock ?? systemClock
  const runtime = new Runtime({
    log,
    clock,
    database: await databaseOf(loaded.snapshot, log.logger, clock),
    ...(options.store === undefined ? {} : { store: options.store }),
    ...(options.signals === undefined ? {} : { signals: options.signals }),
    ...(options.random === undefined ? {} : { random: options.random }),
    ...(options.pause === undefined ? {} : { pause: options.pause })
  })
  const gateway = await Gateway.start(sources, { runtime, loaded })
  t.teardown(() => gateway.close(500))
  const { port } = gateway
  const line = async (match: Partial<Record<string, unknown>>): Promise<Record<string, unknown>> => {
    for (let i = 0; i < 200; i++) {
      const found = lines().find(entry => Object.entries(match).every(([key, value]) => entry[key] === value))
      if (found !== undefined) return found
      await new Promise(resolve => setTimeout(resolve, 10))
    }
    throw new Error(
      `no log line like ${JSON.stringify(match)} among\n${lines()
        .map(entry => JSON.stringify(entry))
        .join('\n')}`
    )
  }
  return { gateway, port, file, lines, line, configure, call: (path, request) => call(port, path, request) }
}

/** A log that tests can read. */
export function captureLog(level = 'debug') {
  const text: string[] = []
  const sink = { write: (line: string) => void text.push(line), flush: () => {} }
  const lines = (): Record<string, unknown>[] =>
    text
      .flatMap(chunk => chunk.split('\n'))
      .filter(line => line !== '')
      .map(line => JSON.parse(line))
  return { log: { logger: pino({ ...LOG_OPTIONS, level }, sink), sink, pretty: false }, lines }
}

/** One request over a connection of its own, the path sent as it is. */
export function call(
  port: number,
  path: string,
  { method = 'GET', headers = {}, body, token, agent = false }: CallOptions = {}
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` }
    const length =
      body === undefined || headers['transfer-encoding'] !== undefined
        ? {}
        : { 'content-length': String(Buffer.byteLength(body)) }
    const request = http.request(
      { host: '127.0.0.1', port, path, method, agent, headers: { ...authorization, ...length, ...headers } },
      response => {
        const chunks: Buffer[] = []
        response.on('data', chunk => chunks.push(chunk))
        response.on('error', reject)
        response.on('end', () => {
          const text = Buffer.concat(chunks).toString()
          resolve({
            status: response.statusCode as number,
            headers: response.headers,
            rawHeaders: response.rawHeaders,
            text,
            get json() {
              return JSON.parse(text)
            }
          })
        })
      }
    )
    request.on('error', reject)
    request.end(body)
  })
}
