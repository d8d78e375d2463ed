import httpProxy from '@fastify/http-proxy'
import type { FastifyInstance, RouteHandlerMethod } from 'fastify'
import type { RewriteConfig, RouteConfig, Snapshot } from '../src/config/snapshot.ts'
import type { PolicyUse } from '../src/policy.ts'
import type { Exchange } from '../src/proxy/exchange.ts'
import { compileFallback, LastAnswers } from '../src/proxy/fallback.ts'
import { type ForwardContext, forward } from '../src/proxy/forward.ts'
import { HeaderBlock } from '../src/proxy/headers.ts'
import type { Route } from '../src/proxy/route.ts'
import { type Tunnel, tunnel } from '../src/proxy/tunnel.ts'
import type { Canary } from '../src/releases/canary.ts'
import { Mirror } from '../src/releases/mirror.ts'
import { compileRelease } from '../src/releases/release.ts'
import type { CanaryRelease, MirrorConfig } from '../src/releases/settings.ts'
import { withSegment } from '../src/releases/versions.ts'
import type { Runtime } from '../src/runtime/runtime.ts'
import { Stretches } from '../src/runtime/stretches.ts'
import { quote } from '../src/telemetry/access-log.ts'
import { createBalancer } from '../src/upstream/balancers/balancer.ts'
import type { ServiceConfig } from '../src/upstream/service.ts'
import type { Target } from '../src/upstream/target.ts'

/**
 * Mounts in one context. Fastify asks the children of a context one inside the other whether they are ready, so that a
 * thousand and more side by side exhaust the stack; those of another context begin anew.
 */
const GROUP = 100

/** Methods that a route without `methods` lets through. */
export const ANY_METHOD: ReadonlySet<string> = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])

/** What is never asked: the transport is ours, so the mount must not open one of its own. */
const NO_TRANSPORT = {
  request() {
    throw new Error('requests are forwarded by src/proxy/forward.ts')
  }
}

export interface MountOptions {
  readonly snapshot: Snapshot
  readonly runtime: Runtime
  /** Where open WebSockets are kept, for the drain. */
  readonly tunnels: Set<Tunnel>
  /** Told of every lease that the routes need; the generation gives them back. */
  onLease(key: string): void
}

export interface Mounted {
  readonly routes: Route[]
  /** Whom they lead to. */
  readonly targets: readonly Target[]
  /** Those that begin when the routes are in charge. */
  readonly canaries: readonly Canary[]
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What answers instead of the handler of the mount. */
    forward?: RouteHandlerMethod
  }
}

/**
 * Mounts one `@fastify/http-proxy` per route: it brings the encapsulated context, the methods and the route's `config`, by
 * which the policies find it. The mount's prefix is the route's slot, a URL that no request can spell: which route a
 * request belongs to has been decided at the door, by rules that Fastify's router does not have (C-16).
 */
