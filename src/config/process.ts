import { obstacles } from '../cluster/shared.ts'
import { rangeFault } from '../proxy/peer.ts'
import { fingerprintOf, type GeoConfig } from '../releases/geo.ts'
import { systemClock } from '../runtime/clock.ts'
import { parseRedisUrl } from '../store/redis-url.ts'
import { certificateTrouble } from './certificate.ts'
import type { Draft } from './draft.ts'
import type { Path } from './located.ts'
import type { ServerSettings } from './schema.ts'

/** In milliseconds. */
const LEAST_KEPT = { audit: 30 * 86_400_000, minutes: 6 * 3_600_000 }

/** What the database would not let go of sooner anyway, and what hours are made of. */
export function checkRecording(draft: Draft): void {
  const { keep } = draft.settled.recording
  const path: Path = ['recording', 'keep']
  if (keep.audit < LEAST_KEPT.audit) draft.problems.add([...path, 'audit'], 'must be at least 30d')
  if (keep.minutes < LEAST_KEPT.minutes) draft.problems.add([...path, 'minutes'], 'must be at least 6h')
}

/** Whether the URL of Redis can be read. */
export function checkRedis(draft: Draft): void {
  const { redis_url: url } = draft.settled.storage
  try {
    if (url) parseRedisUrl(url)
  } catch (error) {
    draft.problems.add(['storage', 'redis_url'], (error as Error).message)
  }
}

/** What one process keeps to itself several would have to share. */
export function checkWorkers(draft: Draft): void {
  const { server, storage, paths, rate_limits: rateLimits } = draft.settled
  if (server.workers === 1) return
  const concerns = new Set(draft.routes.flatMap(({ route }) => Object.keys(route.concerns)))
  for (const obstacle of obstacles({ storage, paths, local: draft.local, rateLimits, concerns }))
    draft.problems.add(['server', 'workers'], obstacle)
}

/** Whether those who are never blocked are addresses. */
export function checkAbuse(draft: Draft): void {
  const { abuse } = draft.settled.rate_limits
  if (!abuse) return
  for (const [i, entry] of abuse.never_block.entries()) {
    const fault = rangeFault(entry)
    if (fault !== undefined) draft.problems.add(['rate_limits', 'abuse', 'never_block', i], fault)
  }
}

/** With the files of the gateway's own certificate: one that is mended is a reason to read the configuration again. */
export function serverOf(draft: Draft): ServerSettings {
  const { server } = draft.settled
  if (server.tls === undefined) return server
  const { cert, key, client_ca } = server.tls
  const path: Path = ['server', 'tls']
  const files = {
    cert: draft.file(cert, [...path, 'cert']),
    key: draft.file(key, [...path, 'key']),
    ...(client_ca !== undefined && { client_ca: draft.file(client_ca, [...path, 'client_ca']) })
  }
  for (const { key, message, severity } of certificateTrouble(files, systemClock.now()))
    draft.problems.add([...path, key], message, 'value', severity)
  return { ...server, tls: files }
}

/** Who knows which country a request comes from. */
export function geoOf(draft: Draft): GeoConfig {
  const { header, database } = draft.settled.geo
  if (header !== undefined && draft.settled.server.trusted_proxies.length === 0)
    draft.problems.warn(['geo', 'header'], 'counts from nobody, since there are no "server.trusted_proxies"')
  if (database === undefined) return { header, database: undefined }
  const file = draft.file(database, ['geo', 'database'])
  return { header, database: { file, print: fingerprintOf(file) } }
}
