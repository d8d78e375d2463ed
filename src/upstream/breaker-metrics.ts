import { type Family, family, type Sample } from '../telemetry/metrics.ts'
import type { BreakerState } from './breaker.ts'
import type { Breakers } from './breakers.ts'

/** Higher is worse. */
const STATE_VALUES: Readonly<Record<BreakerState, number>> = { closed: 0, half_open: 1, open: 2 }

/** What there is of circuit breakers for a registry (RES-09, RES-19, OBS-13). */
export function breakerFamilies({ breakers }: { readonly breakers: Breakers }): Family[] {
  return [
    family('gateway_circuit_breaker_state', 'State of a breaker: 0 closed, 1 half-open, 2 open', 'gauge', () => {
      // While a configuration gives way to another, and where routes have terms of their own, several have one name.
      const worst = new Map<string, Sample>()
      for (const { name, service, breaker } of breakers.all()) {
        const value = Math.max(STATE_VALUES[breaker.state], worst.get(`${name} ${service}`)?.value ?? 0)
        worst.set(`${name} ${service}`, { labels: { name, service }, value })
      }
      return [...worst.values()]
    }),
    family('gateway_circuit_breaker_transitions_total', 'Changes of breakers’ states', 'counter', () =>
      breakers.transitions.samples()
    )
  ]
}
