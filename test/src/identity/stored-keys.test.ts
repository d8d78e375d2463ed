import crypto from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { createApiKey, deleteApiKey, findApiKey, rotateApiKey } from '../../../src/database/api-keys.ts'
import type { Change } from '../../../src/database/changes.ts'
import type { Database } from '../../../src/database/database.ts'
import { DatabaseError } from '../../../src/database/database-error.ts'
import { raiseTokenVersion, setRoles } from '../../../src/database/users.ts'
import { GatewayError } from '../../../src/errors.ts'
import { ApiKeys, hashApiKey, makeApiKey } from '../../../src/identity/api-key.ts'
import type { Consumer } from '../../../src/identity/consumer.ts'
import { StoredKeys } from '../../../src/identity/stored-keys.ts'
import { FakeClock } from '../../support/clock.ts'
import { onBoth, openTestDatabase } from '../../support/database.ts'
import { addUser } from '../../support/users.ts'

async function start(t: Test, kind: Database['kind']) {
  const database = await openTestDatabase(t, kind)
  const clock = new FakeClock()
  const listeners = new Map<string, (changes: readonly Change[]) => void>()
  const { on } = database.changes
  database.changes.on = (kind, listener) => {
    listeners.set(kind, listener)
    return on.call(database.changes, kind, listener)
  }
  const tell = (kind: string, subject: string): void => listeners.get(kind)?.([{ kind, subject }])
  const stored = new StoredKeys(database, { clock, log: pino({ level: 'silent' }) })
  t.teardown(() => stored.close())
  const keys = new ApiKeys([], stored)
  const queries = countQueries(t, database)
  const make = async (userId: string, permissions: string[] = [], expiresAt?: number) => {
    const { key, ...print } = makeApiKey('test')
    const id = await database.transaction(trx =>
      createApiKey(trx, { userId, name: 'a key', permissions, expiresAt, ...print }, clock.now())
    )
    queries.count = 0
    return { key, id }
  }
  const who = async (key: string): Promise<Consumer> => keys.authenticate(key, clock)
  const refusal = (key: string): Promise<string | undefined> =>
    who(key).then(
      () => undefined,
      error => (error instanceof GatewayError ? error.reason : Promise.reject(error))
    )
  return { database, clock, stored, keys, queries, make, who, refusal, tell }
}

/** Counts what asks for keys; lets it fail, or something happen meanwhile. */
function countQueries(t: Test, { db }: Database) {
  const state = { count: 0, fail: undefined as Error | undefined, during: undefined as (() => void) | undefined }
  const { selectFrom } = db
  const target = db as { selectFrom: unknown }
  target.selectFrom = (table: never) => {
    if (table !== 'api_keys as key') return selectFrom.call(db, table)
    state.count++
    state.during?.()
    if (state.fail !== undefined) throw state.fail
    return selectFrom.call(db, table)
  }
  t.teardown(() => {
    target.selectFrom = selectFrom
  })
  return state
}

onBoth(t, 'IDN-26 IDN-35 a key of the database is its owner’s, and is asked for once', async (t, kind) => {
  const { database, make, who, queries, keys, clock } = await start(t, kind)
  const owner = await addUser(database, { roles: { clerk: ['orders.*'], guest: ['menu.read'] }, tier: 'pro' })
  const { key, id } = await make(owner, ['orders.read', 'menu.*', 'users.read'])
  const consumer = await who(key)
  t.match(consumer, { key: `key:${id}`, kind: 'api_key', id, name: 'a key', tier: 'pro', userId: owner })
  t.same(consumer.roles, ['clerk', 'guest'])
  t.same([...consumer.permissions].sort(), ['menu.read', 'orders.read'], 'what both say')
  t.equal(consumer.expiresAt, Number.POSITIVE_INFINITY)
  t.equal(keys.authenticate(key, clock), consumer, 'no promise from now on, and the same caller')
  t.equal(queries.count, 1)
})

