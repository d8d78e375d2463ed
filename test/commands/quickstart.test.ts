import { join } from 'node:path'
import t from 'tap'
import { start } from '../support/command-process.ts'
import { ROOT } from '../support/config.ts'
import { freePort } from '../support/free-port.ts'
import { call } from '../support/gateway.ts'

const MAIN = join(ROOT, 'src', 'main.ts')

t.test(
  'C-24 H-121 two quickstarts run side by side, each with a port, a folder and an administrator of its own',
  async t => {
    const folder = t.testdir({})
    const port = await freePort()
    const here = { cwd: folder }
    const args = [MAIN, '--set', `server.port=${port}`]
    const one = start(t, process.execPath, args, here)
    const { address: first } = await one.listening
    const other = start(t, process.execPath, args, here)
    const { address: second } = await other.listening
    t.not(first, second)
    t.match(other.output(), /another quickstart is at work, taking \d+/)
    const logins = await Promise.all(
      [one, other].map(async ({ output }, i) => {
        const said = output()
          .split('\n')
          .find(line => line.includes('"password"')) as string
        const { username, password } = JSON.parse(said)
        const answer = await call(Number(new URL([first, second][i] as string).port), '/auth/login', {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ username, password })
        })
        return answer.status
      })
    )
    t.same(logins, [200, 200])
  }
)
