import type { FastifyPluginAsync, FastifyRequest } from 'fastify'
import { MOST_REGISTRATIONS, type Registration } from '../src/database/registrations.ts'
import type { Registrations } from '../src/discovery/registrations.ts'
import { refuse } from '../src/errors.ts'
import { isGranted } from '../src/identity/permissions.ts'
import { invalid } from '../src/registry/definition.ts'
import type { Registry } from '../src/registry/registry.ts'
import { checkTargets } from '../src/registry/targets.ts'
import { type TSchema, Type } from '../src/schema.ts'
import { auditOf, guardOwnEndpoints } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { type Operation, operation } from './operation.ts'

/** With the name of a service behind a colon: lets a caller register instances of that service. */
const REGISTER = 'services.register'
/** Lets a caller see what is registered. */
const READ = 'services.read'

/** Instances say that they are there, several of them from one address. */
const PER_MINUTE = 1200

interface OneService {
  readonly Params: { readonly service: string }
}

interface OneInstance {
  readonly Params: { readonly service: string; readonly instance_id: string }
}

interface Said {
  readonly url: string
  readonly weight: number
  readonly zone?: string | null
  readonly ttl_seconds: number
}

const service = Type.String({ description: 'Name of the service.', maxLength: 100, examples: ['orders'] })
const instanceId = Type.String({
  description: 'What the instance calls itself: letters, digits, `.`, `_`, `:` and `-`.',
  minLength: 1,
  maxLength: 100,
  pattern: '^[\\p{L}\\p{N}][\\p{L}\\p{N}._:-]*$',
  examples: ['orders-1']
})
const params = Type.Object({ service, instance_id: instanceId })

const said = {
  url: Type.String({
    description: 'Its address.',
    pattern: '^https?://',
    maxLength: 2000,
    examples: ['http://10.0.0.1:8080']
  }),
  weight: Type.Integer({ description: 'Its share of the traffic.', default: 1, minimum: 0, maximum: 1_000_000 }),
  zone: Type.Optional(
    Type.Union([Type.String({ maxLength: 100 }), Type.Null()], { description: 'Where it is.', examples: ['eu-1'] })
  ),
  ttl_seconds: Type.Integer({
    description: 'After so many seconds without a heartbeat it is let go of.',
    default: 30,
    minimum: 5,
    maximum: 3600
  })
}

const registration: TSchema = Type.Object({
  id: instanceId,
  service,
  ...said,
  registered_at: Type.String({ description: 'Since when it is there.', format: 'date-time' }),
  renewed_at: Type.String({ description: 'When it was heard of last.', format: 'date-time' })
})