onBoth(t, 'IDN-24 what its owner may no longer do, a key may no longer do', async (t, kind) => {
  const { database, make, who, refusal } = await start(t, kind)
  const owner = await addUser(database, { roles: { clerk: ['orders.read', 'orders.write'] } })
  const { key } = await make(owner, ['orders.*'])
  t.same([...(await who(key)).permissions].sort(), ['orders.read', 'orders.write'])
  const before = await who(key)
  const { id: role } = await database.db.selectFrom('roles').select('id').executeTakeFirstOrThrow()
  await database.transaction(async (trx, changed) => {
    await trx.updateTable('roles').set({ permissions: '["orders.read"]' }).where('id', '=', role).execute()
    changed.push({ kind: 'role', subject: role })
  })
  t.same((await who(key)).permissions, ['orders.read'])
  await database.transaction(async (trx, changed) => {
    await setRoles(trx, owner, [], 1)
    await raiseTokenVersion(trx, changed, [owner], 1)
  })
  t.same([(await who(key)).roles, (await who(key)).permissions], [[], []])
  await database.transaction(async (trx, changed) => {
    await trx.updateTable('users').set({ active: false }).where('id', '=', owner).execute()
    await raiseTokenVersion(trx, changed, [owner], 1)
  })
  t.equal(await refusal(key), 'inactive_owner')
  t.same(before.permissions.length, 2, 'who was let in before stays who he was')
})

onBoth(t, 'IDN-22 a rotated key is good for its time of grace, and the one before that not at all', async (t, kind) => {
  const { database, clock, make, who, refusal } = await start(t, kind)
  const owner = await addUser(database)
  const { key: first, id } = await make(owner)
  await who(first)
  const rotate = async (until: number | undefined): Promise<string> => {
    const { key, ...print } = makeApiKey('test')
    await database.transaction(async (trx, changed) => {
      await rotateApiKey(trx, id, print, until, clock.now())
      changed.push({ kind: 'api_key', subject: id })
    })
    return key
  }
  const second = await rotate(clock.now() + 1000)
  t.equal((await who(second)).id, id)
  t.equal((await who(first)).id, id)
  clock.advance(999)
  t.equal(await refusal(first), undefined)
  clock.advance(1)
  t.equal(await refusal(first), 'expired_api_key')
  t.equal(await refusal(second), undefined)
  const third = await rotate(clock.now() + 1000)
  t.equal(await refusal(first), 'unknown_api_key')
  t.equal(await refusal(second), undefined)
  const fourth = await rotate(undefined)
  t.same(
    [await refusal(second), await refusal(third), await refusal(fourth)],
    ['unknown_api_key', 'unknown_api_key', undefined]
  )
})

onBoth(t, 'IDN-24 a key ends when it says, also while it is remembered', async (t, kind) => {
  const { database, clock, make, refusal } = await start(t, kind)
  const { key } = await make(await addUser(database), [], clock.now() + 500)
  t.equal(await refusal(key), undefined)
  clock.advance(500)
  t.equal(await refusal(key), 'expired_api_key')
})

onBoth(t, 'IDN-21 a key that is taken back is over as soon as that is known', async (t, kind) => {
  const { database, make, who, refusal, stored } = await start(t, kind)
  const { key, id } = await make(await addUser(database))
  const other = await make(await addUser(database))
  const consumer = await who(key)
  const stays = await who(other.key)
  let told = 0
  stored.onChange(() => told++)
  t.equal(stored.isOver(consumer), false)
  await database.transaction(async (trx, changed) => {
    await deleteApiKey(trx, id)
    changed.push({ kind: 'api_key', subject: id })
  })
  t.equal(await refusal(key), 'unknown_api_key')
  t.same([stored.isOver(consumer), stored.isOver(stays), told], [true, false, 1], 'open WebSockets can be told')
  t.equal(await refusal(other.key), undefined)
})

onBoth(t, 'H-63 text that cannot be a key, or is known to be none, never reaches the database', async (t, kind) => {
  const { database, clock, make, refusal, queries } = await start(t, kind)
  const { key } = await make(await addUser(database))
  const never = [
    '',
    ' ',
    key.slice(0, -1),
    `${key}a`,
    ` ${key}`,
    key.toUpperCase(),
    key.replace(/.$/, '\u0430'),
    key.replace('sak_', 'sak-'),
    `sak__${'a'.repeat(26)}`,
    hashApiKey(key).toString('hex'),
    "' or 1=1 --",
    '__proto__'
  ]
  for (const text of never) t.equal(await refusal(text), 'unknown_api_key', JSON.stringify(text))
  t.equal(queries.count, 0)
  const { key: nobodys } = makeApiKey('test')
  for (let i = 0; i < 5; i++) t.equal(await refusal(nobodys), 'unknown_api_key')
  t.equal(queries.count, 1)
  clock.advance(10_000)
  t.equal(await refusal(nobodys), 'unknown_api_key')
  t.equal(queries.count, 2, 'not for long')
})

