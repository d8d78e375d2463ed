import { batchSchema } from '../batch/settings.ts'
import { discoverySchema } from '../discovery/settings.ts'
import { identity } from '../identity/settings.ts'
import { PRIORITIES } from '../overload/priority.ts'
import { concurrency, overload } from '../overload/settings.ts'
import { geo } from '../releases/geo.ts'
import { releases } from '../releases/settings.ts'
import {
  count,
  duration,
  flag,
  listOf,
  oneOf,
  type Static,
  size,
  type TObject,
  type TSchema,
  Type,
  text,
  word
} from '../schema.ts'
import { loadBalancer, loadBalancerType } from '../upstream/balancing-settings.ts'
import { circuitBreaker } from '../upstream/breaker-settings.ts'
import { fallback } from '../upstream/fallback-settings.ts'
import { healthCheck, outlierDetection } from '../upstream/health/settings.ts'

/**
 * The configuration document, but for the concerns, which bring their own schemas. Every key has a description and, unless
 * it is required, a default: this is the reference page, the editor's completion and the source of error messages.
 */

const METHODS = '^[A-Za-z]+$'

/** TLS towards a service. */
const upstreamTls = Type.Object(
  {
    ca: text('File with the certificate authorities to trust instead of the system’s, PEM.'),
    cert: text('File with the client certificate to show (mTLS), PEM.'),
    key: text('File with its private key, PEM.'),
    server_name: text('Name to ask for and to check the certificate against; the URL’s host if not given.')
  },
  { description: 'TLS towards the service. Certificates are always verified.' }
)

const server = Type.Object(
  {
    host: Type.String({ description: 'Address to listen on.', default: '0.0.0.0' }),
    port: Type.Integer({
      description: 'Port to listen on; 0 takes a free one.',
      default: 8080,
      minimum: 0,
      maximum: 65535
    }),
    workers: Type.Union([Type.Integer({ minimum: 1 }), Type.Literal('auto')], {
      description:
        'Processes that serve the port together; `auto` for as many as there are processors. More than one need PostgreSQL and Redis.',
      default: 1
    }),
    trusted_proxies: Type.Array(word, {
      description:
        'Addresses and CIDR ranges (or `loopback`, `private`) of proxies in front, whose X-Forwarded-* and X-Request-ID count.',
      default: []
    }),
    tls: Type.Optional(
      Type.Object(
        {
          cert: Type.String({
            description: 'File with the certificate and its chain, PEM. Read again when it changes.'
          }),
          key: Type.String({ description: 'File with the private key, PEM. Read again when it changes.' }),
          client_ca: text('File with the authorities whose client certificates are required, PEM.')
        },
        { description: 'Serve HTTPS.' }
      )
    ),
    http2: flag('Offer HTTP/2 by ALPN. Needs `tls`.', true),
    limits: Type.Object(
      {
        connections: count('Most open connections; further ones are closed. 0 for no limit.', 20000),
        connections_per_ip: count('Most open connections of one address; further ones are closed. 0 for no limit.', 0),
        header_bytes: size({ description: 'Largest request head.', default: '16kb', positive: true }),
        headers: count('Most request header fields.', 200, { minimum: 1 }),
        url_bytes: size({ description: 'Longest request target.', default: '8kb', positive: true })
      },
      { description: 'What a client may ask of the door.', default: {} }
    ),
    timeouts: Type.Object(
      {
        headers: duration({
          description: 'From the connection, or the previous request, to the end of a request’s head; 0 for no limit.',
          default: '10s'
        }),
        request: duration({
          description: 'From a request’s first byte to its last, body included; 0 for no limit.',
          default: '300s'
        }),
        idle: duration({
          description: 'How long a connection is kept open without a request; 0 for no limit.',
          default: '72s'
        }),
        websocket_idle: duration({
          description: 'A WebSocket on which nothing moves in either direction is closed after this; 0 for no limit.',
          default: '1h'
        }),
        drain: duration({
          description:
            'How long requests and sockets of a retired configuration, or of a gateway that shuts down, may still take.',
          default: '30s'
        }),
        shutdown_delay: duration({
          description:
            'How long a gateway that shuts down still listens while readiness fails, so that load balancers look elsewhere first; 0 to stop listening at once.',
          default: '0s'
        })
      },
      { description: 'How long the door waits.', default: {} }
    )
  },
  { description: 'The socket.', default: {} }
)

