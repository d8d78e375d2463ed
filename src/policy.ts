import type { FastifyInstance, RouteOptions } from 'fastify'
import type { Position } from './config/located.ts'
import type { RouteConfig, Snapshot } from './config/snapshot.ts'
import type { Consumer } from './identity/consumer.ts'
import type { Exchange } from './proxy/exchange.ts'
import type { Runtime } from './runtime/runtime.ts'
import type { Static, TSchema } from './schema.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** This request, from the door to the log line. */
    exchange: Exchange
    /** Who calls; undefined until, and unless, somebody has found out. */
    readonly consumer: Consumer | undefined
  }
  interface FastifyContextConfig {
    /** Options of the policies that this route asks for, by name. */
    policies?: Readonly<Record<string, PolicyUse>>
    /** The route of the configuration, for those that are not the gateway's own. */
    route?: RouteConfig
    /** Names of the policies that have been compiled for this route. */
    compiled?: Set<string>
  }
}

/** Options of a policy on one route, and where they were written. */
export interface PolicyUse {
  readonly options: unknown
  /** `defaults`, `services.orders` or the route's id. */
  readonly scope: string
}

/** Fastify's hooks, under Fastify's own names; a policy returns those that it needs. */
export type RouteHooks = Pick<
  RouteOptions,
  | 'onRequest'
  | 'preParsing'
  | 'preValidation'
  | 'preHandler'
  | 'preSerialization'
  | 'onSend'
  | 'onResponse'
  | 'onError'
  | 'onRequestAbort'
>

/** What `compile` may look at. */
export interface PolicyContext {
  /** The route that asks; undefined for one of the gateway's own endpoints. */
  readonly route: RouteConfig | undefined
  /** Where the options were written: what counts together when they limit something. */
  readonly scope: string
  readonly snapshot: Snapshot
  readonly runtime: Runtime
  /** The generation's Fastify app. */
  readonly app: FastifyInstance
}

/** Where a third party's plugin comes from. */
export interface Origin {
  readonly file: string
  /** What it was imported as; another one when the file has changed. */
  readonly url: string
  /** Where the configuration names it. */
  readonly at: Position | undefined
}

/** A concern that routes can ask for. Built-in ones and third parties' are made alike. */
export interface Policy<S extends TSchema = TSchema> {
  /** The key under which it stands in the configuration. */
  readonly name: string
  /** Its options. Descriptions and defaults are its documentation. */
  readonly schema: S
  /** Options for routes that say nothing of this policy; without it, or when it returns undefined, those do without. */
  readonly defaultOptions?: (snapshot: Snapshot) => unknown
  /**
   * Before the first `compile`, for what has to outlive configurations; also for those who only look at one, as `check`
   * does. Once, and again when the policy's file has changed. Nothing ever undoes it: what it opens stays open, and should
   * not keep the process from ending (`unref`).
   */
  readonly setup?: (runtime: Runtime) => void | Promise<void>
  /**
   * Turns options into hooks, once per route and configuration. Synchronous, without I/O and timers: what can be decided
   * here costs requests nothing. Returns undefined when there is nothing to do. @throws {OptionError}
   */
  compile(options: NoInfer<Static<S>>, context: PolicyContext): RouteHooks | undefined
}

/** Thrown by `compile` for options that contradict each other; shown with the place where they were written. */
export class OptionError extends Error {}

/** Whether nobody asks a route's callers who they are. */
export function isAnonymous(route: Pick<RouteConfig, 'concerns'> | undefined): boolean {
  const options = route?.concerns.authentication?.options
  const mode = typeof options === 'object' && options !== null ? (options as { mode?: unknown }).mode : options
  return mode === 'none'
}

/**
 * Describes a policy.
 *
 * @example
 * export default definePolicy({
 *   name: 'maintenance',
 *   schema: Type.Object({ message: Type.String({ description: 'What callers are told.', default: 'Back soon.' }) }),
 *   compile: ({ message }) => ({
 *     onRequest: (_request, _reply, done) => done(refuse('service_unavailable', { details: message }))
 *   })
 * })
 */
export function definePolicy<S extends TSchema>(policy: Policy<S>): Policy {
  // Held against each other, the types of all options would take longer to check than everything else here.
  return policy as unknown as Policy
}
