import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { CONNECTIONS, type Contender, LIMIT, ORIGIN, type Place, SECRET } from './contender.ts'

export interface GatewayOptions {
  /** Redis to count in; memory if not given. */
  readonly redisUrl?: string
  /** Whether tokens of a busy limit are taken from Redis in batches. */
  readonly lease?: boolean
  /** Whether it writes down what happens, in an SQLite file. */
  readonly recording?: boolean
  /** Whether there are two instances, and everything that keeps requests from failing: checks, breakers, retries, bulkheads. */
  readonly resilient?: boolean
  /** Connections to the service; as many as the others have if not given. */
  readonly connections?: number
  /** What to run instead of the sources. */
  readonly entry?: string
}

/** Node's options and the sources, as `npm start` has them. */
const [, ...START] = startScript().split(' ')

function startScript(): string {
  const { scripts } = JSON.parse(readFileSync(join(import.meta.dirname, '..', '..', 'package.json'), 'utf8'))
  return scripts.start
}

/** Sallyport with everything on that issue 2 section 7 names. */
export function fullGateway(name = 'full', title = 'Sallyport, all policies', options: GatewayOptions = {}): Contender {
  return {
    name,
    title,
    policies: 'all',
    command: place =>
      command(name, place, options, {
        defaults: { cors: { origins: [ORIGIN] }, security_headers: {} },
        routes: [
          {
            path: '/api/**',
            service: 'orders',
            websocket: true,
            rate_limit: { requests_per_minute: LIMIT }
          }
        ]
      })
  }
}

/** The same without any policy. Its request ids and metrics cannot be switched off. */
export function bareGateway(): Contender {
  return {
    name: 'none',
    title: 'Sallyport, no policies',
    policies: 'none',
    command: place =>
      command(
        'none',
        place,
        {},
        {
          enabled: false,
          logging: { format: 'json', access: false },
          routes: [{ path: '/api/**', service: 'orders', authentication: 'none' }]
        }
      )
  }
}

function command(name: string, place: Place, options: GatewayOptions, policies: object): string[] {
  const { folder, port, upstream } = place
  const file = join(folder, `${name}.json`)
  const document = {
    server: { host: '127.0.0.1', port },
    storage: {
      database: options.recording === true,
      data_dir: join(folder, options.recording === true ? `data-${name}` : 'data'),
      ...(options.redisUrl === undefined ? {} : { redis_url: options.redisUrl })
    },
    identity: { jwt: { secret: SECRET } },
    logging: { format: 'json' },
    services: {
      orders: {
        ...(options.resilient ? resilience(upstream) : { url: `http://127.0.0.1:${upstream}` }),
        pool: { connections: options.connections ?? CONNECTIONS }
      }
    },
    ...(options.lease === undefined ? {} : { rate_limits: { lease: options.lease } }),
    ...policies
  }
  writeFileSync(file, JSON.stringify(document, undefined, 2))
  return [process.execPath, ...START.slice(0, -1), options.entry ?? (START.at(-1) as string), '-c', file]
}

/** Two ways to one service, which answers the same whatever it is asked for, and what watches over them. */
function resilience(upstream: number): object {
  return {
    instances: [
      { id: 'a', url: `http://127.0.0.1:${upstream}` },
      { id: 'b', url: `http://127.0.0.1:${upstream}/b` }
    ],
    health_check: { path: '/health', interval_seconds: 1 },
    outlier_detection: true,
    circuit_breaker: { per: 'instance', error_rate: 0.5, slow_call: '1s' },
    retry: { attempts: 2, retry_on: ['connect', 'reset', 502, 503] },
    concurrency: { limit: 'adaptive' }
  }
}

/** The entry of what `npm run build` made, if it has been run. */
export function builtEntry(): string | undefined {
  const root = join(import.meta.dirname, '..', '..')
  return ['dist/src/main.js', 'dist/main.js'].find(entry => existsSync(join(root, entry)))
}
