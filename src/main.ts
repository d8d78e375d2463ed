#!/usr/bin/env node
import module from 'node:module'
import { join } from 'node:path'

// Modules compiled at one start are there at the next, types stripped; kept with the packages, so that nothing outside this
// folder is touched.
module.enableCompileCache?.(join(import.meta.dirname, '..', 'node_modules', '.cache', 'sallyport'))

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
if (major < 24 || (major === 24 && minor < 9)) {
  process.stderr.write(
    `Sallyport needs Node 24.9 or newer, and this is ${process.version}; install it from https://nodejs.org\n`
  )
  process.exit(1)
}

// Whoever reads what a command writes may have seen enough: `sallyport config | head`.
process.stdout.on('error', error => {
  if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error
})

const { run } = await import('./cli.ts')
process.exitCode = await run(process.argv.slice(2))
