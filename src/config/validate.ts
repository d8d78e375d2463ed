import type { TSchema } from '../schema.ts'
import { parseDuration, parseSize } from '../schema.ts'
import { ALIASES } from './aliases.ts'
import { copyPlace, type Path, placeOf } from './located.ts'
import { MASK, withoutCredentials } from './mask.ts'
import { nearest, type Problems, suggestion } from './problem.ts'

/** The part of JSON Schema that options are described in. */
export interface Schema {
  readonly description?: string
  readonly type?: string
  readonly const?: unknown
  readonly enum?: readonly unknown[]
  readonly anyOf?: readonly Schema[]
  readonly properties?: Readonly<Record<string, Schema>>
  readonly patternProperties?: Readonly<Record<string, Schema>>
  readonly required?: readonly string[]
  readonly items?: Schema
  readonly minItems?: number
  readonly maxItems?: number
  readonly minLength?: number
  readonly maxLength?: number
  readonly format?: string
  readonly pattern?: string
  readonly minimum?: number
  readonly exclusiveMinimum?: number
  readonly maximum?: number
  readonly default?: unknown
  /** A secret: shown nowhere. */
  readonly writeOnly?: boolean
  readonly unit?: 'duration' | 'size' | 'list'
}

/** Every keyword that {@link validate} knows; options of a plugin have to do with these. */
export const KEYWORDS: ReadonlySet<string> = new Set([
  ...['type', 'const', 'enum', 'anyOf', 'properties', 'patternProperties', 'additionalProperties', 'required', 'items'],
  ...['minItems', 'maxItems', 'minLength', 'maxLength', 'pattern', 'format', 'minimum', 'exclusiveMinimum', 'maximum'],
  ...['default', 'description', 'title', 'examples', 'writeOnly', 'deprecated', 'unit']
])

/**
 * Holds `data` against `schema` and adds all that is wrong to `problems`, each where it stands and with what could stand
 * there. (Ajv is what Fastify validates requests with; here it would take longer to compile the document's schema than the
 * gateway takes to start, and its errors would have to be translated into these.)
 *
 * @param path where `data` stands in the document.
 */
export function validate(schema: TSchema, data: unknown, problems: Problems, path: Path = []): void {
  check(schema as Schema, data, path, problems)
}

function check(schema: Schema, data: unknown, path: Path, problems: Problems): void {
  const branches = branchesOf(schema)
  const branch = branches.find(candidate => fits(candidate, data))
  // What is secret is not repeated: the sentence is then about its key.
  const shown = schema.writeOnly ? '' : `${show(data)} `
  if (branch === undefined)
    problems.add(path, `${shown}${wanted(branches)}${schema.writeOnly ? '' : nearWord(branches, data)}`)
  else if (branch.type === 'object') checkObject(branch, data as Record<string, unknown>, path, problems)
  else if (branch.type === 'array') checkList(branch, data as unknown[], path, problems)
  else {
    const fault = faultOf(branch, data)
    if (fault !== undefined) problems.add(path, `${shown}${fault}`)
  }
}

/** The alternatives of a schema, unions within unions included. */
function branchesOf(schema: Schema): readonly Schema[] {
  const known = branchesBySchema.get(schema)
  if (known !== undefined) return known
  const { anyOf, unit } = schema
  const inner = anyOf === undefined ? [schema] : anyOf.flatMap(branchesOf)
  const branches = anyOf === undefined || unit === undefined ? inner : inner.map(branch => ({ unit, ...branch }))
  branchesBySchema.set(schema, branches)
  return branches
}

const branchesBySchema = new WeakMap<Schema, readonly Schema[]>()