const storage = Type.Object(
  {
    database: flag(
      'Keep users, keys, registered services and what happened. Without, there is nothing but what this file says.',
      true
    ),
    database_url: text('`postgres://…`; without it an SQLite file in `data_dir`.', {
      pattern: '^(?:postgres(?:ql)?://.+)?$',
      writeOnly: true
    }),
    redis_url: text(
      '`redis://…`, `redis+sentinel://…/name` or `redis+cluster://…`: limits and revocations are then shared between gateways.',
      { writeOnly: true }
    ),
    redis_timeout: duration({ description: 'How long a decision waits for Redis.', default: '200ms', positive: true }),
    data_dir: Type.String({ description: 'Folder for what is kept between starts.', default: './data' })
  },
  { description: 'Where state is kept.', default: {} }
)

const logging = Type.Object(
  {
    level: oneOf(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], {
      description: 'Least severe level that is written.',
      default: 'info'
    }),
    format: oneOf(['auto', 'json', 'pretty'], {
      description: '`auto` is pretty on a terminal and JSON elsewhere.',
      default: 'auto'
    }),
    access: flag('One line per request.', true),
    trace_requests: flag('Also log each request’s and answer’s header fields, secrets left out.', false)
  },
  { description: 'What is written to standard output.', default: {} }
)

const kept = (what: string, value: string) =>
  duration({ description: `How long ${what}.`, default: value, positive: true })

const recording = Type.Object(
  {
    requests_per_second: count(
      'Most requests a second of which each is written down, picked at random when there are more; 0 for none. All of them are counted.',
      50,
      { maximum: 1000 }
    ),
    keep: Type.Object(
      {
        requests: kept('single requests are kept', '7d'),
        minutes: kept('counts by the minute are kept, at least 6h', '2d'),
        hours: kept('counts by the hour are kept', '400d'),
        audit: kept('the audit log is kept, at least 30d', '400d')
      },
      { description: 'How long what happened is kept.', default: {} }
    )
  },
  { description: 'What is kept of what happened, in the database.', default: {} }
)

const metrics = Type.Object(
  {
    allow: Type.Array(word, {
      description: 'Addresses and CIDR ranges that may read /metrics without a token.',
      default: ['loopback', 'private']
    })
  },
  { description: 'Prometheus metrics.', default: {} }
)

const ownPath = (description: string, value: string | false) =>
  Type.Union([Type.String({ pattern: '^/' }), Type.Literal(false)], {
    description: `${description} \`false\` switches it off.`,
    default: value
  })

const paths = Type.Object(
  {
    health: ownPath('Prefix of the health endpoints.', '/health'),
    metrics: ownPath('Prometheus metrics.', '/metrics'),
    api_metrics: ownPath('Prefix of the metrics as JSON.', '/api/v1/metrics'),
    auth: ownPath('Prefix of logins and sessions.', '/auth'),
    users: ownPath('Prefix of `/me`: who is logged in.', '/users'),
    token: ownPath('OAuth 2.0 password logins.', '/token'),
    api_keys: ownPath('Prefix of the API keys that users make.', '/api-keys'),
    services: ownPath('Prefix of the registration of services.', '/services'),
    gateway: ownPath('Prefix of the gateway’s own operations.', '/gateway'),
    admin: ownPath('Prefix of the administration.', '/admin'),
    traffic: ownPath('Requests over time, and single ones.', '/traffic'),
    usage: ownPath('Who or what asked or was asked most, and one’s own usage.', '/usage'),
    errors: ownPath('Requests that failed.', '/errors'),
    documentation: Type.Union([Type.Array(Type.String({ pattern: '^/' }), { minItems: 1 }), Type.Literal(false)], {
      description:
        'Prefixes under which `/docs`, `/redoc` and `/openapi.json` are; the pages read the first one’s. `false` switches them off.',
      default: ['/', '/api']
    }),
    oauth: ownPath('Prefix of OAuth, where `identity.oauth` is given.', '/oauth'),
    batch: ownPath('Several requests in one: `/batch`.', false)
  },
  { description: 'Where the gateway’s own endpoints are. They always win over routes.', default: {} }
)

