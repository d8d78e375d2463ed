import { randomUUID } from 'node:crypto'
import { refuse } from '../errors.ts'
import { type TObject, Type } from '../schema.ts'
import type { RegisteredEndpoint, RegisteredInstance, RegisteredService } from './service.ts'

/** What a service says of itself when it is registered. */
export interface Definition {
  readonly name: string
  readonly version?: string | null
  readonly description?: string | null
  readonly base_url?: string
  readonly instances?: readonly { readonly url: string; readonly weight: number }[]
  readonly active: boolean
  readonly tags: readonly string[]
  readonly endpoints: readonly EndpointDefinition[]
  readonly [setting: string]: unknown
}

interface EndpointDefinition {
  readonly path: string
  readonly method: string
  readonly name?: string | null
  readonly description?: string | null
  readonly public: boolean
  readonly required_roles: readonly string[]
  readonly deprecated: boolean
  readonly version?: string | null
}

/** The blocks of a definition that are kept, and compiled, as they are written. */
const SETTINGS = {
  health_check_path: Type.Optional(
    Type.String({ description: 'Path of the health check; `/health` if not given.', pattern: '^/' })
  ),
  load_balancer_type: Type.Optional(Type.String({ description: 'As in the configuration.' })),
  load_balancer: Type.Optional(Type.Unknown({ description: 'As in the configuration.' })),
  outlier_detection: Type.Optional(Type.Unknown({ description: 'As in the configuration.' })),
  health_check: Type.Optional(Type.Unknown({ description: 'As in the configuration.' })),
  timeout_config: Type.Optional(Type.Unknown({ description: '`timeouts` of the configuration.' })),
  retry_config: Type.Optional(Type.Unknown({ description: '`retry` of the configuration.' })),
  circuit_breaker: Type.Optional(Type.Unknown({ description: 'As in the configuration.' }))
}

const orNull = (description: string, examples: readonly string[] = []) =>
  Type.Optional(
    Type.Union([Type.String({ maxLength: 1000 }), Type.Null()], {
      description,
      ...(examples.length > 0 && { examples })
    })
  )
const ours = () => Type.Optional(Type.Unknown({ description: 'Given by the gateway; not read.' }))

const URL_PATTERN = '^https?://'

const EXAMPLE = {
  name: 'project-coordinator',
  version: '1.0.0',
  base_url: 'http://project-coordinator:8080',
  health_check_path: '/health',
  endpoints: [
    {
      path: '/projects',
      method: 'GET',
      name: 'list_projects',
      description: 'List all projects',
      public: false,
      required_roles: ['user', 'admin']
    }
  ]
}

/**
 * Schema of a definition. What an answer holds besides may stay in it: who reads a service, changes something and sends it back
 * need not take it apart.
 */
export const definition = Type.Object(
  {
    name: Type.String({
      description: 'Name of the service, of letters, digits, dots, dashes and underscores.',
      minLength: 1,
      maxLength: 100,
      pattern: '^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$'
    }),
    version: orNull('For people; `v2` is also that of its endpoints.'),
    description: orNull('For people.'),
    base_url: Type.Optional(
      Type.String({ description: 'Its address, if there is but one.', pattern: URL_PATTERN, maxLength: 2000 })
    ),
    instances: Type.Optional(
      Type.Array(
        Type.Object({
          id: ours(),
          url: Type.String({ description: 'Address of the instance.', pattern: URL_PATTERN, maxLength: 2000 }),
          weight: Type.Integer({ description: 'Its share of the traffic.', default: 1, minimum: 0, maximum: 1_000_000 })
        }),
        { description: 'Its addresses, if there are several.', minItems: 1, maxItems: 1000 }
      )
    ),
    active: Type.Boolean({ description: 'Whether it has routes.', default: true }),
    tags: Type.Array(Type.String({ minLength: 1, maxLength: 100 }), {
      description: 'Words to find it by.',
      default: [],
      maxItems: 100
    }),
    endpoints: Type.Array(
      Type.Object({
        id: ours(),
        service_id: ours(),
        path: Type.String({
          description: 'Path at the service; the gateway serves it under /api/v1, or that of its version.',
          pattern: '^/',
          maxLength: 2000
        }),
        method: Type.String({ description: 'Its method.', default: 'GET', pattern: '^[A-Za-z]+$' }),
        name: orNull('Name by which `rate_limits.endpoints` means it, after that of the service and a dot.'),
        description: orNull('For people.'),
        public: Type.Boolean({ description: 'Whether anybody may call it.', default: false }),
        required_roles: Type.Array(Type.String({ minLength: 1, maxLength: 100 }), {
          description: 'Roles of which the caller needs one.',
          default: []
        }),
        deprecated: Type.Boolean({ description: 'Whether callers are told to use it no more.', default: false }),
        version: orNull(
          '`v2`: it is served under /api/v2. The service’s if not given; of `1.0.0` and the like, /api/v1.'
        ),
        created_at: ours(),
        updated_at: ours()
      }),
      {
        description: 'Endpoints, which become routes under /api/v1, or that of their version.',
        default: [],
        maxItems: 1000
      }
    ),
    ...SETTINGS,
    id: ours(),
    owner: ours(),
    warnings: ours(),
    created_at: ours(),
    updated_at: ours()
  },
  { examples: [EXAMPLE] }
) as unknown as TObject

