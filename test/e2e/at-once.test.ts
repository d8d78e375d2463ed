import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { Database } from '../../src/database/database.ts'
import { noPostgres, ownStorage } from '../support/database.ts'
import { type Answer, type CallOptions, call, startGateway, type TestGateway } from '../support/gateway.ts'
import { startProcess, writeConfiguration } from '../support/gateway-process.ts'
import { noRedisServer, ownRedis } from '../support/redis-store.ts'
import { boss, open } from '../support/services.ts'
import { SECRET } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'
import { addUser, CHEAP } from '../support/users.ts'

t.setTimeout(180_000)

const FLOWS = 256
const USERS = 50
const WORKERS = 50

/** What each address may ask is not what this is about: there are many. */
let addresses = 0
function asSomebody(): Record<string, string> {
  addresses++
  return { 'x-forwarded-for': `10.${addresses >> 16}.${(addresses >> 8) & 255}.${addresses & 255}` }
}

/** A request with a JSON body, if it has one. */
function send(
  { port }: Pick<TestGateway, 'port'>,
  method: string,
  path: string,
  { headers = {}, ...options }: CallOptions = {},
  body?: object
): Promise<Answer> {
  const type = body === undefined ? {} : { 'content-type': 'application/json' }
  const all = { ...asSomebody(), ...type, ...headers }
  return call(port, path, { method, ...options, headers: all, ...(body && { body: JSON.stringify(body) }) })
}

const byKey = (key: string): CallOptions => ({ headers: { 'x-api-key': key } })

t.test(
  'IDN-01 IDN-02 IDN-03 IDN-20 IDN-21 REG-01 REG-02 CLU-01 a thousand logins, registrations and revocations at once on two gateways end as they were answered',
  { skip: noPostgres || noRedisServer },
  async t => {
    const [storage, redis, upstream] = await Promise.all([ownStorage(t, 'postgres'), ownRedis(t), startUpstream(t)])
    const document = {
      storage: { ...storage, redis_url: redis.url, redis_timeout: '5s' },
      server: { trusted_proxies: ['loopback'] },
      logging: { access: false },
      registry: { allow: ['loopback'] },
      services: { own: { url: upstream.url } },
      routes: [{ path: '/own', service: 'own' }]
    }
    const start = (name: string): Promise<TestGateway> => {
      const folder = join(t.testdirName, name)
      mkdirSync(folder, { recursive: true })
      return startGateway(t, document, { folder })
    }
    const nodes = [await start('a'), await start('b')] as const
    const { db } = nodes[0].gateway.runtime.database as Database
    for (let i = 0; i < USERS; i++)
      await addUser(nodes[0].gateway.runtime.database as Database, { username: `user${i}` })

    const tokens = { good: [] as string[], over: [] as string[] }
    const keys = { good: new Map<string, string>(), over: [] as string[] }
    const services = { good: new Set<string>(), over: [] as string[] }
    let operations = 0
    const done = async (answer: Promise<Answer>): Promise<Answer['json']> => {
      const { status, text } = await answer
      if (status >= 300) throw new Error(`${status} ${text}`)
      operations++
      return text === '' ? undefined : JSON.parse(text)
    }
    /** What one user does: always from here to there and back, with everybody else at the same time. */
    const flow = async (i: number): Promise<void> => {
      const [here, there] = i % 3 === 0 ? nodes : [nodes[1], nodes[0]]
      const credentials = { username: `user${i % USERS}`, password: 'correct horse' }
      const { refresh_token } = await done(send(here, 'POST', '/auth/login', {}, credentials))
      const { access_token: token } = await done(send(there, 'POST', '/auth/refresh', {}, { refresh_token }))
      const isUndone = i % 16 < 8
      if (i % 8 !== 7) {
        const { id, key } = await done(send(here, 'POST', '/api-keys', { token }, { name: `key ${i}` }))
        if (!isUndone) keys.good.set(id, key)
        else {
          await done(send(there, 'DELETE', `/api-keys/${id}`, { token }))
          keys.over.push(key)
        }
      } else {
        const name = `service${i}`
        const { id } = await done(send(here, 'POST', '/services', { token: boss }, open(name, upstream.url)))
        if (!isUndone) services.good.add(name)
        else {
          await done(send(there, 'DELETE', `/services/${id}`, { token: boss }))
          services.over.push(name)
        }
      }
      if (i % 2 === 0) return void tokens.good.push(token)
      await done(send(here, 'POST', '/auth/logout', { token }, {}))
      tokens.over.push(token)
    }
    let next = 0
    const work = async (): Promise<void> => {
      for (let i = next++; i < FLOWS; i = next++) await flow(i)
    }
    await Promise.all(Array.from({ length: WORKERS }, work))
    t.equal(operations, 4 * FLOWS)

    const sessions = await db
      .selectFrom('sessions')
      .select(['revoked_for', ({ fn }) => fn.countAll<number>().as('count')])
      .groupBy('revoked_for')
      .execute()
    const ended = new Map(sessions.map(row => [row.revoked_for, Number(row.count)]))
    t.same([ended.get(null), ended.get('logout'), ended.size], [tokens.good.length, tokens.over.length, 2])
    const kept = await db.selectFrom('api_keys').select('id').execute()
    t.same(new Set(kept.map(({ id }) => id)), new Set(keys.good.keys()))
    const registered = await db.selectFrom('services').select('name').execute()
    t.same(registered.map(({ name }) => name).sort(), [...services.good].sort())
    const audit = await db
      .selectFrom('audit_log')
      .select(['action', ({ fn }) => fn.countAll<number>().as('count')])
      .groupBy('action')
      .execute()
    t.match(Object.fromEntries(audit.map(({ action, count }) => [action, Number(count)])), {
      login: FLOWS,
      logout: tokens.over.length,
      'api_key.create': keys.good.size + keys.over.length,
      'api_key.delete': keys.over.length,
      'service.create': services.good.size + services.over.length,
      'service.delete': services.over.length
    })

    // What each does by itself every second.
    for (const { gateway } of nodes) await gateway.runtime.database?.changes.poll()
    const routes = nodes.map(({ gateway }) => gateway.snapshot.routes.map(({ id }) => id).sort())
    t.same(routes[0], routes[1])
    for (const node of nodes) {
      const statuses = async (asked: CallOptions[] | string[]): Promise<Set<number>> => {
        const answers = asked.map(what =>
          typeof what === 'string' ? send(node, 'GET', `/api/v1/${what}`) : send(node, 'GET', '/own', what)
        )
        return new Set((await Promise.all(answers)).map(({ status }) => status))
      }
      t.same(await statuses(tokens.good.map(token => ({ token }))), new Set([200]))
      t.same(await statuses(tokens.over.map(token => ({ token }))), new Set([401]))
      t.same(await statuses([...keys.good.values()].map(byKey)), new Set([200]))
      t.same(await statuses(keys.over.map(byKey)), new Set([401]))
      t.same(await statuses([...services.good]), new Set([200]))
      t.same(await statuses(services.over), new Set([404]))
    }
  }
)

