/**
 * From an empty folder to a proxied call, by the gateway's API alone: a first start, a login, a key, a service, a call with
 * that key, and all of it taken back.
 *
 *     node examples/control-plane.ts
 *     DATABASE_URL=postgres://… REDIS_URL=redis://… node examples/control-plane.ts
 *
 * With both of these there are two gateways: what one is told, the other knows. The database should be an empty one.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

interface Node {
  readonly url: string
  readonly process: ChildProcess
}

const MAIN = join(import.meta.dirname, '..', 'src', 'main.ts')
const PASSWORD = randomBytes(24).toString('base64url')
const SECRET = randomBytes(32).toString('base64url')

const say = (text: string): boolean => process.stdout.write(`${text}\n`)

const folder = mkdtempSync(join(tmpdir(), 'sallyport-example-'))
// The service is on this machine, which the API may only name when the file allows it.
writeFileSync(join(folder, 'gateway.yaml'), 'server: { host: 127.0.0.1, port: 0 }\nregistry: { allow: [loopback] }\n')
const service = http.createServer(({ url }, response) =>
  response.end(JSON.stringify({ path: url, projects: ['apollo'] }))
)
await new Promise<void>(resolve => service.listen(0, '127.0.0.1', resolve))
const several = process.env.DATABASE_URL !== undefined && process.env.REDIS_URL !== undefined
const nodes: Node[] = []

try {
  for (let i = 0; i < (several ? 2 : 1); i++) nodes.push(await start())
  const [first, last] = [nodes[0], nodes.at(-1)] as [Node, Node]
  const health = await ask(first, 'GET', '/health/dependencies')
  const { database } = (health.body as { dependencies: { database: { kind: string } } }).dependencies
  say(`${nodes.length} gateway${several ? 's' : ''} on ${database.kind}, from an empty folder`)

  const login = await ask(first, 'POST', '/auth/login', { body: { username: 'admin', password: PASSWORD } })
  assert.equal(login.status, 200)
  const bearer = { authorization: `Bearer ${(login.body as { access_token: string }).access_token}` }
  say('login: admin has a token')

  const made = await ask(first, 'POST', '/api-keys', { headers: bearer, body: { name: 'example', expires_in_days: 1 } })
  assert.equal(made.status, 201)
  const { id, key } = made.body as { id: string; key: string }
  say(`key: ${key.slice(0, 12)}… is shown once`)

  const { port } = service.address() as AddressInfo
  const registered = await ask(last, 'POST', '/services', {
    headers: bearer,
    body: {
      name: 'project-coordinator',
      base_url: `http://127.0.0.1:${port}`,
      endpoints: [{ path: '/projects', method: 'GET', name: 'list_projects' }]
    }
  })
  assert.equal(registered.status, 201, JSON.stringify(registered.body))
  say('service: project-coordinator is registered')

  const call = async (node: Node): Promise<number> =>
    (await ask(node, 'GET', '/api/v1/projects', { headers: { 'x-api-key': key } })).status
  for (const node of nodes) {
    await until(async () => (await call(node)) === 200, 'the service is served')
    assert.equal((await ask(node, 'GET', '/api/v1/projects')).status, 401)
  }
  const answer = await ask(last, 'GET', '/api/v1/projects', { headers: { 'x-api-key': key } })
  say(`call: GET /api/v1/projects with that key: ${answer.status} ${JSON.stringify(answer.body)}; without one: 401`)

  assert.equal((await ask(first, 'DELETE', `/api-keys/${id}`, { headers: bearer })).status, 204)
  for (const node of nodes) await until(async () => (await call(node)) === 401, 'the key is refused')
  say('key: taken back, and refused everywhere')

  const where = `/services/${(registered.body as { id: string }).id}`
  assert.equal((await ask(first, 'DELETE', where, { headers: bearer })).status, 204)
  for (const node of nodes)
    await until(
      async () => (await ask(node, 'GET', '/api/v1/projects', { headers: bearer })).status === 404,
      'it is gone'
    )
  say('service: gone everywhere')
} finally {
  for (const { process } of nodes) {
    const ended = new Promise(resolve => process.once('exit', resolve))
    if (process.kill('SIGTERM')) await ended
  }
  service.close()
  rmSync(folder, { recursive: true })
}

/** Starts a gateway as anybody would, and waits until it says where it listens. */
async function start(): Promise<Node> {
  const child = spawn(process.execPath, [MAIN, '-c', 'gateway.yaml'], {
    cwd: folder,
    env: { ...process.env, JWT_SECRET_KEY: SECRET, SALLYPORT_ADMIN_PASSWORD: PASSWORD },
    stdio: ['ignore', 'pipe', 'inherit']
  })
  return new Promise((resolve, reject) => {
    child.once('exit', code => reject(new Error(`the gateway has ended with ${code}`)))
    createInterface({ input: child.stdout }).on('line', line => {
      const { address } = JSON.parse(line) as { address?: string }
      if (address !== undefined) resolve({ url: address, process: child })
    })
  })
}

interface Question {
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: object
}

async function ask(
  { url }: Node,
  method: string,
  path: string,
  { headers = {}, body }: Question = {}
): Promise<{ status: number; body: unknown }> {
  const content = body === undefined ? {} : { body: JSON.stringify(body) }
  const type: Record<string, string> = body === undefined ? {} : { 'content-type': 'application/json' }
  const response = await fetch(url + path, { method, headers: { ...headers, ...type }, ...content })
  const text = await response.text()
  return { status: response.status, body: text === '' ? undefined : JSON.parse(text) }
}

/** What one gateway is told, the others know within two seconds. */
async function until(holds: () => Promise<boolean>, what: string): Promise<void> {
  for (let i = 0; i < 50; i++) {
    if (await holds()) return
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  throw new Error(`it does not come true: ${what}`)
}
