import { readFileSync } from 'node:fs'
import { parseEnv } from 'node:util'
import { outsideFiles, setAt } from '../aliases.ts'
import type { Position } from '../located.ts'
import { ConfigError, type Problem, slipOf } from '../problem.ts'
import { display, type Environment } from './file.ts'

type Reading = (value: string) => unknown

const text: Reading = value => value
/** What is no number is left as it is, so that the schema can say so. */
const number: Reading = value => (value.trim() !== '' && Number.isFinite(Number(value)) ? Number(value) : value)
const flag: Reading = value =>
  ({ true: true, '1': true, yes: true, on: true, false: false, '0': false, no: false, off: false })[
    value.toLowerCase()
  ] ?? value
const list: Reading = value =>
  value
    .split(',')
    .map(item => item.trim())
    .filter(item => item !== '')
const level: Reading = value => ({ warning: 'warn', critical: 'fatal' })[value.toLowerCase()] ?? value.toLowerCase()
const lower: Reading = value => value.toLowerCase()

/**
 * The variables that the seeds name, and where in the document they stand (CFG-01 to CFG-04). Later ones win over earlier
 * ones: `REDIS_URL` over `REDIS_HOST`, `JWT_SECRET_KEY` over `JWT_SECRET`.
 */
export const VARIABLES: readonly (readonly [name: string, path: string, read: Reading])[] = [
  ['HOST', 'server.host', text],
  ['PORT', 'server.port', number],
  ['WORKERS', 'server.workers', number],
  ['DATABASE_URL', 'storage.database_url', text],
  ['REDIS_HOST', 'storage.redis_url', value => `redis://${value.includes(':') ? value : `${value}:6379`}`],
  ['REDIS_URL', 'storage.redis_url', text],
  ['DATA_DIR', 'storage.data_dir', text],
  ['JWT_SECRET', 'identity.jwt.secret', text],
  ['JWT_SECRET_KEY', 'identity.jwt.secret', text],
  ['JWT_ALGORITHM', 'identity.jwt.algorithm', text],
  ['JWT_ACCESS_TOKEN_EXPIRE_MINUTES', 'identity.jwt.access_minutes', number],
  ['JWT_REFRESH_TOKEN_EXPIRE_DAYS', 'identity.jwt.refresh_days', number],
  ['SALLYPORT_ADMIN_PASSWORD', 'identity.admin_password', text],
  ['SERVICE_DISCOVERY_URL', 'service_discovery_url', text],
  ['SERVICE_CONFIG_URL', 'service_config_url', text],
  ['CONSUL_URL', 'consul_url', text],
  ['LOG_LEVEL', 'logging.level', level],
  ['TRACE_REQUESTS', 'logging.trace_requests', flag],
  ['CORS_ORIGINS', 'defaults.cors.origins', list],
  ['GATEWAY_NAME', 'gateway.name', text],
  ['GATEWAY_REGION', 'gateway.region', text],
  ['GATEWAY_VERSION', 'gateway.version', text],
  ['ENVIRONMENT', 'gateway.environment', text],
  ['DEFAULT_TIMEOUT', 'defaults.timeout', number],
  ['DEFAULT_LOAD_BALANCER', 'defaults.load_balancer_type', lower],
  ['DEFAULT_HEALTH_CHECK_INTERVAL', 'defaults.health_check_interval', number],
  ['API_GATEWAY_ENABLED', 'enabled', flag],
  ['API_GATEWAY_RATE_LIMIT_PER_MINUTE', 'rate_limits.default.requests_per_minute', number],
  ['API_GATEWAY_RATE_LIMIT_PER_HOUR', 'rate_limits.default.requests_per_hour', number],
  ['API_GATEWAY_BURST_SIZE', 'rate_limits.default.burst_size', number],
  ['API_GATEWAY_CACHE_TTL', 'cache.ttl', number],
  ['API_GATEWAY_CACHE_MAX_SIZE', 'cache.max_size', number],
  ['API_GATEWAY_CB_FAILURE_THRESHOLD', 'defaults.circuit_breaker.failure_threshold', number],
  ['API_GATEWAY_CB_RECOVERY_TIMEOUT', 'defaults.circuit_breaker.recovery_timeout', number],
  ['API_GATEWAY_CB_SUCCESS_THRESHOLD', 'defaults.circuit_breaker.success_threshold', number]
]

/** Variables and, of those that a file sets, where. */
export interface Variables {
  readonly values: Environment
  readonly places: ReadonlyMap<string, Position>
}

/**
 * The process's environment over what a `.env` file sets (CFG-02, CFG-03); empty variables count as not set.
 * @throws {ConfigError} for a file that is there and cannot be read
 */
export function readVariables(env: Environment, file: string | undefined): Variables {
  const values: Record<string, string | undefined> = {}
  const places = new Map<string, Position>()
  const text = file === undefined ? '' : textOf(file)
  const lines = text.split('\n').map(line => line.replace(/^\s*(export\s+)?/, ''))
  for (const [name, value] of Object.entries(parseEnv(text))) {
    values[name] = value
    const line = lines.findIndex(entry => entry.startsWith(name)) + 1
    places.set(name, { file: display(file as string), line, column: 1 })
  }
  for (const [name, value] of Object.entries(env)) {
    if (value === undefined || value === '') continue
    values[name] = value
    places.delete(name)
  }
  return { values, places }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return ''
    throw new ConfigError([{ file: display(file), key: '', message: `cannot be read: ${code}`, severity: 'error' }])
  }
}

/** Puts the environment over a document. */
export function applyEnvironment(document: Record<string, unknown>, { values, places }: Variables): void {
  for (const [name, path, read] of VARIABLES) {
    const value = values[name]
    if (value !== undefined && value !== '')
      setAt(document, path, read(value), places.get(name) ?? outsideFiles(`$${name}`))
  }
}

/** Variables that are one letter off from one of ours: nobody reads them, and somebody thinks that we do. */
export function doubtfulVariables({ values, places }: Variables): Problem[] {
  const names = VARIABLES.map(([name]) => name).filter(name => name.includes('_'))
  return Object.keys(values).flatMap((name): Problem[] => {
    const meant = names.includes(name) ? undefined : slipOf(name, names)
    if (meant === undefined || values[meant] !== undefined) return []
    const message = `is read by nobody, did you mean "${meant}"?`
    return [{ ...(places.get(name) ?? {}), key: name, message, severity: 'warning' }]
  })
}
