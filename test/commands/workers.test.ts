import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import t from 'tap'
import { stringify } from 'yaml'
import { ROOT } from '../support/config.ts'
import { noPostgres, ownStorage } from '../support/database.ts'
import { call } from '../support/gateway.ts'
import { startProcess, writeConfiguration } from '../support/gateway-process.ts'
import { noRedisServer, ownRedis } from '../support/redis-store.ts'
import { boss } from '../support/services.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

const MAIN = join(ROOT, 'src', 'main.ts')

t.test(
  'C-25 CLU-06 DEP-07 several workers serve one port as one gateway',
  { skip: noPostgres || noRedisServer },
  async t => {
    const waiting: (() => void)[] = []
    const [upstream, redis, storage] = await Promise.all([
      startUpstream(t, (request, response) => {
        if (request.url === '/slow') waiting.push(() => void response.end('late'))
        else response.end()
      }),
      ownRedis(t),
      ownStorage(t, 'postgres')
    ])
    const { file, configure } = writeConfiguration(t, {})
    const document = {
      storage: { ...storage, redis_url: redis.url },
      rate_limits: { lease: false },
      services: { s: { url: upstream.url } },
      routes: [
        { path: '/slow', service: 's', authentication: 'none' },
        { id: 'open', path: '/open', service: 's', authentication: 'none' },
        { path: '/limited', service: 's', authentication: 'none', rate_limit: { requests_per_hour: 5, by: 'route' } }
      ]
    }
    configure(document)
    const { child, port, lines, ended } = await startProcess(t, file, { args: ['--workers', '2'] })
    const get = (path: string) => call(port, path, { token: boss })
    /** Not more often than an address may ask. */
    const scrape = async (): Promise<string> => {
      await setTimeout(100)
      return (await get('/metrics')).text
    }
    const samples = async (name: string) =>
      [...(await scrape()).matchAll(new RegExp(`^${name}\\{([^}]*)\\} (\\S+)$`, 'gm'))].map(
        ([, labels = '', value]) => ({ labels, value: Number(value) })
      )
    const workers = async () =>
      new Set((await samples('gateway_config_info')).map(({ labels }) => /worker="(\d)"/.exec(labels)?.[1]))

    await t.test('one line says that it listens, and one scrape shows what all of them have counted', async t => {
      await until(async () => (await workers()).size === 2)
      t.equal(lines().filter(({ msg }) => msg === 'sallyport is listening').length, 1)
      t.match(
        lines().find(({ msg }) => msg === 'sallyport is listening'),
        { workers: 2, store: 'redis' }
      )
      for (let i = 0; i < 20; i++) t.equal((await get('/open')).status, 200)
      await until(async () => {
        const counted = (await samples('http_request_count')).filter(({ labels }) =>
          labels.includes('endpoint="/open"')
        )
        return counted.length === 2 && counted.reduce((sum, { value }) => sum + value, 0) === 20
      })
      const { text } = await get('/metrics')
      const heads = [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name)
      t.equal(new Set(heads).size, heads.length, 'each family in one piece')
      const requests = (await get('/api/v1/metrics/requests')).json
      t.ok(requests.count >= 20)
      const all: { name: string; values: unknown[] }[] = (await get('/api/v1/metrics/json')).json
      t.equal(all.filter(({ name }) => name === 'gateway_config_info').length, 1)
      t.equal(all.find(({ name }) => name === 'gateway_config_info')?.values.length, 2)
    })

    await t.test('they have one limit, and what is changed at one is changed at all', async t => {
      const statuses: number[] = []
      for (let i = 0; i < 7; i++) statuses.push((await get('/limited')).status)
      t.strictSame(statuses, [200, 200, 200, 200, 200, 429, 429])
      const off = await call(port, '/admin/routes', {
        method: 'PATCH',
        token: boss,
        headers: { 'content-type': 'application/json' },
        body: '{"id":"open","enabled":false}'
      })
      t.equal(off.status, 200)
      for (let i = 0; i < 4; i++) t.equal((await get('/open')).status, 404)
      await call(port, '/admin/routes', {
        method: 'PATCH',
        token: boss,
        headers: { 'content-type': 'application/json' },
        body: '{"id":"open","enabled":true}'
      })
      configure({ ...document, routes: [...document.routes, { path: '/new', service: 's', authentication: 'none' }] })
      await call(port, '/gateway/reload', { method: 'POST', token: boss })
      for (let i = 0; i < 4; i++) t.equal((await get('/new')).status, 200)
      const { nodes } = (await get('/gateway/nodes')).json
      t.equal(nodes.length, 2)
      t.equal(new Set(nodes.map(({ version }: { version: string }) => version)).size, 1)
    })

    await t.test('one that dies is started again, and the others serve meanwhile', async t => {
      const pids = async () => (await samples('process_start_time_seconds')).length
      t.equal(await pids(), 2)
      const [victim] = workerPids(child.pid as number)
      process.kill(victim as number, 'SIGKILL')
      await until(() => lines().some(({ msg }) => msg === 'a worker has ended'))
      for (let i = 0; i < 10; i++) t.equal((await get('/open')).status, 200)
      await until(() => workerPids(child.pid as number).length === 2)
      await until(async () => (await workers()).size === 2)
      t.notOk(workerPids(child.pid as number).includes(victim as number))
    })

    await t.test('a signal ends all of them, after their requests', async t => {
      const slow = get('/slow')
      await until(() => waiting.length === 1)
      child.kill('SIGTERM')
      await until(() => lines().some(({ msg }) => String(msg).startsWith('stopping; waiting for 1 request')))
      waiting[0]?.()
      t.equal((await slow).text, 'late')
      t.equal(await ended, 0)
      t.equal(lines().filter(({ msg }) => String(msg).startsWith('stopping')).length, 3)
      t.ok(
        lines().every(line => typeof line.msg === 'string'),
        'whole lines, whoever wrote them'
      )
    })
  }
)

