import { join } from 'node:path'
import type { Test } from 'tap'
import type { ConfigSources } from '../../src/config/document.ts'
import { ConfigError, type Problem } from '../../src/config/problem.ts'
import { type Loaded, loadConfiguration } from '../../src/gateway.ts'

export const ROOT = join(import.meta.dirname, '..', '..')
export const SEEDS = join(ROOT, 'examples', 'seeds')

/** Texts, or folders of them, by name. */
type Files = NonNullable<Parameters<Test['testdir']>[0]>

/** Loads configurations from files written for the purpose: `{ 'gateway.yaml': '…' }`. The first is the one that is named. */
export function load(t: Test, files: Files, sources: Partial<ConfigSources> = {}): Promise<Loaded> {
  const named = Object.keys(files).slice(0, 1)
  const paths = named.map(name => join(t.testdir(files), name))
  return loadConfiguration({ files: paths, env: {}, overrides: [], ...sources })
}

/** The problems of a configuration that is not good, without the folder in which its files were. */
export async function problemsOf(t: Test, files: Files, sources: Partial<ConfigSources> = {}): Promise<Problem[]> {
  return problemsIn(load(t, files, sources))
}

/** The problems with which a load or a start fails; none when it does not. */
export async function problemsIn(loading: Promise<unknown>): Promise<Problem[]> {
  try {
    await loading
    return []
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.problems.map(problem => ({
      ...problem,
      ...(problem.file === undefined ? {} : { file: problem.file.replace(/^.*\//, '') })
    }))
  }
}
