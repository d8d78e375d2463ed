import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { stringify } from 'yaml'
import { UsageError } from '../../src/cli.ts'
import command from '../../src/commands/admin.ts'
import { openDatabase } from '../../src/database/database.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { ROOT } from '../support/config.ts'
import { onBoth, ownStorage } from '../support/database.ts'
import { call } from '../support/gateway.ts'
import { startProcess } from '../support/gateway-process.ts'
import { SECRET } from '../support/tokens.ts'
import { CHEAP } from '../support/users.ts'

async function configuration(t: Test, kind: 'sqlite' | 'postgres', more: object = {}): Promise<string> {
  const folder = t.testdir({})
  const file = join(folder, 'gateway.yaml')
  const server = { host: '127.0.0.1', port: 0 }
  const storage = await ownStorage(t, kind, folder)
  writeFileSync(file, stringify({ server, storage, identity: { jwt: { secret: SECRET }, password: CHEAP, ...more } }))
  return file
}

function admin(
  file: string,
  args: readonly string[],
  input = ''
): { status: number | null; out: string; error: string } {
  const all = [join(ROOT, 'src', 'main.ts'), 'admin', ...args, '-c', file]
  const { status, stdout, stderr } = spawnSync(process.execPath, all, { cwd: ROOT, input, encoding: 'utf8' })
  return { status, out: stdout, error: stderr }
}

const login = async (port: number, username: string, password: string) =>
  (
    await call(port, '/auth/login', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ username, password })
    })
  ).json

onBoth(t, 'H-121 "admin create" makes an administrator, whose password is read or made up', async (t, kind) => {
  const file = await configuration(t, kind)
  const read = ['create', '--username', 'root', '--email', 'root@example.com', '--password-stdin']
  t.match(admin(file, read, 'a long password\n'), { status: 0, out: 'root may administer the gateway.\n', error: '' })
  t.match(admin(file, read, 'a long password\n'), { status: 1, error: /^there is a user with the name "root"/ })
  const made = admin(file, ['create', '--username', 'ops', '--email', 'ops@example.com', '--json'])
  const { password } = JSON.parse(made.out)
  const { port, lines } = await startProcess(t, file)
  t.match(await login(port, 'root', 'a long password'), { user: { roles: ['admin'], must_change_password: undefined } })
  t.match(await login(port, 'ops@example.com', password), { user: { roles: ['admin'], must_change_password: true } })
  t.notOk(
    lines().some(({ username }) => username === 'admin'),
    'where there is somebody no further one is made'
  )
})

/** The command without a process of its own. */
async function runHere(file: string, positionals: readonly string[], values: Record<string, string> = {}) {
  const sources = { files: [file], env: {}, overrides: [] }
  return command.run({ sources, json: true, configured: true, values, positionals })
}

t.test('H-121 "admin create" says in a sentence what is wrong, and never the password', async t => {
  const file = await configuration(t, 'sqlite')
  const good = { username: 'root', email: 'root@example.com' }
  for (const [positionals, values, message] of [
    [[], good, /^write "admin create --username … --email …"/],
    [['create'], { email: 'root@example.com' }, /^--username is missing/],
    [['create'], { ...good, username: 'a@b' }, /^username "a@b" /],
    [['create'], { ...good, email: 'nowhere' }, /^email "nowhere" /]
  ] as const)
    await t.rejects(runHere(file, positionals, values), { constructor: UsageError, message })
  const args = ['create', '--username', 'root', '--email', 'root@example.com', '--password-stdin']
  const { status, error } = admin(file, args, 'hunter2')
  t.equal(status, 1)
  t.match(error, /^password /)
  t.notMatch(error, /hunter2/)
  const options = { clock: systemClock, log: pino({ level: 'silent' }) }
  const database = await openDatabase({ data_dir: join(dirname(file), 'data') }, options)
  const message = /^a gateway is at work on .*: stop it for this, or/
  await t.rejects(runHere(file, ['create'], good), { constructor: UsageError, message })
  await database.close()
})

t.test('"admin create" needs accounts', async t => {
  const file = await configuration(t, 'sqlite', { local: false })
  const message = /^this configuration has no accounts: see identity.local/
  const values = { username: 'root', email: 'root@example.com' }
  await t.rejects(runHere(file, ['create'], values), { constructor: UsageError, message })
})
