import { STATUS_CODES } from 'node:http'
import type { FastifyDynamicSwaggerOptions } from '@fastify/swagger'
import type { FastifyInstance, FastifySchema, RouteOptions } from 'fastify'
import type { GatewaySettings } from './config/schema.ts'
import { CATALOGUE, type ErrorCode } from './errors.ts'
import type { RegisteredService } from './registry/service.ts'
import { apiVersion } from './releases/versions.ts'
import type { TSchema } from './schema.ts'

/**
 * The OpenAPI document of the gateway's own endpoints. It is made when somebody first asks for it: nothing of this is loaded
 * at a start.
 */

/** The headings under which operations stand, in their order. */
export const TAGS = {
  Authentication: 'Logging in and out, and one’s own account.',
  'API keys': 'Keys for programs, made and revoked by their owners.',
  OAuth: 'OAuth 2.0 and OpenID Connect.',
  Batches: 'Several requests in one.',
  Services: 'The services behind the gateway, registered while it runs.',
  Users: 'Accounts.',
  Roles: 'Roles and what they permit, for administrators.',
  Administration: 'What administrators change while the gateway runs.',
  Gateway: 'The gateway as a whole.',
  Audit: 'Who did what, and when.',
  Traffic: 'What has been asked for, and how it went.',
  Metrics: 'For Prometheus, and as JSON.',
  Health: 'For load balancers and whoever watches.',
  Documentation: 'This document.'
} as const satisfies Record<string, string>

/** What of a route the document needs. */
export type DescribedRoute = Pick<RouteOptions, 'method' | 'url' | 'schema'>

/** The list of routes that are added to `app` from now on, by it and by its plugins. */
export function collectRoutes(app: FastifyInstance): DescribedRoute[] {
  const routes: DescribedRoute[] = []
  app.addHook('onRoute', ({ method, url, schema }) => {
    routes.push(schema === undefined ? { method, url } : { method, url, schema })
  })
  return routes
}

/** The document of these routes; hidden ones (`schema: { hide: true }`) are left out. */
export async function openApiOf(routes: readonly DescribedRoute[], settings: GatewaySettings): Promise<object> {
  const [{ default: Fastify }, { default: swagger }] = await Promise.all([
    import('fastify'),
    import('@fastify/swagger')
  ])
  const app = Fastify()
  app.setValidatorCompiler(() => () => true)
  app.setSerializerCompiler(() => JSON.stringify)
  await app.register(swagger, optionsOf(settings, tokenUrlOf(routes)))
  for (const route of routes) app.route({ ...route, exposeHeadRoute: false, handler: () => {} })
  await app.ready()
  const document = app.swagger()
  await app.close()
  return document
}

/** Where a password is exchanged for a token, relative to the root: `token` (IDN-07); undefined if nowhere. */
function tokenUrlOf(routes: readonly DescribedRoute[]): string | undefined {
  const found = routes.find(
    ({ method, schema }) =>
      method === 'POST' &&
      schema?.tags?.includes('Authentication') &&
      schema.consumes?.includes('application/x-www-form-urlencoded')
  )
  return found?.url.replace(/^\/|\/$/g, '')
}

interface Document {
  readonly openapiObject: { paths?: object; components?: { responses?: Record<string, object> } }
}

function optionsOf(
  { name, title, description, version }: GatewaySettings,
  tokenUrl: string | undefined
): FastifyDynamicSwaggerOptions {
  const password = {
    type: 'oauth2',
    description: 'A user’s name and password, exchanged for a token.',
    flows: { password: { tokenUrl: tokenUrl as string, scopes: {} } }
  }
  return {
    transform: ({ schema, url, route }: { schema?: FastifySchema; url: string; route: DescribedRoute }) => ({
      schema: describe(schema, operationId(route.method, url), tokenUrl !== undefined),
      url: url.replace(/(.)\/$/, '$1')
    }),
    transformObject: (document: Document) => finish(document.openapiObject),
    openapi: {
      openapi: '3.1.0',
      info: { title: title ?? name, description, version },
      servers: [{ url: '/', description: 'The gateway that serves this document.' }],
      components: {
        schemas: { Error: ENVELOPE, Problem: PROBLEM },
        responses: refusals(),
        securitySchemes: {
          ...CREDENTIALS,
          ...(tokenUrl === undefined ? {} : { password })
        }
      }
    }
  } as unknown as FastifyDynamicSwaggerOptions
}

