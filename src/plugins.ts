import { existsSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, extname, isAbsolute, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { FastifyPluginCallback } from 'fastify'
import fp from 'fastify-plugin'
import { order as builtIn, type Concern } from '../plugins/index.ts'
import { isMapping } from './config/aliases.ts'
import type { Dialect } from './config/draft.ts'
import { type Position, placeOf } from './config/located.ts'
import { type Problem, Problems, suggestion } from './config/problem.ts'
import { documentSchema } from './config/schema.ts'
import { KEYWORDS } from './config/validate.ts'
import { printOf, type Seen } from './config/watch.ts'
import { rateLimitsSchema } from './limits/settings.ts'
import type { Origin, Policy } from './policy.ts'
import { causeOf } from './policy-hooks.ts'
import type { TSchema } from './schema.ts'

/** A third party's plugin, as `plugins:` names it. */
interface Use {
  readonly use: string
  readonly before?: string
  readonly after?: string
  readonly options?: unknown
}

/** Policies that are there for all routes, and have no key of their own in the document. */
const INTERNAL = new Set(['pre_limit', 'caller_priority', 'ip_block'])

/** What the configuration may say, and who does what it says: the built-in concerns and those that it names itself. */
export interface Concerns {
  readonly order: readonly Concern[]
  readonly dialect: Dialect
  /** Why some plugin is not there. */
  readonly problems: readonly Problem[]
}

let standard: Concerns | undefined

/** The built-in concerns alone. */
export function builtInConcerns(): Concerns {
  standard ??= { order: builtIn, dialect: dialectOf(builtIn, []), problems: [] }
  return standard
}

/**
 * Loads what `plugins:` of a document names and puts each in its place in the order. What cannot be loaded, is no plugin, or
 * stands next to something that is not there is among the problems.
 * @param seen gets the plugins' files
 */
export async function loadConcerns(
  document: Readonly<Record<string, unknown>>,
  seen: Seen = new Map()
): Promise<Concerns> {
  const { plugins } = document
  if (!Array.isArray(plugins) || plugins.length === 0) return builtInConcerns()
  const problems = new Problems(document)
  const order = [...builtIn]
  const policies: Policy[] = []
  for (const [i, use] of plugins.entries()) {
    if (!isMapping(use) || typeof use.use !== 'string') continue // The schema says what is wrong with it.
    const path = ['plugins', i]
    const at = placeOf(use, 'use')?.value
    try {
      const concern = await load(use as unknown as Use, at, seen)
      const place = placeIn(order, use as unknown as Use)
      if (typeof place === 'string') problems.add([...path, use.before === undefined ? 'after' : 'before'], place)
      else if (order.some(other => other.name === concern.name))
        problems.add([...path, 'use'], `is called "${concern.name}", like another concern`)
      else {
        order.splice(place, 0, concern)
        if ('policy' in concern) policies.push(concern.policy)
      }
    } catch (error) {
      problems.add([...path, 'use'], `cannot be loaded: ${(error as Error).message}`)
    }
  }
  return { order, dialect: dialectOf(builtIn, policies, problems.failed), problems: problems.list }
}

/** @throws {Error} with a sentence that says why there is nothing to be had */
async function load(use: Use, at: Position | undefined, seen: Seen): Promise<Concern> {
  const file = locateFile(use.use, at === undefined ? process.cwd() : dirname(resolve(at.file)))
  seen.set(file, printOf(file))
  if (!existsSync(file)) throw new Error('no such file')
  // A changed file is another module. Node never lets go of the one before: a few kilobytes for each change of a plugin.
  const origin: Origin = { file, url: `${pathToFileURL(file)}?v=${statSync(file).mtimeMs}`, at }
  const exported = await importDefault(origin)
  if (isPolicy(exported)) {
    checkSchema(exported.schema)
    return { name: exported.name, policy: exported, origin }
  }
  if (typeof exported !== 'function') throw new Error('has no policy and no Fastify plugin as its default export')
  const name = basename(file, extname(file))
  const plugin = fp(async app => {
    await app.register(exported as FastifyPluginCallback<object>, (use.options ?? {}) as object)
  })
  return { name, plugin: plugin as FastifyPluginCallback<never>, origin }
}

/** A path is meant from the file that names it; anything else is a package, looked for where that file is. */
function locateFile(use: string, folder: string): string {
  if (use.startsWith('.') || isAbsolute(use)) return resolve(folder, use)
  try {
    return createRequire(resolve(folder, 'x.js')).resolve(use)
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === 'MODULE_NOT_FOUND'
      ? new Error(`no such package; a file is named from here: ./${use}`)
      : new Error(causeOf(error, undefined))
  }
}

async function importDefault(origin: Origin): Promise<unknown> {
  await import('./offer.ts')
  try {
    return ((await import(origin.url)) as { default: unknown }).default
  } catch (error) {
    throw new Error(causeOf(error, origin))
  }
}

/** @throws {Error} for a schema that asks for more than options can be held against, or does not say what they are */
function checkSchema(schema: object, path = 'schema'): void {
  for (const [keyword, value] of Object.entries(schema)) {
    if (!KEYWORDS.has(keyword)) throw new Error(`its ${path} uses "${keyword}", which is not understood here`)
    if (keyword === 'properties' || keyword === 'patternProperties') {
      for (const [key, inner] of Object.entries(value as Record<string, object>)) {
        if (keyword === 'properties' && !('description' in inner))
          throw new Error(`its ${path}.${key} has no description, which is what its users have to go by`)
        checkSchema(inner, `${path}.${key}`)
      }
    } else if (keyword === 'items') checkSchema(value as object, `${path}[]`)
    else if (keyword === 'anyOf') for (const inner of value as object[]) checkSchema(inner, path)
  }
}

function isPolicy(value: unknown): value is Policy {
  return (
    isMapping(value) && typeof value.name === 'string' && isMapping(value.schema) && typeof value.compile === 'function'
  )
}

/** Where in the order a plugin goes, or why nowhere. */
function placeIn(order: readonly Concern[], { before, after }: Use): number | string {
  const neighbour = before ?? after
  if (neighbour === undefined) return order.length
  const at = order.findIndex(({ name }) => name.replaceAll('-', '_') === neighbour.replaceAll('-', '_'))
  if (at === -1)
    return `"${neighbour}" is no concern${suggestion(
      neighbour,
      order.map(concern => concern.name)
    )}`
  return before === undefined ? at + 1 : at
}

/** @param someMissing while a plugin cannot be had, nobody knows what its options should be. */
export function dialectOf(builtInOrder: readonly Concern[], others: readonly Policy[], someMissing = false): Dialect {
  const concerns: Record<string, TSchema> = {}
  for (const concern of builtInOrder)
    if ('policy' in concern && !INTERNAL.has(concern.name)) concerns[concern.name] = concern.policy.schema
  const plugins = Object.fromEntries(others.map(policy => [policy.name, policy.schema]))
  return {
    schema: documentSchema(concerns, rateLimitsSchema, someMissing ? null : plugins),
    concerns: Object.keys(concerns)
  }
}
