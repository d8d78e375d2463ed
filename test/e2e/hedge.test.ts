import type { ServerResponse } from 'node:http'
import t, { type Test } from 'tap'
import { FakeClock } from '../support/clock.ts'
import { startGateway } from '../support/gateway.ts'
import { until } from '../support/until.ts'
import { startService } from '../support/upstream.ts'

/** Two instances that answer when they are told to; the first request goes to `a`. */
async function two(t: Test, more: object = {}) {
  const clock = new FakeClock()
  let aborted = 0
  const start = async () => {
    const waiting: ServerResponse[] = []
    const { url } = await startService(t, (request, response) => {
      request.resume()
      response.on('close', () => {
        if (!response.writableFinished) aborted++
      })
      waiting.push(response)
    })
    return { url, waiting }
  }
  const [a, b] = [await start(), await start()]
  const running = await startGateway(
    t,
    {
      defaults: { authentication: 'none', hedge: '100ms' },
      services: {
        s: {
          instances: [
            { id: 'a', url: a.url },
            { id: 'b', url: b.url }
          ],
          ...more
        }
      },
      routes: [{ path: '/**', service: 's' }]
    },
    { clock }
  )
  /** Lets time pass, as far as deadlines are concerned. */
  const pass = (ms: number): void => {
    clock.advance(ms)
    running.gateway.runtime.deadlines.tick()
  }
  return { ...running, a: a.waiting, b: b.waiting, pass, aborted: () => aborted }
}

t.test(
  'RES-15 a hedged read: another instance is asked after a while, who is first counts, the other is given up',
  async t => {
    const { call, a, b, pass, line, aborted } = await two(t)
    const quick = call('/quick')
    await until(() => a.length === 1)
    a[0]?.end('quick')
    t.equal((await quick).text, 'quick')
    pass(100)
    const answer = call('/slow')
    await until(() => b.length === 1)
    t.equal(a.length, 1)
    pass(100)
    await until(() => a.length === 2)
    a[1]?.end('second is first')
    t.equal((await answer).text, 'second is first')
    t.match(await line({ path: '/slow' }), { attempts: 2, instance: 'a' })
    await until(() => aborted() === 1)

    const late = call('/late')
    await until(() => a.length + b.length === 4)
    pass(100)
    await until(() => a.length + b.length === 5)
    b.at(-1)?.end('b')
    t.equal((await late).text, 'b')
  }
)

t.test('RES-15 of two tries one may fail', async t => {
  const { call, a, b, pass, line } = await two(t, { retry: { attempts: 1, retry_on: [503, 'reset'] } })
  for (const fail of [
    (response?: ServerResponse) => response?.writeHead(503).end(),
    (response?: ServerResponse) => response?.socket?.destroy()
  ]) {
    const [as, bs] = [a.length, b.length]
    const answer = call('/x')
    await until(() => a.length + b.length === as + bs + 1)
    pass(100)
    await until(() => a.length === as + 1 && b.length === bs + 1)
    fail(a.at(-1))
    b.at(-1)?.end('well')
    t.match(await answer, { status: 200, text: 'well' })
  }
  t.match(await line({ path: '/x' }), { attempts: 2, instance: 'b' })
})

t.test(
  'H-93 RES-15 it is made once, for reads alone, counts against the budget, and ends with its deadline',
  async t => {
    const { call, a, b, pass, gateway } = await two(t, { timeout: '1s' })
    const post = call('/x', { method: 'POST', body: 'x' })
    await until(() => a.length === 1)
    pass(100)
    a[0]?.end('done')
    await post
    t.equal(b.length, 0)

    const all = Array.from({ length: 20 }, () => call('/x'))
    await until(() => a.length + b.length === 21)
    pass(100)
    await until(() => a.length + b.length === 31)
    pass(100)
    pass(900)
    const statuses = (await Promise.all(all)).map(({ status }) => status)
    t.same(new Set(statuses), new Set([504]))
    t.equal(a.length + b.length, 31, 'ten are what it had saved')
    await until(() => gateway.server.inFlight === 0)
    for (const instance of gateway.runtime.services.get('s')?.instances ?? []) t.equal(instance.active, 0)
  }
)
