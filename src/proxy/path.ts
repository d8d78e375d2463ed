/**
 * The request target, normalised once at the door: what is matched is what is authorised is what is forwarded.
 *
 * RFC 3986 section 6.2.2: unreserved characters are decoded, escapes are upper-cased, dot segments are removed.
 * On top of that repeated slashes are merged, and everything that two parsers could read in two ways is refused.
 */

/** Why a request target is refused; the word goes into the log and the error's details. */
export type PathProblem =
  | 'not_a_path'
  | 'bad_character'
  | 'bad_escape'
  | 'control_character'
  | 'invalid_utf8'
  | 'backslash'
  | 'dot_segment_with_parameter'
  | 'empty_segment_with_parameter'
  | 'above_root'

/** A canonical path, and whether it holds an encoded slash, which a route has to ask for. */
export interface CanonicalPath {
  readonly path: string
  readonly encodedSlash: boolean
}

/** The first place in a target where something has to be looked at: anything that is not plain, or an odd segment's start. */
const NOT_PLAIN = /[^A-Za-z0-9\-._~!$&'()*+,;=:@|^`{}[\]"<>/]|\/[/.;]/

/**
 * Where the path of `target` ends, if it is canonical already; -1 if it has to go through {@link canonicalise}.
 * Nearly every request of a well-behaved client takes this branch, so it allocates nothing. (A loop over the characters
 * takes three times as long.)
 */
export function canonicalEnd(target: string): number {
  if (target.charCodeAt(0) !== 0x2f) return -1
  const at = target.search(NOT_PLAIN)
  if (at === -1) return target.length
  return target.charCodeAt(at) === 0x3f ? at : -1
}

/** How each byte is written in a canonical path when it came as an escape: unreserved ones as themselves. */
const canonicalEscape: readonly string[] = Array.from({ length: 256 }, (_, byte) => {
  const char = String.fromCharCode(byte)
  return /[A-Za-z0-9\-._~]/.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
})

/** The canonical form of the path part of a request target (no query), or the reason why it is refused. */
export function canonicalise(raw: string): CanonicalPath | PathProblem {
  if (raw.charCodeAt(0) !== 0x2f) return 'not_a_path'
  const escaped = normaliseEscapes(raw)
  if (typeof escaped !== 'string') return escaped.problem
  if (!SEGMENTS_TO_LOOK_AT.test(escaped)) return { path: escaped, encodedSlash: false }
  const path = removeDotSegments(escaped)
  if (!path.startsWith('/')) return path as PathProblem
  return { path, encodedSlash: path.includes('%2F') }
}

function normaliseEscapes(raw: string): string | { problem: PathProblem } {
  let out = ''
  let copied = 0
  let beyondAscii = false
  for (let i = 0; i < raw.length; i++) {
    const code = raw.charCodeAt(i)
    if (code === 0x5c) return { problem: 'backslash' }
    if (code <= 0x20 || code >= 0x7f || code === 0x23) return { problem: 'bad_character' }
    if (code !== 0x25) continue
    const byte = (hexDigit(raw.charCodeAt(i + 1)) << 4) | hexDigit(raw.charCodeAt(i + 2))
    if (byte < 0) return { problem: 'bad_escape' }
    if (byte < 0x20 || byte === 0x7f) return { problem: 'control_character' }
    if (byte === 0x5c) return { problem: 'backslash' }
    beyondAscii ||= byte >= 0x80
    out += raw.slice(copied, i) + canonicalEscape[byte]
    i += 2
    copied = i + 1
  }
  out += raw.slice(copied)
  return beyondAscii && !isUtf8(out) ? { problem: 'invalid_utf8' } : out
}

/** The value of a hexadecimal digit; negative, with all high bits set, if it is none. */
function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30
  const letter = code | 0x20
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1
}

/** Whether the escapes of `path` spell UTF-8, with nothing overlong and no surrogates. */
function isUtf8(path: string): boolean {
  try {
    decodeURIComponent(path)
    return true
  } catch {
    return false
  }
}

/** Without any of these a path has no dot segments, disguised or not, and no empty ones. */
const SEGMENTS_TO_LOOK_AT = /\/(?:[/.;]|%3B)|%2F/

/** RFC 3986 section 5.2.4, merging slashes on the way; climbing above the root is refused rather than clipped. */
function removeDotSegments(path: string): string {
  const kept: string[] = []
  const segments = path.split('/')
  for (let i = 1; i < segments.length; i++) {
    const segment = segments[i] as string
    const last = i === segments.length - 1
    if (isDotSegmentInDisguise(segment)) return 'dot_segment_with_parameter' satisfies PathProblem
    // `/;x/admin` is `//admin` to who drops parameters, and two segments to who does not.
    if (/^(?:;|%3B)/.test(segment)) return 'empty_segment_with_parameter' satisfies PathProblem
    if (segment === '..') {
      if (kept.length === 0) return 'above_root' satisfies PathProblem
      kept.pop()
      if (last) kept.push('')
    } else if (segment === '.') {
      if (last) kept.push('')
    } else if (segment !== '' || last) {
      kept.push(segment)
    }
  }
  return `/${kept.join('/')}`
}

/**
 * `..;x`, `.%3B`, `..%2Fadmin`: nothing to us, a dot segment to a server that drops parameters or decodes slashes first
 * (CVE-2021-29492, CVE-2026-73551).
 */
function isDotSegmentInDisguise(segment: string): boolean {
  for (const part of segment.split('%2F')) {
    const name = part.split(/;|%3B/, 1)[0]
    if ((name === '.' || name === '..') && segment !== name) return true
  }
  return false
}

/**
 * What the route table matches: the path in lower case, without path parameters, so that `/Admin` and `/admin;x=1` are
 * held by the rules for `/admin` even when the service behind is lenient about both.
 */
export function matchable(path: string): string {
  if (path.includes(';')) path = path.replace(/;[^/]*/g, '')
  return path.toLowerCase()
}