function workerPids(parent: number): number[] {
  const { stdout } = spawnSync('ps', ['-o', 'pid=', '--ppid', String(parent)], { encoding: 'utf8' })
  return stdout
    .split('\n')
    .filter(line => line.trim() !== '')
    .map(Number)
}

t.test('CLU-06 workers that would not share what has to be shared are refused, with the reason', async t => {
  const folder = t.testdir({})
  const file = join(folder, 'gateway.yaml')
  const base = { server: { workers: 2 }, identity: { jwt: { secret: 'x'.repeat(40) } } }
  const check = (document: object): string => {
    writeFileSync(file, stringify({ ...base, ...document }))
    const { stderr, status } = spawnSync(process.execPath, [MAIN, 'check', '-c', file], { encoding: 'utf8' })
    return status === 0 ? '' : stderr
  }
  t.match(check({}), /server\.workers.*SQLite[\s\S]*needs Redis.*tokens taken back/)
  t.match(check({ storage: { database: false } }), /needs Redis/)
  t.notMatch(check({ storage: { database: false } }), /SQLite/)
  t.match(check({ storage: { redis_url: 'redis://127.0.0.1:1' } }), /SQLite/)
  const off = { storage: { database: false }, paths: { admin: false } }
  t.equal(check(off), '', 'where nothing is shared there is nothing to share')
  t.match(check({ ...off, rate_limits: { guest: 10 } }), /its own limits/)
  t.match(check({ ...base, server: { workers: 0 } }), /server\.workers/)
  t.match(check({ ...base, server: { workers: 'many' } }), /server\.workers/)
})

t.test('CLU-06 workers need no database and no Redis where nothing is to be shared', async t => {
  const upstream = await startUpstream(t)
  const { file } = writeConfiguration(t, {
    storage: { database: false },
    paths: { admin: false },
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's', authentication: 'none' }]
  })
  const { child, port, ended } = await startProcess(t, file, { args: ['--workers', '2'] })
  t.equal((await call(port, '/x')).status, 200)
  await until(() => workerPids(child.pid as number).length === 2)
  child.kill('SIGINT')
  t.equal(await ended, 0)
})

t.test('CLU-06 a worker that cannot start ends all of it, with what is wrong said once', async t => {
  const { file } = writeConfiguration(t, {
    storage: { database: true, database_url: 'postgres://127.0.0.1:1/none', redis_url: 'redis://127.0.0.1:1' }
  })
  const { status, stderr } = spawnSync(process.execPath, [MAIN, '-c', file, '--workers', '2'], { encoding: 'utf8' })
  t.equal(status, 1)
  t.equal(stderr.match(/database_url/g)?.length, 1)
})