const ID = '7d444840-9dc0-41d2-b16c-1f6f2d5d7d4b'
const TIME = '2026-01-01T12:00:00.000Z'
const id = (description: string) => Type.String({ description, format: 'uuid' })
const time = (description: string) => Type.String({ description, format: 'date-time' })

/** Schema of {@link publicEndpoint}. */
export const endpointSchema = Type.Object({
  id: id('Its id.'),
  service_id: id('Id of its service.'),
  path: Type.String({ description: 'Path at the service.', examples: ['/projects'] }),
  method: Type.String({ description: 'Its method.', examples: ['GET'] }),
  name: orNull('Its name.', ['list_projects']),
  description: orNull('For people.', ['List all projects']),
  public: Type.Boolean({ description: 'Whether anybody may call it.', examples: [false] }),
  required_roles: Type.Array(Type.String(), {
    description: 'Roles of which the caller needs one.',
    examples: [['user', 'admin']]
  }),
  deprecated: Type.Boolean({ description: 'Whether it should not be used any more.', examples: [false] }),
  version: orNull('Its version.', ['1.0.0']),
  created_at: time('Since when it has been there.'),
  updated_at: time('When it was written last.')
})

/** Schema of {@link publicService}, with what is doubtful about it. */
export const serviceSchema = Type.Object(
  {
    id: id('Its id.'),
    name: Type.String({ description: 'Its name.' }),
    version: orNull('For people.'),
    description: orNull('For people.'),
    base_url: Type.String({ description: 'Its first address.' }),
    active: Type.Boolean({ description: 'Whether it has routes.' }),
    owner: Type.String({ description: 'Who may change it, besides administrators.' }),
    tags: Type.Array(Type.String(), { description: 'Words to find it by.' }),
    instances: Type.Array(
      Type.Object({
        id: id('Its id.'),
        url: Type.String({ description: 'Its address.' }),
        weight: Type.Integer({ description: 'Its share of the traffic.' })
      }),
      { description: 'Its addresses.' }
    ),
    endpoints: Type.Array(endpointSchema, { description: 'Its endpoints.' }),
    ...SETTINGS,
    warnings: Type.Optional(
      Type.Array(Type.String(), { description: 'What is doubtful about it; only in answer to a change.' })
    ),
    created_at: time('Since when it has been there.'),
    updated_at: time('When it was changed last.')
  },
  {
    examples: [
      {
        ...EXAMPLE,
        id: ID,
        description: null,
        active: true,
        owner: 'user:alice',
        tags: [],
        instances: [{ id: ID, url: EXAMPLE.base_url, weight: 1 }],
        endpoints: EXAMPLE.endpoints.map(endpoint => ({
          ...endpoint,
          id: ID,
          service_id: ID,
          deprecated: false,
          version: '1.0.0',
          created_at: TIME,
          updated_at: TIME
        })),
        created_at: TIME,
        updated_at: TIME
      }
    ]
  }
) as unknown as TObject

