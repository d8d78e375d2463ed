import { spawn } from 'node:child_process'
import { join } from 'node:path'
import t from 'tap'
import { ROOT } from '../support/config.ts'
import { noPostgres, ownStorage } from '../support/database.ts'

/** Runs the example as its reader would. */
function run(env: Record<string, string>): Promise<{ code: number | null; text: string }> {
  const child = spawn(process.execPath, [join(ROOT, 'examples', 'control-plane.ts')], {
    env: { PATH: process.env.PATH, ...env }
  })
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (text += chunk))
  return new Promise(resolve => child.on('close', code => resolve({ code, text })))
}

const STEPS = [
  /login: admin has a token/,
  /key: \S+… is shown once/,
  /service: project-coordinator is registered/,
  /call: GET \/api\/v1\/projects with that key: 200 {"path":"\/projects"/,
  /key: taken back, and refused everywhere/,
  /service: gone everywhere/
]

t.test('REG-25 IDN-01 from an empty folder to a proxied call, by the API alone', { timeout: 120_000 }, async t => {
  const { code, text } = await run({})
  t.equal(code, 0, text)
  for (const step of [/^1 gateway on sqlite, from an empty folder$/m, ...STEPS]) t.match(text, step)
})

const skip = noPostgres || (process.env.TEST_REDIS_URL === undefined && 'no Redis: set TEST_REDIS_URL')
t.test('REG-25 IDN-01 the same with two gateways on PostgreSQL and Redis', { skip, timeout: 120_000 }, async t => {
  const { database_url = '' } = await ownStorage(t, 'postgres')
  const { code, text } = await run({ DATABASE_URL: database_url, REDIS_URL: process.env.TEST_REDIS_URL as string })
  t.equal(code, 0, text)
  for (const step of [/^2 gateways on postgres, from an empty folder$/m, ...STEPS]) t.match(text, step)
})
