import http from 'node:http'
import { requestFields } from '../check.ts'
import { type Contender, PATH } from '../contenders/contender.ts'
import { fullGateway } from '../contenders/gateway.ts'
import { nginx } from '../contenders/nginx.ts'
import { bareHttpProxy } from '../contenders/node-stacks.ts'
import { launch } from '../contest.ts'
import { cpuOf, residentMb, total, treeOf } from '../cpu.ts'
import { median } from '../figures.ts'
import { say } from '../measure.ts'
import { type Started, stop } from '../processes.ts'
import { atMost, type Findings } from '../report.ts'
import { startNodeService } from '../service.ts'
import type { Options } from './section.ts'

const SIZE = 100 * 2 ** 20
/** Transfers each way before anything counts: a fresh Node process grows, whatever it does. */
const WARM = 2
/** How often memory is looked at, in milliseconds. */
const LOOK_MS = 5

const DIRECTIONS = { down: 'down 100 MiB', up: 'up 100 MiB' } as const
type Direction = keyof typeof DIRECTIONS

interface Transfer {
  /** MB that memory grew by at most, during the transfer. */
  readonly growth: number
  readonly peak: number
  readonly cpuMs: number
  readonly mbPerSecond: number
}

/** Large bodies: whether anybody keeps them. */
export async function bodies({ rounds }: Options): Promise<Findings> {
  const service = await startNodeService()
  const contenders: Contender[] = [fullGateway(), bareHttpProxy, nginx].filter(
    ({ missing }) => missing?.() === undefined
  )
  const running: [Contender, Started][] = []
  for (const contender of contenders) running.push([contender, await launch(contender, service)])
  const transfers = new Map<string, Transfer[]>()
  const fresh = new Map<string, number>()
  for (let round = -WARM; round < rounds; round++) {
    for (const [{ name }, process] of round % 2 === 0 ? running : running.toReversed()) {
      for (const direction of Object.keys(DIRECTIONS) as Direction[]) {
        const transfer = await observe(process, direction)
        const key = `${name} ${direction}`
        if (!fresh.has(key)) fresh.set(key, transfer.growth)
        if (round >= 0) transfers.set(key, [...(transfers.get(key) ?? []), transfer])
        say(`round ${round + 1}/${rounds} ${key}: RSS + ${transfer.growth.toFixed(0)} MB`)
      }
    }
  }
  await Promise.all([service, ...running.map(([, process]) => process)].map(stop))

  const of = (key: string, figure: (transfer: Transfer) => number) => median((transfers.get(key) ?? []).map(figure))
  const growth = (direction: Direction) => of(`full ${direction}`, transfer => transfer.growth)
  const row = (direction: Direction, { name, title }: Contender) => {
    const key = `${name} ${direction}`
    return [
      DIRECTIONS[direction],
      title,
      of(key, t => t.mbPerSecond).toFixed(0),
      of(key, t => t.cpuMs).toFixed(0),
      (fresh.get(key) ?? Number.NaN).toFixed(0),
      of(key, t => t.growth).toFixed(0),
      Math.max(...(transfers.get(key) ?? []).map(t => t.growth)).toFixed(0),
      Math.max(...(transfers.get(key) ?? []).map(t => t.peak)).toFixed(0)
    ]
  }
  return {
    title: '100 MiB bodies',
    bars: (['down', 'up'] as const).map(direction =>
      atMost(`${DIRECTIONS[direction]}: RSS growth`, growth(direction), 50, { unit: ' MB', digits: 0 })
    ),
    tables: [
      {
        title: 'One transfer at a time',
        head: [
          'direction',
          'contender',
          'MB/s',
          'CPU ms',
          'RSS growth MB, first time',
          'then, median',
          'largest',
          'peak RSS MB'
        ],
        rows: (['down', 'up'] as const).flatMap(direction => contenders.map(contender => row(direction, contender)))
      }
    ],
    notes: [
      `Growth is the most that memory was above its size before the transfer, looked at every ${LOOK_MS} ms; the first ${WARM} transfers each way are not in the median. nginx keeps uploads and what it cannot pass on in files, with its buffering at the defaults.`
    ],
    windows: []
  }
}

async function observe(process: Started, direction: Direction): Promise<Transfer> {
  const pids = treeOf(process.pid)
  const before = residentMb(pids)
  const cpu = total(cpuOf(pids))
  let peak = before
  const looking = setInterval(() => {
    peak = Math.max(peak, residentMb(pids))
  }, LOOK_MS)
  const since = performance.now()
  try {
    await (direction === 'down' ? download(process.port) : upload(process.port))
  } finally {
    clearInterval(looking)
  }
  return {
    growth: Math.max(peak, residentMb(pids)) - before,
    peak,
    cpuMs: (total(cpuOf(pids)) - cpu) * 1000,
    mbPerSecond: SIZE / 1e6 / ((performance.now() - since) / 1000)
  }
}

/** @throws when less, or more, than was asked for comes */
async function download(port: number): Promise<void> {
  const response = await send({ port, path: `${PATH}?size=${SIZE}`, headers: requestFields() })
  let bytes = 0
  for await (const chunk of response) bytes += (chunk as Buffer).length
  if (bytes !== SIZE) throw new Error(`${bytes} bytes came of ${SIZE}`)
}

/** @throws when the service has not counted all of it */
async function upload(port: number): Promise<void> {
  const headers = { ...requestFields(), 'content-length': SIZE }
  const response = await send({ port, path: PATH, method: 'POST', headers }, SIZE)
  let counted = ''
  for await (const chunk of response) counted += String(chunk)
  if (counted !== String(SIZE)) throw new Error(`the service counted "${counted.slice(0, 100)}"`)
}

function send(options: http.RequestOptions, body = 0): Promise<http.IncomingMessage> {
  return new Promise((resolve, reject) => {
    const request = http.request({ host: '127.0.0.1', agent: false, ...options }, resolve)
    request.on('error', reject)
    const piece = Buffer.alloc(65536, 'a')
    let left = body
    const more = (): void => {
      while (left > 0) {
        const next = left < piece.length ? piece.subarray(0, left) : piece
        left -= next.length
        if (!request.write(next)) {
          request.once('drain', more)
          return
        }
      }
      request.end()
    }
    more()
  })
}
