import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import type { ownStorage } from './database.ts'
import { type Answer, startGateway, type TestGateway } from './gateway.ts'
import { token } from './tokens.ts'

export const boss = token({ sub: 'root', roles: ['admin'] })
const json = { 'content-type': 'application/json' }

type Call = TestGateway['call']

/** Registers a service. */
export function register(call: Call, body: object, as = boss, headers = {}): Promise<Answer> {
  return call('/services', {
    method: 'POST',
    token: as,
    headers: { ...json, ...headers },
    body: JSON.stringify(body)
  })
}

/** Replaces a service, as far as it is still as `etag` says. */
export function replace(call: Call, id: string, body: object, etag: string | undefined, as = boss): Promise<Answer> {
  return call(`/services/${id}`, {
    method: 'PUT',
    token: as,
    headers: { ...json, ...(etag === undefined ? {} : { 'if-match': etag }) },
    body: JSON.stringify(body)
  })
}

export function deregister(call: Call, id: string, as = boss, headers = {}): Promise<Answer> {
  return call(`/services/${id}`, { method: 'DELETE', token: as, headers })
}

/** A service with one endpoint, which anybody may call. */
export const open = (name: string, url: string, path = `/${name}`) => ({
  name,
  base_url: url,
  endpoints: [{ path, public: true, name: 'it' }]
})

/** Gateways of one database, each with a folder of its own. */
export async function startNode(
  t: Test,
  storage: Awaited<ReturnType<typeof ownStorage>>,
  name: string,
  document: object = {}
): Promise<TestGateway> {
  const folder = join(t.testdirName, name)
  mkdirSync(folder, { recursive: true })
  return startGateway(t, { storage, registry: { allow: ['loopback'] }, ...document }, { folder })
}
