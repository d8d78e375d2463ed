import type { FastifySchema } from 'fastify'
import { type Problem, Problems } from '../src/config/problem.ts'
import { settle, validate } from '../src/config/validate.ts'
import { type ErrorCode, refuse } from '../src/errors.ts'
import type { TAGS } from '../src/openapi.ts'
import type { PolicyUse } from '../src/policy.ts'
import type { TObject, TSchema } from '../src/schema.ts'

/**
 * One operation of the gateway's own API: what it takes, what it answers, who may ask. The OpenAPI document is made of these;
 * examples are made of the schemas' `examples`, defaults and types.
 */
export interface Operation {
  /** In one line, for lists. */
  readonly summary: string
  readonly description?: string
  /** Under which heading it stands; the headings are in `src/openapi.ts`. */
  readonly tag: keyof typeof TAGS
  /**
   * `anyone`; `optional`: anyone, and who it is matters; `user`: whoever has a credential; `newcomer`: also whoever has to
   * change his password before anything else; or those with one of these roles.
   */
  readonly access: 'anyone' | 'optional' | 'user' | 'newcomer' | readonly string[]
  /** Belongs to the administration, and to its listener if that has one of its own. */
  readonly administrative?: boolean
  readonly params?: TObject
  readonly query?: TObject
  readonly headers?: TObject
  readonly body?: TSchema
  /** Media type of the body, if it is not JSON. */
  readonly consumes?: string
  /** What it answers by status, each with a `description` if the status does not say it all; null for no body. */
  readonly answers?: Readonly<Record<number, TSchema | null>>
  /** Media type of the answer, if it is not JSON. */
  readonly produces?: string
  /** What it refuses, beyond what follows from its access and from what it takes. */
  readonly refuses?: readonly ErrorCode[]
  /** What a refusal of a status means here, where the words of all others will not do. */
  readonly says?: Readonly<Record<number, string>>
  /** Not counted by `guardOwnEndpoints`, and there in every condition. */
  readonly unguarded?: boolean
}

/** Options of the policy by who may ask. Whoever may come without a credential may come with one that is good for little. */
const AUTHENTICATION: Readonly<Record<string, unknown>> = {
  optional: { mode: 'optional', newcomers: true },
  newcomer: { mode: 'required', newcomers: true }
}

/** An operation as Fastify's route options: `app.get('/x', operation({ … }), handler)`. */
export function operation(operation: Operation) {
  const { summary, description, tag, access, administrative, consumes, produces, ...parts } = operation
  const use = (options: unknown): PolicyUse => ({ options, scope: 'own' })
  const policies: Record<string, PolicyUse> =
    access === 'anyone' ? {} : { authentication: use(AUTHENTICATION[String(access)] ?? 'required') }
  if (typeof access !== 'string') policies.required_roles = use([...access])
  const response: Record<number, unknown> = {}
  for (const [status, schema] of Object.entries(parts.answers ?? {}))
    response[Number(status)] = schema ?? { type: 'null' }
  const schema: FastifySchema & Record<string, unknown> = {
    summary,
    tags: [tag],
    response,
    'x-refuses': refusalsOf(operation),
    'x-says': operation.says ?? {}
  }
  if (description !== undefined) schema.description = description
  if (consumes !== undefined) schema.consumes = [consumes]
  if (produces !== undefined) schema.produces = [produces]
  if (access !== 'anyone') schema.security = [{ bearer: [] }, { api_key: [] }, ...(access === 'optional' ? [{}] : [])]
  if (parts.params !== undefined) schema.params = parts.params
  if (parts.query !== undefined) schema.querystring = parts.query
  if (parts.headers !== undefined) schema.headers = parts.headers
  if (parts.body !== undefined) schema.body = parts.body
  return { schema, config: { administrative: administrative === true, policies } }
}

