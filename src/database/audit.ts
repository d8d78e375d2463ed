import { randomUUID } from 'node:crypto'
import type { Kysely, Selectable, Transaction } from 'kysely'
import type { Logger } from 'pino'
import type { Database } from './database.ts'
import { isUnreachable } from './database-error.ts'
import type { AuditTable, Tables } from './tables.ts'

/** Something that somebody did, or tried to. */
export interface AuditEntry {
  /** Milliseconds since 1970. */
  readonly at: number
  /** `user:<id>`, `key:<id>`, `client:<id>`, `command`, `gateway`, `anonymous`. */
  readonly actor: string
  /** `user.create`, `service.delete`, `login`, … */
  readonly action: string
  /** `user:<id>`, `service:<name>`, … */
  readonly target: string
  readonly outcome: 'allowed' | 'denied' | 'changed'
  /** How it was, and how it is now; never with secrets or hashes of them. */
  readonly before?: unknown
  readonly after?: unknown
  readonly details?: string | undefined
  readonly clientIp?: string | undefined
  readonly requestId?: string | undefined
}

/**
 * Notes a change that was made outside the database, and need not wait for it: while the database is out of reach, or where
 * there is none, the entry is in the log.
 */
export async function noteChange(
  { database, log }: { readonly database: Database | undefined; readonly log: Logger },
  change: Omit<AuditEntry, 'outcome'>
): Promise<void> {
  const entry: AuditEntry = { ...change, outcome: 'changed' }
  try {
    if (database !== undefined) return await writeAudit(database.db, [entry])
  } catch (error) {
    if (!isUnreachable(error)) throw error
  }
  log.info({ audit: entry }, 'changed')
}

/** Writes entries to the audit log (OBS-33), within the transaction that they are about: no change is without its entry. */
export async function writeAudit(
  db: Kysely<Tables> | Transaction<Tables>,
  entries: readonly AuditEntry[]
): Promise<void> {
  if (entries.length === 0) return
  const json = (value: unknown): string | null => (value === undefined ? null : JSON.stringify(value))
  await db
    .insertInto('audit_log')
    .values(
      entries.map(({ before, after, clientIp, requestId, details, ...entry }) => ({
        id: randomUUID(),
        ...entry,
        before: json(before),
        after: json(after),
        details: details ?? null,
        client_ip: clientIp ?? null,
        request_id: requestId ?? null
      }))
    )
    .execute()
}

/** Which entries are asked for; `from` is included, `to` is not, both in milliseconds since 1970. */
export interface AuditFilter {
  readonly actor?: string | undefined
  readonly action?: string | undefined
  readonly target?: string | undefined
  readonly outcome?: string | undefined
  readonly from?: number | undefined
  readonly to?: number | undefined
}

/** Entries of the audit log, the newest first, and how many there are of them. */
export async function readAudit(
  db: Kysely<Tables>,
  { actor, action, target, outcome, from, to }: AuditFilter,
  { limit, offset }: { limit: number; offset: number }
): Promise<{ entries: Selectable<AuditTable>[]; total: number }> {
  let matching = db.selectFrom('audit_log')
  for (const [column, value] of Object.entries({ actor, action, target, outcome }))
    if (value !== undefined) matching = matching.where(column as 'actor', '=', value)
  if (from !== undefined) matching = matching.where('at', '>=', from)
  if (to !== undefined) matching = matching.where('at', '<', to)
  const [entries, { total }] = await Promise.all([
    matching.selectAll().orderBy('seq', 'desc').limit(limit).offset(offset).execute(),
    matching.select(({ fn }) => fn.countAll<number>().as('total')).executeTakeFirstOrThrow()
  ])
  return { entries, total }
}
