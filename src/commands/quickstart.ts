import { rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Invocation } from '../cli.ts'
import type { ConfigSources } from '../config/document.ts'

const ROOT = join(import.meta.dirname, '..', '..')

/** The configuration that is served when none is given. */
const QUICKSTART = join(ROOT, 'examples', 'quickstart.yaml')

/** The sources of a command: those that were given, else the quickstart's. */
export function sourcesOf({ sources, configured }: Invocation): ConfigSources {
  return configured ? sources : { ...sources, files: [QUICKSTART] }
}

/** The secret of the run before: each run of the quickstart has its own. */
export function forgetSecret(dataDir: string): void {
  rmSync(join(dataDir, 'jwt-secret'), { force: true })
}
