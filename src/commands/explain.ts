import type { IncomingMessage, ServerResponse } from 'node:http'
import { isIP } from 'node:net'
import { type Command, UsageError } from '../cli.ts'
import { placeOf } from '../config/located.ts'
import { reservedPatterns } from '../config/reserved-paths.ts'
import type { RouteConfig, Snapshot } from '../config/snapshot.ts'
import { describeSource } from '../discovery/settings.ts'
import { type GatewayError, refuse } from '../errors.ts'
import { type Loaded, loadConfiguration, withGeneration } from '../gateway.ts'
import { adviceOn } from '../identity/trouble.ts'
import type { Policy, RouteHooks } from '../policy.ts'
import { Exchange, type Upgrade } from '../proxy/exchange.ts'
import { addressSet, Peer } from '../proxy/peer.ts'
import { compileAssignment } from '../releases/experiment.ts'
import { oddsOf, releaseInWords, servicesOf } from '../releases/settings.ts'
import { covers, type Pattern, parsePattern } from '../routing/pattern.ts'
import { mismatch, type RouteMatch } from '../routing/table.ts'
import { http } from '../runtime/node.ts'
import type { Runtime } from '../runtime/runtime.ts'
import { checkAtDoor, expectationFailed, isWebSocket, methodNotOffered } from '../server.ts'
import type { ServiceConfig } from '../upstream/service.ts'
import { sourcesOf } from './quickstart.ts'

/** What one concern did with the request. */
interface Step {
  readonly concern: string
  readonly outcome: 'passes' | 'refuses' | 'answers' | 'not asked for' | 'not reached'
  readonly because: string
  readonly at: string
}

interface Explanation {
  readonly request: { method: string; path: string; host: string; country: string | null }
  readonly route: { id: string; at: string; service: string } | null
  readonly verdict: string
  readonly steps: readonly Step[]
  readonly forward: {
    path: string
    /** Each service that it may go to, and how likely that is. */
    odds: { service: string; variant: string | null; percent: number }[]
    /** Who gets a copy of it. */
    mirror: { service: string; percent: number; compare: boolean } | null
    instances: string[]
    timeout_ms: number
    retries: number
  } | null
  readonly near: readonly { id: string; at: string; because: string }[]
}

/** Routes shown that nearly matched. */
const NEIGHBOURS = 5
const NO_ROUTE = 'no route matches'

const explain: Command = {
  summary: 'Says which route a request takes, why not its neighbours, and what each concern does with it',
  argument: '/path',
  options: {
    request: { type: 'string', short: 'X', value: 'method', description: 'Method of the request; GET if not given' },
    header: { type: 'string', short: 'H', multiple: true, value: 'name: value', description: 'A header field of it' },
    from: { type: 'string', value: 'address', description: 'Address it comes from; 127.0.0.1 if not given' }
  },
  async run(invocation) {
    const [target] = invocation.positionals
    if (target === undefined) throw new UsageError('explain needs a path: sallyport explain -X GET /api/v1/orders')
    const { values } = invocation
    if (values.from !== undefined && !isIP(String(values.from)))
      throw new UsageError(`--from ${values.from}: write an address, such as 192.0.2.1`)
    const loaded = await loadConfiguration(sourcesOf(invocation))
    const explanation = await explainRequest(loaded, {
      method: String(values.request ?? 'GET').toUpperCase(),
      target,
      headers: (values.header as string[] | undefined) ?? [],
      from: String(values.from ?? '127.0.0.1')
    })
    process.stdout.write(invocation.json ? `${JSON.stringify(explanation)}\n` : inText(explanation, loaded.snapshot))
    return 0
  }
}

/** A request that is only thought of. */
export interface Imagined {
  readonly method: string
  readonly target: string
  /** `name: value` */
  readonly headers: readonly string[]
  /** The address it comes from. */
  readonly from: string
}

