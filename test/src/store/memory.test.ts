import t from 'tap'
import { MemoryStore } from '../../../src/store/memory.ts'
import { limitRequest } from '../../../src/store/store.ts'
import { makeLimit, storeContract } from '../../contracts/store.ts'
import { FakeClock } from '../../support/clock.ts'
import { ownTerms } from '../../support/redis-store.ts'

storeContract(t, async () => {
  const clock = new FakeClock()
  return { store: new MemoryStore(clock), clock, terms: ownTerms() }
})

t.test('a value is gone when its time is over', async t => {
  const clock = new FakeClock()
  const store = new MemoryStore(clock)
  await store.set('blacklist:1', '1', 1000)
  clock.advance(999)
  t.equal(await store.get('blacklist:1'), '1')
  clock.advance(1)
  t.equal(await store.get('blacklist:1'), undefined)
})

t.test('H-83 a flood of names does not fill the memory, nor push out who is there all the time', async t => {
  const clock = new FakeClock()
  const store = new MemoryStore(clock)
  const limit = makeLimit('fixed_window', 10, 86_400_000)
  const regular = limitRequest(limit, 'user:alice', 'user')
  for (let i = 0; i < 250_000; i++) {
    store.decide([limitRequest(limit, `ip:${i}`, 'user')])
    if (i % 50_000 === 0) store.decide([regular])
  }
  const known = await Promise.all([0, 249_999].map(async i => (await store.usage(`ip:${i}`)).length))
  t.same(known, [0, 1])
  t.equal((await store.usage('user:alice'))[0]?.used, 5)
})

t.test('RLM-28 the wall clock may be set as somebody likes', async t => {
  const clock = new FakeClock()
  const store = new MemoryStore(clock)
  const request = limitRequest(makeLimit('fixed_window', 2, 60_000), 'user:alice', 'user')
  store.decide([request])
  clock.set(clock.now() + 3_600_000)
  t.equal(store.decide([request]).remaining, 0)
  clock.set(0)
  t.equal(store.decide([request]).allowed, false)
})

t.test('values of so many bytes are kept, and the oldest go first', async t => {
  const clock = new FakeClock()
  const store = new MemoryStore(clock, 100)
  for (const key of ['a', 'b', 'c']) await store.set(key, 'x'.repeat(32), 1000)
  await store.set('a', 'y'.repeat(32), 1000)
  await store.set('d', 'x'.repeat(32), 1000)
  t.same(await Promise.all(['a', 'b', 'c', 'd'].map(async key => (await store.get(key))?.[0])), [
    'y',
    undefined,
    'x',
    'x'
  ])
  t.equal(await store.add('a', 'z', 1000), false)
  clock.advance(1001)
  t.equal(await store.add('a', 'z', 1000), true, 'its time was over')
})
