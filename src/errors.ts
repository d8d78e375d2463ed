/**
 * The error catalogue: every refusal the gateway makes itself, with its status and a message that is safe to show.
 * The `errors` plugin alone writes them out (contract sections 15 and C-07); a client branches on `code`.
 */

interface Entry {
  readonly status: number
  readonly message: string
  /** The error type of RFC 9209 section 2.3, where one fits; it is what `Proxy-Status` says. */
  readonly proxyStatus?: string
}

export const CATALOGUE = {
  bad_request: { status: 400, message: 'The request is malformed.', proxyStatus: 'http_request_error' },
  authentication_required: { status: 401, message: 'Authentication is required.' },
  authentication_failed: { status: 401, message: 'Invalid credentials provided.' },
  invalid_credentials: { status: 401, message: 'Invalid credentials provided.' },
  expired_token: { status: 401, message: 'The token has expired.' },
  insufficient_permissions: { status: 403, message: 'The permissions do not suffice.' },
  password_change_required: { status: 403, message: 'The password has to be changed first.' },
  ip_blocked: {
    status: 403,
    message: 'Requests from this address are not accepted.',
    proxyStatus: 'http_request_denied'
  },
  not_found: { status: 404, message: 'Nothing is found here.', proxyStatus: 'destination_not_found' },
  method_not_allowed: { status: 405, message: 'The method is not allowed here.' },
  unsupported_version: { status: 406, message: 'The version asked for is not offered.' },
  request_timeout: {
    status: 408,
    message: 'The request did not arrive in time.',
    proxyStatus: 'http_request_error'
  },
  conflict: { status: 409, message: 'The request conflicts with the present state.' },
  gone: { status: 410, message: 'It is not there any more.' },
  precondition_failed: { status: 412, message: 'It has been changed meanwhile.' },
  payload_too_large: { status: 413, message: 'The request body is too large.', proxyStatus: 'http_request_error' },
  uri_too_long: { status: 414, message: 'The request target is too long.', proxyStatus: 'http_request_error' },
  unsupported_media_type: { status: 415, message: 'The media type of the request is not understood.' },
  expectation_failed: { status: 417, message: 'The expectation cannot be met.' },
  validation_error: { status: 422, message: 'The request does not validate.' },
  precondition_required: { status: 428, message: 'Say which state is to be changed.' },
  rate_limit_exceeded: { status: 429, message: 'Too many requests, please try again later.' },
  headers_too_large: { status: 431, message: 'The request headers are too large.', proxyStatus: 'http_request_error' },
  client_closed_request: { status: 499, message: 'The client closed the request.' },
  internal_error: { status: 500, message: 'Internal server error.', proxyStatus: 'proxy_internal_error' },
  bad_gateway: { status: 502, message: 'The service gave no usable answer.', proxyStatus: 'http_protocol_error' },
  service_unavailable: { status: 503, message: 'The service is unavailable.', proxyStatus: 'destination_unavailable' },
  overloaded: { status: 503, message: 'The gateway is overloaded.', proxyStatus: 'proxy_internal_response' },
  gateway_timeout: {
    status: 504,
    message: 'The service did not answer in time.',
    proxyStatus: 'http_response_timeout'
  },
  loop_detected: {
    status: 508,
    message: 'The request came back to where it started.',
    proxyStatus: 'proxy_loop_detected'
  }
} as const satisfies Record<string, Entry>

export type ErrorCode = keyof typeof CATALOGUE

export interface RefusalOptions {
  /** What the client may know beyond the message: which limit, which parameter. Never an address, never a secret. */
  readonly details?: string | undefined
  /** What only the log may know. */
  readonly reason?: string | undefined
  /** Further response fields, flat: `['retry-after', '7']`. */
  readonly headers?: readonly string[] | undefined
  /** Overrides the catalogue's message, as the limiter of seed 004 may. */
  readonly message?: string | undefined
  /** Overrides the catalogue's RFC 9209 error type. */
  readonly proxyStatus?: string | undefined
  /** Problems of single fields, for a 422. */
  readonly fields?: readonly { field: string; message: string; type: string }[] | undefined
  readonly cause?: unknown
}

/** A refusal by the gateway itself. Carries no stack: it is an answer, not a bug, and floods of it have to be cheap. */
export class GatewayError extends Error {
  readonly code: ErrorCode
  /** Fastify reads the status of an error here. */
  readonly statusCode: number
  readonly details: string | undefined
  readonly reason: string | undefined
  readonly headers: readonly string[]
  readonly proxyStatus: string | undefined
  readonly fields: RefusalOptions['fields']

  constructor(code: ErrorCode, options: RefusalOptions = {}) {
    const entry: Entry = CATALOGUE[code]
    const limit = Error.stackTraceLimit
    Error.stackTraceLimit = 0
    super(options.message ?? entry.message, options.cause === undefined ? undefined : { cause: options.cause })
    Error.stackTraceLimit = limit
    this.code = code
    this.statusCode = entry.status
    this.details = options.details
    this.reason = options.reason
    this.headers = options.headers ?? []
    this.proxyStatus = options.proxyStatus ?? entry.proxyStatus
    this.fields = options.fields
  }
}

/** Makes a refusal from the catalogue: `throw refuse('not_found')`. */
export function refuse(code: ErrorCode, options?: RefusalOptions): GatewayError {
  return new GatewayError(code, options)
}
