import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'

/** What the kernel has charged for work, in seconds: since the start of a process, or of the machine. */
export interface CpuTime {
  readonly user: number
  readonly system: number
}

let ticks = 0

/** The kernel counts processor time in ticks; how many make a second. */
function ticksPerSecond(): number {
  if (ticks === 0) ticks = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }))
  return ticks
}

/** Fields of `/proc/<pid>/stat` from the third on (proc(5)); undefined for a process that is gone. */
function statOf(pid: number | 'self'): string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  } catch {
    return undefined
  }
}

/** A process and all that descend from it: nginx's workers do what its master is asked to. */
export function treeOf(pid: number): number[] {
  const children = new Map<number, number[]>()
  for (const name of readdirSync('/proc')) {
    const parent = /^\d+$/.test(name) ? Number(statOf(Number(name))?.[1] ?? 0) : 0
    if (parent > 0) children.set(parent, [...(children.get(parent) ?? []), Number(name)])
  }
  const tree = [pid]
  for (const member of tree) tree.push(...(children.get(member) ?? []))
  return tree
}

/** Processor time of `pids` so far, those of their children included that have ended. */
export function cpuOf(pids: readonly number[]): CpuTime {
  let user = 0
  let system = 0
  for (const pid of pids) {
    const stat = statOf(pid)
    user += Number(stat?.[11] ?? 0) + Number(stat?.[13] ?? 0)
    system += Number(stat?.[12] ?? 0) + Number(stat?.[14] ?? 0)
  }
  return { user: user / ticksPerSecond(), system: system / ticksPerSecond() }
}

/** Processor time of this process and of the children that it has seen the end of; a load generator is one of them. */
export function ownCpu(): CpuTime {
  return cpuOf([process.pid])
}

/** Processor time that all cores have spent on anything at all, in seconds. */
export function busyCpu(): number {
  const line = readFileSync('/proc/stat', 'latin1').split('\n', 1)[0] as string
  const [user, nice, system, , , irq, softirq, steal] = line.split(/\s+/).slice(1).map(Number) as number[]
  return [user, nice, system, irq, softirq, steal].reduce<number>((sum, n) => sum + (n ?? 0), 0) / ticksPerSecond()
}

/** Resident memory of `pids` together, in MB of 2^20 bytes. */
export function residentMb(pids: readonly number[]): number {
  let kb = 0
  for (const pid of pids) {
    try {
      kb += Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? 0)
    } catch {
      // Gone; it holds nothing any more.
    }
  }
  return kb / 1024
}

export const total = ({ user, system }: CpuTime): number => user + system
