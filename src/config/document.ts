import { resolve } from 'node:path'
import { canonicalKeys, merge, outsideFiles, setAt } from './aliases.ts'
import type { Problem } from './problem.ts'
import { applyEnvironment, doubtfulVariables, readVariables } from './sources/env.ts'
import { type Environment, readConfigFiles } from './sources/file.ts'
import { printOf, type Seen } from './watch.ts'

/** Where a configuration comes from: files, then the environment over them, then the command line. */
export interface ConfigSources {
  readonly files: readonly string[]
  readonly env: Environment
  /** A file of further variables, which those of `env` win over. */
  readonly envFile?: string | undefined
  /** `['server.port', 9000, '--port']` */
  readonly overrides: readonly (readonly [path: string, value: unknown, source: string])[]
  /** What a program says itself, over the files. */
  readonly document?: Readonly<Record<string, unknown>> | undefined
}

/** A document in canonical spelling, and what it was read from. */
export interface SourceDocument {
  readonly document: Record<string, unknown>
  readonly files: readonly string[]
  /** Gets what is looked at beyond the document, as certificates are. */
  readonly seen: Seen
  /** What is wrong with, or doubtful about, the sources themselves. */
  readonly problems: readonly Problem[]
  /** The services that come from the registry: `registry.allow` is about these. */
  readonly registered?: ReadonlySet<string>
}

/**
 * Reads the files and the environment into one document.
 * @param seen gets what was looked at, whether it could be read or not
 * @throws {ConfigError}
 */
export async function readDocument(sources: ConfigSources, seen: Seen = new Map()): Promise<SourceDocument> {
  if (sources.envFile !== undefined) seen.set(resolve(sources.envFile), printOf(sources.envFile))
  const variables = readVariables(sources.env, sources.envFile)
  const { files, problems } = await readConfigFiles(sources.files, variables.values, seen)
  const document: Record<string, unknown> = {}
  for (const file of files) merge(document, canonicalKeys(file.data))
  if (sources.document !== undefined) merge(document, canonicalKeys(structuredClone(sources.document)))
  applyEnvironment(document, variables)
  for (const [path, value, source] of sources.overrides) setAt(document, path, value, outsideFiles(source))
  return {
    document,
    files: files.map(file => file.path),
    seen,
    problems: [...problems, ...doubtfulVariables(variables)]
  }
}
