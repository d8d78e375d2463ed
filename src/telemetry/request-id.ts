import { randomBytes } from 'node:crypto'
import type { Clock } from '../runtime/clock.ts'

/** Crockford's base 32 in lower case, as ULIDs are written. */
const DIGITS = '0123456789abcdefghjkmnpqrstvwxyz'
const PAIRS = Array.from({ length: 1024 }, (_, n) => `${DIGITS[n >> 5]}${DIGITS[n & 31]}`)

const SPACE = 2 ** 40
/** Odd, so that steps of it visit every 40-bit number before one comes again. */
const STEP = 0x9e3779b97f

/**
 * Makes request ids: `req_` and a ULID (C-23). The first ten letters are the time in milliseconds, the next eight are this
 * process's, the last eight walk through all 40-bit numbers from a random start. No randomness is drawn per request.
 */
export function createRequestIds(clock: Clock, random: (bytes: number) => Buffer = randomBytes): () => string {
  const own = base32(random(5).readUIntBE(0, 5))
  let step = random(5).readUIntBE(0, 5)
  let stampedAt = -1
  let prefix = ''
  return () => {
    const now = clock.now()
    if (now !== stampedAt) {
      stampedAt = now
      prefix = `req_${PAIRS[Math.floor(now / SPACE) & 1023]}${base32(now % SPACE)}${own}`
    }
    step = (step + STEP) % SPACE
    return prefix + base32(step)
  }
}

/** A 40-bit number in eight letters. */
function base32(n: number): string {
  const high = Math.floor(n / 1048576)
  const low = n % 1048576
  return `${PAIRS[high >> 10]}${PAIRS[high & 1023]}${PAIRS[low >> 10]}${PAIRS[low & 1023]}`
}