const CREDENTIALS = {
  bearer: {
    type: 'http',
    scheme: 'bearer',
    bearerFormat: 'JWT',
    description: 'A token of the gateway, or of an issuer that it trusts.'
  },
  api_key: { type: 'apiKey', in: 'header', name: 'X-API-Key', description: 'A key for programs.' }
}

/** `GET /admin/rate-limits/:consumer` is `getAdminRateLimitsByConsumer`. */
function operationId(method: string | string[], url: string): string {
  const words = url
    .split(/[^\w:]+/)
    .flatMap(part => (part.startsWith(':') ? ['by', ...part.split(/\W/)] : part.split('_')))
  const [first = ''] = [method].flat()
  return first.toLowerCase() + words.map(word => word.charAt(0).toUpperCase() + word.slice(1)).join('')
}

/** What Fastify was told of an operation, with examples, and with what goes without saying. */
function describe(schema: FastifySchema = {}, operationId: string, hasPassword: boolean): FastifySchema {
  const { body, security } = schema
  const response = (schema.response ?? {}) as Record<string, { description?: string }>
  const answers = Object.entries(response).map(([status, answer]) => [
    status,
    { ...withExample(plain(answer)), 'x-response-description': answer.description ?? STATUS_CODES[status] }
  ])
  return {
    ...(plain(schema) as FastifySchema),
    operationId,
    ...(body === undefined ? {} : { body: withExample(plain(body)) }),
    ...(security !== undefined && hasPassword ? { security: [...security, { password: [] }] } : {}),
    response: Object.fromEntries(answers)
  }
}

/** Without the keywords that are ours alone. */
function plain(schema: unknown): Record<string, unknown> {
  return JSON.parse(JSON.stringify(schema), (key, value) =>
    key === 'unit' && typeof value === 'string' ? undefined : value
  )
}

function withExample(schema: Record<string, unknown>): Record<string, unknown> {
  return schema.type === 'null' || schema.examples !== undefined ? schema : { ...schema, examples: [exampleOf(schema)] }
}

interface Example {
  readonly type?: string
  readonly format?: string
  readonly const?: unknown
  readonly enum?: readonly unknown[]
  readonly default?: unknown
  readonly examples?: readonly unknown[]
  readonly anyOf?: readonly Example[]
  readonly items?: Example
  readonly minimum?: number
  readonly properties?: Readonly<Record<string, Example>>
}

/** A value that fits a schema: what it says itself (`examples`, `default`), or the plainest of its type. */
function exampleOf(schema: TSchema, name = ''): unknown {
  const { type, format = '', ...known } = schema as Example
  const [given = known.const ?? known.default ?? known.enum?.[0]] = known.examples ?? []
  if (given !== undefined) return given
  if (known.anyOf !== undefined) return exampleOf(known.anyOf.find(branch => branch.type !== 'null') as TSchema, name)
  switch (type) {
    case 'object':
      return Object.fromEntries(
        Object.entries(known.properties ?? {}).map(([key, part]) => [key, exampleOf(part as TSchema, key)])
      )
    case 'array':
      return known.items === undefined ? [] : [exampleOf(known.items as TSchema, name)]
    case 'integer':
    case 'number':
      return known.minimum ?? 0
    case 'boolean':
      return true
    case 'string':
      return FORMATS[format] ?? WORDS[name] ?? (name || 'text')
    default:
      return null
  }
}

const MOMENT = '2026-01-31T09:30:00.000Z'
const FORMATS: Record<string, string> = {
  uuid: '7d444840-9dc0-41d2-b16c-1f6f2d5d7d4b',
  'date-time': MOMENT,
  date: '2026-01-31',
  email: 'alice@example.com',
  uri: 'https://api.example.com/'
}

const REQUEST = '019a8c5e-6d4b-7c31-9a55-3f0d5c2e8b17'

