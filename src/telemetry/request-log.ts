import type { Logger } from 'pino'

type Arguments = Parameters<Logger['info']>

/**
 * A logger that knows its request, made when it is first used: nearly all requests log nothing but their one line, and a
 * pino child for each would cost more than the routing.
 */
export class RequestLog {
  readonly #parent: Logger
  readonly #id: string
  #own: Logger | undefined

  constructor(parent: Logger, id: string) {
    this.#parent = parent
    this.#id = id
  }

  #log(): Logger {
    this.#own ??= this.#parent.child({ request_id: this.#id })
    return this.#own
  }

  get level(): string {
    return this.#parent.level
  }

  trace(...args: unknown[]): void {
    this.#log().trace(...(args as Arguments))
  }

  debug(...args: unknown[]): void {
    this.#log().debug(...(args as Arguments))
  }

  info(...args: unknown[]): void {
    this.#log().info(...(args as Arguments))
  }

  warn(...args: unknown[]): void {
    this.#log().warn(...(args as Arguments))
  }

  error(...args: unknown[]): void {
    this.#log().error(...(args as Arguments))
  }

  fatal(...args: unknown[]): void {
    this.#log().fatal(...(args as Arguments))
  }

  silent(): void {}

  child(bindings: Record<string, unknown>): Logger {
    return this.#log().child(bindings)
  }
}
