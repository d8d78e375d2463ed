import { setTimeout } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { FakeClock } from '../support/clock.ts'
import { onBoth, ownStorage } from '../support/database.ts'
import { temporaryFolder } from '../support/folder.ts'
import { call } from '../support/gateway.ts'
import { startProcess, writeConfiguration } from '../support/gateway-process.ts'
import { many, tally } from '../support/many.ts'
import { token } from '../support/tokens.ts'
import { startRecording } from '../support/traffic.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

const HOUR = 3_600_000
const DAY = 24 * HOUR
const NOON = Date.UTC(2026, 0, 1, 12)
const alice = token({ sub: 'alice', roles: ['user'], tier: 'free' })
const boss = token({ sub: 'root', roles: ['admin'] })

const document = (url: string, daily_limit = 5) => ({
  rate_limits: { user_tiers: { free: { daily_limit, requests_per_minute: 1000 } }, guest: { daily_limit: 2 } },
  services: { s: { url } },
  routes: [{ path: '/api/**', service: 's', authentication: 'optional' }]
})

/** Gateways one after the other on one database. */
async function restarting(t: Test, kind: 'sqlite' | 'postgres') {
  const { url } = await startUpstream(t)
  const storage = await ownStorage(t, kind, temporaryFolder(t))
  const clock = new FakeClock(NOON)
  const start = () => startRecording(t, kind, document(url), { clock, storage })
  const use = async (port: number, requests: number) => tally(await many(port, requests, '/api/x', { token: alice }))
  return { clock, start, use }
}

onBoth(t, 'RLM-08 what was used of a day outlives a restart, and the day ends when it ends', async (t, kind) => {
  const { clock, start, use } = await restarting(t, kind)
  const first = await start()
  t.same(await use(first.port, 3), { 200: 3 })
  t.same(tally(await many(first.port, 1, '/api/x')), { 200: 1 })
  await first.gateway.close(0)

  clock.advance(HOUR)
  const second = await start()
  const shown = await second.call('/admin/rate-limits/user:alice', { token: boss })
  t.match(shown.json.limits, [
    { name: 'user', algorithm: 'fixed_window', limit: 5, window_seconds: 86_400, used: 3, remaining: 2 }
  ])
  t.equal(shown.json.limits[0].reset_seconds, 11 * 3600)
  t.same(await use(second.port, 4), { 200: 2, 429: 2 })
  t.same(tally(await many(second.port, 2, '/api/x')), { 200: 1, 429: 1 }, 'addresses, too')
  await second.gateway.close(0)

  clock.advance(11 * HOUR - 1)
  const third = await start()
  t.same(await use(third.port, 1), { 429: 1 }, 'the last millisecond of the day')
  clock.advance(1)
  t.same(await use(third.port, 2), { 200: 2 }, 'the first of the next one')
  await third.gateway.close(0)

  clock.advance(DAY)
  const fourth = await start()
  t.same((await fourth.call('/admin/rate-limits/user:alice', { token: boss })).json.limits, [])
  t.same(await use(fourth.port, 6), { 200: 5, 429: 1 })
})

onBoth(t, 'RLM-08 RLM-15 what an administrator has forgotten stays so', async (t, kind) => {
  const { start, use } = await restarting(t, kind)
  const first = await start()
  t.same(await use(first.port, 5), { 200: 5 })
  await first.recorder.flush()
  t.equal((await first.call('/admin/rate-limits/user:alice', { method: 'DELETE', token: boss })).status, 204)
  t.same(await use(first.port, 1), { 200: 1 })
  await first.recorder.flush()
  t.equal((await first.call('/admin/rate-limits/user:alice', { method: 'DELETE', token: boss })).status, 204)
  await first.gateway.close(0)
  const second = await start()
  t.same(await use(second.port, 6), { 200: 5, 429: 1 })
})

t.test('RLM-08 RLM-26 a limit that was changed meanwhile holds, and what was used counts', async t => {
  const { url } = await startUpstream(t)
  const storage = await ownStorage(t, 'sqlite', temporaryFolder(t))
  const clock = new FakeClock(NOON)
  const first = await startRecording(t, 'sqlite', document(url, 5), { clock, storage })
  await many(first.port, 4, '/api/x', { token: alice })
  await first.gateway.close(0)
  const second = await startRecording(t, 'sqlite', document(url, 6), { clock, storage })
  t.same(tally(await many(second.port, 4, '/api/x', { token: alice })), { 200: 2, 429: 2 })
})

/** A gateway in a process of its own that counts what it does. */
async function processOn(t: Test, kind: 'sqlite' | 'postgres') {
  const { url } = await startUpstream(t)
  const { file } = writeConfiguration(t, {
    storage: await ownStorage(t, kind, temporaryFolder(t)),
    ...document(url, 1000)
  })
  const usage = async (port: number) => {
    const { json } = await call(port, '/usage?service=s', { token: boss })
    return json.total.requests as number
  }
  const used = async (port: number) =>
    ((await call(port, '/usage/me', { token: alice })).json.limits as { window_seconds: number; used: number }[]).find(
      ({ window_seconds }) => window_seconds === 86_400
    )?.used
  return { start: () => startProcess(t, file), usage, used }
}

onBoth(t, 'RLM-08 OBS-21 OBS-22 a gateway that is stopped loses nothing', async (t, kind) => {
  const { start, usage, used } = await processOn(t, kind)
  const first = await start()
  t.same(tally(await many(first.port, 50, '/api/x', { token: alice })), { 200: 50 })
  first.child.kill('SIGTERM')
  t.equal(await first.ended, 0)
  const second = await start()
  t.equal(await usage(second.port), 50)
  t.equal(await used(second.port), 50)
})

onBoth(t, 'RLM-08 OBS-21 OBS-22 a gateway that is killed loses nothing that was written down', async (t, kind) => {
  const { start, usage, used } = await processOn(t, kind)
  const first = await start()
  t.same(tally(await many(first.port, 50, '/api/x', { token: alice })), { 200: 50 })
  // Each look is a request, of which the gateway takes 120 a minute.
  const look = async () => (await usage(first.port)) === 50 || setTimeout(100, false)
  await until(look, 'within a second or so it is in the database')
  await many(first.port, 5, '/api/x', { token: alice })
  first.child.kill('SIGKILL')
  await first.ended
  const second = await start()
  for (const found of [await usage(second.port), (await used(second.port)) as number])
    t.ok(found >= 50 && found <= 55, `${found} of 55`)
})
