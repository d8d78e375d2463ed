import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { type AuditEntry, writeAudit } from '../../src/database/audit.ts'
import type { Database } from '../../src/database/database.ts'
import { onBoth, openTestDatabase, ownStorage } from '../support/database.ts'
import { startGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'

const boss = token({ sub: 'root', roles: ['admin'] })
const DAY = 86_400_000

const entry = (at: number, more: Partial<AuditEntry> = {}): AuditEntry => ({
  at,
  actor: 'user:alice',
  action: 'user.update',
  target: 'user:bob',
  outcome: 'changed',
  ...more
})

/** A gateway over a database of the test's own. */
async function withDatabase(t: Test, kind: Database['kind'], document: object = {}) {
  const started = await startGateway(t, { storage: await ownStorage(t, kind), ...document })
  return { ...started, database: started.gateway.runtime.database as Database }
}

onBoth(t, 'OBS-33 SEC-11 nobody changes the audit log, the database itself sees to that', async (t, kind) => {
  const { db } = await openTestDatabase(t, kind)
  await writeAudit(db, [entry(Date.now()), entry(Date.now() - 31 * DAY)])
  const refused = { message: /the audit log is append-only/ }
  await t.rejects(db.updateTable('audit_log').set({ actor: 'user:mallory' }).execute(), refused)
  await t.rejects(db.deleteFrom('audit_log').execute(), refused, 'one is too young')
  const [{ id }] = (await db.selectFrom('audit_log').select('id').execute()) as [{ id: string }]
  if (kind === 'postgres') await t.rejects(sql`truncate audit_log`.execute(db), refused)
  else
    await t.rejects(
      sql`insert or replace into audit_log (id, at, actor, action, target, outcome) values (${id}, 1, '', '', '', '')`.execute(
        db
      ),
      refused
    )
  await db
    .deleteFrom('audit_log')
    .where('at', '<', Date.now() - 30 * DAY)
    .execute()
  t.equal((await db.selectFrom('audit_log').selectAll().execute()).length, 1, 'what is old may go')
})

onBoth(t, 'OBS-33 TRF-14 administrators read the audit log, filtered, in pages', async (t, kind) => {
  const { call, database } = await withDatabase(t, kind)
  // In times to come, so that what the gateway itself has written down at its start is older.
  const start = Date.UTC(2100, 0, 1)
  await writeAudit(database.db, [
    entry(start, { before: { name: 'Bob' }, after: { name: 'Rob' }, requestId: 'r1', clientIp: '192.0.2.1' }),
    entry(start + 1000, { actor: 'user:carol', action: 'user.delete' }),
    entry(start + 2000, { target: 'user:dave', outcome: 'denied', details: 'because' })
  ])
  const read = async (query: string) =>
    (await call(`/admin/audit?${/from/.test(query) ? '' : `from=2100-01-01T00:00:00Z&`}${query}`, { token: boss })).json
  const { data, meta, links } = await read('per_page=2')
  t.match(meta.pagination, { page: 1, per_page: 2, total: 3, pages: 2 })
  t.equal(links.next, '/admin/audit?from=2100-01-01T00%3A00%3A00Z&per_page=2&page=2')
  t.match(data, [
    { at: '2100-01-01T00:00:02.000Z', target: 'user:dave', outcome: 'denied', details: 'because', before: null },
    { at: '2100-01-01T00:00:01.000Z', actor: 'user:carol' }
  ])
  t.match((await read('per_page=2&page=2')).data, [
    { before: { name: 'Bob' }, after: { name: 'Rob' }, request_id: 'r1', client_ip: '192.0.2.1' }
  ])
  const countOf = async (query: string) => (await read(query)).meta.pagination.total
  t.equal(await countOf('actor=user:carol'), 1)
  t.equal(await countOf('action=user.update&target=user:bob'), 1)
  t.equal(await countOf('outcome=denied'), 1)
  t.equal(await countOf('from=2100-01-01T00:00:01Z'), 2)
  t.equal(await countOf('from=2100-01-01T00:00:01Z&to=2100-01-01T00:00:02Z'), 1)
  t.equal(await countOf(`actor=user:${randomUUID()}`), 0)
})

t.test('C-39 the audit log is for administrators, and bad questions are refused with a reason', async t => {
  const { call } = await withDatabase(t, 'sqlite')
  t.equal((await call('/admin/audit')).status, 401)
  t.equal((await call('/admin/audit', { token: token({ roles: ['user'] }) })).status, 403)
  for (const [query, field] of [
    ['from=yesterday', 'from'],
    ['to=2026-13-45T00:00:00Z', 'to'],
    ['from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z', 'to'],
    ['outcome=maybe', 'outcome'],
    ['actor=%00', 'actor'],
    ['page=0', 'page'],
    ['per_page=1000', 'per_page'],
    ['what=x', 'what']
  ] as const) {
    const { status, json } = await call(`/admin/audit?${query}`, { token: boss })
    t.equal(status, 422, query)
    t.match(json.error.details, field, query)
  }
})

t.test('OBS-33 a gateway without a database has no audit log', async t => {
  const { call } = await startGateway(t, {})
  t.equal((await call('/admin/audit', { token: boss })).status, 404)
})

t.test('OBS-33 ADM-05 changes that are not made in the database are in the audit log, too', async t => {
  const document = {
    services: { s: { url: 'http://127.0.0.1:1' } },
    routes: [{ id: 'the-one', path: '/x', service: 's' }]
  }
  const { gateway, call, configure } = await withDatabase(t, 'sqlite', document)
  const send = (method: string, path: string, body: object) =>
    call(path, { method, token: boss, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
  t.equal((await send('PATCH', '/admin/routes', { id: 'the-one', enabled: false })).status, 200)
  t.equal((await call('/admin/rate-limits/user:alice', { method: 'DELETE', token: boss })).status, 204)
  t.equal((await send('POST', '/admin/revocations', { jti: 'abc', seconds: 60 })).status, 204)
  const before = gateway.snapshot.version
  configure({ storage: gateway.snapshot.storage, ...document, routes: [{ id: 'another', path: '/y', service: 's' }] })
  await gateway.reload()
  const { data } = (await call('/admin/audit?outcome=changed', { token: boss })).json
  const changes = (data as Record<string, unknown>[]).filter(({ action }) => action !== 'user.create')
  t.match(changes, [
    {
      actor: 'gateway',
      action: 'configuration.apply',
      before: { version: before },
      after: { version: gateway.snapshot.version, changes: /another/ }
    },
    { actor: 'user:root', action: 'token.revoke', target: 'token:abc', client_ip: '127.0.0.1' },
    { actor: 'user:root', action: 'rate_limits.reset', target: 'user:alice' },
    { actor: 'user:root', action: 'route.disable', target: 'route:the-one', request_id: /^req_/ }
  ])
})
