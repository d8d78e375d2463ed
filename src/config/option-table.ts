import type { TObject } from '../schema.ts'
import type { Schema } from './validate.ts'

interface Property {
  readonly key: string
  readonly schema: Schema
  readonly required: boolean
}

/** Thrown for a name that is no key of the document and no concern. */
export class UnknownOption extends Error {}

/**
 * The reference of some keys as a Markdown table, from their schemas: `cors`, `server`, `retry`; `document` and `defaults` are
 * lists of keys that have tables of their own. @throws {UnknownOption}
 */
export function optionTable(document: TObject, names: readonly string[]): string {
  const root = document as Schema
  const shared = root.properties?.defaults?.properties ?? {}
  const lines = ['| key | takes | default | |', '|---|---|---|---|']
  for (const name of names) {
    if (name === 'document') for (const property of propertiesOf(root)) lines.push(row(property))
    else if (name === 'defaults')
      for (const property of propertiesOf(root.properties?.defaults)) lines.push(row(property))
    else {
      const schema = root.properties?.[name] ?? shared[name]
      if (schema === undefined) throw new UnknownOption(name)
      lines.push(row({ key: name, schema, required: false }, true))
      lines.push(...rowsBelow(schema, '', { elsewhere: new Set(Object.values(shared)), shown: new Map() }))
    }
  }
  return lines.join('\n')
}

interface Told {
  /** Schemas that have tables of their own. */
  readonly elsewhere: ReadonlySet<Schema>
  /** Where the options of a mapping stand in this table already. */
  readonly shown: Map<object, string>
}

function rowsBelow(schema: Schema, prefix: string, told: Told): string[] {
  return (schema.anyOf ?? [schema]).flatMap(branch => {
    const { items, patternProperties } = branch
    const named = Object.values(patternProperties ?? {})[0]
    if (items !== undefined) return rowsBelow(items, prefix.replace(/\.$/, '[].'), told)
    if (named !== undefined) return rowsBelow(named, `${prefix}<name>.`, told)
    const { properties } = branch
    if (properties === undefined) return []
    const first = told.shown.get(properties)
    if (first !== undefined) return [`| \`${prefix}…\` | as \`${first}…\` |  |  |`]
    told.shown.set(properties, prefix)
    return propertiesOf(branch).flatMap(property => {
      if (told.elsewhere.has(property.schema)) return []
      const key = `${prefix}${property.key}`
      return [row({ ...property, key }), ...rowsBelow(property.schema, `${key}.`, told)]
    })
  })
}

function propertiesOf({ properties = {}, required = [] }: Schema = {}): Property[] {
  return Object.entries(properties).map(([key, schema]) => ({ key, schema, required: required.includes(key) }))
}

function row({ key, schema, required }: Property, first = false): string {
  const name = first ? `**\`${key}\`**` : `\`${key}\``
  const description = (schema.description ?? '').replace(/\*(?=[^`]*(`[^`]*`[^`]*)*$)/g, '\\*')
  const cells = [name, kindsOf(schema).join(', '), required ? 'required' : standardOf(schema), description]
  return `| ${cells.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |`
}

function standardOf({ default: value }: Schema): string {
  if (value === undefined || (typeof value === 'object' && value !== null && Object.keys(value).length === 0)) return ''
  return `\`${typeof value === 'string' ? value : JSON.stringify(value).replaceAll(',', ', ')}\``
}

const OFF = '`false`'
const KINDS: Readonly<Record<string, [one: string, several: string]>> = {
  object: ['mapping', 'mappings'],
  array: ['list', 'lists'],
  string: ['text', 'texts'],
  integer: ['whole number', 'whole numbers'],
  number: ['number', 'numbers'],
  boolean: ['`true` or `false`', 'truths'],
  null: ['`null`', '`null`'],
  duration: ['duration', 'durations'],
  size: ['size', 'sizes']
}

function offLast(a: string, b: string): number {
  return Number(a === OFF) - Number(b === OFF)
}

/** What a key takes, in words. @param several in a list */
function kindsOf(schema: Schema, several = false): string[] {
  const { type = '', unit, anyOf, items } = schema
  const word = KINDS[unit === 'duration' || unit === 'size' ? unit : type]
  if (unit !== 'duration' && unit !== 'size') {
    if (unit === 'list') return [...kindsOf(anyOf?.[1] ?? {}), 'or a list']
    if (anyOf !== undefined) return [...new Set(anyOf.flatMap(branch => kindsOf(branch, several)))].sort(offLast)
    if (schema.const !== undefined) return [`\`${schema.const}\``]
    if (schema.enum !== undefined) return schema.enum.map(value => `\`${value}\``)
    if (items !== undefined) return [`list of ${kindsOf(items, true).join(', ')}`]
  }
  if (word === undefined) return ['anything']
  return [several ? word[1] : schema.writeOnly ? 'secret' : word[0]]
}
