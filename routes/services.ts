import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import type { Database } from '../src/database/database.ts'
import { refuse } from '../src/errors.ts'
import type { Consumer } from '../src/identity/consumer.ts'
import { isGranted } from '../src/identity/permissions.ts'
import {
  type Definition,
  definition,
  endpointSchema,
  invalid,
  publicEndpoint,
  publicService,
  serviceOf,
  serviceSchema
} from '../src/registry/definition.ts'
import type { Change, Done, Lookup, Registry } from '../src/registry/registry.ts'
import type { RegisteredService } from '../src/registry/service.ts'
import { checkTargets, type Finding } from '../src/registry/targets.ts'
import { type TObject, Type } from '../src/schema.ts'
import { auditOf, guardOwnEndpoints } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { listing, listOf, type Page, pageQuery, rangeOf } from './listing.ts'
import { type Operation, operation } from './operation.ts'
import { checkIfMatch, etagOf } from './preconditions.ts'
import { healthOf, serviceHealth } from './service-health.ts'

/** Lets a caller who is no administrator register services, and change those that are its own. */
const REGISTER = 'services.register'
/** Lets a caller see what is registered. */
const READ = 'services.read'

interface ListQuery extends Page {
  readonly name?: string
  readonly active?: boolean
  readonly tag?: string
  readonly owner?: string
}

interface OneService {
  readonly Params: { readonly service_id: string }
}

const params = Type.Object({ service_id: Type.String({ description: 'Id of the service.', format: 'uuid' }) })
const ifMatch = (description: string) =>
  Type.Object({ 'if-match': Type.Optional(Type.String({ description })) }) as unknown as TObject

/** Services that are registered while the gateway runs (REG-01 to REG-04, REG-14, REG-15). */
const services: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime, control }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })
  // There are both wherever anybody asks; where only documents are made of this, nobody does.
  const registry = control.registry as Registry
  const database = runtime.database as Database

  app.addHook('preValidation', async ({ method, consumer }) => {
    const wanted = method === 'GET' || method === 'HEAD' ? [READ, REGISTER] : [REGISTER]
    if (consumer === undefined || isAdmin(consumer)) return
    if (!wanted.some(permission => isGranted(consumer.permissions, permission)))
      throw refuse('insufficient_permissions', {
        details: `This needs the role admin or the permission ${wanted.join(' or ')}.`
      })
  })

  app.get<{ Querystring: ListQuery }>(
    '/',
    registration('Services that are registered', {
      query: Type.Object({
        ...pageQuery,
        name: Type.Optional(Type.String({ description: 'Part of the name, in any case.' })),
        active: Type.Optional(Type.Boolean({ description: 'Whether it has routes.' })),
        tag: Type.Optional(Type.String({ description: 'One of its tags.' })),
        owner: Type.Optional(Type.String({ description: 'Who has registered it: `user:alice`.' }))
      }),
      answers: { 200: listOf(serviceSchema) }
    }),
    async request => {
      const { query } = request
      const found = (await registry.services()).filter(wantedBy(query))
      const { limit, offset } = rangeOf(query)
      const page = { data: found.slice(offset, offset + limit).map(publicService), total: found.length }
      return listing(request, query, page, { version: snapshot.gateway.version, now: runtime.clock.now() })
    }
  )

  app.post<{ Body: Definition }>(
    '/',
    registration('Registers a service; its endpoints are served when this is answered', {
      body: definition,
      answers: { 201: serviceSchema },
      refuses: ['conflict']
    }),
    async (request, reply) => {
      const { body } = request
      const doubts = await look(body)
      const service = serviceOf(body, undefined, { owner: ownerOf(request), now: runtime.clock.now() })
      const done = await registry.change({
        name: body.name,
        decide(services, revision) {
          checkName(services, body.name, undefined)
          return changeOf(request, 'service.create', undefined, { ...service, revision })
        }
      })
      reply.header('location', `${request.exchange.path.replace(/\/+$/, '')}/${service.id}`)
      return answer(reply.code(201), done, doubts)
    }
  )

  app.get<OneService>(
    '/:service_id',
    registration('A service', { params, answers: { 200: serviceSchema } }),
    async ({ params }, reply) => {
      const service = await find(params.service_id)
      return reply.header('etag', etagOf(service.revision)).send(publicService(service))
    }
  )

  app.put<OneService & { Body: Definition }>(
    '/:service_id',
    registration('Changes a service: what is not said is as it is for a new one', {
      params,
      headers: ifMatch('`ETag` of the state that is to be changed. Needed.'),
      body: definition,
      answers: { 200: serviceSchema },
      refuses: ['conflict', 'precondition_failed', 'precondition_required']
    }),
    async (request, reply) => {
      const { body, params } = request
      checkMayChange(request, await find(params.service_id))
      const doubts = await look(body)
      const now = runtime.clock.now()
      const done = await registry.change({
        name: body.name,
        decide(services, revision) {
          const before = present(services.byId(params.service_id))
          checkMayChange(request, before)
          checkIfMatch(request, etagOf(before.revision), true)
          checkName(services, body.name, before)
          const after = { ...serviceOf(body, before, { owner: before.owner, now }), revision }
          return changeOf(request, 'service.update', before, after)
        }
      })
      return answer(reply, done, doubts)
    }
  )

  app.delete<OneService>(
    '/:service_id',
    registration('Deregisters a service; its endpoints are gone when this is answered', {
      params,
      headers: ifMatch('`ETag` of the state that is to be deleted; any if not given.'),
      answers: { 204: null },
      refuses: ['precondition_failed']
    }),
    async (request, reply) => {
      const { service_id } = request.params
      const { name } = await find(service_id)
      await registry.change({
        name,
        decide(services) {
          const before = present(services.byId(service_id))
          checkMayChange(request, before)
          checkIfMatch(request, etagOf(before.revision), false)
          return changeOf(request, 'service.delete', before, undefined)
        }
      })
      return reply.code(204).send()
    }
  )

  app.get<OneService>(
    '/:service_id/endpoints',
    registration('Endpoints of a service', {
      params,
      answers: { 200: Type.Object({ endpoints: Type.Array(endpointSchema, { description: 'All of them.' }) }) }
    }),
    async ({ params }) => {
      const { id, endpoints } = await find(params.service_id)
      return { endpoints: endpoints.map(endpoint => publicEndpoint(endpoint, id)) }
    }
  )

  app.get<OneService & { Querystring: { check: boolean } }>(
    '/:service_id/health',
    registration('How the instances of a service are, as this gateway knows it', {
      params,
      query: Type.Object({
        check: Type.Boolean({ description: 'Ask them now, rather than when nothing is known.', default: false })
      }),
      answers: { 200: serviceHealth }
    }),
    async ({ params, query }) => healthOf((await find(params.service_id)).name, runtime, query.check)
  )

  async function find(id: string): Promise<RegisteredService> {
    return present((await registry.services()).find(service => service.id === id))
  }

  /** What is doubtful about a definition. @throws {GatewayError} 422 for one that leads where it must not */
  async function look(body: Definition): Promise<string[]> {
    const urls = [...new Set([body.base_url ?? [], (body.instances ?? []).map(({ url }) => url)].flat())]
    const { faults, doubts } = await checkTargets(urls, snapshot.registry.allow, control.ports)
    const [fault] = faults
    if (fault !== undefined) throw invalid(fieldOf(body, fault), fault.message)
    return [...doubts.map(doubt => `${fieldOf(body, doubt)}: ${doubt.message}`), ...(await unknownRoles(body))]
  }

  /** Roles that nobody can have; who else says which there are, we do not know. */
  async function unknownRoles({ endpoints }: Definition): Promise<string[]> {
    const roles = [...new Set(endpoints.flatMap(({ required_roles }) => required_roles))]
    const { local, issuers } = snapshot.identity
    if (roles.length === 0 || !local || issuers.length > 0) return []
    const rows = await database.db.selectFrom('roles').select('name').where('name', 'in', roles).execute()
    const known = new Set(rows.map(({ name }) => name))
    return roles.filter(role => !known.has(role)).map(role => `required_roles: there is no role "${role}" yet`)
  }

  function changeOf(
    request: FastifyRequest,
    action: string,
    before: RegisteredService | undefined,
    after: RegisteredService | undefined
  ): Change {
    return {
      before,
      after,
      privileged: isAdmin(request.consumer),
      audit: {
        ...auditOf(request, runtime),
        action,
        target: `service:${(after ?? before)?.name}`,
        outcome: 'changed',
        ...(before !== undefined && { before: publicService(before) }),
        ...(after !== undefined && { after: publicService(after) })
      }
    }
  }
}

