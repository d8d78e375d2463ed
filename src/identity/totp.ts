import { createHmac, timingSafeEqual } from 'node:crypto'

/** Seconds of a time step, and how many steps a clock may be off (RFC 6238 section 5.2). */
const STEP_S = 30
const DRIFT = 1
const DIGITS = 6

/** Hash of the codes; authenticators know SHA-1 and few know another. */
type Algorithm = 'sha1' | 'sha256' | 'sha512'

/** The code of a counter (RFC 4226 section 5.3). */
export function hotp(
  secret: Buffer,
  counter: number,
  { digits = DIGITS, algorithm = 'sha1' }: { digits?: number; algorithm?: Algorithm } = {}
): string {
  const message = Buffer.alloc(8)
  message.writeBigUInt64BE(BigInt(counter))
  const digest = createHmac(algorithm, secret).update(message).digest()
  const offset = (digest.at(-1) as number) & 0xf
  const number = digest.readUInt32BE(offset) & 0x7fffffff
  return String(number % 10 ** digits).padStart(digits, '0')
}

/** The time step of a moment. @param now milliseconds since 1970 */
export function stepOf(now: number): number {
  return Math.floor(now / 1000 / STEP_S)
}

/** The time step whose code this is, now or one step before or after; undefined if there is none. */
export function matchStep(secret: Buffer, code: string, now: number): number | undefined {
  if (!/^\d{6}$/.test(code)) return undefined
  const given = Buffer.from(code)
  const around = stepOf(now)
  let found: number | undefined
  for (let step = around - DRIFT; step <= around + DRIFT; step++)
    if (timingSafeEqual(given, Buffer.from(hotp(secret, step)))) found = step
  return found
}

const BASE32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

/** Base32 without padding (RFC 4648 section 6), as authenticators take secrets. */
export function base32(bytes: Buffer): string {
  const bits = [...bytes].map(byte => byte.toString(2).padStart(8, '0')).join('')
  return (bits.match(/.{1,5}/g) ?? []).map(five => BASE32[Number.parseInt(five.padEnd(5, '0'), 2)]).join('')
}

/** What an authenticator scans. */
export function otpauthUri(secret: Buffer, issuer: string, account: string): string {
  const label = `${encodeURIComponent(issuer)}:${encodeURIComponent(account)}`
  return `otpauth://totp/${label}?secret=${base32(secret)}&issuer=${encodeURIComponent(issuer)}&algorithm=SHA1&digits=${DIGITS}&period=${STEP_S}`
}
