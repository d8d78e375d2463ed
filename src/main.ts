import module from 'node:module'
import { join } from 'node:path'

// Modules compiled at one start are there at the next, types stripped; kept with the packages, so that nothing outside this
// folder is touched.
module.enableCompileCache?.(join(import.meta.dirname, '..', 'node_modules', '.cache', 'sallyport'))

// Whoever reads what a command writes may have seen enough: `sallyport config | head`.
process.stdout.on('error', error => {
  if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error
})

const { run } = await import('./cli.ts')
process.exitCode = await run(process.argv.slice(2))
