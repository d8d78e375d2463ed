import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { CORE } from '../cores.ts'
import { residentMb } from '../cpu.ts'
import { median } from '../figures.ts'
import { say } from '../measure.ts'
import { accepting, freePort, type Started, scratch, start, stop } from '../processes.ts'
import { atMost, type Findings } from '../report.ts'
import { startService } from '../service.ts'
import type { Options } from './section.ts'

/** Changes per configuration; the first is left out, since code is still being compiled. */
const SWAPS = 6
const METER = join(import.meta.dirname, '..', 'programs', 'stall-meter.mjs')

interface Swap {
  /** From the signal to the first answer of the new configuration, in milliseconds. */
  readonly ms: number
  /** Longest time that the event loop was held, in milliseconds. */
  readonly stallMs: number
}

interface Observed {
  readonly prefixes: number
  /** From the start of the process until it takes connections, in milliseconds. */
  readonly startMs: number
  readonly swaps: readonly Swap[]
  /** The longest time that the event loop was held while nothing changed: what the machine does to it. */
  readonly idleMs: number
  readonly requests: number
  /** Requests that failed or were not answered with 200. */
  readonly lost: number
  readonly rss: number
}

/** What a change of a large configuration costs the requests that are served meanwhile. */
export async function reload(_options: Options): Promise<Findings> {
  const { service } = await startService()
  const observed: Observed[] = []
  for (const prefixes of [100, 1000, 5000]) observed.push(await observe(prefixes, service))
  await stop(service)
  const thousand = observed[1] as Observed
  const held = (swaps: readonly Swap[]) => median(swaps.map(({ stallMs }) => stallMs))
  const worst = (swaps: readonly Swap[]) => Math.max(...swaps.map(({ stallMs }) => stallMs))
  return {
    title: 'Change of configuration',
    bars: [
      atMost('1000 prefixes: event loop held at a change', held(thousand.swaps), 100, {
        unit: ' ms',
        digits: 0,
        note: `${thousand.idleMs.toFixed(0)} ms while nothing changes`
      }),
      atMost(
        'requests lost at changes, of all',
        observed.reduce((sum, { lost }) => sum + lost, 0),
        0,
        { digits: 0 }
      )
    ],
    tables: [
      {
        title: `${SWAPS - 1} changes each, one request after the other on fresh connections meanwhile`,
        head: [
          'prefixes',
          'start ms',
          'change ms, median',
          'held ms, median',
          'held ms, max',
          'held ms, no change',
          'requests',
          'lost',
          'RSS MB'
        ],
        rows: observed.map(({ prefixes, startMs, swaps, idleMs, requests, lost, rss }) => [
          String(prefixes),
          startMs.toFixed(0),
          median(swaps.map(({ ms }) => ms)).toFixed(0),
          held(swaps).toFixed(0),
          worst(swaps).toFixed(0),
          idleMs.toFixed(0),
          String(requests),
          String(lost),
          rss.toFixed(0)
        ])
      }
    ],
    notes: [
      'Each change moves every prefix. "Held" is the longest delay of the event loop, collections of garbage included.'
    ],
    windows: []
  }
}

async function observe(prefixes: number, service: Started): Promise<Observed> {
  const port = await freePort()
  const file = join(scratch(), `reload-${prefixes}.json`)
  const stalls = join(scratch(), `stalls-${prefixes}`)
  writeFileSync(file, configuration(prefixes, 0, port, service.port))
  const since = performance.now()
  const command = [process.execPath, '--import', METER, 'src/main.ts', '-c', file]
  const gateway = await accepting(start(CORE.measured, command, port, { STALLS: stalls }))
  const startMs = performance.now() - since
  const load = { requests: 0, lost: 0, running: true }
  const served = serve(port, load)
  const swaps: Swap[] = []
  await stallOf(gateway, stalls)
  for (let version = 1; version <= SWAPS; version++) {
    writeFileSync(file, configuration(prefixes, version, port, service.port))
    const from = performance.now()
    gateway.child.kill('SIGHUP')
    while ((await statusOf(port, `/p0/v${version}/x`)) !== 200) await pause(2)
    const ms = performance.now() - from
    // What the change leaves behind is part of it.
    await pause(500)
    const stallMs = await stallOf(gateway, stalls)
    say(`reload, ${prefixes} prefixes: ${ms.toFixed(0)} ms, held ${stallMs.toFixed(0)} ms`)
    if (version > 1) swaps.push({ ms, stallMs })
  }
  await pause(2000)
  const idleMs = await stallOf(gateway, stalls)
  load.running = false
  await served
  const rss = residentMb([gateway.pid])
  await stop(gateway)
  return { prefixes, startMs, swaps, idleMs, requests: load.requests, lost: load.lost, rss }
}

function configuration(prefixes: number, version: number, port: number, upstream: number): string {
  const routes = Array.from({ length: prefixes }, (_, i) => ({
    path: `/p${i}/v${version}/**`,
    service: `s${i % 50}`,
    authentication: 'none',
    rate_limit: { requests_per_minute: 1_000_000 }
  }))
  const services = Array.from({ length: 50 }, (_, i) => [`s${i}`, { url: `http://127.0.0.1:${upstream}` }])
  return JSON.stringify({
    server: { host: '127.0.0.1', port },
    storage: { database: false, data_dir: join(scratch(), 'data') },
    logging: { format: 'json' },
    defaults: { cors: { origins: ['https://app.example.com'] }, security_headers: {} },
    services: Object.fromEntries(services),
    routes: [{ path: '/steady', service: 's0', authentication: 'none' }, ...routes]
  })
}

/** One request after the other, each on a connection of its own. */
async function serve(port: number, load: { requests: number; lost: number; running: boolean }): Promise<void> {
  while (load.running) {
    load.requests++
    if ((await statusOf(port, '/steady')) !== 200) load.lost++
    await pause(1)
  }
}

/** @returns 0 for a request that fails */
function statusOf(port: number, path: string): Promise<number> {
  return new Promise(resolve => {
    http
      .get({ host: '127.0.0.1', port, path, agent: false }, response => {
        response.on('error', () => resolve(0))
        response.on('end', () => resolve(response.statusCode ?? 0))
        response.resume()
      })
      .on('error', () => resolve(0))
  })
}

async function stallOf(gateway: Started, file: string): Promise<number> {
  rmSync(file, { force: true })
  gateway.child.kill('SIGUSR2')
  for (;;) {
    try {
      const text = readFileSync(file, 'utf8')
      if (text !== '') return Number(text)
    } catch {
      // It has not been written yet.
    }
    await pause(2)
  }
}
