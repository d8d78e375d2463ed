import cluster, { type Worker } from 'node:cluster'
import type { Readable } from 'node:stream'
import type { Log } from '../telemetry/log.ts'
import { closeUntaken } from './handed-over.ts'
import { type Message, WORKER } from './siblings.ts'

/** A worker that ends is started again after so long, in milliseconds; twice as long each time, … */
const FIRST_MS = 250
const LONGEST_MS = 10_000
/** … until one has run for so long. */
const WELL_MS = 10_000

/** What is known of a worker's place, whichever process has it just now. */
interface Place {
  readonly number: number
  worker: Worker
  startedAt: number
  failures: number
  listening: boolean
}

/**
 * Starts workers, each a whole gateway on the same port, and looks after them: starts one again that has ended, passes signals
 * and questions on, and makes one log of theirs. It serves nothing itself.
 */
export class Supervisor {
  readonly #log: Log
  readonly #places: Place[] = []
  readonly #waiting = new Set<NodeJS.Timeout>()
  #stopping = false
  #ended: (() => void) | undefined

  constructor(log: Log) {
    this.#log = log
    cluster.setupPrimary({ silent: true, args: this.#arguments() })
  }

  #arguments(): string[] {
    const args = process.argv.slice(2)
    return this.#log.pretty ? [...args, '--set', 'logging.format=pretty'] : args
  }

  /**
   * Starts them. The first one alone, since what it makes at its start (tables, keys, an administrator) is there for the others.
   * @returns what the first one has to say; undefined if it has not come to listen
   */
  async start(workers: number): Promise<Record<string, unknown> | undefined> {
    const notice = await this.#first()
    if (notice === undefined) return undefined
    for (let number = 2; number <= workers; number++) this.#open(number)
    return notice
  }

  #first(): Promise<Record<string, unknown> | undefined> {
    const place = this.#open(1)
    return new Promise(resolve => {
      place.worker.on('message', (message: Message) => {
        if (message.kind === 'ready') resolve(message.notice)
      })
      place.worker.once('exit', () => resolve(undefined))
    })
  }

  #open(number: number): Place {
    const worker = this.#fork(number)
    const place: Place = { number, worker, startedAt: performance.now(), failures: 0, listening: false }
    this.#places.push(place)
    this.#adopt(place)
    return place
  }

  #fork(number: number): Worker {
    return cluster.fork({
      [WORKER]: String(number),
      // Colours, if it is a person who reads: the workers write to us.
      ...(process.stdout.isTTY && { FORCE_COLOR: '1' })
    })
  }

  #adopt(place: Place): void {
    const { worker } = place
    closeUntaken(worker)
    passLines(worker.process.stdout as Readable, process.stdout)
    passLines(worker.process.stderr as Readable, process.stderr)
    worker.on('message', (message: Message) => this.#receive(place, message))
    // A message to one that has just ended.
    worker.on('error', () => {})
    worker.once('exit', (code, signal) => this.#lost(place, signal ?? code))
  }

  #receive(place: Place, message: Message): void {
    if (message.kind === 'ready') place.listening = true
    else if (message.kind === 'ask') {
      const others = this.#places.filter(({ listening, number }) => listening && number !== place.number)
      send(place.worker, { kind: 'asked', id: message.id, others: others.length })
      for (const { worker } of others) send(worker, { ...message, from: place.number })
    } else if (message.kind === 'answer') {
      const asker = this.#places.find(({ number }) => number === message.to)
      if (asker !== undefined) send(asker.worker, message)
    }
  }

  #lost(place: Place, why: string | number): void {
    const wasListening = place.listening
    place.listening = false
    const { logger } = this.#log
    if (this.#stopping) {
      if (this.#places.every(({ worker }) => worker.isDead())) this.#ended?.()
      return
    }
    // One that has never come to listen, while no other has, is a start that has failed.
    if (!wasListening && place.number === 1 && this.#places.length === 1) return
    const ranWell = performance.now() - place.startedAt > WELL_MS
    place.failures = ranWell ? 0 : place.failures + 1
    const waitMs = ranWell ? 0 : Math.min(LONGEST_MS, FIRST_MS * 2 ** (place.failures - 1))
    logger.error({ worker: place.number, ended_with: why, again_in_ms: waitMs }, 'a worker has ended')
    const timer = setTimeout(() => {
      this.#waiting.delete(timer)
      place.worker = this.#fork(place.number)
      place.startedAt = performance.now()
      this.#adopt(place)
    }, waitMs)
    this.#waiting.add(timer)
  }

  /** Passes a signal on to all that run. */
  signal(signal: NodeJS.Signals): void {
    for (const { worker } of this.#places) if (!worker.isDead()) worker.process.kill(signal)
  }

  /** Has all of them end, each letting its requests end first. */
  stop(): Promise<void> {
    this.#stopping = true
    for (const timer of this.#waiting) clearTimeout(timer)
    return new Promise(resolve => {
      this.#ended = resolve
      this.signal('SIGTERM')
      if (this.#places.every(({ worker }) => worker.isDead())) resolve()
    })
  }
}

function send(worker: Worker, message: Message): void {
  if (worker.isConnected()) worker.send(message)
}

const NEWLINE = 0x0a

/** Passes what comes on in whole lines, so that those of several workers do not get into each other. */
function passLines(from: Readable, to: NodeJS.WritableStream): void {
  let rest: Buffer[] = []
  from.on('data', (chunk: Buffer) => {
    const end = chunk.lastIndexOf(NEWLINE) + 1
    if (end > 0) {
      const whole = Buffer.concat([...rest, chunk.subarray(0, end)])
      rest = []
      if (!to.write(whole)) {
        from.pause()
        to.once('drain', () => from.resume())
      }
    }
    if (end < chunk.length) rest.push(chunk.subarray(end))
  })
  from.once('end', () => {
    if (rest.length > 0) to.write(Buffer.concat([...rest, Buffer.from('\n')]))
  })
}
