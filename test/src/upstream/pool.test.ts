import t from 'tap'
import { Pool } from '../../../src/upstream/pool.ts'
import { FakeClock } from '../../support/clock.ts'

t.test('a connection that cannot even be made takes nobody’s place', async t => {
  const options = { connections: 1, connectTimeoutMs: 0, keepAliveMs: 0, idleTimeoutMs: 0, maxHeaderBytes: 1024 }
  const pool = new Pool('http://127.0.0.1:1', options, new FakeClock())
  const user = { connected: () => t.fail('there is no connection') }
  t.throws(() => pool.acquire(user), /keepAliveTimeout/)
  t.throws(() => pool.acquire(user), /keepAliveTimeout/, 'rather than waiting for a place for ever')
})
