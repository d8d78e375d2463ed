import type { ConfigSources } from './config/document.ts'
import { masked } from './config/mask.ts'
import { complete } from './config/validate.ts'
import { Gateway } from './gateway.ts'

type Config = Readonly<Record<string, unknown>>

/**
 * A gateway within another program, configured by an object and changed while it runs: the configuration management of seed 003
 * (CFG-09).
 *
 * @example
 * const manager = await ApiGatewayManager.start({ services: { orders: { url: 'http://orders:8080' } } })
 * await manager.updateConfig({ routes: [{ path: '/orders/**', service: 'orders' }] })
 * await manager.close()
 */
export class ApiGatewayManager {
  readonly #gateway: Gateway
  readonly #sources: { -readonly [K in keyof ConfigSources]: ConfigSources[K] } & { document: Config }
  #last: Promise<unknown> = Promise.resolve()

  private constructor(gateway: Gateway, sources: ConfigSources & { document: Config }) {
    this.#gateway = gateway
    this.#sources = sources
  }

  /**
   * Starts a gateway.
   * @param config a document as a file would hold it
   * @param env the variables that win over it; none unless given, since the program's own are about something else
   * @throws {import('./config/problem.ts').ConfigError} with all that is wrong with it
   */
  static async start(
    config: Config,
    env: Readonly<Record<string, string | undefined>> = {}
  ): Promise<ApiGatewayManager> {
    const sources = { files: [], env, overrides: [], document: config }
    return new ApiGatewayManager(await Gateway.start(sources), sources)
  }

  /** Where it listens. */
  get port(): number {
    return this.#gateway.port
  }

  /** The configuration in use, in its canonical spelling and with its defaults; secrets are masked. */
  getConfig(): Record<string, unknown> {
    const { schema, snapshot } = this.#gateway
    return masked(schema, complete(schema, snapshot.document)) as Record<string, unknown>
  }

  /**
   * Puts `changes` in place of the keys that they name, each as a whole, and applies the result without losing a request. One
   * change comes after the other.
   * @throws {import('./config/problem.ts').ConfigError} when the result is not good; then nothing has changed
   */
  updateConfig(changes: Config): Promise<{ version: string; changed: boolean }> {
    const update = async () => {
      const before = this.#sources.document
      this.#sources.document = { ...before, ...changes }
      try {
        return await this.#gateway.reload()
      } catch (error) {
        this.#sources.document = before
        throw error
      }
    }
    const result = this.#last.then(update, update)
    this.#last = result
    return result
  }

  /** Lets requests end and closes everything. @param graceMs for those under way; `server.timeouts.drain` unless given */
  close(graceMs?: number): Promise<void> {
    return this.#gateway.close(graceMs)
  }
}