/** An operation on registered services. */
function registration(summary: string, { refuses = [], ...parts }: Partial<Operation>) {
  const all = ['insufficient_permissions' as const, ...refuses]
  return operation({ summary, tag: 'Services', access: 'user', administrative: true, refuses: all, ...parts })
}

function answer(reply: FastifyReply, { change, warnings }: Done, doubts: readonly string[]): FastifyReply {
  const service = change.after as RegisteredService
  const all = [...doubts, ...warnings]
  return reply
    .header('etag', etagOf(service.revision))
    .send({ ...publicService(service), ...(all.length > 0 && { warnings: all }) })
}

function wantedBy({ name, active, tag, owner }: ListQuery): (service: RegisteredService) => boolean {
  const part = name?.toLowerCase()
  return service =>
    (part === undefined || service.name.toLowerCase().includes(part)) &&
    (active === undefined || service.active === active) &&
    (tag === undefined || service.tags.includes(tag)) &&
    (owner === undefined || service.owner === owner)
}

function isAdmin(consumer: Consumer | undefined): boolean {
  return consumer?.roles.includes('admin') === true
}

function ownerOf({ consumer }: FastifyRequest): string {
  return (consumer as Consumer).key
}

function present(service: RegisteredService | undefined): RegisteredService {
  if (service === undefined) throw refuse('not_found', { details: 'There is no service of this id.' })
  return service
}

/** @throws {GatewayError} 403 for a service of somebody else (H-123) */
function checkMayChange({ consumer }: FastifyRequest, { owner }: RegisteredService): void {
  if (isAdmin(consumer) || consumer?.key === owner) return
  throw refuse('insufficient_permissions', { details: 'The service belongs to somebody else.' })
}

/** @throws {GatewayError} 409 */
function checkName(services: Lookup, name: string, own: RegisteredService | undefined): void {
  const other = services.byName(name)
  if (other === undefined || other.id === own?.id) return
  throw refuse('conflict', {
    details: `The name "${name}" is that of the service ${other.id}, which ${other.owner} has registered.`
  })
}

function fieldOf({ base_url, instances }: Definition, { url }: Finding): string {
  return url === base_url ? 'base_url' : `instances[${instances?.findIndex(instance => instance.url === url)}].url`
}

export default services