/** Everything that an operation may be refused with. */
function refusalsOf({ access, params, query, headers, body, refuses = [], unguarded }: Operation): ErrorCode[] {
  const codes: ErrorCode[] = [...refuses]
  if (access !== 'anyone') codes.push('authentication_required')
  if (typeof access !== 'string') codes.push('insufficient_permissions')
  if (params !== undefined) codes.push('not_found')
  if (body !== undefined) codes.push('bad_request', 'payload_too_large', 'unsupported_media_type')
  if ([params, query, headers, body].some(part => part !== undefined)) codes.push('validation_error')
  if (!unguarded) codes.push('rate_limit_exceeded', 'service_unavailable')
  return codes
}

/** What an endpoint for administrators asks of its callers. */
export function administrators(summary: string, parts: Partial<Operation> = {}) {
  return operation({ summary, tag: 'Administration', access: ['admin'], administrative: true, ...parts })
}

/**
 * Holds what comes in against its schema as the configuration is held against its own, with the same words for what is wrong:
 * 422 with all of it. Numbers and truths in a query or a path are read as such.
 */
export function validatorCompiler({ schema, httpPart = '' }: { schema: unknown; httpPart?: string }) {
  const wanted = schema as TSchema & { properties?: Record<string, { type?: string }> }
  const isWords = httpPart !== 'body'
  return (data: unknown): { value: unknown } | { error: Error } => {
    const value = isWords ? readText(wanted.properties ?? {}, data as Record<string, unknown>, httpPart) : data
    const problem = unkeepable(value)
    if (problem !== undefined) return { error: refusalOf([problem], httpPart) }
    const problems = new Problems(value)
    validate(wanted, value ?? null, problems)
    if (!problems.failed) return { value: settle(wanted, value) }
    return { error: refusalOf(problems.list, httpPart) }
  }
}

type Found = Pick<Problem, 'key' | 'message'>

function refusalOf(problems: readonly Found[], httpPart: string): Error {
  const fields = problems.map(({ key, message }) => ({ field: key || httpPart, message, type: 'schema' }))
  return refuse('validation_error', {
    details: fields.map(({ field, message }) => `${field} ${message}`).join('; '),
    fields
  })
}

/** How deep lists and objects may be in each other: deeper than anything means something, and no stack overflows. */
const DEEPEST = 32

/** What no schema says and yet is for nobody: text that PostgreSQL does not take, wherever it would end up, and endless nesting. */
function unkeepable(value: unknown, key = '', depth = 0): Found | undefined {
  if (typeof value === 'string') return isText(value) ? undefined : { key, message: NO_TEXT }
  if (typeof value !== 'object' || value === null) return undefined
  if (depth === DEEPEST) return { key, message: `is nested deeper than ${DEEPEST} levels` }
  for (const [name, item] of Object.entries(value)) {
    if (!isText(name)) return { key, message: `has a key that ${NO_TEXT}` }
    const inner = Array.isArray(value) ? `${key}[${name}]` : key === '' ? name : `${key}.${name}`
    const problem = unkeepable(item, inner, depth + 1)
    if (problem !== undefined) return problem
  }
  return undefined
}

const NO_TEXT = 'holds U+0000, or half a character'

function isText(text: string): boolean {
  return text.isWellFormed() && !text.includes('\0')
}

/** Text as the schema's numbers and truths; of header fields, only those that it names. */
function readText(
  properties: Record<string, { type?: string }>,
  data: Readonly<Record<string, unknown>>,
  httpPart: string
): Record<string, unknown> {
  const out: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(data)) {
    if (httpPart === 'headers' && !Object.hasOwn(properties, key)) continue
    const { type } = properties[key] ?? {}
    if (typeof value !== 'string') out[key] = value
    else if (type === 'integer' || type === 'number')
      out[key] = value.trim() === '' ? value : (asNumber(value) ?? value)
    else if (type === 'boolean') out[key] = value === 'true' ? true : value === 'false' ? false : value
    else out[key] = value
  }
  return out
}

function asNumber(text: string): number | undefined {
  const number = Number(text)
  return Number.isNaN(number) ? undefined : number
}
