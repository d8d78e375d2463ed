import type { Mirror } from '../releases/mirror.ts'
import type { RouteMatch } from '../routing/table.ts'
import type { Endpoint } from '../telemetry/metrics.ts'
import type { RetryPolicy } from '../upstream/retry.ts'
import type { Target } from '../upstream/target.ts'
import type { Exchange } from './exchange.ts'
import type { Fallback } from './fallback.ts'
import type { HeaderBlock } from './headers.ts'

/** A route as the request meets it: everything that its configuration said is decided. */
export interface Route extends RouteMatch {
  /** How the configuration names its path. */
  readonly label: string
  /** What is counted of it. */
  readonly metrics: Endpoint
  /** The URL under which Fastify knows it; no request target can spell it. */
  readonly slot: string
  /** Where its requests go, unless they are told one by one. */
  readonly target: Target
  /** Where a request goes, once it is known whose it is; undefined if that is the same for all. */
  readonly choose: ((exchange: Exchange) => Target) | undefined
  /** `,"route":"…"`: its part of the access log's line. */
  readonly logFields: string
  /** The path to send, from the one that came; undefined leaves it as it is. */
  readonly rewrite: ((exchange: Exchange) => string) | undefined
  /** Who gets copies of its requests; undefined if nobody does. */
  readonly mirror: Mirror | undefined
  /** What its answers say of the request fields that they depend on; undefined if they depend on none. */
  readonly varies: HeaderBlock | undefined
  /** `%2F` in the path is passed on rather than refused. */
  readonly encodedSlash: boolean
  readonly websocket: boolean
  /** It has a CORS policy, so preflights that ask about it are its own. */
  readonly answersPreflights: boolean
  /** From the request to the head of its answer, all tries included, in milliseconds; 0 for no limit. */
  readonly timeoutMs: number
  /** The same for each try; 0 for no limit of its own. */
  readonly firstByteMs: number
  /** To send the request's body, in milliseconds; 0 for no limit. */
  readonly writeMs: number
  /** From the request to the end of its answer, in milliseconds; 0 for no limit. */
  readonly totalMs: number
  readonly retry: RetryPolicy
  /** After so long without an answer another instance is asked as well, in milliseconds; 0 for never. */
  readonly hedgeMs: number
  /** What is answered in place of a failure. */
  readonly fallback: Fallback | undefined
  /** Bytes; 0 for no limit. */
  readonly maxBodyBytes: number
  /** Whether a credential that the gateway has verified goes on to the service. */
  readonly forwardCredentials: boolean
}