onBoth(t, 'IDN-35 however many keys are seen for the first time at once, one query asks at a time', async (t, kind) => {
  const { database, make, who, refusal, queries } = await start(t, kind)
  const { key, id } = await make(await addUser(database))
  const same = await Promise.all(Array.from({ length: 50 }, () => who(key)))
  t.equal(queries.count, 1)
  t.equal(new Set(same).size, 1)
  t.equal(same[0]?.id, id)
  queries.count = 0
  const flood = Array.from({ length: 1000 }, () => makeApiKey('test').key)
  t.same(new Set(await Promise.all(flood.map(refusal))), new Set(['unknown_api_key']))
  t.ok(queries.count <= 6, `a thousand unknown keys: ${queries.count} queries`)
})

onBoth(
  t,
  'IDN-21 an answer from before a change is not remembered, nor waited for by those who come after it',
  async (t, kind) => {
    const { database, make, who, keys, clock, queries, tell, stored } = await start(t, kind)
    const owner = await addUser(database, { roles: { clerk: ['a'] } })
    const { key } = await make(owner, ['a'])
    let later: unknown
    queries.during = () => {
      queries.during = undefined
      // It comes from another node, when the question is under way; and with it somebody who must not get the old answer.
      tell('user', owner)
      later = keys.authenticate(key, clock)
    }
    const early = await who(key)
    t.equal(queries.count, 2)
    const fresh = await (later as Promise<Consumer>)
    t.not(fresh, early)
    t.same([stored.isOver(early), stored.isOver(fresh)], [true, false])
    t.equal(keys.authenticate(key, clock), fresh)
  }
)

onBoth(t, 'STO-06 while the database is away, keys that have been seen go on, others get 503', async (t, kind) => {
  const { database, make, who, queries, refusal } = await start(t, kind)
  const owner = await addUser(database)
  const known = await make(owner)
  const unseen = await make(owner)
  await who(known.key)
  queries.fail = new DatabaseError('unreachable', 'gone')
  t.match(await who(known.key), { id: known.id })
  const refused = await Promise.all([0, 1].map(() => who(unseen.key).catch((error: unknown) => error)))
  for (const error of refused) t.match(error, { code: 'service_unavailable', reason: 'api_keys_unavailable' })
  queries.fail = undefined
  t.match(await who(unseen.key), { id: unseen.id }, 'and recovers')
  t.equal(await refusal('nonsense'), 'unknown_api_key')
})

onBoth(t, 'IDN-25 when a key was used last is written down in batches', async (t, kind) => {
  const { database, make, who, stored, clock } = await start(t, kind)
  const owner = await addUser(database)
  const [one, other, unused] = [await make(owner), await make(owner), await make(owner)]
  for (let i = 0; i < 10; i++) await who(one.key)
  await who(other.key)
  t.equal((await findApiKey(database.db, one.id))?.lastUsedAt, undefined, 'not by the request itself')
  clock.advance(5000)
  await stored.flush()
  const used = await Promise.all([one, other, unused].map(({ id }) => findApiKey(database.db, id)))
  t.same(
    used.map(key => key?.lastUsedAt),
    [clock.now(), clock.now(), undefined]
  )
})

onBoth(t, 'H-64 whether a key is there or not, the same is done: hashes, comparisons, queries', async (t, kind) => {
  const { database, make, refusal, queries } = await start(t, kind)
  const owner = await addUser(database)
  const [seen, unseen] = [await make(owner), await make(owner)]
  const [known, unknown] = [makeApiKey('test').key, makeApiKey('test').key]
  await refusal(seen.key)
  await refusal(known)
  let compared: number[] = []
  const { timingSafeEqual } = crypto
  t.teardown(() => {
    crypto.timingSafeEqual = timingSafeEqual
    syncBuiltinESMExports()
  })
  crypto.timingSafeEqual = (a, b) => {
    compared.push(a.byteLength, b.byteLength)
    return timingSafeEqual(a, b)
  }
  syncBuiltinESMExports()
  const work = async (key: string) => {
    compared = []
    queries.count = 0
    await refusal(key)
    return { compared, queries: queries.count }
  }
  t.same(await work(seen.key), { compared: [32, 32], queries: 0 }, 'seen before, and there')
  t.same(await work(known), { compared: [32, 32], queries: 0 }, 'seen before, and not there')
  t.same(await work(unseen.key), { compared: [32, 32, 32, 32], queries: 1 }, 'new, and there')
  t.same(await work(unknown), { compared: [32, 32, 32, 32], queries: 1 }, 'new, and not there')
})
