/** Header fields and query parameters whose values are secrets. */
const SECRET =
  /^(authorization|proxy-authorization|cookie|set-cookie|x-api-key|api-?key|access_token|token|secret|password|.*-(token|secret|key))$/i

/** What stands where a secret was. */
const REDACTED = '[redacted]'

function isSecretName(name: string): boolean {
  return SECRET.test(name)
}

/** Control characters of all kinds: a terminal acts on some of them. */
const CONTROL = /[\x00-\x1f\x7f-\x9f\u2028\u2029]/g
const LONGEST = 1024

/** What a client sent, fit for a log: control characters are written as `\u001b`, and no more than 1 KiB is kept (H-125). */
export function harmless(text: string): string {
  return text.slice(0, LONGEST).replace(CONTROL, char => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** Raw fields as an object that may be logged. */
export function redactFields(raw: readonly string[]): Record<string, string> {
  const fields: Record<string, string> = {}
  for (let i = 0; i < raw.length; i += 2) {
    const name = (raw[i] as string).toLowerCase()
    fields[name] = isSecretName(name) ? REDACTED : harmless(raw[i + 1] as string)
  }
  return fields
}