/** Instances that register themselves, and say again and again that they are there (REG-15). */
const serviceInstances: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime, control }) => {
  await guardOwnEndpoints(app, { snapshot, runtime }, PER_MINUTE)
  // There are both wherever anybody asks; where only documents are made of this, nobody does.
  const registrations = runtime.registrations as Registrations
  const registry = control.registry as Registry

  app.addHook('preValidation', async (request: FastifyRequest) => {
    const { service } = request.params as OneService['Params']
    const permissions = request.consumer?.permissions ?? []
    // Without a consumer, authentication has something to say.
    if (request.consumer === undefined || (request.method === 'GET' && isGranted(permissions, READ))) return
    await checkMayRegister(request, service)
  })

  app.get<OneService>(
    '/:service/instances',
    lease('Instances that have registered themselves at a service', {
      params: Type.Object({ service }),
      answers: { 200: Type.Object({ instances: Type.Array(registration, { description: 'All of them.' }) }) }
    }),
    async request => {
      const { service } = request.params
      present(service)
      return { instances: registrations.of(service).map(publicRegistration) }
    }
  )

  app.put<OneInstance & { Body: Said }>(
    '/:service/instances/:instance_id',
    lease('Registers an instance of a service, or says what it is like now', {
      params,
      body: Type.Object(said),
      answers: { 200: registration, 201: registration },
      refuses: ['conflict']
    }),
    async (request, reply) => {
      const { service, instance_id: id } = request.params
      const { url, weight, zone = null, ttl_seconds } = request.body
      present(service)
      await checkUrl(url)
      const owner = request.consumer?.key as string
      const result = await registrations.register(
        { service, id, url, weight, zone, ttl_ms: ttl_seconds * 1000, owner },
        (before, after) => ({
          ...auditOf(request, runtime),
          action: before === undefined ? 'instance.register' : 'instance.update',
          target: `service:${service}`,
          outcome: 'changed',
          ...(before !== undefined && { before: publicRegistration(before) }),
          after: publicRegistration(after)
        })
      )
      if (result === 'full')
        throw refuse('conflict', {
          details: `The service has ${MOST_REGISTRATIONS} instances, which is as many as may register.`
        })
      return reply.code(result.isNew ? 201 : 200).send(publicRegistration(result.registration))
    }
  )

  app.post<OneInstance>(
    '/:service/instances/:instance_id/heartbeat',
    lease('Says that an instance is still there', { params, answers: { 200: registration } }),
    async request => {
      const { service, instance_id } = request.params
      const renewed = await registrations.renew(service, instance_id)
      if (renewed === undefined) throw unknown()
      return publicRegistration(renewed)
    }
  )

  app.delete<OneInstance>(
    '/:service/instances/:instance_id',
    lease('Takes an instance away; what is under way there ends in peace', { params, answers: { 204: null } }),
    async (request, reply) => {
      const { service, instance_id } = request.params
      const gone = await registrations.deregister(service, instance_id, {
        ...auditOf(request, runtime),
        action: 'instance.deregister',
        target: `service:${service}`,
        outcome: 'changed',
        before: { id: instance_id }
      })
      if (!gone) throw unknown()
      return reply.code(204).send()
    }
  )

  /** Administrators, whoever has the permission for this service, and who has registered it. @throws {GatewayError} 403 */
  async function checkMayRegister({ consumer }: FastifyRequest, service: string): Promise<void> {
    const { roles = [], permissions = [], key } = consumer ?? {}
    if (roles.includes('admin') || isGranted(permissions, `${REGISTER}:${service}`)) return
    const own = async () => (await registry.services()).some(({ name, owner }) => name === service && owner === key)
    if (isGranted(permissions, REGISTER) && (await own())) return
    throw refuse('insufficient_permissions', {
      details: `This needs the role admin or the permission ${REGISTER}:${service}.`
    })
  }

  /** @throws {GatewayError} 404 for a service that is not served here */
  function present(service: string): void {
    if (!snapshot.services.has(service)) throw refuse('not_found', { details: 'There is no service of this name.' })
  }

  /** @throws {GatewayError} 422 for what is no address, or leads where it must not (H-123) */
  async function checkUrl(url: string): Promise<void> {
    const { username = '', search = '', hash = '' } = URL.parse(url) ?? { username: 'none' }
    if (username !== '' || search !== '' || hash !== '')
      throw invalid('url', 'has to be scheme, host, port and perhaps a path, and nothing else')
    const { faults } = await checkTargets([url], snapshot.registry.allow, control.ports)
    const [fault] = faults
    if (fault !== undefined) throw invalid('url', fault.message)
  }
}

function unknown() {
  return refuse('not_found', { details: 'There is no such instance: it has to register again.' })
}

function lease(summary: string, { refuses = [], ...parts }: Partial<Operation>) {
  const all = ['insufficient_permissions' as const, ...refuses]
  return operation({ summary, tag: 'Services', access: 'user', administrative: true, refuses: all, ...parts })
}

function publicRegistration({ service, id, url, weight, zone, ttl_ms, created_at, renewed_at }: Registration) {
  return {
    id,
    service,
    url,
    weight,
    zone,
    ttl_seconds: ttl_ms / 1000,
    registered_at: new Date(created_at).toISOString(),
    renewed_at: new Date(renewed_at).toISOString()
  }
}

export default serviceInstances
