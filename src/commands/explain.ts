import type { IncomingMessage, ServerResponse } from 'node:http'
import { isIP } from 'node:net'
import { compileRewrite } from '../../routes/proxy.ts'
import { type Command, UsageError } from '../cli.ts'
import { placeOf } from '../config/located.ts'
import { reservedPatterns } from '../config/normalise.ts'
import type { RouteConfig, Snapshot } from '../config/snapshot.ts'
import type { GatewayError } from '../errors.ts'
import { type Loaded, loadConfiguration, withGeneration } from '../gateway.ts'
import { adviceOn } from '../identity/trouble.ts'
import type { Policy, RouteHooks } from '../policy.ts'
import { Exchange } from '../proxy/exchange.ts'
import { addressSet, Peer } from '../proxy/peer.ts'
import { parsePattern } from '../routing/pattern.ts'
import { mismatch, RouteTable } from '../routing/table.ts'
import type { Runtime } from '../runtime/runtime.ts'
import { sourcesOf } from './quickstart.ts'

/** What one concern did with the request. */
interface Step {
  readonly concern: string
  readonly outcome: 'passes' | 'refuses' | 'answers' | 'not asked for' | 'not reached'
  readonly because: string
  readonly at: string
}

interface Explanation {
  readonly request: { method: string; path: string; host: string }
  readonly route: { id: string; at: string; service: string } | null
  readonly verdict: string
  readonly steps: readonly Step[]
  readonly forward: { path: string; instances: string[]; timeout_ms: number; retries: number } | null
  readonly near: readonly { id: string; at: string; because: string }[]
}

/** Routes shown that nearly matched. */
const NEIGHBOURS = 5

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
    process.stdout.write(invocation.json ? `${JSON.stringify(explanation)}\n` : inText(explanation))
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
  return withGeneration(loaded, async ({ app }, runtime) => {
    const exchange = imagine(imagined, snapshot, runtime)
    const request = { method: exchange.method, path: exchange.path, host: exchange.host }
    const refused = attempt(() => {
      exchange.readFields(addressSet(snapshot.server.trusted_proxies))
      exchange.readTarget()
    })
    if (refused !== undefined)
      return nothing(
        { ...request, path: imagined.target },
        `refused at the door: ${refused.statusCode} ${refused.code} (${refused.reason})`,
        snapshot,
        exchange
      )
    const own = reservedPatterns(snapshot.paths).find(
      ([, path]) => new RouteTable([ownRoute(path)]).match(exchange) !== undefined
    )
    if (own !== undefined)
      return nothing(
        { ...request, path: exchange.path },
        `belongs to the gateway itself: ${own[1]} (paths.${own[0]})`,
        snapshot,
        exchange
      )
    const table = new RouteTable(snapshot.routes.filter(route => route.enabled))
    const route = table.match(exchange)
    if (route === undefined) {
      const allowed = table.allowedMethods(exchange)
      return nothing(
        { ...request, path: exchange.path },
        allowed.length === 0 ? '404 not_found: no route matches' : `405 method_not_allowed: only ${allowed.join(', ')}`,
        snapshot,
        exchange
      )
    }
    exchange.route = { ...route, service: { name: route.service } } as never
    const steps = await walk(
      concerns.order.flatMap(concern => ('policy' in concern ? [concern.policy] : [])),
      route,
      exchange,
      { snapshot, runtime, app }
    )
    const stopped = steps.find(step => step.outcome === 'refuses' || step.outcome === 'answers')
    const service = snapshot.services.get(route.service)
    return {
      request: { ...request, path: exchange.path },
      route: { id: route.id, at: place(route.at), service: route.service },
      verdict:
        stopped === undefined
          ? `forwarded to ${route.service}`
          : `${stopped.concern} ${stopped.outcome}: ${stopped.because}`,
      steps,
      forward:
        stopped !== undefined || service === undefined
          ? null
          : {
              path:
                (route.rewrite === undefined ? exchange.path : compileRewrite(route.rewrite, route)(exchange)) +
                exchange.search,
              instances: service.instances.map(({ url }) => url),
              timeout_ms: route.timeoutMs,
              retries: route.retry.attempts
            },
      near: neighbours(snapshot, exchange, route)
    }
  })
}

function ownRoute(path: string) {
  return { id: path, pattern: parsePattern(path), headers: [], query: [], priority: 0, catchAll: false }
}

function imagine({ method, target, headers, from }: Imagined, snapshot: Snapshot, runtime: Runtime): Exchange {
  const pairs = headers.map((header): [string, string] => {
    const colon = header.indexOf(':')
    if (colon < 1) throw new UsageError(`-H "${header}": write "name: value"`)
    return [header.slice(0, colon).trim(), header.slice(colon + 1).trim()]
  })
  if (!pairs.some(([name]) => name.toLowerCase() === 'host')) pairs.push(['Host', `localhost:${snapshot.server.port}`])
  const fields = Object.fromEntries(pairs.map(([name, value]) => [name.toLowerCase(), value]))
  const request = {
    method,
    url: target,
    rawHeaders: pairs.flat(),
    headers: fields,
    httpVersionMajor: 1,
    httpVersion: '1.1'
  }
  const peer = new Peer({ remoteAddress: from } as never, addressSet(snapshot.server.trusted_proxies))
  return new Exchange(
    request as unknown as IncomingMessage,
    {} as ServerResponse,
    peer,
    runtime.requestId(),
    runtime.clock.monotonic()
  )
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
      steps.push({ concern: policy.name, outcome, because: because || brief(use?.options), at })
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
      because: because ?? `matches, too, but ${matched?.id ?? 'another'} goes first`
    }))
}

function closeness(route: RouteConfig, first: string, because: string | undefined): number {
  if (because === undefined) return 3
  return because.startsWith('path') ? Number(route.pattern?.staticPrefix.startsWith(first)) : 2
}

function nothing(
  request: Explanation['request'],
  verdict: string,
  snapshot: Snapshot,
  exchange: Exchange
): Explanation {
  return { request, route: null, verdict, steps: [], forward: null, near: neighbours(snapshot, exchange, undefined) }
}

function place(at: { file: string; line: number } | undefined): string {
  return at === undefined ? 'default' : at.line === 0 ? at.file : `${at.file}:${at.line}`
}

function inText({ request, route, verdict, steps, forward, near }: Explanation): string {
  const lines = [
    `${request.method} ${request.path}  →  ${route === null ? '' : `route ${route.id} (${route.at}): `}${verdict}`,
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
  if (near.length > 0) lines.push('', 'not these:', ...near.map(({ id, at, because }) => `  ${id} (${at}): ${because}`))
  return `${lines.join('\n')}\n`
}

export default explain