/** Takes a request through the real route table and the real hooks, up to where it would be forwarded. */
export function explainRequest(loaded: Loaded, imagined: Imagined): Promise<Explanation> {
  const { snapshot, concerns } = loaded
  return withGeneration(loaded, async (generation, runtime) => {
    const exchange = imagine(imagined, snapshot, runtime)
    const turnedAway = attempt(() => enterDoor(exchange, snapshot))
    const request = {
      method: exchange.method,
      path: turnedAway === undefined ? exchange.path : imagined.target,
      host: exchange.host,
      get country() {
        return generation.countryOf === undefined ? null : exchange.country
      }
    }
    const nowhere = (verdict: string): Explanation => ({
      request,
      route: null,
      verdict,
      steps: [],
      forward: null,
      near: []
    })
    if (turnedAway !== undefined) return nowhere(`refused at the door: ${inFull(turnedAway)}`)
    const found = generation.direct(exchange)
    const { refusal } = exchange
    if (found === undefined || refusal?.reason === 'another_door') {
      const near = neighbours(snapshot, exchange, undefined)
      return { ...nowhere(notFound(refusal as GatewayError)), near }
    }
    if ('own' in found) return nowhere(`belongs to ${ownerOf(found, snapshot)}`)
    const route = snapshot.routes.find(({ id }) => id === found.id) as RouteConfig
    const shown = { id: route.id, at: place(route.at), service: route.service }
    const near = neighbours(snapshot, exchange, route)
    if (refusal !== undefined) return { ...nowhere(`refused: ${inFull(refusal)}`), route: shown, near }
    const steps = await walk(
      concerns.order.flatMap(concern => ('policy' in concern ? [concern.policy] : [])),
      route,
      exchange,
      { snapshot, runtime, app: generation.app }
    )
    const stopped = steps.find(step => step.outcome === 'refuses' || step.outcome === 'answers')
    return {
      request,
      route: shown,
      verdict:
        stopped === undefined
          ? `forwarded to ${destinationInWords(route, exchange)}`
          : `${stopped.concern} ${stopped.outcome}: ${stopped.because}`,
      steps,
      forward:
        stopped !== undefined
          ? null
          : {
              path: (found.rewrite?.(exchange) ?? exchange.path) + exchange.search,
              odds: oddsOf(route),
              mirror: route.mirror ?? null,
              instances: servicesOf(route).flatMap(name => placesOf(snapshot.services.get(name) as ServiceConfig)),
              timeout_ms: route.timeoutMs,
              retries: route.retry.attempts
            },
      near
    }
  })
}

/** What Node and the door look at, before anybody asks where a request goes. @throws {GatewayError} */
function enterDoor(exchange: Exchange, { server }: Snapshot): void {
  if (!http.METHODS.includes(exchange.method)) throw refuse('bad_request', { reason: 'HPE_INVALID_METHOD' })
  checkAtDoor(exchange, server, addressSet(server.trusted_proxies))
  if (exchange.method === 'CONNECT') throw methodNotOffered()
  if (!/^100-continue$/i.test(exchange.header('expect') ?? '100-continue')) throw expectationFailed()
}

function notFound({ statusCode, code, reason, details, headers = [] }: GatewayError): string {
  const why = { no_route: NO_ROUTE, another_door: 'belongs to the administration’s own listener' }
  return `${statusCode} ${code}: ${why[reason as keyof typeof why] ?? details ?? `only ${headers[1]}`}`
}

/** Whose an endpoint is that no route of the configuration made. */
function ownerOf({ pattern }: RouteMatch, snapshot: Snapshot): string {
  const own = pattern as Pattern
  const [key, path] = reservedPatterns(snapshot).find(([, path]) => covers(parsePattern(path), own)) ?? []
  return key === undefined ? `a plugin: ${own.source}` : `the gateway itself: ${path} (paths.${key})`
}

