import { type DiscoveryTerms, type InstanceList, Watch } from '../../src/discovery/discovery.ts'
import type { DiscoveryConfig, Source } from '../../src/discovery/settings.ts'
import { Leases } from '../../src/runtime/leases.ts'
import { type Pause, systemPause } from '../../src/runtime/pause.ts'
import { FakeClock } from './clock.ts'
import { captureLog } from './gateway.ts'

/** Waits that nobody has time for are short; those for something not to happen are not. */
export const hasty: Pause = (ms, signal) => systemPause(ms >= 300_000 ? ms : Math.min(ms, 10), signal)

export function discoveryTerms(more: Partial<DiscoveryTerms> = {}): DiscoveryTerms & { leases: Leases } {
  const { log } = captureLog()
  return { clock: new FakeClock(), random: () => 0.5, pause: hasty, log: log.logger, leases: new Leases(), ...more }
}

export function discoveryConfig(source: Source, more: Partial<DiscoveryConfig> = {}): DiscoveryConfig {
  return { source, scheme: 'http', networks: undefined, emptyAfterMs: 300_000, ...more }
}

/** A watch that remembers what it was told, as `host:port`. */
export function watchOf(source: Source, terms: DiscoveryTerms, more: Partial<DiscoveryConfig> = {}) {
  const watch = new Watch('orders', discoveryConfig(source, more), terms, [])
  const told: string[][] = []
  watch.onInstances = list => told.push(placesOf(list))
  return { watch, told, last: () => told.at(-1), error: () => watch.state().error as string | undefined }
}

/** Where instances are connected to. */
export function placesOf(list: InstanceList): string[] {
  return list
    .map(({ url, address }) => {
      const { hostname, port } = new URL(url)
      return `${address ?? hostname}:${port}`
    })
    .sort()
}