const admin = Type.Object(
  {
    listen: text('`127.0.0.1:9090`: serve /gateway, /services, /admin and the metrics here and nowhere else.', {
      pattern: '^.+:\\d+$'
    })
  },
  { description: 'The administration’s own listener.', default: {} }
)

const registry = Type.Object(
  {
    allow: Type.Array(word, {
      description:
        'Where services that are registered by the API may be: `public`, `private`, `loopback`, addresses and CIDR ranges. Link-local addresses, metadata services and the like have to be named.',
      default: ['public', 'private']
    })
  },
  { description: 'Services that are registered by the API.', default: {} }
)

const gateway = Type.Object(
  {
    name: Type.String({ description: 'Shown in logs and documents.', default: 'sallyport' }),
    title: text('Title of the API’s documentation; the name if not given.'),
    description: Type.String({
      description: 'What the API’s documentation says of it, in Markdown.',
      default: 'The gateway’s own endpoints.'
    }),
    version: Type.String({ description: 'Version of your API, shown in documents.', default: '1.0.0' }),
    region: Type.String({
      description: 'Where this gateway is: a label of its metrics, and in the list of nodes. No part of the version.',
      default: ''
    }),
    environment: Type.String({
      description: '`production` refuses secrets that are missing, short or for demonstration.',
      default: 'development'
    }),
    zone: text('Where this gateway is: instances in the same zone are asked first.')
  },
  { description: 'What this gateway is called.', default: {} }
)

/** Concerns of the forwarder itself; like every concern they may stand under `defaults`, a service or a route. */
const timeouts = Type.Union(
  [
    Type.Literal(false),
    Type.Object({
      connect: Type.Optional(duration({ description: 'To open a connection.' })),
      first_byte: Type.Optional(
        duration({ description: 'From sending the request to the head of the answer, for each try.' })
      ),
      write: Type.Optional(duration({ description: 'To send the request.' })),
      idle: Type.Optional(duration({ description: 'Longest silence within an answer’s body.' })),
      total: Type.Optional(duration({ description: 'To the end of the answer. Not for streams.' }))
    })
  ],
  { description: 'Deadlines of one stage each, 0 for no limit: connect 5 s, idle 60 s, the others off unless given.' }
)

export const retry = Type.Union(
  [
    Type.Literal(false),
    Type.Integer({ minimum: 0 }),
    Type.Object({
      attempts: Type.Integer({ description: 'Tries after the first one.', default: 2, minimum: 0, maximum: 10 }),
      backoff: duration({
        description: 'Pause before the first retry; doubles each time, and a random part of it is waited.',
        default: '25ms'
      }),
      max_backoff: duration({ description: 'Longest pause.', default: '1s' }),
      retry_on: Type.Array(
        Type.Union([
          Type.String({ enum: ['connect', 'reset', 'timeout'] }),
          Type.Integer({ minimum: 400, maximum: 599 })
        ]),
        {
          description: 'Failures (`connect`, `reset`, `timeout`) and statuses worth another try.',
          default: ['connect', 'reset']
        }
      ),
      methods: Type.Array(Type.String({ pattern: METHODS }), {
        description: 'Methods that may be sent twice.',
        default: ['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE']
      }),
      budget: Type.Number({
        description: 'Retries that each request brings along for those of its service; there is one a second besides.',
        default: 0.15,
        minimum: 0,
        maximum: 1
      })
    })
  ],
  {
    description:
      'Tries after a failure. A number is that many, with the rest as is. Retries never exceed about 15 % of a service’s requests.'
  }
)

