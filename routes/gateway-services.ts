import type { FastifyPluginAsync } from 'fastify'
import type { RouteConfig } from '../src/config/snapshot.ts'
import { refuse } from '../src/errors.ts'
import type { RegisteredService } from '../src/registry/service.ts'
import { oddsOf, servicesOf } from '../src/releases/settings.ts'
import { compareRoutes } from '../src/routing/table.ts'
import { oneOf, Type } from '../src/schema.ts'
import { DEFAULT_BALANCER } from '../src/upstream/balancing-settings.ts'
import { writtenCheck } from '../src/upstream/health/settings.ts'
import { BREAKER, breakerDetails } from './breaker-details.ts'
import { guardOwnEndpoints } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { listing, listOf, type Page, pageQuery, rangeOf } from './listing.ts'
import { administrators } from './operation.ts'
import { healthOf, publicInstances, serviceHealth } from './service-health.ts'

const text = (description: string, example: string) => Type.String({ description, examples: [example] })
const orNull = (description: string, example: string) =>
  Type.Union([Type.String(), Type.Null()], { description, examples: [example] })
const list = (description: string, examples: readonly string[]) =>
  Type.Union([Type.Array(Type.String()), Type.Null()], { description, examples: [examples] })
const block = (description: string) => Type.Unknown({ description, examples: [null] })

const NAME = Type.Object({ name: text('Name of the service.', 'orders') })

const serviceDetails = Type.Object({
  name: text('Its name.', 'orders'),
  source: oneOf(['files', 'registry'], { description: 'Who has brought it along.' }),
  id: orNull('Id of a registered service.', '7d444840-9dc0-41d2-b16c-1f6f2d5d7d4b'),
  description: orNull('For people.', 'Everything about orders'),
  active: Type.Boolean({ description: 'Whether this gateway serves it.', examples: [true] }),
  problem: Type.Union([Type.String(), Type.Null()], {
    description: 'Why a registered service that should be served is not.',
    examples: [null]
  }),
  instances: Type.Array(Type.Unknown(), {
    description: 'Its addresses, and how they were when they were asked last.',
    examples: [[{ id: '0', url: 'http://orders:8080', weight: 1, healthy: true, response_time_ms: 1.4 }]]
  }),
  load_balancer_type: text('Which instance is asked.', 'weighted_round_robin'),
  health_check: block('How they are asked how they are.'),
  timeout_config: block('`timeouts`, if it has its own.'),
  retry_config: block('`retry`, if it has its own.'),
  circuit_breaker: block('`circuit_breaker`, if it has its own.'),
  discovery: block('How it stands with who says where its instances are, if somebody does.'),
  circuit_breakers: Type.Array(BREAKER, { description: 'Those that stand before it, and how they are.' })
})

const routingRule = Type.Object({
  id: text('Its id.', 'GET /api/v1/orders'),
  path: text('What it matches.', '/api/v1/orders'),
  methods: list('Methods; null for any.', ['GET', 'HEAD']),
  hosts: list('Host names; null for any.', ['api.example.com']),
  priority: Type.Integer({ description: 'Higher goes first.', examples: [0] }),
  service: text('What is behind it.', 'orders'),
  odds: Type.Array(Type.Unknown(), {
    description: 'Each service that its requests may go to, and how many of a hundred at the beginning.',
    examples: [[{ service: 'orders', variant: null, percent: 100 }]]
  }),
  endpoint: orNull('Its name among the service’s endpoints.', 'orders.list_orders'),
  enabled: Type.Boolean({ description: 'Whether it is there.', examples: [true] }),
  authentication: text('Whether callers have to say who they are.', 'required'),
  required_roles: Type.Array(Type.String(), { description: 'Roles of which they need one.', examples: [['user']] }),
  source: orNull('Where it comes from: a file and line, or a service.', 'gateway.yaml:14')
})

