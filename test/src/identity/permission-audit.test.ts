import t from 'tap'
import { createApiKey } from '../../../src/database/api-keys.ts'
import { makeApiKey } from '../../../src/identity/api-key.ts'
import { auditPermissions } from '../../../src/identity/permission-audit.ts'
import { load } from '../../support/config.ts'
import { onBoth, openTestDatabase } from '../../support/database.ts'
import { addUser } from '../../support/users.ts'

const DAY_MS = 86_400_000
const NOW = Date.UTC(2026, 5, 1)

onBoth(t, 'AZN-10 an audit says what is open, and what is granted or asked for in vain', async (t, kind) => {
  const { snapshot } = await load(t, {
    'gateway.yaml': JSON.stringify({
      identity: { api_keys: [{ id: 'ci', key: 'sak_test_abcdefghijklmnopqrstuvwxyz', roles: ['ci'] }] },
      services: { orders: { url: 'http://127.0.0.1:1' } },
      routes: [
        { id: 'open', path: '/open/**', service: 'orders', authentication: 'none' },
        { id: 'news', path: '/news/**', service: 'orders', authentication: 'optional' },
        { id: 'read', path: '/read/**', service: 'orders', permissions: ['orders.read'] },
        { id: 'write', path: '/write/**', service: 'orders', permissions: { any: ['orders.write', 'ships.sail'] } },
        { id: 'boss', path: '/boss/**', service: 'orders', required_roles: ['boss', 'ci', 'clerk'] },
        { id: 'when', path: '/when/**', service: 'orders', conditions: { allow: [{ roles: ['captain'] }] } },
        { id: 'off', path: '/off/**', service: 'orders', authentication: 'none', enabled: false }
      ]
    })
  })
  const database = await openTestDatabase(t, kind)
  const alice = await addUser(database, { roles: { clerk: ['orders.*', 'menu.read'] }, username: 'alice' })
  const bob = await addUser(database, { roles: {}, username: 'bob' })
  await database.db
    .insertInto('roles')
    .values({ id: bob, name: 'idle', description: null, permissions: '["ships.sail"]', created_at: 1, updated_at: 1 })
    .execute()
  const make = (userId: string, name: string, permissions: string[], createdAt: number, expiresAt?: number) =>
    database.transaction(async trx => {
      const { key: _, ...print } = makeApiKey('test')
      return createApiKey(trx, { userId, name, permissions, expiresAt, ...print }, createdAt)
    })
  const fine = await make(alice, 'fine', ['orders.read'], NOW - DAY_MS, NOW + DAY_MS)
  const wide = await make(bob, 'wide', ['orders.read'], NOW - DAY_MS, NOW + DAY_MS)
  const old = await make(alice, 'old', [], NOW - 90 * DAY_MS)
  const used = await make(alice, 'used', [], NOW - 200 * DAY_MS)
  await database.db
    .updateTable('api_keys')
    .set({ last_used_at: NOW - DAY_MS })
    .where('id', '=', used)
    .execute()

  const found = await auditPermissions(database.db, snapshot, NOW)
  t.same(found, {
    public_routes: [
      { route: 'open', path: '/open/**', service: 'orders', authentication: 'none' },
      { route: 'news', path: '/news/**', service: 'orders', authentication: 'optional' }
    ],
    unmet_permissions: [{ permission: 'ships.sail', routes: ['write'] }],
    unmet_roles: [
      { role: 'boss', routes: ['boss'] },
      { role: 'captain', routes: ['when'] }
    ],
    unused_roles: [{ id: bob, role: 'idle' }],
    unused_permissions: [{ role: 'clerk', permission: 'menu.read' }],
    users_without_roles: [{ id: bob, username: 'bob' }],
    wide_keys: [{ id: wide, name: 'wide', username: 'bob', beyond: ['orders.read'] }],
    unused_keys: [{ id: old, name: 'old', username: 'alice', last_used_at: null }],
    keys_without_expiry: [
      { id: used, name: 'used', username: 'alice' },
      { id: old, name: 'old', username: 'alice' }
    ]
  })
  t.notMatch(JSON.stringify(found), fine)
})
