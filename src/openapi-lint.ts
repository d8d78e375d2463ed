import { Validator } from '@seriousme/openapi-schema-validator'
import { Problems } from './config/problem.ts'
import { validate } from './config/validate.ts'
import type { TSchema } from './schema.ts'

/** What has to hold of the OpenAPI document beyond its being one: for developers and CI, never while the gateway runs. */

interface Schema {
  readonly description?: string
  readonly type?: string | readonly string[]
  readonly properties?: Readonly<Record<string, Schema>>
  readonly additionalProperties?: Schema | boolean
  readonly items?: Schema
  readonly anyOf?: readonly Schema[]
}

interface Media {
  readonly schema?: Schema
  readonly example?: unknown
  readonly examples?: object
}

interface Operation {
  readonly operationId?: string
  readonly summary?: string
  readonly tags?: readonly string[]
  readonly security?: readonly object[]
  readonly parameters?: readonly (Schema & { name: string; in: string })[]
  readonly requestBody?: { content: Record<string, Media> }
  readonly responses: Readonly<Record<string, { description?: string; content?: Record<string, Media> }>>
}

interface Document {
  readonly tags?: readonly { name: string }[]
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
}

/** What is wrong with a document, a sentence each. */
export async function openApiTrouble(document: object): Promise<string[]> {
  const { valid, errors } = await new Validator().validate(structuredClone(document) as Record<string, unknown>)
  if (!valid) return [`it is no OpenAPI document: ${JSON.stringify(errors)}`]
  const { paths, tags = [] } = document as Document
  const headings = new Set(tags.map(({ name }) => name))
  const ids = new Set<string>()
  return Object.entries(paths).flatMap(([path, item]) =>
    Object.entries(item).flatMap(([method, operation]) => {
      const found = [...operationTrouble(operation, headings), ...bodyTrouble(operation), ...answerTrouble(operation)]
      const { operationId = '' } = operation
      if (ids.has(operationId)) found.push(`its operationId ${operationId} is taken`)
      ids.add(operationId)
      return found.map(sentence => `${method.toUpperCase()} ${path}: ${sentence}`)
    })
  )
}

function operationTrouble(operation: Operation, headings: ReadonlySet<string>): string[] {
  const { summary, tags = [], operationId, parameters = [], requestBody, security = [], responses } = operation
  const found: string[] = []
  if (!summary) found.push('has no summary; if it is not to be shown: schema: { hide: true }')
  else if (summary.endsWith('.')) found.push('its summary is no sentence, and has no full stop')
  if (!operationId) found.push('has no operationId')
  if (tags.length !== 1) found.push('stands under no heading, or under several')
  for (const tag of tags) if (!headings.has(tag)) found.push(`its heading ${tag} is not in TAGS of src/openapi.ts`)
  for (const { name, in: place, description } of parameters)
    if (!description) found.push(`${place} parameter ${name} has no description`)
  const needed = [
    ...(security.length > 0 ? [401] : []),
    ...(parameters.some(({ in: place }) => place === 'path') ? [404] : []),
    ...(requestBody === undefined ? [] : [400, 413, 415]),
    ...(requestBody === undefined && parameters.length === 0 ? [] : [422])
  ]
  for (const status of needed) if (!(status in responses)) found.push(`may refuse with ${status}, and does not say so`)
  return found
}

function bodyTrouble({ requestBody }: Operation): string[] {
  return Object.values(requestBody?.content ?? {}).flatMap(media => mediaTrouble('its body', media))
}

function answerTrouble({ responses }: Operation): string[] {
  const successes = Object.entries(responses).filter(([status]) => /^[23]/.test(status))
  if (successes.length === 0) return ['does not say what it answers']
  return successes.flatMap(([status, { content = {} }]) =>
    Object.values(content).flatMap(media => mediaTrouble(`its answer ${status}`, media))
  )
}

/** Examples are held against their schemas: nobody believes in a document whose examples do not work. */
function mediaTrouble(what: string, { schema, example }: Media): string[] {
  if (schema === undefined) return [`${what} has no schema`]
  if (example === undefined) return [`${what} has no example`]
  const problems = new Problems(example)
  validate(ours(schema), example, problems)
  return [
    ...undescribed(schema, '').map(name => `${what}: "${name}" has no description`),
    ...problems.list.map(({ key, message }) => `the example of ${what}: ${key} ${message}`)
  ]
}

/** The paths of properties that say nothing of themselves. */
function undescribed({ properties = {}, items, additionalProperties, anyOf = [] }: Schema, at: string): string[] {
  const inner = [...anyOf, items, typeof additionalProperties === 'object' ? additionalProperties : undefined]
  return [
    ...Object.entries(properties).flatMap(([name, part]) => [
      ...(part.description ? [] : [`${at}${name}`]),
      ...undescribed(part, `${at}${name}.`)
    ]),
    ...inner.flatMap(part => (part === undefined ? [] : undescribed(part, at)))
  ]
}

/** The document's schemas as our validator reads them: what any key may hold is under `patternProperties`. */
function ours(schema: Schema): TSchema {
  return JSON.parse(JSON.stringify(schema), (_, part) => {
    if (part?.type !== 'object') return part
    const { additionalProperties: open = !('properties' in part), ...rest } = part
    if (open === false) return part
    return { ...rest, patternProperties: { '^.*$': open === true ? {} : open } }
  })
}
