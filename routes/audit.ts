import type { FastifyPluginAsync } from 'fastify'
import { readAudit } from '../src/database/audit.ts'
import type { Database } from '../src/database/database.ts'
import { oneOf, Type } from '../src/schema.ts'
import { guardOwnEndpoints } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { filterWord, listing, listOf, type Page, pageQuery, rangeOf, readTimes, timeQuery } from './listing.ts'
import { administrators } from './operation.ts'

const OUTCOMES = ['allowed', 'denied', 'changed'] as const

interface AuditQuery extends Page {
  readonly actor?: string
  readonly action?: string
  readonly target?: string
  readonly outcome?: string
  readonly from?: string
  readonly to?: string
}

const text = (description: string) => Type.String({ description })
const orNull = (description: string) => Type.Union([Type.String(), Type.Null()], { description })

const auditEntry = Type.Object({
  id: Type.String({ description: 'Of the entry.', format: 'uuid' }),
  at: Type.String({ description: 'When.', format: 'date-time' }),
  actor: text('`user:<id>`, `key:<id>`, `client:<id>`, `command`, `gateway`, `anonymous`.'),
  action: text('`user.create`, `login`, `access`, …'),
  target: text('`user:<id>`, `service:<name>`, an endpoint, …'),
  outcome: oneOf(OUTCOMES, { description: 'What came of it.' }),
  before: Type.Unknown({ description: 'How it was; null if there is nothing to say.' }),
  after: Type.Unknown({ description: 'How it is since; null if there is nothing to say.' }),
  details: orNull('Why, or what else there is to know.'),
  client_ip: orNull('From where.'),
  request_id: orNull('Under which the log says more.')
})

/** The audit log, for those who may read it (OBS-33). */
const audit: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })
  // There is one wherever anybody asks; where only documents are made of this, nobody does.
  const database = runtime.database as Database

  app.get<{ Querystring: AuditQuery }>(
    '/audit',
    administrators('Who did what to whom, the newest first', {
      tag: 'Audit',
      description:
        'Administrative changes, logins, and requests that were refused for want of a credential or a right.',
      query: Type.Object({
        ...pageQuery,
        ...timeQuery,
        actor: filterWord('Who did it.'),
        action: filterWord('What was done.'),
        target: filterWord('To whom or what.'),
        outcome: Type.Optional(oneOf(OUTCOMES, { description: 'What came of it.' }))
      }),
      answers: { 200: listOf(auditEntry) }
    }),
    async request => {
      const { query } = request
      const { entries, total } = await readAudit(database.db, { ...query, ...readTimes(query) }, rangeOf(query))
      const data = entries.map(({ seq: _, at, before, after, ...entry }) => ({
        ...entry,
        at: new Date(at).toISOString(),
        before: before === null ? null : JSON.parse(before),
        after: after === null ? null : JSON.parse(after)
      }))
      return listing(request, query, { data, total }, { version: snapshot.gateway.version, now: runtime.clock.now() })
    }
  )
}

export default audit
