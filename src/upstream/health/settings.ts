import { duration, oneOf, type Static, Type } from '../../schema.ts'

const CHECKS = ['http', 'tcp', 'grpc', 'websocket'] as const

export const healthCheck = Type.Union(
  [
    Type.Literal(false),
    Type.Object({
      enabled: Type.Boolean({ description: 'Whether it is done regularly.', default: true }),
      type: oneOf(CHECKS, {
        description:
          'How: by GET, by a connection, by `grpc.health.v1.Health/Check` over HTTP/2, or by opening a WebSocket.',
        default: 'http'
      }),
      path: Type.Optional(
        Type.String({ description: 'What `http` and `websocket` ask for; `/health` unless given.', pattern: '^/' })
      ),
      grpc_service: Type.String({ description: 'What `grpc` asks about; the whole server unless given.', default: '' }),
      interval_seconds: Type.Optional(
        Type.Number({
          description: 'How often, give or take a tenth: 30 unless given here or as `defaults.health_check_interval`.',
          exclusiveMinimum: 0
        })
      ),
      timeout_seconds: Type.Number({
        description: 'Longest wait for an answer, in seconds.',
        default: 5,
        exclusiveMinimum: 0
      }),
      expected_status_codes: Type.Array(Type.Integer(), {
        description: 'Answers of `http` that count as healthy.',
        default: [200],
        minItems: 1
      }),
      healthy_after: Type.Integer({
        description: 'Good checks in a row that make an unhealthy instance healthy.',
        default: 2,
        minimum: 1
      }),
      unhealthy_after: Type.Integer({
        description: 'Bad checks in a row that make a healthy instance unhealthy; its very first check decides alone.',
        default: 2,
        minimum: 1
      })
    })
  ],
  { description: 'How the instances are asked how they are, by themselves. `false` for not at all.' }
)

export type HealthCheckSettings = Static<typeof healthCheck>

/** How it is found out whether an instance is well (REG-12). */
export interface HealthCheckConfig {
  readonly type: (typeof CHECKS)[number]
  readonly path: string
  readonly grpcService: string
  /** How often; 0 for when somebody asks only. */
  readonly intervalMs: number
  /** For the whole answer, in milliseconds. */
  readonly timeoutMs: number
  readonly expected: readonly number[]
  readonly healthyAfter: number
  readonly unhealthyAfter: number
}

const INTERVAL_SECONDS = 30

/**
 * How a service's instances are checked: regularly if it says anything of it, or the defaults have an interval.
 * @param path `health_check_path`, @param intervalSeconds `defaults.health_check_interval`
 */
export function healthCheckOf(
  settings: HealthCheckSettings | undefined,
  { path, intervalSeconds }: { path: string | undefined; intervalSeconds: number | undefined }
): HealthCheckConfig {
  const check: Exclude<HealthCheckSettings, false> | undefined = settings || undefined
  const regular = settings === undefined ? intervalSeconds !== undefined : check?.enabled === true
  const seconds = check?.interval_seconds ?? intervalSeconds ?? INTERVAL_SECONDS
  return {
    type: check?.type ?? 'http',
    path: check?.path ?? path ?? '/health',
    grpcService: check?.grpc_service ?? '',
    intervalMs: regular ? seconds * 1000 : 0,
    timeoutMs: (check?.timeout_seconds ?? 5) * 1000,
    expected: check?.expected_status_codes ?? [200],
    healthyAfter: check?.healthy_after ?? 2,
    unhealthyAfter: check?.unhealthy_after ?? 2
  }
}

/** As it would be written. */
export function writtenCheck(config: HealthCheckConfig) {
  return {
    enabled: config.intervalMs > 0,
    type: config.type,
    path: config.path,
    interval_seconds: config.intervalMs > 0 ? config.intervalMs / 1000 : null,
    timeout_seconds: config.timeoutMs / 1000,
    expected_status_codes: config.expected,
    healthy_after: config.healthyAfter,
    unhealthy_after: config.unhealthyAfter
  }
}

const percent = (description: string, standard: number) =>
  Type.Integer({ description, default: standard, minimum: 1, maximum: 100 })

export const outlierDetection = Type.Union(
  [
    Type.Boolean(),
    Type.Object({
      consecutive_errors: Type.Integer({
        description:
          'Failures in a row that eject: answers of 500 and more, connections refused, cut or silent. 0 for never.',
        default: 5,
        minimum: 0
      }),
      error_percent: percent('Percent of failures within `window` that eject.', 50),
      minimum_requests: Type.Integer({
        description: 'Requests within `window` below which the rate says nothing.',
        default: 20,
        minimum: 1
      }),
      window: duration({ description: 'What the rate is counted over.', default: '10s', positive: true }),
      ejection_time: duration({
        description: 'How long an instance is ejected for the first time; each further time is longer by as much.',
        default: '30s',
        positive: true
      }),
      max_ejection_time: duration({
        description: 'The longest it is ejected. After as long without another ejection the count begins anew.',
        default: '5m',
        positive: true
      }),
      max_ejection_percent: percent('Percent of the instances that may be ejected at once.', 50)
    })
  ],
  {
    description:
      'Instances whose requests fail too often get none for a while, whatever their health checks say. `true` for the defaults.'
  }
)

export type OutlierSettings = Static<typeof outlierDetection>

/** When traffic speaks against an instance. */
export interface OutlierConfig {
  /** 0 for never. */
  readonly consecutive: number
  readonly errorPercent: number
  readonly minimumRequests: number
  readonly windowMs: number
  readonly ejectionMs: number
  readonly maxEjectionMs: number
  readonly maxEjectedPercent: number
}

export function outliersOf(settings: OutlierSettings | undefined): OutlierConfig | undefined {
  if (settings === undefined || settings === false) return undefined
  const given: Partial<Exclude<OutlierSettings, boolean>> = settings === true ? {} : settings
  return {
    consecutive: given.consecutive_errors ?? 5,
    errorPercent: given.error_percent ?? 50,
    minimumRequests: given.minimum_requests ?? 20,
    windowMs: given.window ?? 10_000,
    ejectionMs: given.ejection_time ?? 30_000,
    maxEjectionMs: given.max_ejection_time ?? 300_000,
    maxEjectedPercent: given.max_ejection_percent ?? 50
  }
}
