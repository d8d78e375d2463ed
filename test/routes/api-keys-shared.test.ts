import t, { type Test } from 'tap'
import type { Database } from '../../src/database/database.ts'
import { hashApiKey } from '../../src/identity/api-key.ts'
import { noPostgres, onBoth, ownStorage, ownStorageBehind } from '../support/database.ts'
import type { Answer } from '../support/gateway.ts'
import { addAlice, type Storage, startAccounts, startSilentWebSockets } from '../support/logins.ts'
import { seeded } from '../support/random.ts'
import { until } from '../support/until.ts'
import { addUser } from '../support/users.ts'

/** A WebSocket with an API key; resolves, once it is open, to what resolves when it is closed. */
async function openWebSocket(t: Test, port: number, key: string) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`, { headers: { 'x-api-key': key } } as never)
  t.teardown(() => socket.close())
  const closed = new Promise<{ code: number; reason: string }>(resolve =>
    socket.addEventListener('close', ({ code, reason }) => resolve({ code, reason }))
  )
  await new Promise((resolve, reject) => {
    socket.addEventListener('open', resolve)
    socket.addEventListener('error', reject)
  })
  return { closed, isOpen: () => socket.readyState === WebSocket.OPEN }
}

/** Each address may ask so often a minute, and there are many. */
let addresses = 0
const nextAddress = (): string => {
  addresses++
  return `10.0.${addresses >> 8}.${addresses & 255}`
}

async function start(t: Test, kind: Database['kind'], storage?: Storage) {
  const url = await startSilentWebSockets(t)
  const more = {
    server: { trusted_proxies: ['loopback'] },
    services: { chat: { url } },
    routes: [{ path: '/**', service: 'chat', websocket: true }]
  }
  const gateway = await startAccounts(t, kind, { more, ...(storage && { storage }) })
  const api = (method: string, path: string, token: string, body?: object) =>
    gateway.call(path, {
      method,
      token,
      headers: { 'x-forwarded-for': nextAddress(), ...(body && { 'content-type': 'application/json' }) },
      ...(body && { body: JSON.stringify(body) })
    })
  const use = async (key: string): Promise<number> =>
    (await gateway.call('/x', { headers: { 'x-api-key': key } })).status
  return { ...gateway, api, use }
}

onBoth(
  t,
  'IDN-21 H-116 the WebSockets of a key that is taken back are closed with 4401, and no others',
  async (t, kind) => {
    const { api, database, login, port } = await start(t, kind)
    const alice = await addAlice(database)
    const { access_token } = await login()
    const make = async () => (await api('POST', '/api-keys', access_token, { name: 'k' })).json
    const [deleted, rotated, stays] = [await make(), await make(), await make()]
    const sockets = await Promise.all([deleted, rotated, stays].map(({ key }) => openWebSocket(t, port, key)))
    await api('DELETE', `/api-keys/${deleted.id}`, access_token)
    await api('POST', `/api-keys/${rotated.id}/rotate`, access_token)
    t.same(await sockets[0]?.closed, { code: 4401, reason: 'session over' })
    t.same(await sockets[1]?.closed, { code: 4401, reason: 'session over' })
    t.equal(sockets[2]?.isOpen(), true)
    await database.transaction(async (trx, changed) => {
      await trx.updateTable('users').set({ active: false }).where('id', '=', alice).execute()
      changed.push({ kind: 'user', subject: alice })
    })
    t.same(await sockets[2]?.closed, { code: 4401, reason: 'session over' }, 'its owner is not active any more')
  }
)

t.test(
  'IDN-20 IDN-21 IDN-22 IDN-35 hundreds of keys made, rotated and taken back at once on two gateways',
  { skip: noPostgres },
  async t => {
    const storage = await ownStorage(t, 'postgres')
    const nodes = [await start(t, 'postgres', storage), await start(t, 'postgres', storage)] as const
    const [one, other] = nodes
    await addAlice(one.database)
    const { access_token } = await one.login()
    const next = seeded(7)
    const some = () => nodes[Math.floor(next() * 2)] as typeof one
    const good = new Map<string, string>()
    const dead: string[] = []
    const done = async (answer: Promise<Answer>): Promise<Answer['json']> => {
      const { status, text } = await answer
      if (status >= 300) throw new Error(`${status} ${text}`)
      return text === '' ? undefined : JSON.parse(text)
    }
    // What one key goes through happens in its order, and everything else at once.
    const live = async (): Promise<void> => {
      const made = await done(
        some().api('POST', '/api-keys', access_token, { name: 'k', permissions: ['orders.read'] })
      )
      const { id } = made
      let { key } = made
      await some().use(key)
      for (let i = Math.floor(next() * 3); i > 0; i--) {
        const rotated = await done(some().api('POST', `/api-keys/${id}/rotate`, access_token))
        dead.push(key)
        key = rotated.key
        await some().use(key)
      }
      if (next() < 0.5) {
        await done(some().api('DELETE', `/api-keys/${id}`, access_token))
        dead.push(key)
      } else good.set(id, key)
    }
    await Promise.all(Array.from({ length: 100 }, live))
    t.ok(good.size > 20 && dead.length > 50, `${good.size} keys are left, ${dead.length} are over`)
    await until(
      async () => (await other.use(dead.at(-1) as string)) === 401 && (await one.use(dead.at(-1) as string)) === 401
    )
    await Promise.all(nodes.map(({ database }) => database.changes.poll()))
    for (const node of nodes) {
      t.same(new Set(await Promise.all([...good.values()].map(node.use))), new Set([200]))
      t.same(new Set(await Promise.all(dead.map(node.use))), new Set([401]))
    }
    const rows = await one.database.db.selectFrom('api_keys').select(['id', 'hash']).execute()
    t.same(
      new Map(rows.map(row => [row.id, row.hash])),
      new Map([...good].map(([id, key]) => [id, hashApiKey(key).toString('hex')]))
    )
  }
)

t.test(
  'AZN-14 of two administrators who take each other away on two gateways, one is left',
  { skip: noPostgres },
  async t => {
    const storage = await ownStorage(t, 'postgres')
    const [one, other] = [await start(t, 'postgres', storage), await start(t, 'postgres', storage)]
    const { db } = one.database
    await db.deleteFrom('users').execute()
    for (let round = 0; round < 5; round++) {
      const names = [`a${round}`, `b${round}`]
      const ids = await Promise.all(names.map(username => addUser(one.database, { username, roles: { admin: ['*'] } })))
      const tokens = await Promise.all(names.map(async name => (await one.login(name)).access_token))
      const answers = await Promise.all([
        one.api('DELETE', `/admin/users/${ids[1]}/roles/admin`, tokens[0] as string),
        other.api('PUT', `/admin/users/${ids[0]}`, tokens[1] as string, { active: false })
      ])
      const statuses = answers.map(({ status }) => status).sort()
      t.equal(statuses[0], 200, `round ${round}`)
      t.ok([401, 409].includes(statuses[1] as number), 'too late, or the last one')
      const left = await one.api(
        'GET',
        '/admin/users?role=admin&active=true',
        tokens[answers[0]?.status === 200 ? 0 : 1] as string
      )
      t.equal(left.json.meta.pagination.total, 1)
      await db.deleteFrom('users').execute()
    }
  }
)

t.test(
  'IDN-35 STO-06 while PostgreSQL is away, keys that have been seen go on and others get 503; it recovers alone',
  { skip: noPostgres },
  async t => {
    const { storage, proxy } = await ownStorageBehind(t)
    const { api, use, call, database, login } = await start(t, 'postgres', storage)
    await addAlice(database)
    const { access_token } = await login()
    const make = async () => (await api('POST', '/api-keys', access_token, { name: 'k' })).json.key
    const [seen, unseen] = [await make(), await make()]
    t.equal(await use(seen), 200)
    await proxy.set({ kind: 'refuse' })
    t.equal(await use(seen), 200)
    const refused = await call('/x', { headers: { 'x-api-key': unseen } })
    t.match(refused, { status: 503, headers: { 'retry-after': /\d/ } })
    t.equal(await use('sak_dev_nonsense'), 401, 'what cannot be a key needs no database')
    t.equal((await api('POST', '/api-keys', access_token, { name: 'k' })).status, 503)
    await proxy.set({ kind: 'none' })
    await until(async () => (await use(unseen)) === 200)
    t.equal(await use(seen), 200)
  }
)
