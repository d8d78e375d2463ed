import type { RateLimitsSettings } from '../limits/settings.ts'

/** What of a configuration says what several processes would have to share. */
export interface Sharing {
  readonly storage: { readonly database: boolean; readonly database_url?: string; readonly redis_url?: string }
  readonly paths: { readonly auth: string | false; readonly admin: string | false }
  /** Whether the gateway has accounts of its own. */
  readonly local: boolean
  readonly rateLimits: RateLimitsSettings
  /** Names of the concerns of all routes. */
  readonly concerns: ReadonlySet<string>
}

const LIMITS = [
  'global',
  'services',
  'endpoints',
  'user_tiers',
  'roles',
  'clients',
  'guest',
  'default',
  'ip',
  'abuse'
] as const

/** Why several processes cannot serve this configuration together, a sentence each. */
export function obstacles({ storage, paths, local, rateLimits, concerns }: Sharing): string[] {
  const found: string[] = []
  if (storage.database && !storage.database_url)
    found.push(
      'needs a database that several processes may use: set storage.database_url (DATABASE_URL), since SQLite belongs to one, or storage.database: false'
    )
  if (storage.redis_url) return found
  const counted = LIMITS.some(name => limits(rateLimits[name]))
  const kept = [
    ...(counted || concerns.has('rate_limit') ? ['limits'] : []),
    ...(concerns.has('idempotency') ? ['answers to repeated requests (idempotency)'] : []),
    ...(local && paths.auth !== false ? ['guesses at passwords'] : []),
    ...(paths.admin === false ? [] : ['tokens taken back (paths.admin)'])
  ]
  if (kept.length > 0)
    found.push(`needs Redis, or each process would have its own ${kept.join(', ')}: set storage.redis_url (REDIS_URL)`)
  return found
}

/** A plain number is a limit, and a mapping is one unless it is empty. */
function limits(setting: unknown): boolean {
  if (typeof setting === 'object' && setting !== null) return Object.keys(setting).length > 0
  return typeof setting === 'number' || setting === true
}