/**
 * The service that a definition makes.
 * @param before what it was; its parts that are still there keep their ids
 * @throws {GatewayError} 422 for addresses that contradict each other
 */
export function serviceOf(
  given: Definition,
  before: RegisteredService | undefined,
  { owner, now }: { owner: string; now: number }
): Omit<RegisteredService, 'revision'> {
  const instances = instancesOf(given, before)
  const settings = Object.fromEntries(
    Object.keys(SETTINGS).flatMap(key => (given[key] === undefined ? [] : [[key, given[key]]]))
  )
  return {
    id: before?.id ?? randomUUID(),
    name: given.name,
    version: given.version ?? null,
    description: given.description ?? null,
    base_url: given.base_url ?? (instances[0] as RegisteredInstance).url,
    active: given.active,
    owner: before?.owner ?? owner,
    tags: [...given.tags],
    settings,
    instances,
    endpoints: endpointsOf(given, before, now),
    created_at: before?.created_at ?? now,
    updated_at: now
  }
}

function instancesOf({ base_url, instances }: Definition, before: RegisteredService | undefined): RegisteredInstance[] {
  if (instances === undefined && base_url === undefined)
    throw invalid('base_url', 'is missing, and so are "instances": one of them has to say where the service is')
  if (instances !== undefined && base_url !== undefined && !instances.some(({ url }) => url === base_url))
    throw invalid('base_url', 'is none of "instances"; leave one of the two out')
  const listed = instances ?? [{ url: base_url as string, weight: 1 }]
  const twice = listed.findIndex(({ url }, i) => listed.findIndex(other => other.url === url) !== i)
  if (twice !== -1) throw invalid(`instances[${twice}].url`, 'is there twice')
  const known = new Map(before?.instances.map(instance => [instance.url, instance.id]))
  return listed.map(({ url, weight }) => ({ id: known.get(url) ?? randomUUID(), url, weight }))
}

function endpointsOf(
  { endpoints, version }: Definition,
  before: RegisteredService | undefined,
  now: number
): RegisteredEndpoint[] {
  const keyOf = ({ method, path }: { method: string; path: string }): string => `${method.toUpperCase()} ${path}`
  const known = new Map(before?.endpoints.map(endpoint => [keyOf(endpoint), endpoint]))
  return endpoints.map(endpoint => {
    const old = known.get(keyOf(endpoint))
    // An id belongs to one; what is there twice is refused when it is compiled.
    known.delete(keyOf(endpoint))
    return {
      id: old?.id ?? randomUUID(),
      path: endpoint.path,
      method: endpoint.method.toUpperCase(),
      name: endpoint.name ?? null,
      description: endpoint.description ?? null,
      public: endpoint.public,
      required_roles: [...endpoint.required_roles],
      deprecated: endpoint.deprecated,
      version: endpoint.version ?? version ?? null,
      created_at: old?.created_at ?? now,
      updated_at: now
    }
  })
}

/** A service as the API shows it (REG-01). */
export function publicService({ settings, revision, ...service }: RegisteredService) {
  const { created_at, updated_at, endpoints, ...rest } = service
  return {
    ...rest,
    ...settings,
    endpoints: endpoints.map(endpoint => publicEndpoint(endpoint, service.id)),
    created_at: new Date(created_at).toISOString(),
    updated_at: new Date(updated_at).toISOString()
  }
}

/** An endpoint as the API shows it (REG-09). */
export function publicEndpoint({ created_at, updated_at, ...endpoint }: RegisteredEndpoint, service_id: string) {
  return {
    ...endpoint,
    service_id,
    created_at: new Date(created_at).toISOString(),
    updated_at: new Date(updated_at).toISOString()
  }
}

/** A 422 about one key of a definition. */
export function invalid(field: string, message: string) {
  return refuse('validation_error', {
    details: `${field} ${message}`,
    fields: [{ field, message, type: 'definition' }]
  })
}
