import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Snapshot } from '../src/config/snapshot.ts'
import { isUnreachable } from '../src/database/database-error.ts'
import { ERROR_FORMATS, type ErrorFormat, formatError, prefersProblem } from '../src/error-formats.ts'
import { type ErrorCode, GatewayError, refuse } from '../src/errors.ts'
import { challenge } from '../src/identity/trouble.ts'
import { definePolicy } from '../src/policy.ts'
import { COLLECT_BYTES } from '../src/proxy/body.ts'
import type { Exchange } from '../src/proxy/exchange.ts'
import { setFields } from '../src/proxy/headers.ts'
import type { Runtime } from '../src/runtime/runtime.ts'
import { oneOf, Type } from '../src/schema.ts'

/** Which body errors have. There is nothing to compile: the handler below reads it when there is an error. */
export const errorFormat = definePolicy({
  name: 'errors',
  schema: Type.Object(
    { format: oneOf(ERROR_FORMATS, { description: 'Shape of the body.', default: 'envelope' }) },
    {
      description:
        'How the gateway’s own errors are written. A client that asks for application/problem+json gets that.'
    }
  ),
  compile: () => undefined
})

/** Writes every error of the gateway itself, and nobody else does. Errors of services pass through as they are. */
export const errors = fp<{ snapshot: Snapshot; runtime: Runtime }>(
  async (app, { snapshot, runtime }) => {
    const standard = (snapshot.defaults.errors?.options as { format: ErrorFormat } | undefined)?.format ?? 'envelope'

    const answer = (thrown: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply => {
      const error = toGatewayError(thrown)
      const { exchange } = request
      if (error.code === 'internal_error') request.log.error({ err: thrown }, 'request failed')
      exchange.errorCode = error.code
      if (exchange.uploading && !isSoonRead(exchange)) exchange.endConnection()
      if (error.reason !== undefined) exchange.reason = error.reason
      const uses = request.routeOptions.config?.policies?.errors?.options as { format: ErrorFormat } | undefined
      const format = prefersProblem(exchange.header('accept')) ? 'problem' : (uses?.format ?? standard)
      const { type, body } = formatError(error, format, {
        requestId: exchange.id,
        now: runtime.clock.now(),
        limitMessage: snapshot.rateLimits.message
      })
      setFields(reply, MUST_HAVE[error.statusCode])
      setFields(reply, error.headers)
      reply.header(
        'proxy-status',
        error.proxyStatus === undefined ? 'sallyport' : `sallyport; error=${error.proxyStatus}`
      )
      reply.header('cache-control', 'no-store')
      return reply.code(error.statusCode).type(type).send(body)
    }

    app.setErrorHandler(answer)
    app.setNotFoundHandler((request, reply) => answer(refuse('not_found'), request, reply))
  },
  { name: 'errors' }
)

/** Whether it is less trouble to read the rest of a refused request than to open another connection. */
function isSoonRead({ chunked, contentLength, expectContinue }: Exchange): boolean {
  // Who waits for a 100 and gets a refusal may go on with its body or with another request: nobody could tell them apart.
  return !chunked && !expectContinue && contentLength <= COLLECT_BYTES
}

/** What answers of a status carry if the refusal does not say better (RFC 9110 sections 15.5.2 and 15.6.4). */
const MUST_HAVE: Readonly<Record<number, readonly string[]>> = { 401: challenge(), 503: ['retry-after', '1'] }

/** Fastify's own errors, and bugs, as entries of the catalogue: what an exception says is for the log (C-30). */
function toGatewayError(thrown: unknown): GatewayError {
  if (thrown instanceof GatewayError) return thrown
  if (isUnreachable(thrown)) return refuse('service_unavailable', { reason: 'database', headers: ['retry-after', '1'] })
  const { statusCode = 500, validation, message, code = '' } = (thrown ?? {}) as Partial<FastifyError>
  if (validation !== undefined) {
    const fields = validation.map(({ instancePath, message: text = '', keyword }) => ({
      field: instancePath.slice(1).replaceAll('/', '.'),
      message: text,
      type: keyword
    }))
    return refuse('validation_error', { details: message, fields })
  }
  if (!(statusCode >= 400 && statusCode < 500)) return refuse('internal_error')
  // Fastify's messages are about the request. What others say in theirs, nobody knows.
  const details =
    statusCode === 415
      ? 'Say what the body is, as in "Content-Type: application/json".'
      : code.startsWith('FST_')
        ? message
        : undefined
  return refuse(BY_STATUS[statusCode] ?? 'bad_request', { details, reason: message })
}

const BY_STATUS: Record<number, ErrorCode> = {
  401: 'authentication_failed',
  403: 'insufficient_permissions',
  404: 'not_found',
  405: 'method_not_allowed',
  413: 'payload_too_large',
  415: 'unsupported_media_type',
  429: 'rate_limit_exceeded'
}
