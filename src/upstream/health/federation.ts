import type { Store } from '../../store/store.ts'
import type { Instance } from '../instance.ts'
import type { CheckResult } from './checker.ts'

/** How often a gateway looks what another one has found, or says that it still checks, in milliseconds. */
export const TURN_MS = 1000
/** After so long without a word from whoever checks, somebody else does. */
const LEASE_MS = 3000

/** What was found of an instance, and how many results of the kind there have been in a row (below 0: bad ones). */
export interface Finding {
  readonly result: CheckResult
  readonly streak: number
}

export type Findings = Readonly<Record<string, Finding>>

/**
 * Gateways that check the same instances in the same way, over the store that they share, take turns (HLB-12, CLU-04): one
 * checks and says what it has found, the others take that for their own checks and decide by themselves.
 */
export class SharedChecks {
  readonly #store: Pick<Store, 'get' | 'set' | 'add' | 'delete'>
  readonly #node: string
  readonly #key: string
  #mine = false

  /** @param key of the service and of how it is checked */
  constructor(store: Pick<Store, 'get' | 'set' | 'add' | 'delete'>, node: string, key: string) {
    this.#store = store
    this.#node = node
    this.#key = `health:${key}`
  }

  /**
   * Whose turn it is.
   * @returns undefined if it is this gateway's, or nobody can be asked; else what the other one has found
   */
  async turn(): Promise<Findings | undefined> {
    try {
      this.#mine = await this.#isMine()
      return this.#mine ? undefined : findingsOf(await this.#store.get(`${this.#key}:found`))
    } catch {
      this.#mine = false
      return undefined
    }
  }

  async #isMine(): Promise<boolean> {
    if (await this.#store.add(this.#key, this.#node, LEASE_MS)) return true
    if ((await this.#store.get(this.#key)) !== this.#node) return false
    await this.#store.set(this.#key, this.#node, LEASE_MS)
    return true
  }

  /** Says what was found, if it is this gateway's turn. @param ttlMs how long that is news */
  async tell(findings: Findings, ttlMs: number): Promise<void> {
    if (this.#mine) await this.#store.set(`${this.#key}:found`, JSON.stringify(findings), ttlMs).catch(() => {})
  }

  /** Leaves the turn to the next. */
  leave(): void {
    if (this.#mine) this.#store.delete(this.#key).catch(() => {})
    this.#mine = false
  }
}

/** @throws {Error} for what are no findings: whoever has written that is no help, so each checks for itself (H-82) */
function findingsOf(text = '{}'): Findings {
  const found: Findings = JSON.parse(text)
  for (const { result, streak } of Object.values(found))
    if (!Number.isInteger(result.at) || !Number.isInteger(streak)) throw new TypeError('no findings')
  return found
}

/** What an instance is called among gateways. */
export function nameOf({ id, url }: Instance): string {
  return `${id} ${url.href}`
}
