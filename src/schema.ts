import type { Static, TObject, TProperties, TSchema, TUnsafe, Type as TypeBox } from 'typebox'

export type { Static, TObject, TSchema }

type Builder = Pick<
  typeof TypeBox,
  | 'Array'
  | 'Boolean'
  | 'Integer'
  | 'Literal'
  | 'Null'
  | 'Number'
  | 'Object'
  | 'Optional'
  | 'Record'
  | 'String'
  | 'Union'
  | 'Unknown'
>

const optional = new WeakSet<object>()
const hasDefault = (schema: object | undefined): boolean => schema !== undefined && 'default' in schema

/**
 * TypeBox's builder for the types that options are made of, with TypeBox's own types. The library itself takes longer to
 * load than the gateway takes to start, and what it makes is plain JSON Schema; `test/src/schema.test.ts` holds this
 * against it. Two things differ: objects are closed, since an unknown key is a typing error, and what
 * has a default is not required.
 */
export const Type = {
  Array: (items: TSchema, options?: object) => ({ type: 'array', items, ...options }),
  Boolean: (options?: object) => ({ type: 'boolean', ...options }),
  Integer: (options?: object) => ({ type: 'integer', ...options }),
  Literal: (value: string | number | boolean, options?: object) => ({ type: typeof value, const: value, ...options }),
  Null: (options?: object) => ({ type: 'null', ...options }),
  Number: (options?: object) => ({ type: 'number', ...options }),
  Object: (properties: TProperties, options?: object) => ({
    type: 'object',
    required: Object.keys(properties).filter(
      key => !optional.has(properties[key] as object) && !hasDefault(properties[key])
    ),
    properties,
    additionalProperties: false,
    ...options
  }),
  Optional: (schema: TSchema) => {
    const copy = { ...schema }
    optional.add(copy)
    return copy
  },
  Record: (_key: TSchema, values: TSchema, options?: object) => ({
    type: 'object',
    patternProperties: { '^.*$': values },
    ...options
  }),
  String: (options?: object) => ({ type: 'string', ...options }),
  Union: (anyOf: TSchema[], options?: object) => ({ anyOf, ...options }),
  Unknown: (options?: object) => ({ ...options })
} as unknown as Builder

/** What every option says of itself: it is the reference page, the editor's help and the error message. */
export interface OptionNotes<T> {
  readonly description: string
  readonly default?: T
  /** The value is shown nowhere: not in dumps, logs or errors. */
  readonly secret?: boolean
}

function notes({ secret, ...rest }: OptionNotes<unknown>): object {
  return secret ? { ...rest, writeOnly: true } : rest
}

/** What durations and sizes say of themselves besides. */
export interface AmountNotes extends OptionNotes<string> {
  /** 0 makes no sense here, and is refused. */
  readonly positive?: boolean
}

/** A length of time: `30s`, `500ms`, `2m`, or a number of seconds. Reaches `compile` in milliseconds. */
export function duration({ positive = false, ...options }: AmountNotes): TUnsafe<number> {
  return unsafe({ ...notes(options), anyOf: amounts('number', DURATION, positive), unit: 'duration' })
}

/** An amount of data: `64kb`, `10mb`, or a number of bytes. Reaches `compile` in bytes. */
export function size({ positive = false, ...options }: AmountNotes): TUnsafe<number> {
  return unsafe({ ...notes(options), anyOf: amounts('integer', SIZE, positive), unit: 'size' })
}

/** A plain number, or text with a unit. The bound of a text is for our own messages; JSON Schema has the pattern. */
function amounts(type: 'number' | 'integer', pattern: string, positive: boolean): object[] {
  if (!positive)
    return [
      { type, minimum: 0 },
      { type: 'string', pattern: `^${pattern}$` }
    ]
  return [
    { type, exclusiveMinimum: 0 },
    { type: 'string', pattern: `^(?=.*[1-9])${pattern}$`, exclusiveMinimum: 0 }
  ]
}

/** Text that may be absent. */
export const text = (description: string, options: object = {}) =>
  Type.Optional(Type.String({ description, ...options }))
/** The same, for what is never shown. */
export const secret = (description: string) => text(description, { writeOnly: true })
/** Text that says something. */
export const word = Type.String({ minLength: 1 })
/** On or off. */
export const flag = (description: string, value: boolean) => Type.Boolean({ description, default: value })
/** So many; 0 or more. */
export const count = (description: string, value: number, options: object = {}) =>
  Type.Integer({ description, default: value, minimum: 0, ...options })

/** One of several words. */
export function oneOf<const T extends readonly string[]>(
  words: T,
  options: OptionNotes<T[number]>
): TUnsafe<T[number]> {
  return unsafe({ ...notes(options), type: 'string', enum: [...words] })
}

/** One value or a list of them; reaches `compile` as a list. */
export function listOf(items: TSchema, options: OptionNotes<unknown[]>): TUnsafe<string[]> {
  return unsafe({ ...notes(options), anyOf: [{ type: 'array', items }, items], unit: 'list' })
}

function unsafe<T>(schema: object): TUnsafe<T> {
  return schema as unknown as TUnsafe<T>
}

const DURATION = '\\d+(\\.\\d+)?\\s*(ms|s|m|h|d)'
const SIZE = '\\d+(\\.\\d+)?\\s*([kKmMgG][iI]?)?[bB]'

const MILLISECONDS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const BYTES: Record<string, number> = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 }

/** Milliseconds in `30s`, or in a number of seconds. */
export function parseDuration(value: string | number): number {
  if (typeof value === 'number') return whole(value * 1000)
  const match = /^([\d.]+)\s*([a-z]+)$/.exec(value)
  return whole(Number(match?.[1]) * (MILLISECONDS[match?.[2] ?? ''] ?? Number.NaN))
}

/** Bytes in `64kb`. Units are powers of 1024, with or without the `i`. */
export function parseSize(value: string | number): number {
  if (typeof value === 'number') return value
  const match = /^([\d.]+)\s*([kmg]?)i?b$/i.exec(value)
  return whole(Number(match?.[1]) * (BYTES[match?.[2]?.toLowerCase() ?? ''] ?? Number.NaN))
}

/** The nearest whole number, but never 0 for what is more, since 0 often stands for no limit at all. */
function whole(amount: number): number {
  return Math.round(amount) || Math.ceil(amount)
}
