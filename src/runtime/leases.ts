/**
 * Things that outlive the configuration that asked for them: pools, counters, key sets. They are kept by a key that holds
 * everything that configures them, and counted, so that a new generation takes over what it shares with the old one
 * before that lets go of it.
 */
export class Leases {
  readonly #held = new Map<string, { value: unknown; count: number; close: () => void }>()

  /** The thing of this key, made if nobody holds it yet. Each `acquire` needs one {@link release}. */
  acquire<T>(key: string, create: () => T, close: (value: T) => void): T {
    const held = this.#held.get(key)
    if (held !== undefined) {
      held.count++
      return held.value as T
    }
    const value = create()
    this.#held.set(key, { value, count: 1, close: () => close(value) })
    return value
  }

  release(key: string): void {
    const held = this.#held.get(key)
    if (held === undefined) return
    held.count--
    if (held.count > 0) return
    this.#held.delete(key)
    held.close()
  }

  /** Keys in use, for tests. */
  get keys(): string[] {
    return [...this.#held.keys()]
  }
}
