import { pino } from 'pino'
import t from 'tap'
import { IpBlocks } from '../../../src/limits/ip-blocks.ts'
import { MemoryStore } from '../../../src/store/memory.ts'
import type { Store } from '../../../src/store/store.ts'
import { FakeClock } from '../../support/clock.ts'

t.test('SEC-08 H-82 a list that nobody can read blocks nobody, keeps nobody free, and is written anew', async t => {
  const clock = new FakeClock()
  const store = Object.assign(new MemoryStore(clock), { kind: 'redis' }) as unknown as Store
  const gateway = () => new IpBlocks({ store, database: undefined, clock, log: pino({ level: 'silent' }) })
  for (const poison of [
    '',
    'null',
    '[]',
    '"x"',
    '7',
    '{"192.0.2.1":null}',
    '{"192.0.2.1":{"until":"soon"}}',
    '{"a":'
  ]) {
    await store.set('ip-blocks', poison, 60_000)
    const [one, other] = [gateway(), gateway()]
    await one.sync()
    t.same(one.list(), [], poison)
    one.block('192.0.2.7', 30_000, 'test')
    await one.sync()
    await other.sync()
    t.equal(other.left('192.0.2.7'), 30_000, poison)
  }
})