t.test(
  'STO-01 IDN-02 IDN-20 REG-23 AZN-14 a gateway that is killed again and again in the middle of it all has done whatever it has answered',
  async t => {
    const upstream = await startUpstream(t)
    const { file } = writeConfiguration(t, {
      storage: { database: true },
      server: { host: '127.0.0.1', port: 0, trusted_proxies: ['loopback'] },
      identity: { jwt: { secret: SECRET }, password: CHEAP, admin_password: 'the first password' },
      registry: { allow: ['loopback'] },
      services: { own: { url: upstream.url } },
      routes: [{ path: '/own', service: 'own' }]
    })
    /** What has to be so, by whom it is about; what is under way may be either, and is not in here. */
    const facts = new Map<string, { path: string; options: CallOptions; status: number }>()
    let made = 0

    for (let round = 0; round < 4; round++) {
      const process = await startProcess(t, file)
      await Promise.all(
        [...facts].map(async ([what, { path, options, status }]) =>
          t.equal((await send(process, 'GET', path, options)).status, status, `round ${round}: ${what}`)
        )
      )
      if (round === 3) break

      let answered = 0
      /** Does something, after which this is so; the process is killed while the others wait for their answers. */
      const change = async (
        what: string,
        answer: Promise<Answer>,
        fact: (json: Answer['json']) => { path: string; options: CallOptions; status: number }
      ): Promise<Answer['json']> => {
        facts.delete(what)
        const { status, text } = await answer
        if (status >= 300) t.fail(`${what}: ${status} ${text}`)
        const json = text === '' ? undefined : JSON.parse(text)
        facts.set(what, fact(json))
        if (++answered === 40 + 7 * round) process.child.kill('SIGKILL')
        return json
      }
      const by = { token: boss }
      const steps: (() => Promise<void>)[] = [
        async () => {
          const what = `session ${made++}`
          const credentials = { username: 'admin', password: 'the first password' }
          const login = send(process, 'POST', '/auth/login', {}, credentials)
          const { access_token: token } = await change(what, login, ({ access_token }) => ({
            path: '/own',
            options: { token: access_token },
            status: 200
          }))
          if (made % 2 === 0) return
          const logout = send(process, 'POST', '/auth/logout', { token }, {})
          await change(what, logout, () => ({ path: '/own', options: { token }, status: 401 }))
        },
        async () => {
          const what = `key ${made++}`
          const { id, key } = await change(what, send(process, 'POST', '/api-keys', owner, { name: what }), json => ({
            path: '/own',
            options: byKey(json.key),
            status: 200
          }))
          if (made % 2 === 0) return
          const gone = send(process, 'DELETE', `/api-keys/${id}`, owner)
          await change(what, gone, () => ({ path: '/own', options: byKey(key), status: 401 }))
        },
        async () => {
          const name = `service${made++}`
          const path = `/api/v1/${name}`
          const registered = send(process, 'POST', '/services', by, open(name, upstream.url))
          const { id } = await change(name, registered, () => ({ path, options: {}, status: 200 }))
          if (made % 2 === 0) return
          const gone = send(process, 'DELETE', `/services/${id}`, by)
          await change(name, gone, () => ({ path, options: {}, status: 404 }))
        },
        async () => {
          const name = `user${made++}`
          const body = { username: name, email: `${name}@example.com`, password: 'correct horse battery' }
          const { id } = await change(name, send(process, 'POST', '/admin/users', by, body), json => ({
            path: `/admin/users/${json.id}`,
            options: by,
            status: 200
          }))
          if (made % 2 === 0) return
          const gone = send(process, 'DELETE', `/admin/users/${id}`, by)
          await change(name, gone, () => ({ path: `/admin/users/${id}`, options: by, status: 404 }))
        }
      ]
      const credentials = { username: 'admin', password: 'the first password' }
      const login = await send(process, 'POST', '/auth/login', {}, credentials)
      const owner: CallOptions = { token: login.json.access_token }
      const work = async (first: number): Promise<void> => {
        for (let i = first; ; i++) await steps[i % steps.length]?.()
      }
      const ends = await Promise.allSettled(Array.from({ length: 8 }, (_, i) => work(i)))
      for (const end of ends) t.match(end, { status: 'rejected', reason: { code: /^(ECONNRESET|ECONNREFUSED)$/ } })
      await process.ended
    }
    t.ok(facts.size > 60, `${facts.size} facts`)
  }
)
