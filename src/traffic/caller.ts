import type { Consumer } from '../identity/consumer.ts'
import type { Exchange } from '../proxy/exchange.ts'
import { UNKNOWN } from '../telemetry/metrics.ts'
import { harmless } from '../telemetry/redact.ts'

/** Longest name that is kept of a caller: subjects of tokens may be anything. */
const LONGEST = 128

/** The user who called, or for whom a key or a client did; '' for nobody, and for keys that belong to none. Clients of OAuth are `client:<id>`. */
export function userOf(consumer: Consumer | undefined): string {
  if (consumer === undefined) return ''
  const { userId, kind, key, id } = consumer
  return storable(userId ?? { user: id, client: key, api_key: '' }[kind])
}

/** The API key that was shown; '' for none. */
export function apiKeyOf(consumer: Consumer | undefined): string {
  return consumer?.kind === 'api_key' ? storable(consumer.id) : ''
}

/** What requests are counted under: the route's path as the configuration has it, or one of the gateway's own. */
export function endpointOf({ route, series }: Exchange): string {
  return route?.label ?? series?.endpoint ?? UNKNOWN
}

/** Text that every database takes: no control characters, no halves of characters, not without end. */
export function storable(text: string, longest = LONGEST): string {
  return harmless(text).slice(0, longest).toWellFormed()
}
