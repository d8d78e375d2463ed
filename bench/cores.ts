import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { which } from './tools.ts'

// Read once, before this process steps aside and has one core left.
const allowed = allowedCores()
const [first = 0, second = 0] = allowed

/** Who runs where: what is measured has a core of its own, the load and the service behind share the other. */
export const CORE = { measured: first, load: second } as const

/** Why processes are not kept apart here; undefined when they are. */
export const WHY_NOT_PINNED: string | undefined =
  allowed.length < 2
    ? 'There is one core: the load competes with what is measured, and nothing is pinned.'
    : which('taskset') === undefined
      ? 'taskset (util-linux) is not installed: nothing is pinned to a core.'
      : undefined

/** `command`, kept on one core if that is possible here. */
export function pinned(core: number, command: readonly string[]): string[] {
  return WHY_NOT_PINNED === undefined ? ['taskset', '-c', String(core), ...command] : [...command]
}

/** Moves this process to the load's core, with everything that it starts and does not pin elsewhere. */
export function stepAside(): void {
  if (WHY_NOT_PINNED === undefined) spawnSync('taskset', ['-apc', String(CORE.load), String(process.pid)])
}

/** The cores that this process may use: `0-1,4` in `/proc/self/status`. */
function allowedCores(): number[] {
  try {
    const list = /^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? ''
    return list.split(',').flatMap(range => {
      const [from = 0, to = from] = range.split('-').map(Number)
      return Array.from({ length: to - from + 1 }, (_, i) => from + i)
    })
  } catch {
    return []
  }
}
