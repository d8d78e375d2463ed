/** Where a contender finds what it needs. */
export interface Place {
  /** For its configuration. */
  readonly folder: string
  /** Where it is to listen on 127.0.0.1. */
  readonly port: number
  /** Where the service behind it listens. */
  readonly upstream: number
}

/** A gateway or proxy to be measured. */
export interface Contender {
  readonly name: string
  /** As the tables call it. */
  readonly title: string
  /** `all`: token, limit with headers, request id, metrics, log line, CORS, security headers. `none`: just a proxy. */
  readonly policies: 'all' | 'none'
  /** Has no metrics, or no count of what is left; said in the title, and not looked for. */
  readonly lacks?: readonly ('metrics' | 'remaining')[]
  /** Why it cannot be had here; undefined when it can. Installs what can be installed. */
  missing?(): string | undefined
  /** Writes its configuration and says what to run. */
  command(place: Place): readonly string[]
}

/** What every request is for, under every contender. */
export const PATH = '/api/orders'
/** The page from which browsers are supposed to call. */
export const ORIGIN = 'https://app.example.com'
export const SECRET = 'the secret of all contenders, 32 bytes and more'
/** Requests a minute that nobody gets to: limits are counted, not reached. */
export const LIMIT = 100_000_000
/** Connections that a contender may have to the service. */
export const CONNECTIONS = 128
