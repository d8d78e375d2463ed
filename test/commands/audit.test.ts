import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runCommand } from '../support/commands.ts'

const CONFIG = `services: { orders: { url: "http://127.0.0.1:1" } }
routes:
  - { id: open, path: /open/**, service: orders, authentication: none }
  - { id: ships, path: /ships/**, service: orders, permissions: [ships.sail] }
`

/** `sallyport audit …` on {@link CONFIG}, in a folder of its own. */
function audit(t: Test, ...args: string[]) {
  const cwd = t.testdir({})
  writeFileSync(join(cwd, 'gateway.yaml'), CONFIG)
  return runCommand(t, { args: ['audit', ...args, '-c', 'gateway.yaml'], cwd, env: { PATH: process.env.PATH } })
}

t.test('AZN-10 audit: what is open, and what is asked for in vain', async t => {
  const { status, stdout, stderr } = await audit(t, 'permissions')
  t.equal(status, 0, stderr)
  t.equal(
    stdout,
    `routes for which nobody has to say who he is
  open  /open/**  orders  none
permissions that routes ask for and nobody has
  ships.sail  ships
`
  )
})

t.test('AZN-10 audit: as JSON, for programs', async t => {
  const { stdout } = await audit(t, 'permissions', '--json')
  t.match(JSON.parse(stdout), { public_routes: [{ route: 'open' }], users_without_roles: [] })
})

t.test('AZN-10 audit: what is not understood is a sentence', async t => {
  t.match(await audit(t), { status: 1, stderr: /sallyport audit permissions/ })
  const without = await audit(t, 'permissions', '--set', 'storage.database=false')
  t.match(without, { status: 1, stderr: /nothing to audit without a database/ })
})
