import { type DestinationStream, type Logger, pino } from 'pino'
import type { LoggingSettings } from '../config/schema.ts'

/** Where lines go; `write` never blocks, `flush` gets everything out before the process ends. */
export interface LogSink {
  write(line: string): void
  flush(): void
}

export interface Log {
  readonly logger: Logger
  readonly sink: LogSink
  /** Whether a person is reading. */
  readonly pretty: boolean
}

/** What pino is told, wherever its lines go. */
export const LOG_OPTIONS = { base: null, serializers: { err: describe } }

/** An exception for the log: what else hangs on it may be anything, other people's credentials included (H-121). */
function describe(thrown: unknown): object {
  if (!(thrown instanceof Error)) return { message: String(thrown) }
  const { name, message, stack } = thrown
  return { type: name, message, stack }
}

/** Characters collected before they are written; a line that waits longer than {@link FLUSH_MS} goes out anyway. */
const COLLECT = 32768
const FLUSH_MS = 100

/** Makes the process's logger: JSON, buffered, to standard output; or for people, at once, on a terminal. */
export async function createLog(settings: LoggingSettings, terminal = process.stdout.isTTY === true): Promise<Log> {
  const pretty = settings.format === 'pretty' || (settings.format === 'auto' && terminal)
  const options = { ...LOG_OPTIONS, level: settings.level }
  if (pretty) {
    const { default: pinoPretty } = await import('pino-pretty')
    const stream = pinoPretty({
      colorize: terminal,
      ignore: 'pid,hostname',
      translateTime: 'SYS:HH:MM:ss',
      sync: true,
      destination: 1
    })
    return {
      logger: pino(options, stream as DestinationStream),
      sink: { write: line => void process.stdout.write(line), flush: () => {} },
      pretty
    }
  }
  const destination = pino.destination({ fd: 1, sync: false })
  return { logger: pino(options, destination), sink: new CollectingSink(destination), pretty }
}

/** Lines of requests, collected: the destination looks at each piece it is given, and there is one piece per 32 KiB. */
class CollectingSink implements LogSink {
  readonly #destination: { write(text: string): unknown; flushSync(): void }
  #pending = ''
  #timer: NodeJS.Timeout | undefined

  constructor(destination: { write(text: string): unknown; flushSync(): void }) {
    this.#destination = destination
  }

  write(line: string): void {
    this.#pending += line
    if (this.#pending.length >= COLLECT) this.#pass()
    else this.#timer ??= setTimeout(() => this.#pass(), FLUSH_MS).unref()
  }

  #pass(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#pending === '') return
    this.#destination.write(this.#pending)
    this.#pending = ''
  }

  flush(): void {
    this.#pass()
    try {
      this.#destination.flushSync()
    } catch {
      // Nobody reads any more.
    }
  }
}
