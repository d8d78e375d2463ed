/**
 * A bounded map that forgets what is not used: two maps, of which the older is dropped when the younger is full. A look-up
 * costs what a map's does, which a list of all entries by last use would double.
 */
export class TwoGenerations<V> {
  readonly #max: number
  #young = new Map<string, V>()
  #old = new Map<string, V>()

  /** @param max entries per generation; twice as many are kept at most. */
  constructor(max: number) {
    this.#max = max
  }

  get size(): number {
    return this.#young.size + this.#old.size
  }

  get(key: string): V | undefined {
    const value = this.#young.get(key)
    if (value !== undefined) return value
    const older = this.#old.get(key)
    if (older !== undefined) {
      this.#old.delete(key)
      this.set(key, older)
    }
    return older
  }

  /** Looks without counting it as use. */
  peek(key: string): V | undefined {
    return this.#young.get(key) ?? this.#old.get(key)
  }

  set(key: string, value: V): void {
    if (this.#young.size >= this.#max && !this.#young.has(key)) {
      this.#old = this.#young
      this.#young = new Map()
    }
    this.#young.set(key, value)
  }

  delete(key: string): void {
    this.#young.delete(key)
    this.#old.delete(key)
  }

  deleteWhere(matches: (key: string, value: V) => boolean): void {
    for (const map of [this.#young, this.#old]) {
      for (const [key, value] of map) if (matches(key, value)) map.delete(key)
    }
  }

  *values(): Generator<V> {
    yield* this.#young.values()
    yield* this.#old.values()
  }

  clear(): void {
    this.#young.clear()
    this.#old.clear()
  }
}