/** What strings of these names usually are, where a schema does not say. */
const WORDS: Record<string, string> = {
  username: 'alice',
  email: 'alice@example.com',
  password: 'correct horse battery staple',
  first_name: 'Alice',
  last_name: 'Example',
  client_ip: '192.0.2.1',
  access_token: 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.dGhlIHNpZ25hdHVyZQ',
  refresh_token: 'dGhlIHJlZnJlc2ggdG9rZW4',
  roles: 'user',
  permissions: 'orders.read',
  tier: 'free',
  scope: 'orders.read',
  service: 'orders',
  endpoint: '/api/v1/orders/**',
  actor: 'user:7d444840-9dc0-41d2-b16c-1f6f2d5d7d4b',
  action: 'user.create',
  target: 'user:019a8c5e-6d4b-7c31-9a55-3f0d5c2e8b17',
  request_id: REQUEST
}

const FIELD = {
  type: 'object',
  description: 'One field that is wrong.',
  required: ['field', 'message', 'type'],
  properties: {
    field: { type: 'string', description: 'Which one.' },
    message: { type: 'string', description: 'What is wrong with it.' },
    type: { type: 'string', description: 'What kind of mistake it is.' }
  }
}
const CODE = { type: 'string', description: 'What programs go by; docs/errors.md lists them all.' }
const MESSAGE = { type: 'string', description: 'What people read.' }
const STATUS = { type: 'integer', description: 'The status, once more.' }
const REQUEST_ID = { type: 'string', description: 'Under which the log has more.' }

/** docs/errors.md */
const ENVELOPE = {
  description: 'A refusal. `errors.format` chooses another shape.',
  type: 'object',
  required: ['error'],
  properties: {
    error: {
      type: 'object',
      description: 'What was refused, and why.',
      required: ['code', 'message', 'details', 'status', 'request_id', 'timestamp'],
      properties: {
        code: CODE,
        message: MESSAGE,
        details: { type: ['string', 'null'], description: 'What else may be said.' },
        status: STATUS,
        request_id: REQUEST_ID,
        timestamp: { type: 'string', format: 'date-time', description: 'When that was.' }
      }
    }
  }
}

/** RFC 9457 */
const PROBLEM = {
  description: 'A refusal, for who asks for `application/problem+json`.',
  type: 'object',
  required: ['type', 'title', 'status', 'code', 'request_id'],
  properties: {
    type: { type: 'string', description: '`urn:sallyport:` and the code.' },
    title: MESSAGE,
    status: STATUS,
    detail: { type: 'string', description: 'What else may be said.' },
    code: CODE,
    request_id: REQUEST_ID,
    errors: { type: 'array', description: 'What is wrong, field by field.', items: FIELD }
  }
}

const RETRY_AFTER = { description: 'Seconds after which it is worth another try.', schema: { type: 'integer' } }
const HEADERS: Readonly<Record<number, object>> = {
  401: { 'WWW-Authenticate': { description: 'How to say who one is.', schema: { type: 'string' } } },
  429: { 'Retry-After': RETRY_AFTER },
  503: { 'Retry-After': RETRY_AFTER }
}

/** Responses of the catalogue by status, each with its codes as examples. */
function refusals(): Record<string, object> {
  const byStatus = Map.groupBy(Object.entries(CATALOGUE), ([, { status }]) => status)
  return Object.fromEntries(
    [...byStatus].map(([status, entries]) => {
      const envelopes = entries.map(([code, { message }]) => {
        const error = { code, message, details: null, status, request_id: REQUEST, timestamp: MOMENT }
        return [code, { summary: code, value: { error } }]
      })
      const problems = entries.map(([code, { message }]) => {
        const problem = { type: `urn:sallyport:${code}`, title: message, status, code, request_id: REQUEST }
        return [code, { summary: code, value: problem }]
      })
      const content = (name: string, examples: unknown[]) => ({
        schema: { $ref: `#/components/schemas/${name}` },
        examples: Object.fromEntries(examples as [string, object][])
      })
      return [
        `Error${status}`,
        {
          description: entries.map(([, { message }]) => message).join(' '),
          ...(status in HEADERS ? { headers: HEADERS[status] } : {}),
          content: {
            'application/json': content('Error', envelopes),
            'application/problem+json': content('Problem', problems)
          }
        }
      ]
    })
  )
}