const hedge = Type.Union(
  [Type.Literal(false), duration({ description: 'How long the first one has.', positive: true })],
  {
    description:
      'After so long without an answer to a GET, HEAD or OPTIONS another instance is asked as well, and who is first counts.'
  }
)

/** Keys that may stand under `defaults`, a service or a route, besides the policies. */
const forwarding = {
  timeout: Type.Optional(
    duration({
      description: 'From the request to the head of its answer, all tries included; 0 for no limit, 30 s unless given.'
    })
  ),
  timeouts: Type.Optional(timeouts),
  retry: Type.Optional(retry),
  hedge: Type.Optional(hedge),
  load_balancer_type: Type.Optional(loadBalancerType),
  load_balancer: Type.Optional(loadBalancer),
  circuit_breaker: Type.Optional(circuitBreaker),
  fallback: Type.Optional(fallback)
}

export const condition = Type.Union(
  [
    Type.String(),
    Type.Object({
      equals: Type.Optional(Type.String({ description: 'The value, exactly.' })),
      prefix: Type.Optional(Type.String({ description: 'How the value begins.' })),
      regex: Type.Optional(Type.String({ description: 'An RE2 expression that the value matches somewhere.' })),
      present: Type.Optional(Type.Boolean({ description: 'Whether it is there at all.' }))
    })
  ],
  { description: 'The value, or a condition on it.' }
)

const instance = Type.Object({
  id: Type.Optional(Type.String({ description: 'Name of the instance in logs; its place in the list if not given.' })),
  url: Type.String({ description: '`http://orders-1:8080`, optionally with a base path.', pattern: '^https?://' }),
  weight: Type.Integer({
    description: 'Share of the traffic, against the other instances’; 0 for none while there are others.',
    default: 1,
    minimum: 0
  }),
  zone: text('Where it is, for those who prefer what is near.')
})

/** Defaults of services rather than of routes. */
const balancing = {
  health_check: Type.Optional(healthCheck),
  health_check_interval: Type.Optional(
    Type.Number({
      description:
        'How often instances are checked that do not say so themselves, in seconds; given, all services are checked.',
      exclusiveMinimum: 0
    })
  ),
  outlier_detection: Type.Optional(outlierDetection),
  concurrency: Type.Optional(concurrency)
}

const endpoint = Type.Object({
  path: Type.String({
    description: 'Path at the service; the gateway serves it under /api/v1, or that of its version.',
    pattern: '^/'
  }),
  method: Type.String({ description: 'Its method.', default: 'GET', pattern: METHODS }),
  name: text('Name by which `rate_limits.endpoints` means it.'),
  description: text('For the documents.'),
  public: flag('Whether anybody may call it.', false),
  required_roles: Type.Array(word, { description: 'Roles of which the caller needs one.', default: [] }),
  deprecated: flag('Whether it should not be used any more.', false),
  version: text('`v2`: it is served under /api/v2; the service’s if that is a plain number, else v1.')
})

const service = (concerns: Record<string, TSchema>) =>
  Type.Object({
    description: text('For people.'),
    version: text('For people; `v2` is also that of its endpoints.'),
    url: text('Address, if there is but one.', { pattern: '^https?://' }),
    instances: Type.Optional(
      Type.Array(instance, {
        description: 'Addresses, if there are several; none where all of them register themselves.'
      })
    ),
    tls: Type.Optional(upstreamTls),
    pool: Type.Object(
      {
        connections: count('Most connections to each instance; further requests wait.', 1024, { minimum: 1 }),
        keep_alive: duration({ description: 'How long an unused connection is kept.', default: '4s', positive: true }),
        header_bytes: size({ description: 'Largest head of an answer.', default: '32kb', positive: true })
      },
      { description: 'Connections to the service.', default: {} }
    ),
    discovery: Type.Optional(discoverySchema(upstreamTls)),
    concurrency: Type.Optional(concurrency),
    health_check: Type.Optional(healthCheck),
    health_check_path: text('Path of the health check, if `health_check` has none.', { pattern: '^/' }),
    outlier_detection: Type.Optional(outlierDetection),
    endpoints: Type.Array(endpoint, {
      description: 'Endpoints that become routes under /api/v1, or that of their version.',
      default: []
    }),
    ...forwarding,
    ...concerns
  })

