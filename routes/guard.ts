import rateLimit from '@fastify/rate-limit'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { AuditEntry } from '../src/database/audit.ts'
import { findUser, type User } from '../src/database/users.ts'
import { refuse } from '../src/errors.ts'
import type { Attempt } from '../src/identity/accounts.ts'
import { isUuid } from '../src/identity/claims.ts'
import type { Limit } from '../src/limits/limit.ts'
import { network } from '../src/limits/plan.ts'
import type { Runtime } from '../src/runtime/runtime.ts'
import { Type } from '../src/schema.ts'
import { limitRequest, type StoreTerms, StoreUnreachable } from '../src/store/store.ts'
import type { OwnRoutesOptions } from './index.ts'

/** Requests that one address may make to the gateway's own operations, per minute. */
const PER_MINUTE = 120
const WINDOW_MS = 60_000

/**
 * `@fastify/rate-limit` over our store, so that several gateways count together; before credentials are looked at.
 * @param perMinute requests of one address
 */
export async function guardOwnEndpoints(
  app: FastifyInstance,
  { snapshot, runtime }: Pick<OwnRoutesOptions, 'snapshot' | 'runtime'>,
  perMinute = PER_MINUTE
): Promise<void> {
  await app.register(rateLimit, {
    global: false,
    max: perMinute,
    timeWindow: WINDOW_MS,
    store: createStore(runtime, snapshot.rateLimits, perMinute),
    keyGenerator: request => network(request.exchange.client)
  })
  // A hook of this scope comes before those of its routes, and with them before authentication.
  app.addHook('onRequest', app.rateLimit())
}

/** Who did it, when and from where, for the audit log. */
export function auditOf(
  { exchange, consumer }: FastifyRequest,
  { clock }: Runtime
): Pick<AuditEntry, 'at' | 'actor' | 'clientIp' | 'requestId'> {
  return { at: clock.now(), actor: consumer?.key ?? 'anonymous', clientIp: exchange.client, requestId: exchange.id }
}

/** Who tries to log in, and from where. */
export function attemptOf({ exchange }: FastifyRequest): Attempt {
  return { clientIp: exchange.client, requestId: exchange.id, userAgent: exchange.header('user-agent') }
}

/** The user of the database who asks. @throws {GatewayError} 404 for callers who are none */
export async function userOf({ consumer }: FastifyRequest, { database }: Runtime): Promise<User> {
  const { userId } = consumer ?? {}
  const user = isUuid(userId) && database !== undefined ? await findUser(database.db, userId) : undefined
  if (user === undefined) throw refuse('not_found', { message: 'User not found', reason: 'no_such_user' })
  return user
}

/** What a user lets an application do is not to manage the user's account. @throws {GatewayError} 403 */
export function checkOwn({ consumer }: FastifyRequest): void {
  if (consumer?.grant?.delegated !== true) return
  throw refuse('insufficient_permissions', {
    reason: 'delegated',
    details: 'This is for the user itself, and not for applications that act in its name; those have OAuth’s userinfo.'
  })
}

/** What the store answers. @throws {GatewayError} 503 while it is out of reach */
export async function fromStore<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer
  } catch (error) {
    if (!(error instanceof StoreUnreachable)) throw error
    throw refuse('service_unavailable', { reason: `store ${error.code}`, headers: ['retry-after', '1'] })
  }
}

/** How the limits of a caller stand. */
export const LIMITS_USED = Type.Array(
  Type.Object({
    name: Type.String({ description: 'Which limit.', examples: ['user'] }),
    algorithm: Type.String({ description: 'How it counts.', examples: ['sliding_window'] }),
    limit: Type.Number({ description: 'Requests in a window.', examples: [60] }),
    window_seconds: Type.Number({ description: 'Length of the window, in seconds.', examples: [60] }),
    used: Type.Number({ description: 'Requests used of it.', examples: [12] }),
    remaining: Type.Number({ description: 'Requests left of it.', examples: [48] }),
    reset_seconds: Type.Integer({ description: 'Seconds until all of it is there again.', examples: [34] })
  }),
  { description: 'Limits that have been used.' }
)

/** What a caller has used of his limits. @throws {GatewayError} 503 while the store is out of reach */
export async function limitsUsed({ store }: Runtime, consumer: string, terms: StoreTerms) {
  const usages = await fromStore(store.usage(consumer, terms))
  return usages.map(({ name, algorithm, limit, windowMs, used, remaining, resetMs }) => ({
    name,
    algorithm,
    limit,
    window_seconds: windowMs / 1000,
    used,
    remaining,
    reset_seconds: Math.ceil(resetMs / 1000)
  }))
}

/** Our store in the shape that the plugin asks for. */
function createStore({ store }: Runtime, settings: StoreTerms, perMinute: number) {
  const limit: Limit = {
    // What may be asked more often is counted by itself.
    name: perMinute === PER_MINUTE ? 'own' : `own-${perMinute}`,
    algorithm: 'fixed_window',
    limit: perMinute,
    windowMs: WINDOW_MS,
    burst: perMinute
  }
  // Whoever has to mend the store must get in while it is lost.
  const terms: StoreTerms = { prefix: settings.prefix, lease: settings.lease, on_store_error: 'local' }
  return class GuardStore {
    incr(key: string, callback: (error: Error | null, result?: { current: number; ttl: number }) => void): void {
      Promise.resolve(store.decide([limitRequest(limit, `ip:${key}`, limit.name)], terms)).then(
        ({ allowed, remaining, resetMs }) =>
          callback(null, { current: allowed ? perMinute - remaining : perMinute + 1, ttl: Math.ceil(resetMs) }),
        callback
      )
    }

    child(): this {
      return this
    }
  }
}