function checkObject(schema: Schema, data: Record<string, unknown>, path: Path, problems: Problems): void {
  const { properties = {}, patternProperties = {}, required = [] } = schema
  const rest = Object.values(patternProperties)[0]
  const meant = new Set<string | undefined>()
  for (const [key, value] of Object.entries(data)) {
    const property = Object.hasOwn(properties, key) ? properties[key] : rest
    if (property !== undefined) check(property, value, [...path, key], problems)
    else {
      const aliases = aliasesAt(path)
      const other = aliases[key]
      const known = Object.keys(properties)
      meant.add(nearest(key, known))
      const message =
        other !== undefined && Object.hasOwn(data, other)
          ? `is another word for "${other}", which stands beside it; keep one of them`
          : `unknown key${suggestion(key, [...known, ...Object.keys(aliases)]) || belonging(key, properties)}`
      problems.add([...path, key], message, 'key')
    }
  }
  for (const key of required)
    if (!Object.hasOwn(data, key) && !meant.has(key)) problems.add(path, `needs the key "${key}"`, 'key')
}

/** Other words for keys of the block at `path`. */
function aliasesAt(path: Path): Readonly<Record<string, string>> {
  return ALIASES[String(path.at(-1))] ?? (path.length <= 2 ? ALIASES[String(path[0])] : undefined) ?? {}
}

/** Of a key that stands a level too high, which of its neighbours it is a part of. */
function belonging(key: string, properties: Readonly<Record<string, Schema>>): string {
  const block = Object.entries(properties).find(([, schema]) =>
    branchesOf(schema).some(branch => Object.hasOwn(branch.properties ?? {}, key))
  )
  return block === undefined ? '' : `; it is a part of "${block[0]}"`
}

function checkList(schema: Schema, data: readonly unknown[], path: Path, problems: Problems): void {
  if (data.length < (schema.minItems ?? 0))
    problems.add(path, `needs at least ${schema.minItems} ${schema.minItems === 1 ? 'entry' : 'entries'}`)
  if (data.length > (schema.maxItems ?? Number.POSITIVE_INFINITY))
    problems.add(path, `may have at most ${schema.maxItems} entries`)
  for (const [i, item] of data.entries())
    if (schema.items !== undefined) check(schema.items, item, [...path, i], problems)
}

/** Whether a value is of the kind that a schema is about; of several branches, the first that fits decides. */
function fits(schema: Schema, data: unknown): boolean {
  if (schema.const !== undefined) return schema.const === data
  if (schema.enum !== undefined) return schema.enum.includes(data)
  switch (schema.type) {
    case 'array':
      return Array.isArray(data)
    case 'object':
      return typeof data === 'object' && data !== null && !Array.isArray(data)
    case 'integer':
      return Number.isInteger(data)
    case 'number':
      // YAML's .inf and .nan are no amount of anything, and JSON does not know them.
      return Number.isFinite(data)
    case 'null':
      return data === null
    case undefined:
      return true
    default:
      // For the rest JSON Schema's names are JavaScript's.
      return typeof data === schema.type
  }
}

/** What is wrong with a value of the right kind. */
function faultOf(schema: Schema, data: unknown): string | undefined {
  const { exclusiveMinimum, unit = '' } = schema
  if (exclusiveMinimum !== undefined && Number.parseFloat(String(data)) <= exclusiveMinimum)
    return `must be more than ${exclusiveMinimum}`
  if (typeof data === 'string') {
    if (data.includes(MASK)) return `is a masked value, as "sallyport config" prints it: the secret itself belongs here`
    const { minLength = 0, maxLength = Number.POSITIVE_INFINITY, format = '' } = schema
    if (data.length < minLength)
      return minLength === 1 ? 'must not be empty' : `must have at least ${minLength} characters`
    if (data.length > maxLength) return `may have at most ${maxLength} characters`
    const [looksRight, example] = FORMATS[format] ?? []
    if (looksRight?.test(data) === false) return `does not look right: ${example}`
    if (schema.pattern !== undefined && !new RegExp(schema.pattern, 'u').test(data))
      return UNITS[unit] ?? `does not look right: ${EXAMPLES[schema.pattern] ?? `it has to match ${schema.pattern}`}`
  }
  if (typeof data === 'number') {
    if (schema.minimum !== undefined && data < schema.minimum)
      return UNITS[unit] ?? `must be at least ${schema.minimum}`
    if (schema.maximum !== undefined && data > schema.maximum) {
      const share = schema.maximum <= 1 && data <= 100 ? `; a share of ${data} % is ${data / 100}` : ''
      return `must be at most ${schema.maximum}${share}`
    }
  }
  return undefined
}

