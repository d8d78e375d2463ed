import type { FastifyPluginAsync } from 'fastify'
import { noteChange, writeAudit } from '../src/database/audit.ts'
import type { Database } from '../src/database/database.ts'
import { refuse } from '../src/errors.ts'
import { readTimes } from '../src/identity/claims.ts'
import { revocationKey } from '../src/identity/revocation.ts'
import { parseToken } from '../src/identity/token-form.ts'
import { network } from '../src/limits/plan.ts'
import { compareRoutes } from '../src/routing/table.ts'
import { Type } from '../src/schema.ts'
import { auditOf, fromStore, guardOwnEndpoints, LIMITS_USED, limitsUsed } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { administrators } from './operation.ts'

const CONSUMER = Type.Object({
  consumer: Type.String({
    description: '`user:alice`, `key:ci`, `client:app`, `ip:192.0.2.1` or `global`.',
    examples: ['user:alice']
  })
})
const ROUTE_ID = Type.String({ description: 'Id of the route.', examples: ['orders'] })
const ROUTES = Type.Object({
  routes: Type.Array(
    Type.Object({
      id: ROUTE_ID,
      path: Type.String({ description: 'What it matches.', examples: ['/api/v1/orders/**'] }),
      service: Type.String({ description: 'What is behind it.', examples: ['orders'] }),
      enabled: Type.Boolean({ description: 'Whether it is there.' }),
      methods: Type.Union([Type.Array(Type.String()), Type.Null()], {
        description: 'Methods, or null for any.',
        examples: [['GET', 'HEAD']]
      })
    }),
    { description: 'All of them.' }
  )
})
const SWITCH = Type.Object({
  id: ROUTE_ID,
  enabled: Type.Boolean({ description: 'Whether it is to be there.' })
})
const LIMITS = Type.Object({
  consumer: Type.String({ description: 'Who.', examples: ['user:alice'] }),
  limits: LIMITS_USED
})
const BLOCKED = Type.Object({
  address: Type.String({ description: 'An address, or the /64 of an IPv6 address.', examples: ['192.0.2.1'] })
})
const BLOCKS = Type.Object({
  blocks: Type.Array(
    Type.Object({
      address: Type.String({ description: 'Who may not call.', examples: ['192.0.2.1'] }),
      at: Type.String({ description: 'Since when.', format: 'date-time' }),
      until: Type.String({ description: 'Until when.', format: 'date-time' }),
      reason: Type.String({ description: 'Why.', examples: ['refused again and again as ip:192.0.2.1'] })
    }),
    { description: 'The newest first.' }
  )
})
const BACKUP = Type.Object({
  file: Type.String({
    description: 'Where the copy is, on the gateway’s machine.',
    examples: ['data/sallyport-2026-01-31T09-30-00.000Z.db']
  }),
  bytes: Type.Integer({ description: 'Its size.', examples: [1048576] })
})
const REVOCATION = Type.Object(
  {
    token: Type.Optional(Type.String({ description: 'The token itself.', minLength: 1 })),
    jti: Type.Optional(Type.String({ description: 'Id of the token, for those who do not have it.', minLength: 1 })),
    seconds: Type.Optional(
      Type.Integer({
        description: 'How long to remember it. Not needed with `token`, which says how long it would be good.',
        minimum: 1
      })
    )
  },
  { examples: [{ jti: '7d444840-9dc0-41d2-b16c-1f6f2d5d7d4b', seconds: 3600 }] }
)

