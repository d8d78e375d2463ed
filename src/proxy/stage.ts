import { type GatewayError, refuse } from '../errors.ts'

/** Where forwarding a request came to grief; status, retries and metrics follow from it. */
export type Stage =
  /** No connection: nobody there, a name that leads nowhere, a certificate that is not good. */
  | 'connect'
  | 'connect_timeout'
  /** All connections that the service may have were in use for as long as the request could wait. */
  | 'pool'
  /** The service did not take the request's body in time. */
  | 'send'
  /** No head of an answer in time. */
  | 'timeout'
  /** The connection was cut. */
  | 'reset'
  /** What came was no HTTP, or too much of it. */
  | 'protocol'

/** The stage in which a try has failed. @param sent whether something of the request may have reached the service */
export function stageOf(error: Error & { code?: string }, sent: boolean): Stage {
  const code = error.code ?? ''
  if (!sent) return code === 'UND_ERR_CONNECT_TIMEOUT' || code === 'ETIMEDOUT' ? 'connect_timeout' : 'connect'
  if (error.name === 'HTTPParserError' || /^UND_ERR_HEADERS_OVERFLOW$|^ERR_HTTP|^ERR_INVALID_CHAR$/.test(code))
    return 'protocol'
  return 'reset'
}

/** Whether the client of our own refuses to send it: a field or path that HTTP has no words for. */
export function isUnspeakable(error: Error & { code?: string }): boolean {
  return error.code === 'UND_ERR_INVALID_ARG' || error.code === 'UND_ERR_NOT_SUPPORTED'
}

/** What `Proxy-Status` says of the stage that took too long. */
export const LATE: Partial<Record<Stage, string>> = {
  connect_timeout: 'connection_timeout',
  pool: 'connection_limit_reached',
  send: 'connection_write_timeout',
  timeout: 'http_response_timeout'
}

/** The answer for a try that failed at `stage` with `error`: 502, or 504 if it was a matter of time. */
export function refusalOf(stage: Stage, error: Error & { code?: string }): GatewayError {
  const reason = `${stage}: ${describe(error)}`
  switch (stage) {
    case 'connect':
      return refuse('bad_gateway', { reason, proxyStatus: connectStatus(error.code ?? '') })
    case 'connect_timeout':
      return refuse('gateway_timeout', { reason, proxyStatus: 'connection_timeout' })
    case 'timeout':
      return refuse('gateway_timeout', { reason })
    case 'reset':
      return refuse('bad_gateway', { reason, proxyStatus: 'connection_terminated' })
    default:
      return refuse('bad_gateway', { reason })
  }
}

function connectStatus(code: string): string {
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return 'dns_error'
  if (/CERT|SELF_SIGNED|UNABLE_TO/.test(code)) return 'tls_certificate_error'
  if (/^ERR_TLS|^ERR_SSL|^EPROTO$/.test(code)) return 'tls_protocol_error'
  if (/UNREACH/.test(code)) return 'destination_ip_unroutable'
  return code === 'ECONNREFUSED' ? 'connection_refused' : 'connection_terminated'
}

/** For the log alone: the error's code says most, its message may hold an address. */
export function describe(error: Error & { code?: string }): string {
  return error.code === undefined ? error.message : `${error.code} ${error.message}`
}
