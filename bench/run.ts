import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { stepAside, WHY_NOT_PINNED } from './cores.ts'
import { describeMachine } from './machine.ts'
import { say } from './measure.ts'
import { cleanUpAtTheEnd, stopRest } from './processes.ts'
import { type Findings, page } from './report.ts'
import { balancing } from './sections/balancing.ts'
import { bodies } from './sections/bodies.ts'
import { connections } from './sections/connections.ts'
import { discovery } from './sections/discovery.ts'
import { http } from './sections/http.ts'
import { recording } from './sections/recording.ts'
import { redis } from './sections/redis.ts'
import { reload } from './sections/reload.ts'
import type { Options, Section } from './sections/section.ts'
import { seed004 } from './sections/seed004.ts'
import { coldStart } from './sections/start.ts'
import { websocket } from './sections/websocket.ts'

const SECTIONS: Readonly<Record<string, Section>> = {
  http,
  connections,
  redis,
  recording,
  bodies,
  websocket,
  start: coldStart,
  balancing,
  discovery,
  reload,
  seed004
}

const USAGE = `usage: npm run bench -- [options]
  --section a,b   ${Object.keys(SECTIONS).join(', ')}; all of them if not given
  --only a,b      contenders of the section http: full, resilient, none, bare, naive, express, nginx, nginx-lua, haproxy, caddy, tokens
  --rounds n      visits to each contender, 6 if not given
  --seconds n     length of a window, 4 if not given
  --quick         full, resilient, none and bare over HTTP in less than two minutes
  --save          write bench/RESULTS.md; for whole runs only
`

interface Request extends Options {
  readonly sections: readonly string[]
  readonly save: boolean
}

/** What the command line asks for. @throws with a sentence */
function readRequest(): Request {
  const { values } = parseArgs({
    options: {
      section: { type: 'string' },
      only: { type: 'string' },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      quick: { type: 'boolean', default: false },
      save: { type: 'boolean', default: false }
    }
  })
  const { quick, save } = values
  const sections = values.section?.split(',') ?? (quick || values.only !== undefined ? ['http'] : Object.keys(SECTIONS))
  const unknown = sections.find(name => !Object.hasOwn(SECTIONS, name))
  if (unknown !== undefined) throw new Error(`"${unknown}" is no section`)
  if (save && (quick || values.section !== undefined || values.only !== undefined))
    throw new Error('--save is for whole runs: a page with some of the figures would look like all of them')
  const seconds = wholeNumber('seconds', values.seconds, quick ? 3 : 4)
  return {
    sections,
    save,
    seconds,
    rounds: wholeNumber('rounds', values.rounds, quick ? 4 : 6),
    warmSeconds: seconds * 2,
    only: values.only?.split(',') ?? (quick ? ['full', 'resilient', 'none', 'bare'] : undefined)
  }
}

function wholeNumber(name: string, text: string | undefined, otherwise: number): number {
  if (text === undefined) return otherwise
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} ${text}: a whole number from 1 on`)
  return value
}

async function main(): Promise<number> {
  let request: Request
  try {
    request = readRequest()
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n${USAGE}`)
    return 1
  }
  if (process.platform !== 'linux') {
    process.stderr.write('The measurements read processor time from /proc: they run on Linux only.\n')
    return 1
  }
  cleanUpAtTheEnd()
  const notes = WHY_NOT_PINNED === undefined ? [] : [WHY_NOT_PINNED]
  const heading = [...describeMachine(), ...notes.map(note => `- ${note}`)]
  stepAside()
  const findings: Findings[] = []
  for (const name of request.sections) {
    say(`\n== ${name}`)
    findings.push(await (SECTIONS[name] as Section)(request))
  }
  const report = page(findings, heading)
  process.stdout.write(report)
  if (request.save) writeFileSync(join(import.meta.dirname, 'RESULTS.md'), report)
  return findings.some(({ windows }) => windows.some(({ errors }) => errors > 0)) ? 1 : 0
}

process.exitCode = await main().catch(error => {
  process.stderr.write(`${(error as Error).stack}\n`)
  return 1
})
await stopRest()
process.exit()
