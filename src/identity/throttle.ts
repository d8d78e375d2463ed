import { hash } from 'node:crypto'
import { type GatewayError, refuse } from '../errors.ts'
import type { Limit } from '../limits/limit.ts'
import { network } from '../limits/plan.ts'
import { limitRequest, type Store, type StoreTerms } from '../store/store.ts'

const MINUTE_MS = 60_000

const bucket = (name: string, burst: number, perMinute: number): Limit => ({
  name,
  algorithm: 'token_bucket',
  limit: perMinute,
  windowMs: MINUTE_MS,
  burst
})

/** One address against one account: whoever mistypes has ten tries, and then two a minute. */
const PAIR = bucket('login', 10, 2)
/** One address against all accounts: many people may sit behind one. */
const ADDRESS = bucket('login', 100, 60)
/** All addresses against one account, but for those from which its owner has logged in before. */
const STRANGERS = bucket('login', 20, 2)
/** Codes of one account's second factor: three in a million are right. */
const CODES = bucket('mfa', 10, 0.2)

/**
 * Limits how often passwords can be tried, without a way to lock an owner out (see docs/accounts.md): attempts are counted
 * for each address, for each address with each account, and for each account over all addresses that are strange to it.
 * Counted in the store, so that gateways which share one count together; in memory while it is out of reach.
 */
export class LoginThrottle {
  readonly #store: Store
  readonly #terms: StoreTerms

  /** @param prefix of the store's keys */
  constructor(store: Store, prefix: string) {
    this.#store = store
    this.#terms = { prefix, lease: false, on_store_error: 'local' }
  }

  /**
   * Counts an attempt before anything is compared, so that many at once are no more than one after another.
   * @param account id of the user, or {@link strangersName}
   * @param known whether the account's owner has logged in from this address before
   * @throws {GatewayError} 429
   */
  async attempt(account: string, clientIp: string, known: boolean): Promise<void> {
    const from = network(clientIp)
    await this.#count([
      limitRequest(ADDRESS, `login:${from}`, 'login'),
      limitRequest(PAIR, `login:${account}|${from}`, 'login'),
      ...(known ? [] : [limitRequest(STRANGERS, `login:${account}`, 'login')])
    ])
  }

  /** Counts a code, for strangers in one. @throws {GatewayError} 429 */
  async code(account: string, clientIp: string, known: boolean): Promise<void> {
    const subject = known ? `mfa:${account}|${network(clientIp)}` : `mfa:${account}`
    await this.#count([limitRequest(CODES, subject, 'mfa')])
  }

  async #count(requests: ReturnType<typeof limitRequest>[]): Promise<void> {
    const { allowed, retryMs } = await this.#store.decide(requests, this.#terms)
    if (!allowed) throw tooMany(retryMs)
  }
}

function tooMany(retryMs: number): GatewayError {
  const seconds = Math.max(1, Math.ceil(retryMs / 1000))
  return refuse('rate_limit_exceeded', {
    reason: 'login_throttled',
    details: `Too many attempts to log in. The next one is looked at in ${seconds} s.`,
    headers: ['retry-after', String(seconds)]
  })
}

/** What an account is counted under that is not there; what was typed may be a password, so it is kept nowhere. */
export function strangersName(name: string): string {
  return `?${hash('sha256', name, 'base64url').slice(0, 16)}`
}
