import { WebSocket } from 'ws'
import { requestFields } from '../check.ts'
import { PATH } from '../contenders/contender.ts'
import { fullGateway } from '../contenders/gateway.ts'
import { nginx } from '../contenders/nginx.ts'
import { launch } from '../contest.ts'
import { median, ratio } from '../figures.ts'
import { type Entrant, type Measured, measure, type Spell } from '../measure.ts'
import { type Started, stop } from '../processes.ts'
import { atMost, type Findings, windowTable } from '../report.ts'
import { startNodeService } from '../service.ts'
import type { Options } from './section.ts'

const CONNECTIONS = 64

/** Messages of `bytes` bytes, `window` of them under way on each connection. */
interface Load {
  readonly bytes: number
  readonly window: number
}

const LOADS: readonly Load[] = [
  { bytes: 128, window: 1 },
  { bytes: 4096, window: 4 }
]

/** What a message costs on its way through an open WebSocket; both ways count. */
export async function websocket(options: Options): Promise<Findings> {
  const title = 'WebSocket, per message'
  const contenders = [fullGateway(), nginx]
  const missing = nginx.missing?.()
  if (missing !== undefined) return { title, bars: [], tables: [], notes: [`Skipped: ${missing}.`], windows: [] }
  const service = await startNodeService()
  const running: [string, Started][] = []
  for (const contender of contenders) running.push([contender.name, await launch(contender, service)])

  const measured: [Load, Measured][] = []
  for (const load of LOADS) {
    const entrants = running.map(
      ([name, process]): Entrant => ({ name, process, load: seconds => echo(process.port, load, seconds) })
    )
    measured.push([load, await measure(entrants, { ...options, behind: [service] })])
  }
  await Promise.all([service, ...running.map(([, process]) => process)].map(stop))

  const titles = new Map(contenders.map(({ name, title }) => [name, title]))
  const inWords = ({ bytes, window }: Load) => `${bytes} B, window ${window}`
  return {
    title,
    bars: measured.map(([load, windows]) =>
      atMost(
        `WebSocket, ${inWords(load)}: all policies / nginx`,
        ratio(windows.get('full') ?? [], windows.get('nginx') ?? []),
        1.3
      )
    ),
    tables: measured.map(([load, windows]) =>
      windowTable(`${CONNECTIONS} connections, ${inWords(load)}; us per message`, windows, titles, 'nginx', ratio)
    ),
    notes: [
      'The echoing service and the clients share a core and are the limit on messages per second: trust the CPU.'
    ],
    windows: measured.flatMap(([, windows]) => [...windows.values()].flat())
  }
}

/** Sends messages and waits for them to come back, for so many seconds. A round trip is two messages. */
async function echo(port: number, { bytes, window }: Load, seconds: number): Promise<Spell> {
  const sockets = await Promise.all(Array.from({ length: CONNECTIONS }, () => open(port)))
  const message = Buffer.alloc(bytes, 'm')
  const times: number[] = []
  let errors = 0
  let over = false
  for (const socket of sockets) {
    const sent: number[] = []
    const send = (): void => {
      sent.push(performance.now())
      socket.send(message)
    }
    socket.on('message', (data: Buffer) => {
      if (data.length !== bytes) errors++
      times.push(performance.now() - (sent.shift() as number))
      if (!over) send()
    })
    socket.on('close', () => {
      if (!over) errors++
    })
    for (let i = 0; i < window; i++) send()
  }
  await new Promise(resolve => setTimeout(resolve, seconds * 1000))
  over = true
  await Promise.all(sockets.map(close))
  const sorted = times.toSorted((a, b) => a - b)
  return {
    requests: times.length * 2,
    errors,
    p50: median(times),
    p99: sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN
  }
}

function open(port: number): Promise<WebSocket> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}${PATH}`, {
      headers: requestFields(),
      perMessageDeflate: false
    })
    socket.on('open', () => resolve(socket))
    socket.on('error', reject)
  })
}

function close(socket: WebSocket): Promise<void> {
  return new Promise(resolve => {
    socket.on('close', () => resolve())
    socket.close()
  })
}