/** All services and routes, whoever has brought them along (REG-05 to REG-08). */
const gatewayServices: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime, control }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })

  app.get<{ Querystring: Page & { name?: string } }>(
    '/services',
    administrators('All services, of the files and registered', {
      query: Type.Object({
        ...pageQuery,
        name: Type.Optional(Type.String({ description: 'Part of the name, in any case.' }))
      }),
      answers: { 200: listOf(serviceDetails) }
    }),
    async request => {
      const { query } = request
      const part = query.name?.toLowerCase() ?? ''
      const found = (await allServices()).filter(({ name }) => name.toLowerCase().includes(part))
      return pageOf(request, query, found)
    }
  )

  app.get<{ Params: { name: string } }>(
    '/services/:name',
    administrators('A service by its name', { params: NAME, answers: { 200: serviceDetails } }),
    async ({ params }) => {
      const service = (await allServices()).find(({ name }) => name === params.name)
      if (service === undefined) throw refuse('not_found', { details: `There is no service "${params.name}".` })
      return service
    }
  )

  app.post<{ Params: { name: string } }>(
    '/services/:name/health-check',
    administrators('Asks the instances of a service how they are', { params: NAME, answers: { 200: serviceHealth } }),
    async ({ params }) => {
      if (!snapshot.services.has(params.name))
        throw refuse('not_found', { details: `No service "${params.name}" is served.` })
      return healthOf(params.name, runtime, true)
    }
  )

  app.get<{ Querystring: Page & { service?: string } }>(
    '/routing-rules',
    administrators('All routes, of the files and registered, in the order in which they are asked', {
      query: Type.Object({
        ...pageQuery,
        service: Type.Optional(Type.String({ description: 'Name of the service behind them.' }))
      }),
      answers: { 200: listOf(routingRule) }
    }),
    async request => {
      const { query } = request
      const found = snapshot.routes.filter(
        route => query.service === undefined || servicesOf(route).includes(query.service)
      )
      return pageOf(request, query, found.sort(compareRoutes).map(ruleOf))
    }
  )

  function pageOf(request: { url: string }, query: Page, found: readonly unknown[]) {
    const { limit, offset } = rangeOf(query)
    const page = { data: found.slice(offset, offset + limit), total: found.length }
    return listing(request, query, page, { version: snapshot.gateway.version, now: runtime.clock.now() })
  }

  /** By name; registered ones that are not served included. */
  async function allServices() {
    const registered = new Map((await control.registry?.services())?.map(service => [service.name, service]))
    const names = new Set([...snapshot.services.keys(), ...registered.keys()])
    return [...names].sort().map(name => detailsOf(name, registered.get(name)))
  }

  function detailsOf(name: string, registered: RegisteredService | undefined) {
    const served = snapshot.services.get(name)
    const problem = registered && control.registry?.whyLeftOut(registered)
    // What is left out has given its name to another.
    const service = problem === undefined ? served : undefined
    const live = service && runtime.services.get(name)
    const settings = ((snapshot.document.services ?? {}) as Record<string, Record<string, unknown>>)[name] ?? {}
    return {
      name,
      source: registered === undefined ? 'files' : 'registry',
      id: registered?.id ?? null,
      description: registered?.description ?? settings.description ?? null,
      active: service !== undefined,
      problem: problem ?? null,
      instances: live === undefined ? ((service ?? registered)?.instances ?? []) : publicInstances(live, runtime),
      load_balancer_type: (served?.balancer ?? DEFAULT_BALANCER).type,
      health_check: served?.healthCheck === undefined ? null : writtenCheck(served.healthCheck),
      timeout_config: settings.timeouts ?? null,
      retry_config: settings.retry ?? null,
      circuit_breaker: settings.circuit_breaker ?? null,
      discovery: runtime.watches.of(name)?.state() ?? null,
      circuit_breakers: runtime.breakers
        .all()
        .filter(breaker => breaker.service === name)
        .map(breaker => breakerDetails(breaker, runtime))
    }
  }
}

function ruleOf(route: RouteConfig) {
  const { id, label, methods, hosts, priority, service, endpoint, enabled, concerns, at } = route
  const authentication = concerns.authentication?.options as string | { mode?: string } | undefined
  return {
    id,
    path: label,
    methods: methods === undefined ? null : [...methods],
    hosts: hosts ?? null,
    priority,
    service,
    odds: oddsOf(route),
    endpoint: endpoint ?? null,
    enabled,
    authentication: (typeof authentication === 'object' ? authentication.mode : authentication) ?? 'required',
    required_roles: (concerns.required_roles?.options as readonly string[] | undefined) ?? [],
    source: at === undefined ? null : at.line === 0 ? at.file : `${at.file}:${at.line}`
  }
}

export default gatewayServices
