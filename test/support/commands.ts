import { type ChildProcess, fork, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import root, { type Test } from 'tap'
import type { Done, Job } from './command-runner.ts'
import { ROOT } from './config.ts'

const MAIN = join(ROOT, 'src', 'main.ts')
const seen = new Set<string>()
let runner: ChildProcess | undefined

/**
 * Runs a command line. The first of each command in a file has a process of its own, as a user's has; the others share one,
 * since starting it is nearly all that they would take.
 */
export async function runCommand(t: Test, job: Job): Promise<Done> {
  const [command = ''] = job.args
  const done = seen.has(command) ? await runShared(job) : runAlone(job)
  seen.add(command)
  t.notMatch(done.stdout + done.stderr, /\.ts:\d+:\d+\)?$/m, 'no stack')
  return done
}

function runAlone({ args, cwd, env }: Job): Done {
  return spawnSync(process.execPath, [MAIN, ...args], { cwd, encoding: 'utf8', env })
}

async function runShared(job: Job): Promise<Done> {
  if (runner === undefined) {
    // A user's Node has no options, as that of this file has.
    runner = fork(join(import.meta.dirname, 'command-runner.ts'), { execArgv: [] })
    root.teardown(() => runner?.disconnect())
  }
  runner.send(job)
  const [done] = await once(runner, 'message')
  return done
}
