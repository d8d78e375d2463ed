import { randomUUID } from 'node:crypto'
import type { Kysely, Transaction } from 'kysely'
import type { Tables } from './tables.ts'

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
