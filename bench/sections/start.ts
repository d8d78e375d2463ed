import net from 'node:net'
import { requestFields } from '../check.ts'
import { type Contender, PATH } from '../contenders/contender.ts'
import { builtEntry, fullGateway } from '../contenders/gateway.ts'
import { bareHttpProxy } from '../contenders/node-stacks.ts'
import { CORE } from '../cores.ts'
import { cpuOf, residentMb, total } from '../cpu.ts'
import { median } from '../figures.ts'
import { say } from '../measure.ts'
import { freePort, type Started, scratch, start, stop } from '../processes.ts'
import { atMost, type Findings } from '../report.ts'
import { BODY, startService } from '../service.ts'
import type { Options } from './section.ts'

const LEAST_STARTS = 9
/** Pause between two tries to connect, in milliseconds. */
const TRY_MS = 2
/** What bare @fastify/http-proxy took on the machine on which the bar was set, in milliseconds. */
const REFERENCE_MS = 139

interface Start {
  readonly ms: number
  readonly cpuMs: number
  readonly rss: number
}

/** From the start of the process to the first answer of the service, with everything on. */
export async function coldStart({ rounds }: Options): Promise<Findings> {
  const { service } = await startService()
  const built = builtEntry()
  const contenders = [
    fullGateway('sources', 'Sallyport, all policies'),
    ...(built === undefined ? [] : [fullGateway('built', `Sallyport, all policies, ${built}`, { entry: built })]),
    bareHttpProxy
  ]
  const starts = new Map<string, Start[]>()
  for (let round = -1; round < Math.max(LEAST_STARTS, rounds); round++) {
    for (const contender of round % 2 === 0 ? contenders : contenders.toReversed()) {
      const { name } = contender
      const found = await observe(contender, service)
      // The first start fills caches of the file system, and Node's of compiled code.
      if (round >= 0) starts.set(name, [...(starts.get(name) ?? []), found])
      say(`start ${round + 1} ${name}: ${found.ms.toFixed(0)} ms`)
    }
  }
  await stop(service)

  const of = (name: string, figure: (start: Start) => number) => median((starts.get(name) ?? []).map(figure))
  const bare = of('bare', ({ ms }) => ms)
  const bars = contenders
    .filter(({ name }) => name !== 'bare')
    .flatMap(({ name, title }) => {
      const ms = of(name, start => start.ms)
      return [
        atMost(`${title}: start to first answer`, ms, 350, { unit: ' ms', digits: 0 }),
        atMost(`the same, at the reference machine’s speed`, (ms / bare) * REFERENCE_MS, 350, {
          unit: ' ms',
          digits: 0,
          note: `bare http-proxy takes ${bare.toFixed(0)} ms here and not ${REFERENCE_MS}`
        })
      ]
    })
  return {
    title: 'Cold start',
    bars,
    tables: [
      {
        title: `From spawn to the first answer, ${Math.max(LEAST_STARTS, rounds)} starts each`,
        head: ['what', 'ms, median', 'min', 'max', 'CPU ms', 'RSS MB'],
        rows: contenders.map(({ name, title }) => {
          const all = (starts.get(name) ?? []).map(({ ms }) => ms)
          return [
            title,
            of(name, ({ ms }) => ms).toFixed(0),
            Math.min(...all).toFixed(0),
            Math.max(...all).toFixed(0),
            of(name, ({ cpuMs }) => cpuMs).toFixed(0),
            of(name, ({ rss }) => rss).toFixed(0)
          ]
        })
      }
    ],
    notes: ['Files and compiled code are in the caches; the first start after an installation is slower.'],
    windows: []
  }
}

async function observe(contender: Contender, service: Started): Promise<Start> {
  const port = await freePort()
  const command = contender.command({ folder: scratch(), port, upstream: service.port })
  const since = performance.now()
  const process = start(CORE.measured, command, port)
  try {
    for (;;) {
      const status = await firstStatus(port)
      if (status === 200) break
      if (status !== undefined) throw new Error(`${contender.title}: first answer ${status}`)
      if (process.child.exitCode !== null || performance.now() - since > 20_000)
        throw new Error(`${contender.title} does not start: ${process.lastWords()}`)
      await new Promise(resolve => setTimeout(resolve, TRY_MS))
    }
    const ms = performance.now() - since
    return { ms, cpuMs: total(cpuOf([process.pid])) * 1000, rss: residentMb([process.pid]) }
  } finally {
    await stop(process)
  }
}

/** Asks once. @returns the status; undefined when nobody listens yet */
function firstStatus(port: number): Promise<number | undefined> {
  const fields = Object.entries(requestFields()).map(([name, value]) => `${name}: ${value}\r\n`)
  return new Promise(resolve => {
    const socket = net.connect(port, '127.0.0.1', () =>
      socket.write(`GET ${PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n${fields.join('')}\r\n`)
    )
    let text = ''
    socket.setEncoding('latin1')
    const answered = (): void => {
      resolve(Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1] ?? 0))
      socket.destroy()
    }
    socket.on('data', chunk => {
      text += chunk
      if (text.endsWith(BODY)) answered()
    })
    socket.on('end', answered)
    socket.on('error', () => resolve(undefined))
  })
}
