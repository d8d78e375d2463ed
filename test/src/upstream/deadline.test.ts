import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import t from 'tap'
import { systemClock } from '../../../src/runtime/clock.ts'
import { Deadline, Deadlines } from '../../../src/upstream/deadline.ts'
import { FakeClock } from '../../support/clock.ts'

t.test('an answer that came while the process stood still is looked at before it is called late', async t => {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = net.connect((server.address() as AddressInfo).port, '127.0.0.1')
  const [[service]] = await Promise.all([once(server, 'connection'), once(client, 'connect')])
  const deadlines = new Deadlines(systemClock, 1)
  t.teardown(() => {
    deadlines.stop()
    client.destroy()
    server.close()
  })
  const first = new Promise<string>(resolve => {
    const deadline = new Deadline({ expired: () => resolve('late') })
    client.once('data', () => resolve('answered'))
    deadlines.set(deadline, 20)
  })
  service.end('an answer')
  for (const until = performance.now() + 40; performance.now() < until; );
  t.equal(await first, 'answered')
})

t.test('deadlines expire in their order, and those that are cancelled never do', async t => {
  const clock = new FakeClock(0)
  const deadlines = new Deadlines(clock)
  t.teardown(() => deadlines.stop())
  const expired: string[] = []
  const start = (name: string, ms: number): Deadline => {
    const deadline = new Deadline({ expired: () => void expired.push(name) })
    deadlines.set(deadline, ms)
    return deadline
  }
  start('b', 20)
  start('a', 10)
  start('cancelled', 10).cancel()
  start('c', 20)
  clock.advance(9)
  deadlines.tick()
  t.same(expired, [])
  clock.advance(1)
  deadlines.tick()
  t.same(expired, ['a'])
  clock.advance(10)
  deadlines.tick()
  t.same(expired, ['a', 'b', 'c'])
})