interface Described {
  readonly tags?: readonly string[]
  readonly responses: Record<string, object>
  'x-refuses'?: readonly ErrorCode[]
  'x-says'?: Readonly<Record<number, string>>
}

/** Puts in what `@fastify/swagger` has no word for: shared responses, and the headings that are used. */
function finish(document: Document['openapiObject']): object {
  const operations = Object.values(document.paths ?? {}).flatMap(item => Object.values(item as object)) as Described[]
  for (const operation of operations) {
    for (const code of operation['x-refuses'] ?? []) {
      const { status } = CATALOGUE[code]
      const description = operation['x-says']?.[status]
      const reference = { $ref: `#/components/responses/Error${status}` }
      operation.responses[status] ??= description === undefined ? reference : { ...reference, description }
    }
    delete operation['x-refuses']
    delete operation['x-says']
  }
  const used = new Set(operations.flatMap(({ tags = [] }) => tags))
  const tags = Object.entries(TAGS).filter(([name]) => used.has(name))
  const refused = new Set(operations.flatMap(({ responses }) => Object.keys(responses)))
  const responses = Object.entries(document.components?.responses ?? {}).filter(([name]) =>
    refused.has(name.replace('Error', ''))
  )
  return {
    ...document,
    tags: tags.map(([name, description]) => ({ name, description })),
    components: { ...document.components, responses: Object.fromEntries(responses) }
  }
}

/** What the gateway itself may answer to a request that belongs to a service. */
const ON_THE_WAY = [404, 413, 429, 502, 503, 504]
const OPENAPI_METHODS = new Set(['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace'])

/**
 * The document of what a registered service has said of itself: its endpoints as the gateway serves them, and which want to
 * know who calls. Not where it is, nor which roles it asks for: that is its owner's business.
 */
export function openApiOfService(service: RegisteredService): object {
  const paths: Record<string, Record<string, object>> = {}
  for (const endpoint of service.endpoints) {
    const method = endpoint.method.toLowerCase()
    if (!OPENAPI_METHODS.has(method)) continue
    const { path, names } = templateOf(`/api/${apiVersion(endpoint.version ?? undefined) ?? 'v1'}${endpoint.path}`)
    const statuses = endpoint.public ? ON_THE_WAY : [401, 403, ...ON_THE_WAY]
    const refused = statuses.map(status => [status, { $ref: `#/components/responses/Error${status}` }])
    paths[path] ??= {}
    paths[path][method] = {
      operationId: operationId(method, path),
      summary: endpoint.name ?? `${endpoint.method} ${endpoint.path}`,
      ...(endpoint.description === null ? {} : { description: endpoint.description }),
      tags: [service.name],
      deprecated: endpoint.deprecated,
      parameters: names.map(name => ({ name, in: 'path', required: true, schema: { type: 'string' } })),
      security: endpoint.public ? [] : [{ bearer: [] }, { api_key: [] }],
      responses: { default: { description: 'What the service answers.' }, ...Object.fromEntries(refused) }
    }
  }
  const responses = Object.entries(refusals()).filter(([name]) =>
    [401, 403, ...ON_THE_WAY].includes(Number(name.slice(5)))
  )
  return {
    openapi: '3.1.0',
    info: { title: service.name, description: service.description ?? '', version: service.version ?? '' },
    servers: [{ url: '/', description: 'The gateway in front of it.' }],
    tags: [{ name: service.name }],
    paths,
    components: {
      schemas: { Error: ENVELOPE, Problem: PROBLEM },
      responses: Object.fromEntries(responses),
      securitySchemes: CREDENTIALS
    }
  }
}

/** `/files/:id/**` as OpenAPI writes it, `/files/{id}/{rest}`, and the names of its parameters. */
function templateOf(pattern: string): { path: string; names: string[] } {
  const names: string[] = []
  const segments = pattern.split('/').map(segment => {
    const isWild = segment === '*' || segment === '**'
    const name = isWild ? `rest${names.length || ''}` : /^(?:\{(\w+)\}|:(\w+))$/.exec(segment)?.slice(1).find(Boolean)
    if (name === undefined) return segment
    names.push(name)
    return `{${name}}`
  })
  return { path: segments.join('/'), names }
}
