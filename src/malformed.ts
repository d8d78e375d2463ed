import type { Snapshot } from './config/snapshot.ts'
import { type ErrorContext, type ErrorFormat, formatError } from './error-formats.ts'
import { type GatewayError, refuse } from './errors.ts'
import { http } from './runtime/node.ts'

/** What Node says when it can make nothing of a connection. */
export interface ClientError extends Error {
  readonly code?: string
  /** The bytes that were read last. */
  readonly rawPacket?: Buffer
}

/**
 * What a client has to hear whose bytes are no HTTP, too many, or too late; undefined when it is the connection that broke,
 * so that nobody is there to hear it.
 */
export function refusalOf({ code = '', rawPacket }: ClientError): GatewayError | undefined {
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return refuse('request_timeout', { reason: 'slow_request' })
  if (code === 'HPE_HEADER_OVERFLOW') {
    // Who has not come to the end of a line yet is still at the first one.
    return refuse(rawPacket?.includes('\n') === false ? 'uri_too_long' : 'headers_too_large', { reason: code })
  }
  return code.startsWith('HPE_') ? refuse('bad_request', { reason: code }) : undefined
}

/**
 * The answer to what never became a request, so that nothing but the door has seen it: the same body and fields as any other
 * error has, but for those of policies, which belong to routes.
 */
export function answerTo(error: GatewayError, snapshot: Snapshot, context: ErrorContext): string {
  const { format = 'envelope' } = (snapshot.defaults.errors?.options ?? {}) as { format?: ErrorFormat }
  const { type, body } = formatError(error, format, context)
  const proxyStatus = error.proxyStatus === undefined ? 'sallyport' : `sallyport; error=${error.proxyStatus}`
  return [
    `HTTP/1.1 ${error.statusCode} ${http.STATUS_CODES[error.statusCode]}`,
    `content-type: ${type}`,
    `content-length: ${Buffer.byteLength(body)}`,
    `date: ${new Date(context.now).toUTCString()}`,
    `proxy-status: ${proxyStatus}`,
    'cache-control: no-store',
    `x-request-id: ${context.requestId}`,
    'connection: close',
    '',
    body
  ].join('\r\n')
}