/** JSON Schema's formats, as far as anybody asks for them, and what to write. */
const FORMATS: Record<string, readonly [RegExp, string]> = {
  uuid: [/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i, 'write a UUID'],
  email: [/^[^\s@<>"]+@[^\s@<>".]+(?:\.[^\s@<>".]+)*$/, 'write name@example.com'],
  'date-time': [
    /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)$/,
    'write an RFC 3339 time such as 2030-12-31T00:00:00Z'
  ]
}

/** What the patterns of the document mean, for people. */
const EXAMPLES: Record<string, string> = {
  '^/': 'it has to begin with "/"',
  '^https?://': 'write http://host:port or https://host',
  '^.+:\\d+$': 'write 127.0.0.1:9090',
  '^[A-Za-z]+$': 'write a method, such as GET',
  '^[1-9](?:xx|[0-9][0-9])$': 'write a status such as 404, or a class such as 5xx',
  '^\\P{Cc}*$': 'it may not hold control characters',
  '^(ip|user|(header|query|cookie):.+)$': 'write ip, user, header:X-Tenant, query:tenant or cookie:session',
  '^[A-Za-z]{2}$': 'write the two letters of ISO 3166-1, such as DE',
  '^\\d{4}-\\d\\d-\\d\\d': 'write 2026-01-31, or a time such as 2026-01-31T12:00:00Z',
  '^/[!-~]*$': 'it has to begin with "/", and spaces and other letters are written as in a URL',
  "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$": 'write the name of a header field, such as X-Country',
  '^[A-Za-z0-9][A-Za-z0-9_.-]*$': 'write letters, digits, ".", "-" and "_", a letter or digit first',
  '^[A-Za-z0-9_.-]+$': 'write letters, digits, "_", "." and "-"',
  '^[0-9a-f]{64}$': 'write the 64 hex digits of a SHA-256',
  '^(?:postgres(?:ql)?://.+)?$': 'write postgres://user:password@host:5432/database',
  '^[A-Za-z0-9][A-Za-z0-9._-]*$': 'write letters, digits, ".", "-" and "_", a letter or digit first',
  '^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$':
    'write letters, digits, ".", "-" and "_", a letter or digit first and last',
  '^[\\p{L}\\p{N}][\\p{L}\\p{N}._:-]*$': 'write letters, digits, ".", "_", ":" and "-", a letter or digit first',
  '^[^\\s\\p{Cc}]+$': 'it may hold neither spaces nor control characters',
  '^[^@\\s\\x00-\\x1f]+@[^@\\s\\x00-\\x1f]+$': 'write name@example.com'
}

const UNITS: Record<string, string> = {
  duration: 'is no duration: write 30s, 500ms, 2m or a number of seconds',
  size: 'is no size: write 64kb, 10mb or a number of bytes'
}

/** `is no duration: write 30s, …`, `should be a list or false`. */
function wanted(branches: readonly Schema[]): string {
  const [unit] = new Set(branches.map(branch => UNITS[branch.unit ?? '']))
  if (unit !== undefined && branches.every(branch => branch.unit !== undefined)) return unit
  const kinds = branches.flatMap(branch => {
    if (branch.const !== undefined) return [show(branch.const)]
    if (branch.unit === 'duration') return ['a duration such as 30s']
    if (branch.unit === 'size') return ['a size such as 64kb']
    return branch.enum?.map(show) ?? [KINDS[branch.type ?? ''] ?? 'something else']
  })
  const unique = [...new Set(kinds)]
  return `should be ${unique.length < 2 ? unique.join('') : `${unique.slice(0, -1).join(', ')} or ${unique.at(-1)}`}`
}

const KINDS: Record<string, string> = {
  object: 'a mapping',
  array: 'a list',
  string: 'a string',
  integer: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
  null: 'null'
}

function nearWord(branches: readonly Schema[], data: unknown): string {
  const words = branches.flatMap(branch => branch.enum ?? (branch.const === undefined ? [] : [branch.const]))
  return typeof data === 'string' ? suggestion(data, words.map(String)) : ''
}

function show(value: unknown): string {
  if (typeof value === 'string') {
    const text = withoutCredentials(value)
    return `"${text.length > 40 ? `${text.slice(0, 40)}…` : text}"`
  }
  return Array.isArray(value) ? 'a list' : typeof value === 'object' && value !== null ? 'a mapping' : String(value)
}

/**
 * Turns text that came from a variable into the number or the truth that the schema asks for at its place: `port: ${PORT}`. What
 * a variable holds is never read as more than one value.
 */
export function readVariablesAs(schema: TSchema, data: unknown): void {
  if (typeof data !== 'object' || data === null) return
  const branches = branchesOf(schema as Schema).filter(candidate => fits(candidate, data))
  for (const [key, value] of Object.entries(data)) {
    const inner = branches.flatMap(({ properties = {}, patternProperties = {}, items }) => {
      const named = Object.hasOwn(properties, key) ? [properties[key] as Schema] : Object.values(patternProperties)
      return Array.isArray(data) ? (items ?? []) : named
    })
    if (typeof value === 'object') for (const candidate of inner) readVariablesAs(candidate as TSchema, value)
    else if (typeof value === 'string' && placeOf(data, key)?.env !== undefined) {
      const read = asAsked(value, inner.flatMap(branchesOf))
      // A document that has been through here before may be frozen by now.
      if (read !== value) (data as Record<string, unknown>)[key] = read
    }
  }
}

function asAsked(text: string, branches: readonly Schema[]): unknown {
  if (branches.some(candidate => fits(candidate, text) && faultOf(candidate, text) === undefined)) return text
  const read = { true: true, false: false, null: null }[text] ?? (text.trim() === '' ? text : Number(text))
  return branches.some(candidate => fits(candidate, read)) ? read : text
}

/** A copy of valid `data` with defaults filled in, durations in milliseconds, sizes in bytes and lone values in lists. */
export function settle(schema: TSchema, data: unknown): unknown {
  return settleValue(schema as Schema, data, true)
}

/** A copy of valid `data` with defaults filled in, as somebody could have written it: `30s` stays `30s`. */
export function complete(schema: TSchema, data: unknown): unknown {
  return settleValue(schema as Schema, data, false)
}

/** @param read whether units are turned into numbers, and lone values into lists */
function settleValue(schema: Schema, data: unknown, read: boolean): unknown {
  if (data === undefined) {
    if (schema.default === undefined) return undefined
    return settleValue(schema, schema.default, read)
  }
  if (read && schema.unit === 'duration') return parseDuration(data as string | number)
  if (read && schema.unit === 'size') return parseSize(data as string | number)
  if (read && schema.unit === 'list') return Array.isArray(data) ? data : [data]
  if (schema.anyOf !== undefined) {
    const branch = schema.anyOf.find(candidate => branchesOf(candidate).some(inner => fits(inner, data)))
    return branch === undefined ? data : settleValue(branch, data, read)
  }
  if (Array.isArray(data)) return schema.items === undefined ? data : settleList(schema.items, data, read)
  if (typeof data !== 'object' || data === null) return data
  return settleObject(schema, data as Record<string, unknown>, read)
}

function settleList(items: Schema, data: readonly unknown[], read: boolean): unknown[] {
  const out = data.map(item => settleValue(items, item, read))
  for (const i of data.keys()) copyPlace(data, i, out, i)
  return out
}

function settleObject(schema: Schema, data: Record<string, unknown>, read: boolean): Record<string, unknown> {
  const out: Record<string, unknown> = {}
  for (const [key, property] of Object.entries(schema.properties ?? {})) {
    const value = settleValue(property, Object.hasOwn(data, key) ? data[key] : undefined, read)
    if (value === undefined) continue
    out[key] = value
    copyPlace(data, key, out, key)
  }
  const rest = Object.values(schema.patternProperties ?? {})[0]
  for (const [key, value] of Object.entries(data)) {
    if (Object.hasOwn(schema.properties ?? {}, key)) continue
    out[key] = rest === undefined ? value : settleValue(rest, value, read)
    copyPlace(data, key, out, key)
  }
  return out
}
