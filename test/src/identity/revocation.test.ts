import t from 'tap'
import { Revocations, revocationKey } from '../../../src/identity/revocation.ts'
import { MemoryStore } from '../../../src/store/memory.ts'
import type { Store } from '../../../src/store/store.ts'
import { FakeClock } from '../../support/clock.ts'
import { onBoth, openTestDatabase } from '../../support/database.ts'
import { findRedisServer, startRedisServer } from '../../support/redis-server.ts'
import { connectClient, connectStore, noRedis, noRedisServer, ownTerms } from '../../support/redis-store.ts'
import { until } from '../../support/until.ts'

/** A store that counts how often it is asked for a value. */
function counted(store: Store): { store: Store; asked: string[] } {
  const asked: string[] = []
  const counting = Object.create(store, {
    kind: { value: store.kind },
    get: {
      value: (key: string) => {
        asked.push(key)
        return store.get(key)
      }
    },
    set: { value: (key: string, value: string, ttlMs: number) => store.set(key, value, ttlMs) }
  }) as Store
  return { store: counting, asked }
}

t.test('IDN-15 a token is known by its "jti", or by its hash when it has none', async t => {
  t.equal(revocationKey('a.b.c', { jti: 'x7' }), 'x7')
  const hash = revocationKey('a.b.c', {})
  t.match(hash, /^[0-9a-f]{64}$/)
  for (const jti of ['', 7, null, ['x7']])
    t.equal(revocationKey('a.b.c', { jti }), hash, `jti ${JSON.stringify(jti)} is none`)
  t.not(revocationKey('a.b.d', {}), hash)
})

t.test('IDN-15 without a shared store a token stays revoked for as long as it was to', async t => {
  const clock = new FakeClock()
  const revocations = new Revocations(new MemoryStore(clock), clock)
  t.equal(revocations.isRevoked('a'), false)
  await revocations.revoke([{ key: 'a', ttlMs: 5000 }])
  t.equal(revocations.isRevoked('a'), true)
  t.equal(revocations.isRevoked('b'), false)
  clock.advance(4999)
  t.equal(revocations.isRevoked('a'), true)
  clock.advance(1)
  t.equal(revocations.isRevoked('a'), false)
})

onBoth(t, 'IDN-15 what has been taken back is forgotten when it would have expired', async (t, kind) => {
  const clock = new FakeClock()
  const database = await openTestDatabase(t, kind, clock)
  const [revoking, following] = [0, 1].map(() => new Revocations(new MemoryStore(clock), clock, database)) as [
    Revocations,
    Revocations
  ]
  await following.open()
  for (let round = 0; round < 3; round++) {
    await revoking.revoke(Array.from({ length: 1001 }, (_, i) => ({ key: `${round}-${i}`, ttlMs: 60_000 })))
    t.equal(following.isRevoked(`${round}-1000`), true)
    clock.advance(60_000)
  }
  t.ok(following.size < 2002, 'also where nobody takes anything back')
  t.ok(revoking.size < 2002)
})

t.test('IDN-15 CLU-01 what one gateway revokes is revoked at another within a second', { skip: noRedis }, async t => {
  const clock = new FakeClock()
  const here = await connectStore(t, { terms: ownTerms() })
  const there = counted(await connectStore(t, { terms: ownTerms() }))
  const revoking = new Revocations(here, clock)
  const asking = new Revocations(there.store, clock)
  const key = `test-${process.pid}-${Math.random()}`
  const answer = (): boolean | Promise<boolean> => asking.isRevoked(key)

  t.type(answer(), Promise, 'the first time somebody has to be asked')
  t.equal(await answer(), false)
  await until(() => answer() === false)
  await revoking.revoke([{ key, ttlMs: 60_000 }])
  t.equal(revoking.isRevoked(key), true, 'at once where it was revoked')
  t.equal(await connectClient(t).get(`blacklist:${key}`), '1')

  clock.advance(499)
  t.equal(answer(), false, 'still taken for granted')
  t.equal(there.asked.length, 1)
  clock.advance(1)
  t.equal(answer(), false, 'asked again, without waiting')
  t.equal(there.asked.length, 2)
  await until(() => answer() === true)
  t.equal(there.asked.length, 2, 'a token that is revoked stays so')
})

t.test('IDN-15 a token that was not seen for a second waits for the answer', { skip: noRedis }, async t => {
  const clock = new FakeClock()
  const store = await connectStore(t, { terms: ownTerms() })
  const revocations = new Revocations(store, clock)
  const key = `test-${process.pid}-${Math.random()}`
  t.equal(await revocations.isRevoked(key), false)
  await store.set(`blacklist:${key}`, '1', 60_000)
  clock.advance(1000)
  const answer = revocations.isRevoked(key)
  t.type(answer, Promise)
  t.equal(await answer, true)
})

t.test(
  'C-29 while Redis is away what was known last stands, and revoking says that it went nowhere',
  { skip: noRedisServer },
  async t => {
    const server = await startRedisServer(findRedisServer() as string)
    t.teardown(() => server.process.kill('SIGKILL'))
    const clock = new FakeClock()
    const store = await connectStore(t, { terms: ownTerms(), url: server.url, timeoutMs: 200 })
    const revocations = new Revocations(store, clock)
    await store.set('blacklist:bad', '1', 60_000)
    t.equal(await revocations.isRevoked('bad'), true)
    t.equal(await revocations.isRevoked('good'), false)
    server.process.kill('SIGKILL')
    await until(() =>
      store.check().then(
        () => false,
        () => true
      )
    )
    clock.advance(10_000)
    t.equal(revocations.isRevoked('bad'), true)
    t.equal(await revocations.isRevoked('good'), false)
    t.equal(await revocations.isRevoked('new'), false)
    await t.rejects(revocations.revoke([{ key: 'good', ttlMs: 60_000 }]))
    t.equal(revocations.isRevoked('good'), true, 'but here it is')
  }
)
