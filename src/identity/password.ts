import {
  argon2 as argon2Callback,
  randomBytes,
  type ScryptOptions,
  scrypt as scryptCallback,
  timingSafeEqual
} from 'node:crypto'
import { availableParallelism } from 'node:os'
import { promisify } from 'node:util'
import { refuse } from '../errors.ts'

/** What a password costs, as `identity.password` says. */
export interface PasswordCost {
  readonly memory_kib: number
  readonly passes: number
}

/** What came of comparing a password. */
export interface PasswordMatch {
  readonly matches: boolean
  /** Whether it was hashed at another cost than is asked for now, and should be hashed anew while it is known. */
  readonly outdated: boolean
}

/** How many are hashed at once: Node has four threads for this, and for files and names, too. */
const AT_ONCE = Math.max(1, Math.min(3, availableParallelism() - 1))
/** How many may wait; at 50 ms each, the last one waits for a second or two. */
const WAITING = 64
const SALT_BYTES = 16
const HASH_BYTES = 32

const argon2 = promisify(argon2Callback)
const scrypt = promisify<string, Buffer, number, ScryptOptions, Buffer>(scryptCallback)

/**
 * Hashes passwords with argon2id (IDN-09), off the event loop and a few at a time: more at once would not be faster, and a
 * flood of logins must not take the memory, nor the threads that files and names need.
 */
export class Passwords {
  readonly #atOnce: number
  readonly #mostWaiting: number
  #running = 0
  readonly #waiting: (() => void)[] = []

  constructor({ atOnce = AT_ONCE, waiting = WAITING } = {}) {
    this.#atOnce = atOnce
    this.#mostWaiting = waiting
  }

  /**
   * A PHC string: `$argon2id$v=19$m=19456,t=2,p=1$salt$hash`.
   * @throws {GatewayError} 503 `overloaded` when too many wait
   */
  async hash(password: string, cost: PasswordCost): Promise<string> {
    const salt = randomBytes(SALT_BYTES)
    const parameters: Argon2Parameters = { memory: cost.memory_kib, passes: cost.passes, parallelism: 1 }
    const hash = await this.#inTurn(() => deriveArgon2(password, salt, HASH_BYTES, parameters))
    return phc(parameters, salt, hash)
  }

  /**
   * Whether it is the password of this hash; scrypt's are known, too, from wherever users were brought along.
   * @param stored PHC string; undefined for a user who is not there or has no password: that takes as long, and never matches
   * @throws {GatewayError} 503 `overloaded` when too many wait
   */
  async verify(password: string, stored: string | undefined, cost: PasswordCost): Promise<PasswordMatch> {
    const known = stored === undefined ? undefined : parsePhc(stored)
    const { salt, hash, derive, parameters } = known ?? decoy(cost)
    const found = await this.#inTurn(() => derive(password, salt, hash.length))
    const matches = timingSafeEqual(found, hash) && known !== undefined
    const outdated = parameters?.memory !== cost.memory_kib || parameters.passes !== cost.passes
    return { matches, outdated }
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running < this.#atOnce) this.#running++
    else {
      if (this.#waiting.length >= this.#mostWaiting)
        throw refuse('overloaded', { reason: 'passwords', headers: ['retry-after', '2'] })
      // Whoever ends hands its place on.
      await new Promise<void>(resolve => this.#waiting.push(resolve))
    }
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      if (next === undefined) this.#running--
      else next()
    }
  }
}

interface Argon2Parameters {
  readonly memory: number
  readonly passes: number
  readonly parallelism: number
}

interface Stored {
  readonly salt: Buffer
  readonly hash: Buffer
  /** Of argon2id only. */
  readonly parameters: Argon2Parameters | undefined
  derive(password: string, salt: Buffer, length: number): Promise<Buffer>
}

/** One spelling of what people type on different keyboards (RFC 8265 section 4.2). */
function bytesOf(password: string): Buffer {
  return Buffer.from(password.normalize('NFC'))
}

function deriveArgon2(
  password: string,
  salt: Buffer,
  tagLength: number,
  parameters: Argon2Parameters
): Promise<Buffer> {
  return argon2('argon2id', { message: bytesOf(password), nonce: salt, tagLength, ...parameters })
}

function decoy({ memory_kib: memory, passes }: PasswordCost): Stored {
  return argon2Stored({ memory, passes, parallelism: 1 }, randomBytes(SALT_BYTES), randomBytes(HASH_BYTES))
}

function argon2Stored(parameters: Argon2Parameters, salt: Buffer, hash: Buffer): Stored {
  return {
    salt,
    hash,
    parameters,
    derive: (password, salt, length) => deriveArgon2(password, salt, length, parameters)
  }
}

const ARGON2ID = /^\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=(\d{1,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/
const SCRYPT = /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/

function parsePhc(stored: string): Stored | undefined {
  const [, memory, passes, parallelism, salt, hash] = ARGON2ID.exec(stored) ?? []
  if (hash !== undefined)
    return argon2Stored(
      { memory: Number(memory), passes: Number(passes), parallelism: Number(parallelism) },
      Buffer.from(salt as string, 'base64'),
      Buffer.from(hash, 'base64')
    )
  return parseScrypt(stored)
}

function parseScrypt(stored: string): Stored | undefined {
  const [, ln, r, p, salt, hash] = SCRYPT.exec(stored) ?? []
  if (hash === undefined) return undefined
  const [N, blocks] = [2 ** Number(ln), Number(r)]
  const options = { N, r: blocks, p: Number(p), maxmem: 129 * N * blocks + 1_048_576 }
  return {
    salt: Buffer.from(salt as string, 'base64'),
    hash: Buffer.from(hash, 'base64'),
    parameters: undefined,
    derive: (password, salt, length) => scrypt(bytesOf(password).toString(), salt, length, options)
  }
}

/** Base64 without padding, as the PHC string format has it. */
function phc({ memory, passes, parallelism }: Argon2Parameters, salt: Buffer, hash: Buffer): string {
  const text = (bytes: Buffer): string => bytes.toString('base64').replaceAll('=', '')
  return `$argon2id$v=19$m=${memory},t=${passes},p=${parallelism}$${text(salt)}$${text(hash)}`
}
