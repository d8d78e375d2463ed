/** How requests say which version of an API they want, beyond its path. */
export interface Versioning {
  /** `acme`: `Accept: application/vnd.acme.v2+json` wants version 2. */
  readonly vendor?: string | undefined
  /** `version`: `?version=2` wants version 2. */
  readonly query?: string | undefined
  /** For requests that want none; the lowest there is if not given, so that a new one breaks nobody. */
  readonly default?: string | undefined
}

/** What a request wants: some versions by name, and how much any other would do. Qualities are from 0 to 1. */
export interface Wanted {
  readonly named: ReadonlyMap<string, number>
  readonly others: number
}

const ANY: Wanted = { named: new Map(), others: 1 }

/** `v2`, `V2` and `2` are one version; `v1beta` is `1beta`, and `vision` is what it says. */
export function versionName(text: string | number): string {
  return String(text)
    .toLowerCase()
    .replace(/^v(?=\d)/, '')
}

/** Reads what a request wants. The query is exact; of media types the qualities count (RFC 9110 section 12.5.1). */
export function wantedBy(
  request: { header(name: string): string | undefined; query(name: string): string | undefined },
  { vendor, query }: Versioning
): Wanted {
  const asked = query === undefined ? undefined : request.query(query)
  if (asked) return { named: new Map([[versionName(asked), 1]]), others: 0 }
  const accept = vendor === undefined ? undefined : request.header('accept')
  return accept ? wantedMedia(accept, `application/vnd.${(vendor as string).toLowerCase()}.v`) : ANY
}

/** A media type of the vendor's names a version; every other one leaves that open. */
function wantedMedia(accept: string, start: string): Wanted {
  const named = new Map<string, number>()
  let others = 0
  for (const range of accept.split(',')) {
    const [type = '', ...parameters] = range.split(';').map(part => part.trim().toLowerCase())
    const quality = qualityOf(parameters)
    if (type.startsWith(start)) {
      const version = versionName(type.slice(start.length).split('+', 1)[0] as string)
      named.set(version, Math.max(quality, named.get(version) ?? 0))
    } else if (type !== '') others = Math.max(others, quality)
  }
  return { named, others }
}

/** 1 unless it says otherwise; what is no quality counts as one of 0, as the client has meant to say less. */
function qualityOf(parameters: readonly string[]): number {
  const q = parameters.find(parameter => /^q\s*=/.test(parameter))
  if (q === undefined) return 1
  const value = q.slice(q.indexOf('=') + 1).trim()
  return /^(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)$/.test(value) ? Number(value) : 0
}

/**
 * The version that a request gets: the one it likes best; among equals the default, else the lowest. Undefined when it wants
 * none of those that there are.
 * @param available at least one
 */
export function negotiate(
  { named, others }: Wanted,
  available: readonly string[],
  fallback: string | undefined
): string | undefined {
  let best: string | undefined
  let most = 0
  for (const version of available) {
    const quality = named.get(version) ?? others
    if (quality > most || (quality === most && best !== undefined && goesBefore(version, best, fallback))) {
      best = version
      most = quality
    }
  }
  return best
}

function goesBefore(version: string, other: string, fallback: string | undefined): boolean {
  if (version === fallback || other === fallback) return version === fallback
  return compareVersions(version, other) < 0
}

/** Lower versions first; 10 comes after 9. */
export function compareVersions(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true })
}
