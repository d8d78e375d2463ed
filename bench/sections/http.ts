import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { requestFields } from '../check.ts'
import { caddy } from '../contenders/caddy.ts'
import { type Contender, PATH } from '../contenders/contender.ts'
import { bareGateway, fullGateway } from '../contenders/gateway.ts'
import { haproxy } from '../contenders/haproxy.ts'
import { nginx, nginxLua } from '../contenders/nginx.ts'
import { bareHttpProxy, expressStack, naiveStack } from '../contenders/node-stacks.ts'
import { dismiss, type Field, field } from '../contest.ts'
import { difference, medianOf, ratio, type Window } from '../figures.ts'
import { wrk } from '../load.ts'
import { type Entrant, type Measured, measure } from '../measure.ts'
import { scratch, stop } from '../processes.ts'
import { atMost, type Bar, type Findings, windowTable } from '../report.ts'
import { startService } from '../service.ts'
import { token } from '../tokens.ts'
import { needProgram } from '../tools.ts'
import type { Options } from './section.ts'

const CONNECTIONS = 64
/** What bare @fastify/http-proxy cost on the machine on which the bars were set, in microseconds. */
const REFERENCE_US = 36

const CONTENDERS: readonly Contender[] = [
  fullGateway(),
  fullGateway('resilient', 'Sallyport, all policies, two instances, health checks, breakers, retries, bulkhead', {
    resilient: true
  }),
  bareGateway(),
  bareHttpProxy,
  naiveStack,
  expressStack,
  nginx,
  nginxLua,
  haproxy,
  caddy
]

/** The gateway and its peers side by side: small answers over 64 kept connections. */
export async function http({ only, ...options }: Options): Promise<Findings> {
  const title = 'HTTP/1.1, small answers, 64 connections'
  const missing = needProgram('wrk')
  if (missing !== undefined) return { title, bars: [], tables: [], notes: [`Skipped: ${missing}.`], windows: [] }

  const { service, note } = await startService()
  const wanted = (name: string) => only === undefined || only.includes(name)
  const contest = await field(
    CONTENDERS.filter(({ name }) => wanted(name) || (name === 'full' && wanted('tokens'))),
    service
  )
  const entrants = entrantsOf(contest, wanted)
  const measured = await measure(entrants, { ...options, behind: [service] })
  await dismiss(contest)
  await stop(service)

  const titles = new Map([...contest.titles, ...TOKEN_TITLES])
  return {
    title,
    bars: barsOf(measured),
    tables: [windowTable('Cost of a request', measured, titles, 'bare', ratio)],
    notes: [...(note === undefined ? [] : [note]), ...contest.skipped],
    windows: [...measured.values()].flat()
  }
}

const ONE_TOKEN = 'token-1'
const MANY_TOKENS = 'token-1000'
const TOKEN_TITLES: ReadonlyMap<string, string> = new Map([
  [ONE_TOKEN, 'Sallyport, all policies, 1 token from a script'],
  [MANY_TOKENS, 'Sallyport, all policies, 1000 tokens in turn']
])

function entrantsOf({ running }: Field, wanted: (name: string) => boolean): Entrant[] {
  const headers = requestFields()
  const entrants: Entrant[] = []
  for (const [name, process] of running) {
    if (!wanted(name)) continue
    const url = `http://127.0.0.1:${process.port}${PATH}`
    entrants.push({ name, process, load: seconds => wrk({ url, connections: CONNECTIONS, seconds, headers }) })
  }
  const full = running.get('full')
  if (full === undefined || !wanted('tokens')) return entrants
  // Both from a script, on one process, so that nothing differs but the tokens.
  for (const [name, count] of [
    [ONE_TOKEN, 1],
    [MANY_TOKENS, 1000]
  ] as const) {
    const url = `http://127.0.0.1:${full.port}`
    const script = tokenScript(count)
    entrants.push({
      name,
      process: full,
      load: seconds => wrk({ url, connections: CONNECTIONS, seconds, headers: {}, script })
    })
  }
  return entrants
}

/** A script for wrk that sends requests with `count` tokens of different callers in turn. */
export function tokenScript(count: number): string {
  const list = join(scratch(), `tokens-${count}`)
  const file = join(scratch(), `tokens-${count}.lua`)
  writeFileSync(list, Array.from({ length: count }, (_, i) => token(`user-${i}`)).join('\n'))
  const { Authorization: _, ...others } = requestFields()
  const fields = Object.entries(others)
    .map(([name, value]) => `["${name}"] = "${value}", `)
    .join('')
  writeFileSync(
    file,
    `local requests, next = {}, 0
function init(args)
  for token in io.lines("${list}") do
    requests[#requests + 1] = wrk.format("GET", "${PATH}", { ${fields}["Authorization"] = "Bearer " .. token, ["Host"] = wrk.headers["Host"] })
  end
end
function request()
  next = next % #requests + 1
  return requests[next]
end
`
  )
  return file
}

/** Whom the bars are for: they hold with everything that keeps requests from failing as they do without. */
const SUBJECTS = [
  ['full', 'all policies'],
  ['resilient', 'all policies and resilience']
] as const

function barsOf(measured: Measured): Bar[] {
  const bars: Bar[] = []
  const compare = (a: string, b: string, then: (a: readonly Window[], b: readonly Window[]) => Bar[]): void => {
    const first = measured.get(a)
    const second = measured.get(b)
    if (first !== undefined && second !== undefined) bars.push(...then(first, second))
  }
  const multiple = (b: string, what: string, bar: number, aim?: number) => {
    for (const [name, policies] of SUBJECTS)
      compare(name, b, (subject, other) => [
        atMost(`${policies} / ${what}`, ratio(subject, other), bar, aim === undefined ? {} : { aim })
      ])
  }
  multiple('bare', 'bare @fastify/http-proxy', 0.85, 0.7)
  multiple('naive', 'naive official-plugin stack', 0.27)
  multiple('express', 'express stack', 0.2)
  multiple('caddy', 'plain Caddy', 0.95, 0.8)
  multiple('nginx-lua', 'nginx + Lua', 1.4, 1.15)
  for (const [name, policies] of SUBJECTS)
    compare(name, 'none', (subject, none) => {
      const added = difference(subject, none)
      const bare = measured.get('bare')
      const here = bare === undefined ? Number.NaN : medianOf(bare, window => window.us)
      return [inReference(`${policies} together, over none`, added, here, 5, 2.5)]
    })
  compare(MANY_TOKENS, ONE_TOKEN, (many, one) => [atMost('1000 tokens / one token', ratio(many, one), 1.05)])
  return bars
}

/**
 * A bar in microseconds, for a machine that may be slower than the one on which it was set: what counts is the figure as a
 * part of bare http-proxy's cost, in that machine's microseconds.
 * @param bare the cost of bare http-proxy here; not a number if it was not measured, and then the figure counts as it is
 */
export function inReference(what: string, us: number, bare: number, bar: number, aim?: number): Bar {
  const options = { unit: ' us', digits: 1, ...(aim === undefined ? {} : { aim }) }
  if (Number.isNaN(bare)) return atMost(what, us, bar, options)
  const note = `${us.toFixed(1)} us here, where bare http-proxy takes ${bare.toFixed(0)} us and not ${REFERENCE_US}: ${((us / bare) * 100).toFixed(0)} % of it`
  return atMost(what, (us / bare) * REFERENCE_US, bar, { ...options, note })
}
