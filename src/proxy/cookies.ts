import type { Exchange } from './exchange.ts'

/** The first cookie of this name that the request brings along (RFC 6265 section 4.2); undefined if there is none. */
export function cookieOf(exchange: Exchange, name: string): string | undefined {
  const header = exchange.header('cookie')
  if (header === undefined) return undefined
  const start = `${name}=`
  for (let at = header.indexOf(start); at !== -1; at = header.indexOf(start, at + 1)) {
    let before = at - 1
    while (header.charCodeAt(before) === 0x20) before--
    // The end of a longer name, or something within a value.
    if (before >= 0 && header.charCodeAt(before) !== 0x3b) continue
    const end = header.indexOf(';', at)
    return header.slice(at + start.length, end === -1 ? header.length : end).trimEnd()
  }
  return undefined
}

/** A cookie of the gateway's own. */
export interface CookieOptions {
  readonly name: string
  /** Seconds; undefined for as long as the browser runs. */
  readonly maxAge: number | undefined
}

/**
 * Sends a cookie with the answer, whoever makes it: out of scripts' reach, for this site's requests and links to it, and for TLS
 * alone if the client has come by it. A further one of the same name takes its place.
 */
export function setCookie(exchange: Exchange, { name, maxAge }: CookieOptions, value: string): void {
  const age = maxAge === undefined ? '' : `; Max-Age=${maxAge}`
  const secure = exchange.isSecure ? '; Secure' : ''
  const cookie = `${name}=${value}; Path=/${age}; HttpOnly; SameSite=Lax${secure}`
  const { fields } = exchange
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] === 'set-cookie' && (fields[i + 1] as string).startsWith(`${name}=`)) {
      fields[i + 1] = cookie
      return
    }
  }
  fields.push('set-cookie', cookie)
}
