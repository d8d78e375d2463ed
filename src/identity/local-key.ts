import { createPublicKey, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Snapshot } from '../config/snapshot.ts'
import { IdentityError, namely } from './identity-error.ts'
import { isStrongSecret, publicKey, secretKey, type VerificationKey } from './keys.ts'

/** The key of the gateway's own tokens. */
export interface LocalKey {
  readonly algorithm: string
  /** What signs: the shared secret, or the private key; undefined when only the public half is known. */
  readonly signing: string | undefined
  readonly verification: VerificationKey
  /** What whoever starts the gateway should know of it; undefined when all is well. */
  readonly notice: string | undefined
}

const PATH = ['identity', 'jwt']

/**
 * The key that the configuration gives, or one of this data folder's own (C-02). Production takes no secret that is
 * missing, short or well known.
 * @throws {IdentityError}
 */
export function localKey(snapshot: Pick<Snapshot, 'identity' | 'storage' | 'gateway'>): LocalKey | undefined {
  const { jwt, issuers } = snapshot.identity
  const production = isProduction(snapshot)
  if (!jwt.algorithm.startsWith('HS')) return pairOf(jwt.algorithm, jwt.secret, jwt.public_key)
  if (jwt.secret) return sharedSecret(jwt.algorithm, jwt.secret, production)
  if (!production) return keptSecret(jwt.algorithm, snapshot.storage.data_dir)
  if (issuers.length > 0) return undefined
  throw new IdentityError(PATH, 'production needs a "secret" (JWT_SECRET_KEY), or "issuers"')
}

/** Whether secrets are held to what production asks for. */
export function isProduction({ gateway }: Pick<Snapshot, 'gateway'>): boolean {
  return /^prod(?:uction)?$/i.test(gateway.environment)
}

/** @throws {IdentityError} for a secret that production must not rely on */
export function checkStrength(secret: string, production: boolean, path: readonly (string | number)[]): void {
  if (production && !isStrongSecret(secret))
    throw new IdentityError(
      path,
      'is too short or too well known for production: 32 bytes at least, for example from openssl rand -base64 32'
    )
}

function sharedSecret(algorithm: string, secret: string, production: boolean): LocalKey {
  const path = [...PATH, 'secret']
  const verification = namely(path, () => secretKey(secret, [algorithm]))
  checkStrength(secret, production, path)
  const notice = isStrongSecret(secret)
    ? undefined
    : 'identity.jwt.secret is too short or too well known; production would refuse it'
  return { algorithm, signing: secret, verification, notice }
}

function pairOf(algorithm: string, secret: string | undefined, given: string | undefined): LocalKey {
  const privatePem = secret || undefined
  const pem = given ?? privatePem
  if (pem === undefined)
    throw new IdentityError(PATH, `${algorithm} needs "public_key", or the private key as "secret"`)
  const path = [...PATH, given === undefined ? 'secret' : 'public_key']
  const verification = namely(path, () => publicKey(pem, undefined, [algorithm]))
  if (privatePem !== undefined && !belongTogether(privatePem, verification.material))
    throw new IdentityError([...PATH, 'secret'], 'is not the private key that belongs to "public_key"')
  return { algorithm, signing: privatePem, verification, notice: undefined }
}

function belongTogether(privatePem: string, publicPem: string): boolean {
  try {
    return createPublicKey(privatePem).export({ type: 'spki', format: 'pem' }) === publicPem
  } catch {
    return false
  }
}

/** A secret of this data folder's own, made on first use. */
function keptSecret(algorithm: string, folder: string): LocalKey {
  const file = join(folder, 'jwt-secret')
  const secret = readKept(file) ?? makeKept(folder, file)
  const verification = namely([...PATH, 'secret'], () => secretKey(secret, [algorithm]))
  const notice = `no JWT secret is configured: tokens are signed with one of this folder's own, ${file}; set JWT_SECRET_KEY to share it between gateways`
  return { algorithm, signing: secret, verification, notice }
}

function readKept(file: string): string | undefined {
  if (!existsSync(file)) return undefined
  const secret = readFileSync(file, 'utf8').trim()
  // A start that was cut off may have left half of one.
  if (isStrongSecret(secret)) return secret
  throw new IdentityError(
    [...PATH, 'secret'],
    `is not given, and ${file} holds none; delete that file, and another is made`
  )
}

function makeKept(folder: string, file: string): string {
  const secret = randomBytes(32).toString('base64url')
  try {
    mkdirSync(folder, { recursive: true })
    writeFileSync(file, `${secret}\n`, { mode: 0o600, flag: 'wx' })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    // Another gateway on the same folder was faster: its secret is ours, too.
    if (code === 'EEXIST') return readKept(file) as string
    throw new IdentityError(
      [...PATH, 'secret'],
      `is not given, and none can be kept in ${folder} (${code}): set JWT_SECRET_KEY, or storage.data_dir`
    )
  }
  return secret
}
