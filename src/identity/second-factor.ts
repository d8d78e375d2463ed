import { createCipheriv, createDecipheriv, hash, hkdfSync, randomBytes } from 'node:crypto'
import type { Transaction } from 'kysely'
import type { Snapshot } from '../config/snapshot.ts'
import type { Database } from '../database/database.ts'
import {
  addChallenge,
  enableSecondFactor,
  endChallenge,
  findChallenge,
  findSecondFactor,
  proposeSecondFactor,
  takeRecoveryCode,
  takeStep,
  tryChallenge
} from '../database/mfa.ts'
import type { Tables } from '../database/tables.ts'
import { findUser, type User } from '../database/users.ts'
import type { Runtime } from '../runtime/runtime.ts'
import { localKey } from './local-key.ts'
import { base32, matchStep, otpauthUri } from './totp.ts'

/** How long a challenge waits for its code, in milliseconds, and how many codes it looks at. */
const CHALLENGE_MS = 5 * 60_000
const TRIES = 5
const RECOVERY_CODES = 10
const SECRET_BYTES = 20
const IV_BYTES = 12
const TAG_BYTES = 16

/** What an authenticator is told. */
export interface Enrolment {
  /** Base32. */
  readonly secret: string
  readonly uri: string
}

/**
 * Time-based codes as a second factor (RFC 6238), and recovery codes for whoever has lost the device. The secrets are
 * encrypted with a key that is made of the one that signs the gateway's tokens: whoever gets at the database alone cannot
 * make codes, and whoever changes that key has to enrol anew, by a recovery code.
 */
export class SecondFactor {
  readonly #runtime: Runtime
  readonly #snapshot: Pick<Snapshot, 'identity' | 'storage' | 'gateway'>
  #key: Buffer | undefined

  constructor(runtime: Runtime, snapshot: Pick<Snapshot, 'identity' | 'storage' | 'gateway'>) {
    this.#runtime = runtime
    this.#snapshot = snapshot
  }

  /** Whether a user is asked for one. */
  async isAsked(userId: string): Promise<boolean> {
    const factor = await findSecondFactor(this.#database.db, userId)
    return factor !== undefined && factor.enabled_at !== null
  }

  /** A token for the second half of a login. */
  async challenge(user: User): Promise<{ challenge: string; expiresInMs: number }> {
    const now = this.#runtime.clock.now()
    const challenge = `mfa_${randomBytes(32).toString('base64url')}`
    const row = { hash: hash('sha256', challenge), user_id: user.id, token_version: user.tokenVersion, attempts: 0 }
    await this.#database.transaction(trx => addChallenge(trx, { ...row, expires_at: now + CHALLENGE_MS }, now))
    return { challenge, expiresInMs: CHALLENGE_MS }
  }

  /** Whose challenge it is, if it may still be met. */
  async userOf(challenge: string): Promise<User | undefined> {
    const { db } = this.#database
    const found = await findChallenge(db, hash('sha256', challenge))
    if (found === undefined || found.expires_at <= this.#runtime.clock.now()) return undefined
    const user = await findUser(db, found.user_id)
    return user?.active && user.tokenVersion === found.token_version ? user : undefined
  }

  /** Meets a challenge: it is over then. @returns whether the code is good, and there was a try left */
  async meet(trx: Transaction<Tables>, challenge: string, userId: string, code: string): Promise<boolean> {
    const challengeHash = hash('sha256', challenge)
    if (!(await tryChallenge(trx, challengeHash, { most: TRIES, now: this.#runtime.clock.now() }))) return false
    if (!(await this.take(trx, userId, code))) return false
    await endChallenge(trx, challengeHash)
    return true
  }

  /** Takes a code of the authenticator or a recovery code, each of which is good once. */
  async take(trx: Transaction<Tables>, userId: string, code: string): Promise<boolean> {
    const digits = code.replaceAll(' ', '')
    if (!/^\d{6}$/.test(digits)) return takeRecoveryCode(trx, userId, recoveryHash(userId, code))
    const factor = await findSecondFactor(trx, userId)
    const secret = factor && this.#open(factor.secret, userId)
    const step = secret && matchStep(secret, digits, this.#runtime.clock.now())
    return step !== undefined && takeStep(trx, userId, step)
  }

  /** A secret that counts as soon as a code of it has been shown; undefined when there is one that counts already. */
  async enrol(user: User): Promise<Enrolment | undefined> {
    const secret = randomBytes(SECRET_BYTES)
    const row = { userId: user.id, secret: this.#seal(secret, user.id), now: this.#runtime.clock.now() }
    if (!(await this.#database.transaction(trx => proposeSecondFactor(trx, row)))) return undefined
    return { secret: base32(secret), uri: otpauthUri(secret, this.#snapshot.gateway.name, user.username) }
  }

  /** Makes an enrolment count. @returns recovery codes, which are kept nowhere; undefined for a wrong code, or without an enrolment */
  async confirm(trx: Transaction<Tables>, userId: string, code: string): Promise<string[] | undefined> {
    const now = this.#runtime.clock.now()
    const factor = await findSecondFactor(trx, userId)
    if (factor === undefined || factor.enabled_at !== null) return undefined
    const secret = this.#open(factor.secret, userId)
    const step = secret && matchStep(secret, code.replaceAll(' ', ''), now)
    if (step === undefined) return undefined
    const codes = Array.from({ length: RECOVERY_CODES }, recoveryCode)
    const codeHashes = codes.map(code => recoveryHash(userId, code))
    return (await enableSecondFactor(trx, { userId, step, codeHashes, now })) ? codes : undefined
  }

  get #database(): Database {
    return this.#runtime.database as Database
  }

  get #encryptionKey(): Buffer {
    const { signing = '' } = localKey(this.#snapshot) ?? {}
    this.#key ??= Buffer.from(hkdfSync('sha256', signing, '', 'sallyport second factor', 32))
    return this.#key
  }

  /** AES-256-GCM, bound to its user: a row that is copied to another user is worth nothing there. */
  #seal(secret: Buffer, userId: string): string {
    const iv = randomBytes(IV_BYTES)
    const cipher = createCipheriv('aes-256-gcm', this.#encryptionKey, iv).setAAD(Buffer.from(userId))
    const sealed = Buffer.concat([cipher.update(secret), cipher.final()])
    return Buffer.concat([iv, cipher.getAuthTag(), sealed]).toString('base64url')
  }

  #open(sealed: string, userId: string): Buffer | undefined {
    const bytes = Buffer.from(sealed, 'base64url')
    const iv = bytes.subarray(0, IV_BYTES)
    const decipher = createDecipheriv('aes-256-gcm', this.#encryptionKey, iv, { authTagLength: TAG_BYTES })
    decipher.setAAD(Buffer.from(userId)).setAuthTag(bytes.subarray(IV_BYTES, IV_BYTES + TAG_BYTES))
    try {
      return Buffer.concat([decipher.update(bytes.subarray(IV_BYTES + TAG_BYTES)), decipher.final()])
    } catch {
      this.#runtime.log.warn(
        { user: userId },
        'the second factor of a user cannot be read, since the key of the tokens has changed; only a recovery code gets it in'
      )
      return undefined
    }
  }
}

/** 80 random bits: `k3wd-x7qa-…`. */
function recoveryCode(): string {
  return (base32(randomBytes(10)).toLowerCase().match(/.{4}/g) as string[]).join('-')
}

function recoveryHash(userId: string, code: string): string {
  return hash('sha256', `${userId} ${code.replace(/[\s-]/g, '').toLowerCase()}`)
}
