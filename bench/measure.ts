import { busyCpu, cpuOf, ownCpu, residentMb, total, treeOf } from './cpu.ts'
import type { Window } from './figures.ts'
import type { Started } from './processes.ts'

/** What one spell of load came to, as its generator saw it. */
export interface Spell {
  /** Requests, or messages. */
  readonly requests: number
  readonly errors: number
  readonly p50: number
  readonly p99: number
}

/** One who takes part: a process, and how to put load on it. */
export interface Entrant {
  readonly name: string
  readonly process: Started
  load(seconds: number): Promise<Spell>
}

export interface Rounds {
  readonly rounds: number
  /** Length of a window. */
  readonly seconds: number
  /** Load before anything counts: Node goes on getting faster for a good while. */
  readonly warmSeconds: number
  /** The processes behind the contenders, whose work is nobody else's. */
  readonly behind: readonly Started[]
}

export type Measured = ReadonlyMap<string, readonly Window[]>

/**
 * Puts load on all entrants in turn, A B C … C B A …, so that what changes with time changes for all of them. They all run
 * all the time; who has no load does nothing.
 */
export async function measure(entrants: readonly Entrant[], rounds: Rounds): Promise<Measured> {
  const windows = new Map<string, Window[]>(entrants.map(({ name }) => [name, []]))
  for (const entrant of entrants) {
    say(`warming up ${entrant.name}`)
    if (rounds.warmSeconds > 0) await entrant.load(rounds.warmSeconds)
  }
  for (let round = 0; round < rounds.rounds; round++) {
    for (const entrant of round % 2 === 0 ? entrants : entrants.toReversed()) {
      const window = await observe(entrant, round, rounds)
      windows.get(entrant.name)?.push(window)
      const errors = window.errors === 0 ? '' : `, ${window.errors} ERRORS`
      say(
        `round ${round + 1}/${rounds.rounds} ${entrant.name}: ${window.us.toFixed(1)} us, others ${window.foreign.toFixed(2)} core${errors}`
      )
    }
  }
  return windows
}

/** One window: everything that anybody's processor time went into is read before and after. */
async function observe({ process, load }: Entrant, round: number, { seconds, behind }: Rounds): Promise<Window> {
  const pids = treeOf(process.pid)
  const servants = behind.filter(({ pid }) => pid !== process.pid).flatMap(({ pid }) => treeOf(pid))
  const before = { all: busyCpu(), contender: cpuOf(pids), behind: total(cpuOf(servants)), own: total(ownCpu()) }
  const since = performance.now()
  const { requests, errors, p50, p99 } = await load(seconds)
  const elapsed = (performance.now() - since) / 1000
  const contender = cpuOf(pids)
  const spent = total(contender) - total(before.contender)
  const known = spent + total(cpuOf(servants)) - before.behind + total(ownCpu()) - before.own
  return {
    round,
    us: (spent / requests) * 1e6,
    user: ((contender.user - before.contender.user) / requests) * 1e6,
    system: ((contender.system - before.contender.system) / requests) * 1e6,
    requests,
    perSecond: requests / elapsed,
    errors,
    p50,
    p99,
    foreign: Math.max(0, busyCpu() - before.all - known) / elapsed,
    rss: residentMb(pids)
  }
}

/** Progress, for whoever waits; the result alone goes to standard output. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`)
}