export async function mountRoutes(
  app: FastifyInstance,
  { snapshot, runtime, tunnels, onLease }: MountOptions
): Promise<Mounted> {
  const context = forwardContext(snapshot, runtime, tunnels)
  // The mount's own handler resolves the destination anew, with three URL objects and the query parsed and written again:
  // 15 % of a request's whole cost, for checks that the door has made already.
  app.addHook('onRoute', options => {
    if (options.config?.forward !== undefined) options.handler = options.config.forward
  })
  const targets = new Map<string, Target>()
  const base = (name: string): Target => {
    const target = targets.get(name) ?? compileTarget(snapshot.services.get(name) as ServiceConfig, runtime, onLease)
    targets.set(name, target)
    return target
  }
  const guarded = (route: RouteConfig, name: string): Target => {
    const use = route.breaker ?? snapshot.breakers.get(name)
    if (!use) return base(name)
    return { ...base(name), breakers: runtime.breakers.acquire(use, { service: name, route: route.id }, onLease) }
  }
  const canaries: Canary[] = []
  const canaryOf = (release: CanaryRelease): Canary => {
    const canary = runtime.canaries.acquire(release, onLease)
    canaries.push(canary)
    return canary
  }
  // Those that no route leads to have their health all the same.
  for (const name of snapshot.services.keys()) base(name)
  const enabled = snapshot.routes.filter(route => route.enabled)
  const routes = enabled.map((config, i) => {
    const targetOf = (name: string): Target => guarded(config, name)
    const fallback =
      config.fallback && compileFallback(config, config.fallback, lastAnswers(config, runtime, onLease), targetOf)
    const mirror = config.mirror && mirrorOf(config, config.mirror, base(config.mirror.service), runtime)
    return compileRoute(config, `/ ${i}`, targetOf, { snapshot, runtime, canaryOf }, { fallback, mirror })
  })
  const stretches = new Stretches(runtime.clock)
  for (let start = 0; start < routes.length; start += GROUP) {
    await app.register(async group => {
      for (const [i, route] of routes.slice(start, start + GROUP).entries()) {
        // Fastify makes a mount when it is waited for.
        await mount(group, route, enabled[start + i] as RouteConfig, context)
        if (stretches.isOver) await stretches.next()
      }
    })
  }
  return { routes, targets: [...targets.values()], canaries }
}

function mount(app: FastifyInstance, route: Route, config: RouteConfig, context: ForwardContext): PromiseLike<unknown> {
  const handler = (request: { readonly exchange: Exchange }): void => {
    const { exchange } = request
    if (exchange.upgrade === undefined) forward(exchange, route, context)
    else tunnel(exchange, exchange.upgrade, route, context)
  }
  return app.register(httpProxy, {
    upstream: 'http://never.invalid',
    undici: NO_TRANSPORT as never,
    prefix: route.slot,
    // '/' would be two routes, the other one behind a slash.
    routes: [''],
    httpMethods: methodsOf(config),
    config: { policies: policiesOf(config), route: config, forward: handler }
  })
}

function methodsOf({ methods, concerns }: RouteConfig): string[] {
  if (methods === undefined) return [...ANY_METHOD]
  return concerns.cors === undefined ? [...methods] : [...new Set([...methods, 'OPTIONS'])]
}

function policiesOf({ concerns }: RouteConfig): Record<string, PolicyUse> {
  return Object.fromEntries(Object.entries(concerns).map(([name, { options, scope }]) => [name, { options, scope }]))
}

function forwardContext(snapshot: Snapshot, runtime: Runtime, tunnels: Set<Tunnel>): ForwardContext {
  const { clock, deadlines, random, pseudonym, metrics, revocations, live, storedKeys } = runtime
  const websocketIdleMs = snapshot.server.timeouts.websocket_idle
  return {
    clock,
    deadlines,
    random,
    pseudonym,
    metrics,
    revocations,
    isOver: consumer => live.isOver(consumer) || storedKeys?.isOver(consumer) === true,
    tunnels,
    websocketIdleMs
  }
}

/** What a route has answered last outlives configurations that say the same of it. */
function lastAnswers(
  { id, fallback }: RouteConfig,
  { leases, clock, lastAnswers }: Runtime,
  onLease: (key: string) => void
): LastAnswers | undefined {
  const cached = fallback?.cached
  if (cached === undefined) return undefined
  const key = `last-answers:${id}:${JSON.stringify(cached)}`
  onLease(key)
  return leases.acquire(
    key,
    () => new LastAnswers(cached, clock, lastAnswers),
    answers => answers.close()
  )
}

function compileTarget(config: ServiceConfig, runtime: Runtime, onLease: (key: string) => void): Target {
  const service = runtime.services.acquire(config, onLease)
  return {
    service,
    balancer: service.balancer,
    breakers: undefined,
    arm: undefined,
    series: runtime.metrics.service(config.name),
    logFields: `,"service":${quote(config.name)}`
  }
}

