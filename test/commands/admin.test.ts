import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { stringify } from 'yaml'
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

t.test('H-121 "admin create" says in a sentence what is wrong, and never the password', async t => {
  const file = await configuration(t, 'sqlite')
  const email = ['--email', 'root@example.com']
  for (const [args, input, message] of [
    [[], '', /^write "admin create --username … --email …"\n$/],
    [['create', ...email], '', /^--username is missing\n$/],
    [['create', '--username', 'a@b', ...email], '', /^username "a@b" /],
    [['create', '--username', 'root', '--email', 'nowhere'], '', /^email "nowhere" /],
    [['create', '--username', 'root', ...email, '--password-stdin'], 'hunter2', /^password /]
  ] as const) {
    const { status, error } = admin(file, args, input)
    t.equal(status, 1)
    t.match(error, message)
    t.notMatch(error, /hunter2/)
  }
  await startProcess(t, file)
  t.match(
    admin(file, ['create', '--username', 'root', ...email]).error,
    /^a gateway is at work on .*: stop it for this, or/
  )
})

t.test('"admin create" needs accounts', async t => {
  const file = await configuration(t, 'sqlite', { local: false })
  const { error } = admin(file, ['create', '--username', 'root', '--email', 'root@example.com'])
  t.match(error, /^this configuration has no accounts: see identity.local/)
})
