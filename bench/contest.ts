import { check } from './check.ts'
import type { Contender } from './contenders/contender.ts'
import { CORE } from './cores.ts'
import { say } from './measure.ts'
import { accepting, freePort, type Started, scratch, start, stop } from './processes.ts'
import { BODY } from './service.ts'

/** Contenders that run, and why others do not. */
export interface Field {
  readonly running: ReadonlyMap<string, Started>
  readonly titles: ReadonlyMap<string, string>
  /** A sentence for each contender that could not be had. */
  readonly skipped: readonly string[]
}

/**
 * Starts contenders side by side in front of `service`, and makes sure that each of them does what it is for.
 * @throws when one that can be had does something else
 */
export async function field(contenders: readonly Contender[], service: Started): Promise<Field> {
  const running = new Map<string, Started>()
  const skipped: string[] = []
  for (const contender of contenders) {
    const { name, title } = contender
    const missing = contender.missing?.()
    if (missing !== undefined) {
      skipped.push(`${title}: skipped, since ${missing}.`)
      continue
    }
    say(`starting ${title}`)
    try {
      const started = await launch(contender, service)
      running.set(name, started)
      await check(contender, started.port, BODY)
    } catch (error) {
      throw new Error(`${title}: ${(error as Error).message}`)
    }
  }
  return { running, titles: new Map(contenders.map(({ name, title }) => [name, title])), skipped }
}

/** Starts one contender and waits until it takes connections. */
export async function launch(contender: Contender, service: Started): Promise<Started> {
  const port = await freePort()
  const command = contender.command({ folder: scratch(), port, upstream: service.port })
  return accepting(start(CORE.measured, command, port))
}

export async function dismiss({ running }: Field): Promise<void> {
  await Promise.all([...running.values()].map(stop))
}
