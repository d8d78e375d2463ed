import type { FastifyPluginCallback } from 'fastify'
import type { Origin, Policy } from '../src/policy.ts'
import authenticate, { jwt } from './authenticate.ts'
import { permissions, requiredRoles } from './authorize.ts'
import bodyLimit from './body-limit.ts'
import conditions from './conditions.ts'
import context from './context.ts'
import cors from './cors.ts'
import deprecated from './deprecated.ts'
import { errorFormat, errors } from './errors.ts'
import idempotency from './idempotency.ts'
import ipFilter, { ipBlock } from './ip-filter.ts'
import requestPriority, { callerPriority } from './overload.ts'
import rateLimit, { preLimit } from './rate-limit.ts'
import securityHeaders from './security-headers.ts'
import telemetry from './telemetry.ts'

/** One concern: a policy that routes ask for, or a Fastify plugin that is there for all. Third parties' have an origin. */
export type Concern = { readonly name: string; readonly origin?: Origin } & (
  | { readonly policy: Policy }
  | { readonly plugin: FastifyPluginCallback<never> }
)

const policy = (policy: Policy): Concern => ({ name: policy.name, policy })

/**
 * THE ORDER in which concerns see a request (contract C-20). A refusal by one is final: the later ones are not asked. Pinned
 * by `test/order.test.ts`, since security depends on it; third parties' policies say next to which of these they stand.
 */
export const order: readonly Concern[] = [
  { name: 'errors', plugin: errors },
  policy(errorFormat),
  { name: 'context', plugin: context },
  { name: 'telemetry', plugin: telemetry },
  policy(ipBlock),
  policy(requestPriority),
  policy(ipFilter),
  policy(securityHeaders),
  policy(cors),
  policy(deprecated),
  policy(preLimit),
  { name: 'jwt', plugin: jwt },
  policy(authenticate),
  policy(callerPriority),
  policy(permissions),
  policy(requiredRoles),
  policy(conditions),
  policy(rateLimit),
  policy(bodyLimit),
  policy(idempotency)
]
