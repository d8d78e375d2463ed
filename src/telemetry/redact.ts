/** Header fields and query parameters whose values are secrets. */
const SECRET =
  /^(authorization|proxy-authorization|cookie|set-cookie|x-api-key|api-?key|access_token|token|secret|password|.*-(token|secret|key))$/i

/** What stands where a secret was. */
const REDACTED = '[redacted]'

function isSecretName(name: string): boolean {
  return SECRET.test(name)
}

/** Raw fields as an object that may be logged. */
export function redactFields(raw: readonly string[]): Record<string, string> {
  const fields: Record<string, string> = {}
  for (let i = 0; i < raw.length; i += 2) {
    const name = (raw[i] as string).toLowerCase()
    fields[name] = isSecretName(name) ? REDACTED : (raw[i + 1] as string).slice(0, 1024)
  }
  return fields
}
