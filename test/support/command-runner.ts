import { run } from '../../src/cli.ts'

/** A command line that the other end wants run, and where. */
export interface Job {
  readonly args: readonly string[]
  readonly cwd: string
  readonly env: Readonly<Record<string, string | undefined>>
}

/** What came of it. */
export interface Done {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs one command line after the other in this process, each as if it were alone here; see commands.ts. */
process.on('message', async ({ args, cwd, env }: Job) => {
  process.chdir(cwd)
  process.env = { ...env }
  const written = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const)
    process[name].write = (text: string | Uint8Array) => {
      written[name] += text
      return true
    }
  const status = await run(args)
  process.send?.({ status, ...written } satisfies Done)
})
