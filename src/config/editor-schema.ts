import type { TObject } from '../schema.ts'
import { ALIASES, ANY_CASE } from './aliases.ts'
import type { Schema } from './validate.ts'

type Json = Record<string, unknown>

/** A value that comes from the environment, whatever is asked for at its place. */
const VARIABLE = { $ref: '#/$defs/variable' }

/**
 * The document's schema as editors take it: JSON Schema 2020-12, with the other spellings that are read, and with `${NAME}`
 * wherever a scalar may stand. What may stand under `defaults`, a service and a route is there once, under `$defs`.
 */
export function editorSchema(document: TObject): Json {
  const { properties = {} } = document as Schema
  const shared = new Map(Object.entries(properties.defaults?.properties ?? {}).map(([key, schema]) => [schema, key]))
  const converter = new Converter(shared)
  const blocks = [...shared].map(([schema, key]) => [key, converter.convert(schema, key)])
  const { additionalProperties, ...converted } = converter.convert(document as Schema) as { properties: Json } & Json
  const own = converted.properties
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    ...converted,
    properties: {
      $schema: { type: 'string', description: 'This schema, for editors.' },
      include: {
        anyOf: [{ type: 'string' }, { type: 'array', items: { type: 'string' } }],
        description: 'Files and folders to read before this one, relative to it.'
      },
      ...own,
      errors: anotherWord({ $ref: '#/$defs/errors' }, 'defaults.errors'),
      // Seed 003.
      router: anotherWord(closed({ routes: { $ref: '#/properties/routes' } }), 'routes'),
      rate_limiter: anotherWord({ $ref: '#/properties/rate_limits' }, 'rate_limits'),
      circuit_breaker: anotherWord(closed({ default: { $ref: '#/$defs/circuit_breaker' } }), 'defaults.circuit_breaker')
    },
    additionalProperties,
    dependentSchemas: { circuit_breaker: { anyOf: [{ required: ['router'] }, { required: ['rate_limiter'] }] } },
    $defs: {
      ...Object.fromEntries(blocks),
      variable: {
        type: 'string',
        pattern: '\\$\\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\\}',
        description: 'A variable of the environment, perhaps with a default.'
      }
    }
  }
}

class Converter {
  readonly #shared: ReadonlyMap<Schema, string>

  constructor(shared: ReadonlyMap<Schema, string>) {
    this.#shared = shared
  }

  /** @param key of the block that the schema is about, or of its list */
  convert(schema: Schema, key = ''): Json {
    const { unit, properties, patternProperties, items, anyOf, ...rest } = ANY_CASE.has(key)
      ? inAnyCase(schema)
      : schema
    if (anyOf !== undefined)
      return withVariables(
        rest,
        anyOf.map(branch => this.convert(branch, key))
      )
    if (properties !== undefined) return { ...rest, properties: this.#properties(properties, key) }
    if (patternProperties !== undefined)
      return { ...rest, additionalProperties: this.convert(Object.values(patternProperties)[0] as Schema, key) }
    if (items !== undefined) return { ...rest, items: this.convert(items, key) }
    const { description, default: standard, writeOnly, ...type } = rest
    return isFreeText(rest) || rest.type === undefined || rest.type === 'null'
      ? rest
      : withVariables(given({ description, default: standard, writeOnly }), [type])
  }

  #properties(properties: Readonly<Record<string, Schema>>, block: string): Json {
    const converted: Json = {}
    for (const [key, schema] of Object.entries(properties)) {
      const name = this.#shared.get(schema)
      const wanted = ANY_CASE.has(`${block}.${key}`) ? inAnyCase(schema) : schema
      converted[key] = name === undefined ? this.convert(wanted, key) : { $ref: `#/$defs/${name}` }
    }
    for (const [alias, key] of Object.entries(ALIASES[block] ?? {}))
      if (key in converted) converted[alias] = anotherWord(converted[key] as Json, key)
    return converted
  }
}

/** The branches, and a variable beside those that do not take any text. */
function withVariables(notes: Json, branches: readonly Json[]): Json {
  const inner = branches.flatMap(branch =>
    Object.keys(branch).join() === 'anyOf' ? (branch.anyOf as Json[]) : [branch]
  )
  const isScalar = ({ type = '' }: Json): boolean => ['string', 'number', 'integer', 'boolean'].includes(String(type))
  const wantsVariable = inner.some(isScalar) && !inner.some(isFreeText)
  const all = [...inner.filter(branch => branch !== VARIABLE), ...(wantsVariable ? [VARIABLE] : [])]
  return { ...notes, ...(all.length === 1 ? all[0] : { anyOf: all }) }
}

function isFreeText(schema: Json | Schema): boolean {
  return schema.type === 'string' && !('enum' in schema || 'pattern' in schema || 'const' in schema)
}

function inAnyCase(schema: Schema): Schema {
  if (schema.enum === undefined) return schema
  return { ...schema, enum: schema.enum.flatMap(word => [word, String(word).toUpperCase()]) }
}

function anotherWord(schema: Json, key: string): Json {
  return { ...schema, description: `Another word for \`${key}\`.`, deprecated: true }
}

function closed(properties: Json): Json {
  return { type: 'object', properties, additionalProperties: false }
}

function given(entries: Json): Json {
  return Object.fromEntries(Object.entries(entries).filter(([, value]) => value !== undefined))
}
