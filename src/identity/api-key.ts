import { hash, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Clock } from '../runtime/clock.ts'
import type { Consumer } from './consumer.ts'
import { identityFields } from './identity-fields.ts'
import type { IdentitySettings } from './settings.ts'
import type { StoredKey, StoredKeys } from './stored-keys.ts'
import { untrusted } from './trouble.ts'

type KeySettings = IdentitySettings['api_keys'][number]

interface KnownKey {
  readonly hash: Buffer
  readonly consumer: Consumer
}

/** Thrown for a list of API keys that cannot be used. */
export class ApiKeyError extends Error {
  /** Which of the keys is to blame, and which of its settings. */
  readonly path: readonly (string | number)[]

  constructor(path: readonly (string | number)[], message: string) {
    super(message)
    this.path = path
  }
}

/** The SHA-256 of an API key. Keys are long and random, so a fast hash keeps them as well as a slow one. */
export function hashApiKey(key: string): Buffer {
  return hash('sha256', key, 'buffer')
}

/** 32 letters, so that five bits of chance are one of them; none that is taken for another. */
const LETTERS = 'abcdefghijklmnopqrstuvwxyz234567'
const RANDOM_LETTERS = 26
/** Letters behind `sak_{env}_` by which people tell keys apart. */
const SHOWN_LETTERS = 4

/**
 * A new key: `sak_dev_` and 130 bits of chance. @returns the key, and what of it may be kept and shown
 * @param environment as `gateway.environment` says
 */
export function makeApiKey(environment: string): { key: string; prefix: string; hash: string } {
  const start = `sak_${shortName(environment)}_`
  const letters = [...randomBytes(RANDOM_LETTERS)].map(byte => LETTERS[byte & 31]).join('')
  const key = start + letters
  return { key, prefix: start + letters.slice(0, SHOWN_LETTERS), hash: hashApiKey(key).toString('hex') }
}

const FORM = /^sak_[a-z0-9]{1,16}_[a-z2-7]{26}$/

/** Whether a text looks like a key that {@link makeApiKey} has made. */
export function isApiKey(text: string): boolean {
  return FORM.test(text)
}

/** `dev`, `prod`, or what is left of another name. */
function shortName(environment: string): string {
  const name = environment.toLowerCase().replace(/[^a-z0-9]/g, '')
  if (/^dev(elopment)?$/.test(name) || name === '') return 'dev'
  return /^prod(uction)?$/.test(name) ? 'prod' : name.slice(0, 16)
}

const NO_HASH = Buffer.alloc(32)

/**
 * API keys: those that the configuration lists, and those that users have made (IDN-26). All by hash: neither a dump of the
 * memory nor the time of an answer tells a key.
 */
export class ApiKeys {
  readonly #keys = new Map<string, KnownKey>()
  readonly #stored: StoredKeys | undefined

  /** @throws {ApiKeyError} for a key that nobody could use, or that is there twice */
  constructor(keys: readonly KeySettings[], stored?: StoredKeys) {
    this.#stored = stored
    for (const [i, settings] of keys.entries()) {
      if (keys.findIndex(({ id }) => id === settings.id) !== i)
        throw new ApiKeyError([i, 'id'], `"${settings.id}" is the id of another key`)
      const hash = hashOf(settings, i)
      const name = hash.toString('hex')
      if (this.#keys.has(name)) throw new ApiKeyError([i], `is the same key as "${this.#keys.get(name)?.consumer.id}"`)
      this.#keys.set(name, { hash, consumer: consumerOf(settings, expiryOf(settings, i)) })
    }
  }

  /**
   * Whose key this is. The look-up goes by a hash that the caller cannot steer, and whatever the key, there is one hash and
   * one comparison that takes as long for a wrong key as for a right one (H-64). A promise only for what is seen for the first time.
   * @throws {GatewayError} 401, or 503 while the database has to be asked and cannot be; also as a rejection
   */
  authenticate(key: string, clock: Clock): Consumer | Promise<Consumer> {
    const hash = hashApiKey(key)
    const name = hash.toString('hex')
    const listed = this.#keys.get(name)
    const stored = listed === undefined ? this.#stored?.get(name) : undefined
    const known = listed ?? stored
    const same = timingSafeEqual(hash, known?.hash ?? NO_HASH)
    if (known !== undefined && same) return this.#admit(known, stored, clock)
    const found = this.#stored?.find(key, name)
    if (found === undefined) throw untrusted('unknown_api_key')
    return found.then(stored => {
      const same = timingSafeEqual(hash, stored?.hash ?? NO_HASH)
      if (stored === undefined || !same) throw untrusted('unknown_api_key')
      return this.#admit(stored, stored, clock)
    })
  }

  /** What has to be asked at every use. */
  #admit({ consumer }: KnownKey, stored: StoredKey | undefined, clock: Clock): Consumer {
    if (clock.now() >= consumer.expiresAt) throw untrusted('expired_api_key')
    if (stored === undefined) return consumer
    if (!stored.active) throw untrusted('inactive_owner')
    this.#stored?.noteUse(stored)
    return consumer
  }
}

function hashOf({ key, hash }: KeySettings, i: number): Buffer {
  if (key !== undefined && hash !== undefined)
    throw new ApiKeyError([i, 'hash'], 'stands beside "key"; keep one of them')
  if (hash !== undefined) return Buffer.from(hash, 'hex')
  if (key === undefined) throw new ApiKeyError([i], 'needs "key" or "hash"')
  if (!/^[\x21-\x7e]+$/.test(key))
    throw new ApiKeyError(
      [i, 'key'],
      'is empty, or holds characters that no request can carry: visible ASCII, no spaces'
    )
  return hashApiKey(key)
}

const RFC_3339 = /^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)$/

/** Milliseconds since 1970; Infinity for never. */
function expiryOf({ expires_at: text }: KeySettings, i: number): number {
  if (text === undefined) return Number.POSITIVE_INFINITY
  const time = RFC_3339.test(text) ? Date.parse(text) : Number.NaN
  if (Number.isNaN(time))
    throw new ApiKeyError([i, 'expires_at'], `"${text}" is no RFC 3339 time: write 2030-12-31T00:00:00Z`)
  return time
}

function consumerOf(settings: KeySettings, expiresAt: number): Consumer {
  const consumer = {
    key: `key:${settings.id}`,
    kind: 'api_key' as const,
    id: settings.id,
    name: settings.name ?? '',
    roles: Object.freeze([...settings.roles]),
    permissions: Object.freeze([...settings.permissions]),
    tier: settings.tier,
    credential: 'api_key' as const,
    claims: Object.freeze({}),
    expiresAt
  }
  return Object.freeze({ ...consumer, identityFields: identityFields(consumer) })
}
