import type { FastifyPluginAsync } from 'fastify'
import { refuse } from '../src/errors.ts'
import { revocationKey } from '../src/identity/revocation.ts'
import { parseToken } from '../src/identity/token-form.ts'
import { network } from '../src/limits/plan.ts'
import { Type } from '../src/schema.ts'
import { administrators, fromStore, guardOwnEndpoints, validatorCompiler } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'

const DAY_SECONDS = 86_400

/** What administrators do while the gateway runs (ADM-08, RTE-05, RLM-14, RLM-15). */
const admin: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime, control }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })
  app.setValidatorCompiler(validatorCompiler)

  app.get('/routes', { ...administrators('Routes in the order in which they are asked') }, async () => ({
    routes: snapshot.routes.map(({ id, label, service, enabled, methods }) => ({
      id,
      path: label,
      service,
      enabled,
      methods: methods === undefined ? null : [...methods]
    }))
  }))

  const toggle = {
    ...administrators('Switches a route on or off until the gateway starts again'),
    schema: {
      ...administrators('Switches a route on or off until the gateway starts again').schema,
      body: Type.Object({
        id: Type.String({ description: 'Id of the route.' }),
        enabled: Type.Boolean({ description: 'Whether it is to be there.' })
      })
    }
  }
  app.patch<{ Body: { id: string; enabled: boolean } }>('/routes', toggle, async ({ body }) => {
    if (!(await control.setRouteEnabled(body.id, body.enabled)))
      throw refuse('not_found', { details: `There is no route "${body.id}".` })
    return body
  })

  app.get<{ Params: { consumer: string } }>(
    '/rate-limits/:consumer',
    administrators('What a caller has used, and what is left: `user:alice`, `key:ci`, `ip:192.0.2.1`, `global`'),
    async ({ params }) => {
      const consumer = subjectOf(params.consumer)
      const usages = await fromStore(runtime.store.usage(consumer, snapshot.rateLimits))
      return {
        consumer,
        limits: usages.map(({ name, algorithm, limit, windowMs, used, remaining, resetMs }) => ({
          name,
          algorithm,
          limit,
          window_seconds: windowMs / 1000,
          used,
          remaining,
          reset_seconds: Math.ceil(resetMs / 1000)
        }))
      }
    }
  )

  app.delete<{ Params: { consumer: string } }>(
    '/rate-limits/:consumer',
    administrators('Forgets what a caller has used'),
    async ({ params }, reply) => {
      await fromStore(runtime.store.reset(subjectOf(params.consumer), snapshot.rateLimits))
      return reply.code(204).send()
    }
  )

  const revocation = {
    ...administrators('Takes a token back'),
    schema: {
      ...administrators('Takes a token back').schema,
      body: Type.Object({
        jti: Type.Optional(Type.String({ description: 'Id of the token.', minLength: 1 })),
        token: Type.Optional(Type.String({ description: 'The token itself, if it has no id.', minLength: 1 })),
        seconds: Type.Integer({
          description: 'How long to remember it; the life of the token.',
          default: DAY_SECONDS,
          minimum: 1
        })
      })
    }
  }
  app.post<{ Body: { jti?: string; token?: string; seconds: number } }>(
    '/revocations',
    revocation,
    async ({ body }, reply) => {
      const key =
        body.jti ?? (body.token === undefined ? undefined : revocationKey(body.token, parseToken(body.token).payload))
      if (key === undefined) throw refuse('validation_error', { details: 'One of "jti" and "token" is needed.' })
      await fromStore(runtime.revocations.revoke(key, body.seconds * 1000))
      return reply.code(204).send()
    }
  )
}

/** An address is counted with its neighbours, and the name of an IPv6 network has a slash in it, which no parameter may. */
function subjectOf(consumer: string): string {
  return consumer.startsWith('ip:') ? `ip:${network(consumer.slice(3))}` : consumer
}

export default admin
