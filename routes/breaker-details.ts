import type { Runtime } from '../src/runtime/runtime.ts'
import { oneOf, Type } from '../src/schema.ts'
import type { NamedBreaker } from '../src/upstream/breakers.ts'

/** Schema of what {@link breakerDetails} says: seed 003's `get_stats()` and what else is known (RES-05). */
export const BREAKER = Type.Object({
  name: Type.String({ description: 'What it stands before.', examples: ['service:orders'] }),
  service: Type.String({ description: 'The service behind it.', examples: ['orders'] }),
  state: oneOf(['closed', 'open', 'half_open'], { description: 'Whether it lets requests through.' }),
  failure_count: Type.Integer({ description: 'Tries that have failed.', examples: [2] }),
  success_count: Type.Integer({ description: 'Tries that have not.', examples: [98] }),
  since: Type.String({ description: 'When it came to be in this state.', examples: ['2026-01-01T12:00:00.000Z'] }),
  reason: Type.String({ description: 'Why; nothing if it has never changed.', examples: ['5 failures in a row'] }),
  forced: Type.Boolean({ description: 'An administrator has opened it.', examples: [false] }),
  recovering_percent: Type.Union([Type.Number(), Type.Null()], {
    description: 'Of a hundred requests, how many it lets through while it recovers gradually.',
    examples: [null]
  }),
  retry_after_seconds: Type.Number({ description: 'Until it lets a request try.', examples: [0] })
})

/** A breaker for those who administer it. */
export function breakerDetails({ name, service, breaker }: NamedBreaker, { clock }: Runtime) {
  const { reason, forced, changedAt, recoveringPercent, retryAfterMs } = breaker
  return {
    name,
    service,
    ...breaker.getStats(),
    since: new Date(clock.now() - (clock.monotonic() - changedAt)).toISOString(),
    reason,
    forced,
    recovering_percent: recoveringPercent ?? null,
    retry_after_seconds: Math.ceil(retryAfterMs / 1000)
  }
}