const version = (description: string) =>
  Type.Union([Type.Integer({ minimum: 0 }), Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]*$' })], { description })

const versioning = Type.Object(
  {
    vendor: text('`acme`: requests may ask for version 2 by `Accept: application/vnd.acme.v2+json`.', {
      pattern: '^[A-Za-z0-9][A-Za-z0-9._-]*$'
    }),
    query: text('`version`: requests may ask for version 2 by `?version=2`.', { minLength: 1 }),
    default: Type.Optional(version('Version for requests that ask for none; the lowest there is if not given.'))
  },
  { description: 'How requests say which version they want, besides by their path.', default: {} }
)

const route = (concerns: Record<string, TSchema>) =>
  Type.Object({
    id: text('Name of the route in logs and limits; made from its match if not given.'),
    path: text('`/users`, `/users/{id}`, `/users/**` (and everything below). Lower and upper case are the same.', {
      pattern: '^/'
    }),
    regex: text(
      'Instead of `path`: an RE2 expression that the path matches somewhere; lower and upper case are the same.'
    ),
    methods: listOf(Type.String({ pattern: METHODS }), { description: 'Methods; any if not given.', default: [] }),
    hosts: listOf(word, { description: 'Host names, or `*.example.com`; any if not given.', default: [] }),
    headers: Type.Record(Type.String(), condition, { description: 'Conditions on header fields.', default: {} }),
    query: Type.Record(Type.String(), condition, { description: 'Conditions on query parameters.', default: {} }),
    countries: listOf(Type.String({ pattern: '^[A-Za-z]{2}$' }), {
      description: 'Countries that a request comes from (`geo`), as in ISO 3166-1: `DE`; any if not given.',
      default: []
    }),
    priority: Type.Union([Type.Integer(), Type.String({ enum: [...PRIORITIES] })], {
      description:
        'Higher goes first, before any other rule of precedence. (A word is another way to write `request_priority`.)',
      default: 0
    }),
    enabled: flag('Whether it is there at all.', true),
    service: text('Name of the service behind it.'),
    target: text('Instead of `service`: the address of a service that has no other use.', { pattern: '^https?://' }),
    rewrite: text(
      'Path to send instead of the matched one; what `**` stood for is kept behind it. `{name}` puts a parameter in.',
      { pattern: '^/' }
    ),
    strip_prefix: Type.Union([Type.Boolean(), Type.String({ pattern: '^/' })], {
      description: 'Leave out the part before `**` (or the given prefix) when sending.',
      default: false
    }),
    encoded_slash: flag('Pass `%2F` in the path on rather than refusing it.', false),
    websocket: flag('Let WebSockets through.', false),
    ...releases,
    version: Type.Optional(version('The version that it is: requests that want another one take another route.')),
    versions: Type.Optional(
      Type.Record(
        Type.String(),
        Type.Object({
          service: text('Name of the service, if it is another one.'),
          target: text('Address of the service, if it is another one.', { pattern: '^https?://' }),
          rewrite: text('Path to send.', { pattern: '^/' }),
          strip_prefix: Type.Optional(
            Type.Union([Type.Boolean(), Type.String({ pattern: '^/' })], {
              description: 'What of the path is not sent.'
            })
          ),
          deprecated: concerns.deprecated as TSchema
        }),
        { description: 'Several versions at once, by name, and what is different about each.' }
      )
    ),
    weight: Type.Optional(
      Type.Integer({
        description:
          'Share of the requests, where routes that differ in nothing but their service stand beside each other.',
        minimum: 0
      })
    ),
    ...forwarding,
    ...concerns
  })

const PLUGIN = Type.Object({
  use: Type.String({ description: 'File or package whose default export is a policy or a Fastify plugin.' }),
  before: text('Name of the concern before which it runs.'),
  after: text('Name of the concern after which it runs; at the end of all if neither is given.'),
  options: Type.Optional(Type.Unknown({ description: 'Options of a plain Fastify plugin.' }))
})

/** Any concern can be switched off. The branches of a union stay side by side, so that errors name what could stand there. */
function orFalse(schema: TSchema): TSchema {
  const {
    anyOf,
    unit,
    description = 'Options of a plugin.'
  } = schema as { anyOf?: TSchema[]; unit?: string; description?: string }
  const branches = anyOf === undefined || unit !== undefined ? [schema] : anyOf
  return Type.Union([Type.Literal(false), ...branches], { description })
}

/**
 * The schema of the whole document.
 * @param concerns the policies' own schemas, by the key under which they stand on a route.
 * @param plugins the schemas of third parties' policies, by name; null while they are not known.
 */
export function documentSchema(
  concerns: Record<string, TSchema>,
  rateLimits: TSchema,
  plugins: Record<string, TSchema> | null = {}
): TObject {
  const everywhere: Record<string, TSchema> = {}
  for (const [key, schema] of Object.entries(concerns)) everywhere[key] = Type.Optional(orFalse(schema))
  const pluginOptions: Record<string, TSchema> = {}
  for (const [name, schema] of Object.entries(plugins ?? {})) {
    pluginOptions[name] = Type.Optional(
      Type.Union([Type.Literal(false), schema], { description: `Options of the plugin ${name}.` })
    )
  }
  const description = 'Options of third parties’ policies, by name.'
  everywhere.plugins = Type.Optional(
    plugins === null ? Type.Unknown({ description }) : Type.Object(pluginOptions, { description })
  )
  return Type.Object(
    {
      gateway,
      server,
      storage,
      identity,
      logging,
      recording,
      metrics,
      paths,
      admin,
      registry,
      batch: batchSchema,
      enabled: flag('`false` makes a plain proxy: no limits, cache, breaker or transformation.', true),
      versioning,
      geo,
      catch_all: flag('Also route `/{service}/**` to each service by its name.', false),
      defaults: Type.Object(
        { ...forwarding, ...balancing, ...everywhere },
        { description: 'Concerns of every route that does not say otherwise.', default: {} }
      ),
      services: Type.Record(Type.String(), service(everywhere), {
        description: 'The APIs behind the gateway, by name.',
        default: {}
      }),
      routes: Type.Array(route(everywhere), { description: 'Which requests go where.', default: [] }),
      rate_limits: rateLimits,
      overload,
      plugins: Type.Array(PLUGIN, { description: 'Third parties’ policies.', default: [] }),
      service_discovery_url: text(
        'Where services are looked for that name no address, by HTTP: `<this>/services/{service}/instances`.',
        { pattern: '^https?://' }
      ),
      service_config_url: text('A server that knows further services and routes, as JSON; asked every ten seconds.', {
        pattern: '^https?://'
      }),
      consul_url: text(
        'Agent of Consul, for services that look there, or name no address while there is no `service_discovery_url`.',
        { pattern: '^https?://' }
      ),
      cache: Type.Optional(Type.Unknown({ description: 'Not in effect yet.' }))
    },
    { title: 'Sallyport configuration' }
  ) as unknown as TObject
}

export type GatewaySettings = Static<typeof gateway>
export type ServerSettings = Static<typeof server>
export type StorageSettings = Static<typeof storage>
export type LoggingSettings = Static<typeof logging>
export type RecordingSettings = Static<typeof recording>
export type MetricsSettings = Static<typeof metrics>
export type PathSettings = Static<typeof paths>
export type RegistrySettings = Static<typeof registry>
export type VersioningSettings = Static<typeof versioning>
export type RouteSettings = Static<ReturnType<typeof route>>
export type ServiceSettings = Static<ReturnType<typeof service>>
export type RetrySettings = Static<typeof retry>
export type PluginSettings = Static<typeof PLUGIN>
