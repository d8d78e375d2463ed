import type { Control } from './control.ts'
import type { InstanceAddress } from './gateway.ts'

const HEARTBEAT_MS = 1500
const TTL_SECONDS = 5

/** What an instance does to be served: it registers, says that it is there, and says good-bye. */
export class Registration {
  readonly #control: Control
  readonly #path: string
  readonly #body: object
  #isKnown = false
  #timer: NodeJS.Timeout | undefined
  /** Killed: it says nothing, good-bye neither. */
  isDead = false
  /** It wants to have no more requests. */
  isLeaving = false

  constructor(control: Control, service: string, { id, url }: InstanceAddress) {
    this.#control = control
    this.#path = `/services/${service}/instances/${id}`
    this.#body = { url, ttl_seconds: TTL_SECONDS }
  }

  /** Resolves when it is served. */
  async start(): Promise<void> {
    await this.#tick()
    if (!this.#isKnown) throw new Error(`${this.#path} cannot be registered`)
    this.#timer = setInterval(() => void this.#tick(), HEARTBEAT_MS)
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** What does not succeed is tried again the next time. */
  async #tick(): Promise<void> {
    if (this.isDead) return
    if (this.isLeaving) {
      if (!this.#isKnown) return
      const { status } = await this.#control.call('DELETE', this.#path)
      if (status === 204 || status === 404) this.#isKnown = false
      return
    }
    if (this.#isKnown) {
      const { status } = await this.#control.call('POST', `${this.#path}/heartbeat`)
      if (status !== 404) return
    }
    const { status } = await this.#control.call('PUT', this.#path, this.#body)
    this.#isKnown = status === 201 || status === 200
  }
}
