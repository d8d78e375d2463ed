import type { GatewayError } from './errors.ts'

/** How errors are written: one error, five bodies (C-07). */
export const ERROR_FORMATS = ['envelope', 'problem', 'detail', 'flat', 'code_message'] as const
export type ErrorFormat = (typeof ERROR_FORMATS)[number]

/** What the body says besides the error itself. */
export interface ErrorContext {
  readonly requestId: string
  /** Milliseconds since 1970. */
  readonly now: number
  /** Overrides of the limiter's refusal, as seed 004 writes them. */
  readonly limitMessage?: { readonly code?: string | undefined; readonly message?: string | undefined } | undefined
}

/** The texts of seed 003, where it has its own. */
const FLAT: Partial<Record<string, string>> = {
  rate_limit_exceeded: 'Rate limit exceeded',
  not_found: 'Route not found',
  service_unavailable: 'Service unavailable'
}

/** The texts of seed 001, where it has its own. */
const DETAIL: Partial<Record<string, string>> = {
  authentication_required: 'Not authenticated',
  validation_error: 'Validation error',
  internal_error: 'Internal server error'
}

/** The body of an error and its media type. */
export function formatError(
  error: GatewayError,
  format: ErrorFormat,
  context: ErrorContext
): { type: string; body: string } {
  const { code, statusCode, details, fields } = error
  const limited = code === 'rate_limit_exceeded' ? context.limitMessage : undefined
  const message = limited?.message ?? error.message
  switch (format) {
    case 'problem':
      // RFC 9457. The type is a name, not an address: nothing has to be reachable for it to be compared.
      return json(
        {
          type: `urn:sallyport:${code}`,
          title: message,
          status: statusCode,
          ...(details ? { detail: details } : {}),
          code,
          request_id: context.requestId,
          ...(fields === undefined ? {} : { errors: fields })
        },
        'application/problem+json'
      )
    case 'detail':
      return json(inDetail(error, message, context))
    case 'flat':
      return json({ error: limited?.message ?? FLAT[code] ?? withoutStop(message) })
    case 'code_message':
      return json({ code: limited?.code ?? code.toUpperCase(), message: limited?.message ?? withoutStop(message) })
    default:
      return json({
        error: {
          code,
          message,
          details: details ?? null,
          status: statusCode,
          request_id: context.requestId,
          timestamp: new Date(context.now).toISOString()
        }
      })
  }
}

/** Seed 001's body: its own texts, the fields of a 422, and beside them what else the caller may know. */
function inDetail({ code, details, fields }: GatewayError, message: string, { requestId }: ErrorContext): object {
  const detail = DETAIL[code]
  // C-30: the seed would show the exception here.
  if (code === 'internal_error') return { detail, message: `More is in the log, under ${requestId}.` }
  if (fields !== undefined) return { detail: detail ?? message, errors: fields }
  if (code === 'authentication_required') return { detail }
  return { detail: detail ?? message, ...(details === undefined ? {} : { message: details }) }
}

function withoutStop(sentence: string): string {
  return sentence.replace(/\.$/, '')
}

/** Without `<` no body is anything but JSON to whoever guesses types from content (VAL-06). */
function json(body: unknown, type = 'application/json'): { type: string; body: string } {
  return { type: `${type}; charset=utf-8`, body: JSON.stringify(body).replaceAll('<', '\\u003c') }
}

const PROBLEM = 'application/problem+json'

/**
 * Whether `accept` names `application/problem+json` and wants it no less than plain JSON (RFC 9457 section 3, RFC 9110
 * section 12.5.1).
 */
export function prefersProblem(accept: string | undefined): boolean {
  if (accept === undefined || !accept.toLowerCase().includes(PROBLEM)) return false
  const ranges = parseAccept(accept)
  const wanted = ranges.get(PROBLEM) ?? 0
  return wanted > 0 && wanted >= quality(ranges, 'application/json')
}

/** Of several ranges that hold a type the most specific one counts. */
function quality(ranges: ReadonlyMap<string, number>, type: string): number {
  return ranges.get(type) ?? ranges.get(type.replace(/\/.*/, '/*')) ?? ranges.get('*/*') ?? 0
}

function parseAccept(accept: string): Map<string, number> {
  const ranges = new Map<string, number>()
  for (const range of accept.toLowerCase().split(',')) {
    const [name = '', ...parameters] = range.split(';').map(part => part.trim())
    const weight = parameters.find(parameter => parameter.startsWith('q='))
    ranges.set(name, weight === undefined ? 1 : Number(weight.slice(2)) || 0)
  }
  return ranges
}
