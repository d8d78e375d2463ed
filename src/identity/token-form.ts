import { isUtf8 } from 'node:buffer'
import { untrusted } from './trouble.ts'

export type Claims = Record<string, unknown>

/** A token taken apart. That somebody has signed it is still to be found out. */
export interface ParsedToken {
  readonly header: Claims
  readonly algorithm: string
  readonly kid: string | undefined
  readonly payload: Claims
}

/** Longest token that is looked at, in characters (H-62). */
export const LONGEST = 8192
const LONGEST_KID = 256

const TOKEN = /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)$/
const TYPE = /^(?:application\/)?(?:at\+)?jwt$/i

/**
 * Takes a compact JWS apart, strictly (RFC 7515 section 5.2, RFC 8725): canonical base64url, UTF-8, objects without
 * duplicate names, no critical extensions. Keys that a token brings along (`jwk`, `jku`, `x5c`, `x5u`) are never looked at.
 * @throws {GatewayError} 401
 */
export function parseToken(token: string): ParsedToken {
  const parts = token.length > LONGEST ? null : TOKEN.exec(token)
  if (parts === null) throw untrusted('malformed')
  const header = parseObject(parts[1] as string)
  const payload = parseObject(parts[2] as string)
  decode(parts[3] as string)
  const { alg, typ, kid, crit, b64 } = header
  if (typeof alg !== 'string') throw untrusted('malformed')
  if (typ !== undefined && (typeof typ !== 'string' || !TYPE.test(typ))) throw untrusted('malformed')
  if (kid !== undefined && (typeof kid !== 'string' || kid.length > LONGEST_KID)) throw untrusted('malformed')
  if (crit !== undefined || b64 !== undefined) throw untrusted('critical_extension')
  return { header, algorithm: alg, kid, payload }
}

/** Node's decoder takes other spellings of the same bytes, too; two spellings of one token would be two tokens to a cache. */
function decode(part: string): Buffer {
  const bytes = Buffer.from(part, 'base64url')
  if (bytes.toString('base64url') !== part) throw untrusted('malformed')
  return bytes
}

function parseObject(part: string): Claims {
  const bytes = decode(part)
  if (!isUtf8(bytes)) throw untrusted('malformed')
  const text = bytes.toString('utf8')
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw untrusted('malformed')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value) || hasDuplicateNames(text))
    throw untrusted('malformed')
  return value as Claims
}

/**
 * Whether an object in `json`, at whatever depth, has a name twice: two parsers would read two tokens (RFC 7519 section 4).
 * One pass over the text, which is known to be valid JSON, so a string followed by a colon is a name.
 */
export function hasDuplicateNames(json: string): boolean {
  /** The names so far of each object that is open; undefined for an open array. */
  const open: (Set<string> | undefined)[] = []
  for (let at = 0; at < json.length; at++) {
    switch (json[at]) {
      case '{':
        open.push(new Set())
        break
      case '[':
        open.push(undefined)
        break
      case '}':
      case ']':
        open.pop()
        break
      case '"': {
        const end = endOfString(json, at)
        const names = open.at(-1)
        if (names !== undefined && isName(json, end)) {
          // `"\u0061"` and `"a"` are one name.
          const name = JSON.parse(json.slice(at, end)) as string
          if (names.has(name)) return true
          names.add(name)
        }
        at = end - 1
      }
    }
  }
  return false
}

/** Behind the closing quote of the string that begins at `start`. */
function endOfString(json: string, start: number): number {
  let at = start + 1
  while (json[at] !== '"') at += json[at] === '\\' ? 2 : 1
  return at + 1
}

function isName(json: string, end: number): boolean {
  let at = end
  while (json[at] === ' ' || json[at] === '\n' || json[at] === '\r' || json[at] === '\t') at++
  return json[at] === ':'
}
