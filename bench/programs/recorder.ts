import { join } from 'node:path'
import { pino } from 'pino'
import { openDatabase } from '../../src/database/database.ts'
import type { Exchange } from '../../src/proxy/exchange.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { MemoryStore } from '../../src/store/memory.ts'
import { LabelledCounter } from '../../src/telemetry/metrics.ts'
import { Recorder } from '../../src/traffic/recorder.ts'

/**
 * What recording costs by itself: processor microseconds per request, of the thread that serves and of the whole process, as two
 * numbers. Requests do not come by a socket, so that nothing else is measured. Arguments: folder, callers, requests a second.
 */
const [folder = '', callers = '1', perSecond = '10000'] = process.argv.slice(2)
const SECONDS = 20
const DAY = 86_400_000

const log = pino({ level: 'silent' })
const clock = systemClock
const database = await openDatabase({ data_dir: join(folder, `recorder-${callers}`) }, { clock, log })
const recorder = new Recorder({
  database,
  store: new MemoryStore(clock),
  clock,
  random: Math.random,
  log,
  dropped: new LabelledCounter(),
  node: 'bench'
})
recorder.configure({
  requests_per_second: 50,
  keep: { requests: DAY, minutes: DAY, hours: DAY, audit: 30 * DAY }
})

const route = { id: 'r', label: '/api/**', serviceMetrics: { service: 'orders' } }
const exchanges = Array.from({ length: Number(perSecond) }, (_, i) => {
  const id = `user-${i % Number(callers)}`
  const consumer = { key: `user:${id}`, id, kind: 'user' }
  const answer = { status: 200, errorCode: '', bytesIn: 0, bytesOut: 1198, durationMs: 1 + (i % 100) / 10 }
  const request = { client: '127.0.0.1', method: 'GET', path: '/api/orders', tunnelled: false }
  return { route, consumer, ...request, ...answer } as unknown as Exchange
})

async function second(): Promise<void> {
  for (const exchange of exchanges) recorder.observe(exchange)
  await recorder.flush()
}

for (let i = 0; i < 3; i++) await second()
const before = { thread: process.threadCpuUsage(), all: process.cpuUsage() }
for (let i = 0; i < SECONDS; i++) await second()
const thread = process.threadCpuUsage(before.thread)
const all = process.cpuUsage(before.all)
const requests = SECONDS * exchanges.length
process.stdout.write(
  `${JSON.stringify([(thread.user + thread.system) / requests, (all.user + all.system) / requests])}\n`
)
await recorder.close()
await database.close()
