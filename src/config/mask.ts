import type { TSchema } from '../schema.ts'
import { isMapping } from './aliases.ts'
import { copyPlace } from './located.ts'

/** What stands where a secret was; no secret itself. */
export const MASK = '••••••'

/** Keys that no schema knows: options of plain Fastify plugins. */
const SOUNDS_SECRET = /(secret|password|passphrase|token|credentials?|(api|private)_?key)$/i

interface Masking {
  readonly writeOnly?: boolean
  readonly properties?: Readonly<Record<string, Masking>>
  readonly patternProperties?: Readonly<Record<string, Masking>>
  readonly items?: Masking
  readonly anyOf?: readonly Masking[]
}

/** A copy of `data` in which everything that the schema calls secret is masked (H-121). */
export function masked(schema: TSchema, data: unknown): unknown {
  return mask([schema as Masking], data)
}

/** A text in which nobody's password stands before a host: `redis://••••••@redis:6379`. */
export function withoutCredentials(text: string): string {
  return text.replace(/(:\/\/)[^/@\s]*@/g, `$1${MASK}@`)
}

/** @param schemas every schema that may be about the value; one that calls it secret is enough. */
function mask(schemas: readonly Masking[], data: unknown): unknown {
  const all = schemas.flatMap(branches)
  if (all.some(schema => schema.writeOnly) && data !== undefined && data !== '') return MASK
  if (Array.isArray(data)) {
    const items = all.flatMap(schema => schema.items ?? [])
    const copy = data.map(item => mask(items, item))
    for (const i of data.keys()) copyPlace(data, i, copy, i)
    return copy
  }
  if (typeof data === 'string') return withoutCredentials(data)
  if (!isMapping(data)) return data
  const copy: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(data)) {
    const about = all.flatMap(schema => schema.properties?.[key] ?? Object.values(schema.patternProperties ?? {}))
    copy[key] = about.length === 0 && SOUNDS_SECRET.test(key) ? MASK : mask(about, value)
    copyPlace(data, key, copy, key)
  }
  return copy
}

function branches(schema: Masking): Masking[] {
  return schema.anyOf === undefined ? [schema] : [schema, ...schema.anyOf.flatMap(branches)]
}
