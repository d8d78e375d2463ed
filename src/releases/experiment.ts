import type { Exchange } from '../proxy/exchange.ts'
import type { Experiment } from './settings.ts'
import { compileShares } from './split.ts'

/** What an answer tells of the variant, and a request tells its service. */
export const VARIANT_FIELD = 'x-variant'

/** How long a browser keeps the cookie that says its variant, in seconds: 30 days. */
const COOKIE_SECONDS = 30 * 86_400

/** Who took part in what, as far as it can be known again: a variant for each caller, the same one every time. */
export interface Assignment<T> {
  readonly variant: T
  /** What it was told by; `chance` for a caller who was not known. */
  readonly by: 'caller' | 'header' | 'cookie' | 'chance'
}

/**
 * The function that says which variant a caller gets (RTE-08): by who it is, else by a header field, else by the cookie that
 * it was given. Weights move as few callers as they can: each has a fixed place, and the variants' shares lie side by side.
 * @param values what stands for each of the experiment's variants
 * @param random for callers who are not known
 */
export function compileAssignment<T>(
  { name, variants, header, cookie }: Experiment,
  values: readonly T[],
  random: () => number
): (exchange: Pick<Exchange, 'consumer' | 'header'>) => Assignment<T> {
  const at = compileShares(variants.map(({ weight }, i) => ({ value: values[i] as T, weight })))
  const byName = new Map(
    variants.flatMap(({ name, weight }, i): [string, T][] => (weight > 0 ? [[name, values[i] as T]] : []))
  )
  const field = header?.toLowerCase()
  const cookieStart = `${cookieName(name)}=`
  return exchange => {
    const { consumer } = exchange
    if (consumer !== undefined) return { variant: at(placeOf(name, consumer.key)), by: 'caller' }
    const said = field === undefined ? undefined : exchange.header(field)
    if (said) return { variant: at(placeOf(name, said)), by: 'header' }
    const kept = cookie ? byName.get(cookieValue(exchange.header('cookie'), cookieStart)) : undefined
    if (kept !== undefined) return { variant: kept, by: 'cookie' }
    return { variant: at(random()), by: 'chance' }
  }
}

/** The `Set-Cookie` by which a caller comes back to its variant. */
export function cookieFor({ name }: Experiment, variant: string, secure: boolean): string {
  const end = secure ? '; Secure' : ''
  return `${cookieName(name)}=${variant}; Path=/; Max-Age=${COOKIE_SECONDS}; HttpOnly; SameSite=Lax${end}`
}

function cookieName(experiment: string): string {
  return `ab-${experiment}`
}

function cookieValue(field: string | undefined, start: string): string {
  if (field === undefined) return ''
  for (const pair of field.split(';')) {
    const trimmed = pair.trim()
    if (trimmed.startsWith(start)) return trimmed.slice(start.length)
  }
  return ''
}

/**
 * Where in the unit interval a caller is: FNV-1a, with murmur3's end so that neighbours come to lie far apart. In another
 * experiment it is somewhere else.
 */
export function placeOf(experiment: string, caller: string): number {
  const text = `${experiment}\n${caller}`
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return ((hash ^ (hash >>> 16)) >>> 0) / 4294967296
}