function imagine({ method, target, headers, from }: Imagined, snapshot: Snapshot, runtime: Runtime): Exchange {
  const pairs = headers.map((header): [string, string] => {
    const colon = header.indexOf(':')
    if (colon < 1) throw new UsageError(`-H "${header}": write "name: value"`)
    return [header.slice(0, colon).trim(), header.slice(colon + 1).trim()]
  })
  // As a browser shows an address.
  const [, authority = `localhost:${snapshot.server.port}`, rest] = /^https?:\/\/([^/?#]+)([^#]*)/i.exec(target) ?? []
  if (!pairs.some(([name]) => name.toLowerCase() === 'host')) pairs.push(['Host', authority])
  const fields = Object.fromEntries(pairs.map(([name, value]) => [name.toLowerCase(), value]))
  const request = {
    method,
    url: rest === undefined ? target : `${rest.startsWith('/') ? '' : '/'}${rest}`,
    rawHeaders: pairs.flat(),
    headers: fields,
    httpVersionMajor: 1,
    httpVersion: '1.1'
  }
  const peer = new Peer({ remoteAddress: from } as never, addressSet(snapshot.server.trusted_proxies))
  const exchange = new Exchange(
    request as unknown as IncomingMessage,
    {} as ServerResponse,
    peer,
    runtime.requestId(),
    runtime.clock.monotonic()
  )
  if (snapshot.adminListen !== undefined) exchange.atAdminDoor = false
  if (/\bupgrade\b/i.test(fields.connection ?? '') && isWebSocket(request as unknown as IncomingMessage))
    exchange.upgrade = {} as Upgrade
  return exchange
}

function attempt(act: () => void): GatewayError | undefined {
  try {
    act()
    return undefined
  } catch (error) {
    if (error instanceof UsageError) throw error
    return error as GatewayError
  }
}

type Context = Omit<Parameters<Policy['compile']>[1], 'route' | 'scope'>

async function walk(
  policies: readonly Policy[],
  route: RouteConfig,
  exchange: Exchange,
  context: Context
): Promise<Step[]> {
  const steps: Step[] = []
  let stopped = false
  for (const policy of policies) {
    const use =
      route.concerns[policy.name] ??
      (route.off.includes(policy.name) ? undefined : defaultUse(policy, route, context.snapshot))
    const hooks =
      use === undefined ? undefined : policy.compile(use.options as never, { ...context, route, scope: use.scope })
    const at = use === undefined ? '' : place(use.at)
    if (hooks === undefined)
      steps.push({
        concern: policy.name,
        outcome: 'not asked for',
        because: use === undefined ? '' : brief(use.options),
        at
      })
    else if (stopped) steps.push({ concern: policy.name, outcome: 'not reached', because: '', at })
    else {
      const { outcome, because } = await runHooks(hooks, exchange)
      const nothing = policy.name === 'rate_limit' ? 'no limit for this caller' : ''
      steps.push({ concern: policy.name, outcome, because: because || brief(use?.options) || nothing, at })
      stopped = outcome !== 'passes'
    }
  }
  return steps.filter(step => step.concern !== 'errors')
}

function defaultUse(policy: Policy, route: RouteConfig, snapshot: Snapshot) {
  const options = policy.defaultOptions?.(snapshot)
  return options === undefined
    ? undefined
    : {
        options,
        scope: route.id,
        at: policy.name.endsWith('limit') ? placeOf(snapshot.document, 'rate_limits')?.key : undefined
      }
}

/** Calls a policy's hooks as Fastify would. */
function runHooks({ onRequest }: RouteHooks, exchange: Exchange): Promise<Pick<Step, 'outcome' | 'because'>> {
  return new Promise(resolve => {
    const [hook] = [onRequest].flat()
    if (hook === undefined) return resolve({ outcome: 'passes', because: 'acts later' })
    const { request: raw } = exchange
    const request = {
      exchange,
      raw,
      headers: raw.headers,
      method: exchange.method,
      url: raw.url,
      get consumer() {
        return exchange.consumer
      }
    }
    const reply = {
      code: (status: number) => Object.assign(reply, { status }),
      header: () => reply,
      type: () => reply,
      status: 200,
      send: () => resolve({ outcome: 'answers', because: String(reply.status) })
    }
    const { consumer, fields } = exchange
    const before = fields.length
    const done = (error?: Error): void => {
      if (error !== undefined) return resolve({ outcome: 'refuses', because: inFull(error as GatewayError) })
      const who = consumer === exchange.consumer ? '' : `as ${exchange.consumer?.key}`
      resolve({ outcome: 'passes', because: [who, described(exchange, before)].filter(text => text !== '').join(', ') })
    }
    try {
      const result = (hook as (...args: unknown[]) => unknown)(request, reply, done)
      if (result instanceof Promise) result.then(() => done(), done)
    } catch (error) {
      done(error as Error)
    }
  })
}

/** What the log says, what the caller is told, and what whoever runs the gateway can do about it. */
function inFull({ statusCode, code, reason = '', details = '' }: GatewayError): string {
  const advice = adviceOn(reason) ?? ''
  return `${statusCode} ${code}${reason && ` (${reason})`}${details && `: ${details}`}${advice && ` — ${advice}`}`
}

function described(exchange: Exchange, before: number): string {
  const added = exchange.fields.slice(before)
  const pairs = added.flatMap((name, i) => (i % 2 === 0 ? [`${name} ${added[i + 1]}`] : []))
  return pairs.join(', ')
}

function brief(options: unknown): string {
  const text = typeof options === 'string' ? options : JSON.stringify(options)
  return text === undefined || text === '{}' ? '' : text.length > 80 ? `${text.slice(0, 80)}…` : text
}

/** Where it goes: to the one service, to one of several by chance, or to the one that this caller always gets. */
function destinationInWords({ service, release }: RouteConfig, exchange: Exchange): string {
  if (release === undefined) return service
  if (release.kind === 'experiment') {
    const names = release.variants.map(({ name }) => name)
    const { variant, by } = compileAssignment(release, names, () => 0)(exchange)
    if (by !== 'chance') return `${variant}, as always for this ${by} (experiment ${release.name})`
  }
  return releaseInWords(release)
}

function neighbours(snapshot: Snapshot, exchange: Exchange, matched: RouteConfig | undefined): Explanation['near'] {
  const first = exchange.matchPath.split('/').slice(0, 2).join('/')
  return snapshot.routes
    .filter(route => route !== matched)
    .map(route => ({ route, because: route.enabled ? mismatch(route, exchange, false) : 'switched off' }))
    .sort((a, b) => closeness(b.route, first, b.because) - closeness(a.route, first, a.because))
    .slice(0, NEIGHBOURS)
    .map(({ route, because }) => ({
      id: route.id,
      at: place(route.at),
      because: because ?? otherwise(route, matched)
    }))
}

/** Why a route that matches as well does not have the request. */
function otherwise({ version }: RouteConfig, matched: RouteConfig | undefined): string {
  if (version !== undefined && (matched === undefined || matched.version !== undefined))
    return `is version ${version}, and the request wants ${matched?.version ?? 'another'}`
  return `matches, too, but ${matched?.id ?? 'another'} goes first`
}

function closeness(route: RouteConfig, first: string, because: string | undefined): number {
  if (because === undefined) return 3
  return because.startsWith('path') ? Number(route.pattern?.staticPrefix.startsWith(first)) : 2
}

/** Addresses, or who knows them. */
function placesOf({ instances, discovery }: ServiceConfig): string[] {
  if (discovery !== undefined) return [`what ${describeSource(discovery.source)} says`]
  return instances.length === 0 ? ['what registers itself'] : instances.map(({ url }) => url)
}

function place(at: { file: string; line: number } | undefined): string {
  return at === undefined ? 'default' : at.line === 0 ? at.file : `${at.file}:${at.line}`
}

function inText({ request, route, verdict, steps, forward, near }: Explanation, { storage }: Snapshot): string {
  const lines = [
    `${request.method} ${request.path}${request.country === null ? '' : ` from ${request.country || 'a country that is not known'}`}  →  ${route === null ? '' : `route ${route.id} (${route.at}): `}${verdict}`,
    ''
  ]
  const width = Math.max(...steps.map(step => step.concern.length), 8)
  for (const { concern, outcome, because, at } of steps)
    lines.push(`  ${concern.padEnd(width)}  ${outcome.padEnd(13)} ${because}${at === '' ? '' : `  (${at})`}`)
  if (forward !== null) {
    lines.push(
      `  ${'forward'.padEnd(width)}  ${forward.path} to ${forward.instances.join(', ')}; ${forward.timeout_ms / 1000} s for all tries, ${forward.retries} retr${forward.retries === 1 ? 'y' : 'ies'}`
    )
  }
  if (forward?.mirror) {
    const { service, percent, compare } = forward.mirror
    lines.push(`  ${'mirror'.padEnd(width)}  ${percent} % to ${service}${compare ? ', compared' : ''}`)
  }
  if (near.length > 0) lines.push('', 'not these:', ...near.map(({ id, at, because }) => `  ${id} (${at}): ${because}`))
  if (storage.database && verdict.endsWith(NO_ROUTE))
    lines.push(
      '',
      'Services that are registered by the API are not in the files: GET /gateway/routing-rules lists their routes.'
    )
  return `${lines.join('\n')}\n`
}

export default explain