/** What administrators do while the gateway runs (ADM-08, RTE-05, RLM-14, RLM-15). */
const admin: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime, control }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })

  const list = administrators('Routes in the order in which they are asked', { answers: { 200: ROUTES } })
  app.get('/routes', { ...list }, async () => ({
    routes: [...snapshot.routes].sort(compareRoutes).map(({ id, label, service, enabled, methods }) => ({
      id,
      path: label,
      service,
      enabled,
      methods: methods === undefined ? null : [...methods]
    }))
  }))

  const toggle = administrators('Switches a route on or off until the gateway starts again', {
    body: SWITCH,
    answers: { 200: SWITCH },
    refuses: ['not_found']
  })
  app.patch<{ Body: { id: string; enabled: boolean } }>('/routes', toggle, async request => {
    const { body } = request
    if (!(await control.setRouteEnabled(body.id, body.enabled)))
      throw refuse('not_found', { details: `There is no route "${body.id}".` })
    await control.siblings?.ask('route', body)
    await noteChange(runtime, {
      ...auditOf(request, runtime),
      action: `route.${body.enabled ? 'enable' : 'disable'}`,
      target: `route:${body.id}`
    })
    return body
  })

  app.get<{ Params: { consumer: string } }>(
    '/rate-limits/:consumer',
    administrators('What a caller has used, and what is left', { params: CONSUMER, answers: { 200: LIMITS } }),
    async ({ params }) => {
      const consumer = subjectOf(params.consumer)
      return { consumer, limits: await limitsUsed(runtime, consumer, snapshot.rateLimits) }
    }
  )

  app.delete<{ Params: { consumer: string } }>(
    '/rate-limits/:consumer',
    administrators('Forgets what a caller has used', { params: CONSUMER, answers: { 204: null } }),
    async (request, reply) => {
      const target = subjectOf(request.params.consumer)
      runtime.suspects.forgive(target)
      await fromStore(runtime.store.reset(target, snapshot.rateLimits))
      await noteChange(runtime, { ...auditOf(request, runtime), action: 'rate_limits.reset', target })
      return reply.code(204).send()
    }
  )

  app.get(
    '/ip-blocks',
    { ...administrators('Addresses that are blocked', { answers: { 200: BLOCKS } }) },
    async () => ({
      blocks: runtime.ipBlocks.list().map(({ address, at, until, reason }) => ({
        address,
        at: new Date(at).toISOString(),
        until: new Date(until).toISOString(),
        reason
      }))
    })
  )

  app.delete<{ Params: { address: string } }>(
    '/ip-blocks/:address',
    administrators('Lets an address call again', {
      params: BLOCKED,
      answers: { 204: null },
      refuses: ['not_found']
    }),
    async (request, reply) => {
      const address = request.params.address.replace(/\/64$/, '')
      const target = `ip:${network(address)}`
      if (!(await runtime.ipBlocks.lift(address))) throw refuse('not_found', { details: `${address} is not blocked.` })
      runtime.suspects.forgive(target)
      await noteChange(runtime, { ...auditOf(request, runtime), action: 'address.unblock', target })
      return reply.code(204).send()
    }
  )

  if (snapshot.storage.database) {
    const backup = administrators('Writes a copy of the SQLite database into the data folder', {
      answers: { 201: BACKUP },
      refuses: ['conflict']
    })
    app.post('/backups', backup, async (request, reply) => {
      const database = runtime.database as Database
      if (database.kind !== 'sqlite')
        throw refuse('conflict', { details: 'The database is PostgreSQL, which pg_dump copies.' })
      const { backUp } = await import('../src/database/backup.ts')
      const made = await backUp(database.db, snapshot.storage.data_dir, runtime.clock.now())
      await writeAudit(database.db, [
        { ...auditOf(request, runtime), action: 'database.backup', target: 'database', outcome: 'changed', after: made }
      ])
      return reply.code(201).send(made)
    })
  }

  const { jwt, issuers } = snapshot.identity
  const skewMs = Math.max(jwt.clock_skew, ...issuers.map(issuer => issuer.clock_skew))
  const revocation = administrators('Takes a token back', { body: REVOCATION, answers: { 204: null } })
  app.post<{ Body: Revocation }>('/revocations', revocation, async (request, reply) => {
    const { key, ttlMs } = readRevocation(request.body, skewMs, runtime.clock.now())
    await fromStore(runtime.revocations.revoke([{ key, ttlMs }]))
    await noteChange(runtime, { ...auditOf(request, runtime), action: 'token.revoke', target: `token:${key}` })
    return reply.code(204).send()
  })
}

interface Revocation {
  readonly token?: string
  readonly jti?: string
  readonly seconds?: number
}

/** Nobody needs to remember anything for longer, in milliseconds: a hundred years. */
const LONGEST_MS = 100 * 365 * 86_400_000

/** Which token is meant, and until when it would be good. @throws {GatewayError} 422 */
function readRevocation(
  { token, jti, seconds }: Revocation,
  skewMs: number,
  now: number
): { key: string; ttlMs: number } {
  if (token !== undefined) {
    const { key, expiresAt } = readToken(token, skewMs)
    const ttlMs = seconds === undefined ? expiresAt - now : seconds * 1000
    return { key, ttlMs: Math.ceil(Math.min(Math.max(ttlMs, 1), LONGEST_MS)) }
  }
  if (jti === undefined) throw refuse('validation_error', { details: 'One of "token" and "jti" is needed.' })
  if (seconds === undefined)
    throw refuse('validation_error', { details: '"jti" needs "seconds": how long the token may still be good.' })
  return { key: jti, ttlMs: seconds * 1000 }
}

function readToken(token: string, skewMs: number): { key: string; expiresAt: number } {
  try {
    const { payload } = parseToken(token)
    return { key: revocationKey(token, payload), expiresAt: readTimes(payload, skewMs).expiresAt }
  } catch {
    throw refuse('validation_error', { details: '"token" is no token that the gateway would ever let in.' })
  }
}

/** An address is counted with its neighbours, and the name of an IPv6 network has a slash in it, which no parameter may. */
function subjectOf(consumer: string): string {
  return consumer.startsWith('ip:') ? `ip:${network(consumer.slice(3))}` : consumer
}

export default admin
