import { basename } from 'node:path'
import type { FastifyPluginCallback, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import fp from 'fastify-plugin'
import { ConfigError, type Problem } from './config/problem.ts'
import type { Snapshot } from './config/snapshot.ts'
import { GatewayError } from './errors.ts'
import { OptionError, type Origin, type Policy, type PolicyUse, type RouteHooks } from './policy.ts'
import type { Runtime } from './runtime/runtime.ts'

/** What policies are compiled with. */
export interface Compilation {
  readonly snapshot: Snapshot
  readonly runtime: Runtime
  /** Gets what is wrong with options, so that all of it is shown at once. */
  readonly problems: Problem[]
}

/**
 * A policy as the Fastify plugin it is: when a route is added, its options are compiled and its hooks appended to the
 * route's. Since the plugins are registered in order, so are the hooks; a route that does not ask pays nothing.
 * @param origin of a third party's policy: what it does is timed, and what it fails with is told apart
 */
export function policyPlugin(
  policy: Policy,
  origin: Origin | undefined,
  { snapshot, runtime, problems }: Compilation
): FastifyPluginCallback {
  return fp(
    async app => {
      app.addHook('onRoute', options => {
        const { config } = options
        const use = useOf(policy, options, snapshot)
        if (config === undefined || use === undefined) return
        const { route } = config
        try {
          const hooks = policy.compile(use.options as never, { route, scope: use.scope, snapshot, runtime, app })
          if (hooks !== undefined)
            appendHooks(options, origin === undefined ? hooks : observed(hooks, policy.name, runtime))
        } catch (error) {
          if (origin === undefined && !(error instanceof OptionError)) throw error
          const message = error instanceof OptionError ? error.message : `has failed: ${causeOf(error, origin)}`
          addOnce(problems, {
            ...(route?.concerns[policy.name]?.at ?? origin?.at),
            key: policy.name,
            message: route === undefined ? message : `${message} (route ${route.id})`,
            severity: 'error'
          })
        }
      })
    },
    { name: policy.name }
  )
}

/** What a route asks of a policy: its own options, or the policy's for routes that say nothing. */
function useOf(policy: Policy, { config }: RouteOptions, snapshot: Snapshot): PolicyUse | undefined {
  const use = config?.policies?.[policy.name]
  if (use !== undefined || config?.route === undefined || config.route.off.includes(policy.name)) return use
  const options = policy.defaultOptions?.(snapshot)
  return options === undefined ? undefined : { options, scope: config.route.id }
}

/** What stands under the defaults is compiled for many routes, and wrong but once. */
function addOnce(problems: Problem[], problem: Problem): void {
  const { file, line, column } = problem
  const known = problems.some(other => other.file === file && other.line === line && other.column === column)
  if (file === undefined || !known) problems.push(problem)
}

function appendHooks(options: RouteOptions, hooks: RouteHooks): void {
  for (const [name, hook] of Object.entries(hooks) as [keyof RouteHooks, unknown][]) {
    if (hook === undefined) continue
    const present = options[name] as unknown[] | undefined
    options[name] = [...(present === undefined ? [] : [present].flat()), ...[hook].flat()] as never
  }
}

/**
 * Answers of services are written past Fastify, so what a third party's hooks have set with `reply.header` is put with the
 * fields that policies add to every answer. Comes after all concerns, where there are third parties' at all.
 */
export const replyFields: FastifyPluginCallback = fp(
  async app => {
    app.addHook('onRoute', options => {
      if (options.config?.route !== undefined) appendHooks(options, { preHandler: moveFields })
    })
  },
  { name: 'reply-fields' }
)

function moveFields({ exchange }: FastifyRequest, reply: FastifyReply, done: () => void): void {
  for (const [name, values] of Object.entries(reply.getHeaders())) {
    for (const value of [values].flat()) exchange.fields.push(name, String(value))
    reply.removeHeader(name)
  }
  done()
}

type Hook = (this: unknown, ...args: unknown[]) => unknown

/** Hooks that do what `hooks` do, and are timed; with a plugin's name in the log where it fails (PLG-05). */
function observed(hooks: RouteHooks, name: string, runtime: Runtime): RouteHooks {
  const entries = Object.entries(hooks).filter(([, hook]) => hook !== undefined)
  return Object.fromEntries(
    entries.map(([phase, hook]) => [phase, [hook].flat().map(one => observedHook(one as Hook, phase, name, runtime))])
  )
}

/** @throws {OptionError} for a hook that would tell Fastify twice that it is done */
function observedHook(hook: Hook, phase: string, name: string, { clock, metrics }: Runtime): Hook {
  const takesDone = ARGUMENTS[phase] ?? 3
  if (hook.constructor.name === 'AsyncFunction' && hook.length >= takesDone)
    throw new OptionError(`its ${phase} is async and takes "done", too: it has to be one or the other`)
  const series = metrics.plugin(name)
  return function (...args) {
    const [request, reply] = args as [Asked, { sent?: boolean } | undefined]
    const next = args.at(-1) as (...results: unknown[]) => void
    const since = clock.monotonic()
    let running = true
    const over = (error?: unknown): void => {
      if (!running) return
      running = false
      series.observe((clock.monotonic() - since) / 1000)
      if (error instanceof Error && !(error instanceof GatewayError)) request.exchange.reason = `plugin ${name}`
    }
    args[args.length - 1] = (...results: unknown[]) => {
      over(results[0])
      next(...results)
    }
    try {
      const result = hook.apply(this, args)
      if (isThenable(result)) result.then(() => over(), over)
      else if (reply?.sent) over()
      return result
    } catch (error) {
      over(error)
      throw error
    }
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as PromiseLike<unknown> | undefined)?.then === 'function'
}

interface Asked {
  readonly exchange: { reason: string }
}

/** How many arguments a hook of a phase takes that calls `done`; three unless it stands here. */
const ARGUMENTS: Record<string, number> = {
  preParsing: 4,
  preSerialization: 4,
  onSend: 4,
  onError: 4,
  onRequestAbort: 2
}

/** A failure of a third party's plugin, where `plugins:` names it. */
export function pluginFailure(name: string, origin: Origin, error: unknown): ConfigError {
  const message = `has failed: ${causeOf(error, origin)}`
  return new ConfigError([{ ...origin.at, key: name, message, severity: 'error' }])
}

/** `TypeError: x is not a function (maintenance.ts:12)`: in one line, with the line of the plugin's file if it is known. */
export function causeOf(error: unknown, origin: Pick<Origin, 'file'> | undefined): string {
  if (!(error instanceof Error)) return String(error)
  const text = `${error.name === 'Error' ? '' : `${error.name}: `}${error.message.replace(/( imported from |\n).*/s, '')}`
  if (origin === undefined) return text
  const name = basename(origin.file)
  const after = (error.stack ?? '').split(`/${name}`).slice(1)
  const line = after.map(rest => /^(?:\?v=[\d.]+)?:(\d+)/.exec(rest)?.[1]).find(found => found !== undefined)
  return line === undefined ? text : `${text} (${name}:${line})`
}