function mirrorOf(
  { id, label }: RouteConfig,
  config: MirrorConfig,
  target: Target,
  { clock, deadlines, random, log, metrics }: Runtime
): Mirror {
  return new Mirror(config, { route: id, target, series: metrics.mirror(label), clock, deadlines, random, log })
}

function compileRoute(
  config: RouteConfig,
  slot: string,
  targetOf: (name: string) => Target,
  {
    snapshot,
    runtime: { metrics, random },
    canaryOf
  }: Pick<MountOptions, 'snapshot' | 'runtime'> & { readonly canaryOf: (release: CanaryRelease) => Canary },
  { fallback, mirror }: Pick<Route, 'fallback' | 'mirror'>
): Route {
  const authentication = config.concerns.authentication?.options as
    | { forward_credentials?: boolean }
    | string
    | undefined
  const { balancer } = config
  const own =
    balancer === undefined
      ? targetOf
      : (name: string): Target => ({ ...targetOf(name), balancer: createBalancer(balancer, random) })
  return {
    ...config,
    slot,
    target: own(config.service),
    choose: config.release === undefined ? undefined : compileRelease(config.release, own, { random, canaryOf }),
    metrics: metrics.endpoint(config.label),
    logFields: `,"route":${quote(config.id)}`,
    rewrite: compilePath(config),
    varies: config.version !== undefined && snapshot.versioning.vendor !== undefined ? VARIES : undefined,
    fallback,
    mirror,
    answersPreflights: config.concerns.cors !== undefined,
    maxBodyBytes: (config.concerns.body_limit?.options as number | undefined) ?? 0,
    forwardCredentials: typeof authentication === 'object' && authentication.forward_credentials === true
  }
}

/** Answers depend on the media type, where that says the version. */
const VARIES = new HeaderBlock(['vary', 'accept'])

/** The function that makes the path to send, version and all; undefined when it is the one that came. */
function compilePath({
  rewrite,
  segment,
  pattern
}: RouteConfig): ((exchange: Pick<Exchange, 'path'>) => string) | undefined {
  if (segment === undefined) return rewrite === undefined ? undefined : compileRewrite(rewrite, { pattern })
  const send = rewrite === undefined ? undefined : compileRewrite(rewrite, { pattern: segment.whole })
  return exchange => {
    const path = withSegment(exchange.path, segment)
    return send === undefined ? path : send({ path })
  }
}

/** The function that makes the path to send. Parameters are put in as they came, still encoded, so that each stays one segment (H-34). */
function compileRewrite(
  rewrite: RewriteConfig,
  { pattern }: Pick<RouteConfig, 'pattern'>
): (exchange: Pick<Exchange, 'path'>) => string {
  if (rewrite.kind === 'strip') return exchange => afterSegments(exchange.path, rewrite.segments) || '/'
  const { template, segments, keepRest } = rewrite
  const fill = compileTemplate(template, pattern)
  if (!keepRest) return exchange => fill(exchange.path)
  return exchange => {
    const start = fill(exchange.path)
    const rest = afterSegments(exchange.path, segments)
    if (rest === '') return start
    return start.endsWith('/') ? start + rest.slice(1) : start + rest
  }
}

function compileTemplate(template: string, pattern: RouteConfig['pattern']): (path: string) => string {
  const parts = template.split(/\{([^}]*)\}/)
  if (parts.length === 1) return () => template
  const positions = parts.map((name, i) =>
    i % 2 === 0 ? -1 : (pattern?.segments.findIndex(segment => segment.parameter === name) ?? -1)
  )
  return path => {
    const values = path.split('/')
    return parts.map((part, i) => (i % 2 === 0 ? part : (values[(positions[i] as number) + 1] ?? ''))).join('')
  }
}

/** What of `path` follows its first `count` segments, beginning with a slash; '' if nothing does. */
function afterSegments(path: string, count: number): string {
  let at = 0
  for (let i = 0; i < count; i++) {
    at = path.indexOf('/', at + 1)
    if (at === -1) return ''
  }
  return path.slice(at)
}
