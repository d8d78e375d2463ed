import { type Command, UsageError } from '../cli.ts'
import { createSnapshot } from '../config/normalise.ts'
import { readServices } from '../database/services.ts'
import { databaseOf, type Loaded, loadConfiguration } from '../gateway.ts'
import { auditPermissions, type PermissionAudit } from '../identity/permission-audit.ts'
import { withRegistered } from '../registry/service.ts'
import { systemClock } from '../runtime/clock.ts'
import { createLog } from '../telemetry/log.ts'
import { sourcesOf } from './quickstart.ts'

const audit: Command = {
  summary: 'Says what to look at again: what is open, and what is granted or asked for in vain',
  argument: 'permissions',
  async run(invocation) {
    const [what] = invocation.positionals
    if (what !== 'permissions') throw new UsageError('there is one audit so far: sallyport audit permissions')
    const found = await auditOf(await loadConfiguration(sourcesOf(invocation)))
    process.stdout.write(invocation.json ? `${JSON.stringify(found)}\n` : inText(found))
    return 0
  }
}

/** Of the configuration and the services that are registered beside it. */
async function auditOf({ snapshot, source, concerns }: Loaded): Promise<PermissionAudit> {
  const { logger } = await createLog({ ...snapshot.logging, level: 'silent', format: 'json' })
  const database = await databaseOf(snapshot, logger)
  if (database === undefined) throw new UsageError('there is nothing to audit without a database: see storage.database')
  try {
    const { services } = await readServices(database.db)
    const whole =
      services.length === 0 ? snapshot : await createSnapshot(withRegistered(source, services), concerns.dialect)
    return await auditPermissions(database.db, whole, systemClock.now())
  } finally {
    await database.close()
  }
}

const HEADINGS: Readonly<Record<keyof PermissionAudit, string>> = {
  public_routes: 'routes for which nobody has to say who he is',
  unmet_permissions: 'permissions that routes ask for and nobody has',
  unmet_roles: 'roles that routes ask for and nobody has',
  unused_roles: 'roles that nobody has',
  unused_permissions: 'permissions of roles that no route asks for',
  users_without_roles: 'users without a role',
  wide_keys: 'keys that list more than their owner may',
  unused_keys: 'keys that nobody has used for 90 days',
  keys_without_expiry: 'keys that never end'
}

function inText(found: PermissionAudit): string {
  const lines = Object.entries(HEADINGS).flatMap(([part, heading]) => {
    const entries = found[part as keyof PermissionAudit]
    return entries.length === 0 ? [] : [heading, ...entries.map(entry => `  ${brief(entry)}`)]
  })
  return lines.length === 0 ? 'nothing to look at\n' : `${lines.join('\n')}\n`
}

/** Ids are for programs, but for those of routes. */
function brief({ id: _, ...entry }: Readonly<Record<string, unknown>>): string {
  return Object.values(entry)
    .map(value => (Array.isArray(value) ? value.join(', ') : String(value ?? 'never')))
    .join('  ')
}

export default audit
