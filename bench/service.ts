import { writeNginx } from './contenders/nginx.ts'
import { CORE } from './cores.ts'
import { accepting, freePort, type Started, scratch, start } from './processes.ts'
import { needProgram } from './tools.ts'

const LENGTH = 1198

/** What the small service answers: orders, as an API would list them; 1198 bytes. */
export const BODY = orders()

function orders(): string {
  const list = Array.from({ length: 17 }, (_, id) => ({ id, name: `widget-${id}`, price: id * 3.5, state: 'open' }))
  const start = JSON.stringify({ orders: list, note: '' }).slice(0, -2)
  return `${start}${'.'.repeat(LENGTH - start.length - 2)}"}`
}

/**
 * The service behind everything that is measured with small answers: one nginx worker that is never the limit.
 * @returns it, and a sentence if it is not nginx
 */
export async function startService(): Promise<{ service: Started; note?: string }> {
  const port = await freePort()
  const missing = needProgram('nginx')
  if (missing !== undefined) {
    const service = await startNodeService(port)
    return { service, note: `${missing}; the service behind is a Node process, which is slower and may be the limit.` }
  }
  const file = writeNginx(
    scratch(),
    'service',
    '',
    `access_log off;
  server { listen 127.0.0.1:${port}; location / { default_type application/json; return 200 '${BODY}'; } }`
  )
  return { service: await accepting(start(CORE.load, ['nginx', '-c', file], port)) }
}

/** The service for large bodies and WebSockets. */
export async function startNodeService(port?: number): Promise<Started> {
  const at = port ?? (await freePort())
  return accepting(start(CORE.load, [process.execPath, 'bench/programs/upstream.ts', String(at), BODY], at))
}
