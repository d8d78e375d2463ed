import { spawn, spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { ROOT } from './support/config.ts'
import { temporaryFolder } from './support/folder.ts'
import { freePort } from './support/free-port.ts'
import { startGateway } from './support/gateway.ts'

const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')
const { scripts, engines } = JSON.parse(read('package.json'))

t.test('DEP-08 C-40 each word of the Makefile is a script, and the words that everybody guesses are there', async t => {
  const [, words = ''] = /^((?:[a-z]+ )+[a-z]+):\n\tnpm run \$@$/m.exec(read('Makefile')) ?? []
  for (const word of words.split(' ')) t.ok(word in scripts, word)
  for (const word of ['start', 'dev', 'test', 'bench', 'check', 'lint', 'typecheck', 'build', 'generate', 'drift'])
    t.ok(words.split(' ').includes(word), word)
})

t.test(
  'DEP-09 each word that runs the gateway gets a Node that can, in a clone where nothing is installed yet',
  async t => {
    for (const [word, script] of Object.entries<string>(scripts))
      if (script.includes('src/main.ts')) t.equal(scripts[`pre${word}`], 'node src/bootstrap.mjs', word)
  }
)

t.test('DEP-09 each command is a word of npm, since a clone has no `sallyport` on its path', async t => {
  for (const word of await readdir(join(ROOT, 'src/commands')))
    if (read(`src/commands/${word}`).includes('export default'))
      t.match(scripts[word.replace('.ts', '')], /^node (?:--\S+ )?src\/main\.ts/, word)
})

t.test('DEP-09 what npm has installed is not installed again, and what it has not is', async t => {
  const folder = temporaryFolder(t)
  const lock = (file: string, packages: object): void => writeFileSync(join(folder, file), JSON.stringify({ packages }))
  mkdirSync(join(folder, 'src'))
  mkdirSync(join(folder, 'node_modules'))
  copyFileSync(join(ROOT, 'src/bootstrap.mjs'), join(folder, 'src/bootstrap.mjs'))
  writeFileSync(join(folder, 'npm.mjs'), `process.exit(1)`)
  const env = { ...process.env, npm_execpath: join(folder, 'npm.mjs') }
  const bootstrap = (): string =>
    spawnSync(process.execPath, [join(folder, 'src/bootstrap.mjs')], { env, encoding: 'utf8' }).stderr
  lock('package-lock.json', {
    '': { version: '1.0.0' },
    'node_modules/a': { version: '1.2.3' },
    'node_modules/b': { version: '1.0.0', optional: true }
  })
  t.match(bootstrap(), /^installing/, 'nothing is there')
  lock('node_modules/.package-lock.json', { 'node_modules/a': { version: '1.2.2' } })
  t.match(bootstrap(), /^installing/, 'another version is there')
  lock('node_modules/.package-lock.json', { 'node_modules/a': { version: '1.2.3' } })
  t.equal(bootstrap(), '', 'all that every machine needs is there')
})

t.test('DEP-09 `npm run dev` watches, and every needed Node is the same one', async t => {
  t.match(scripts.dev, /--watch/)
  const [, major = '', minor = ''] = /^>=(\d+)\.(\d+)$/.exec(engines.node) ?? []
  t.match(read('src/bootstrap.mjs'), new RegExp(`NEEDED = \\[${major}, ${minor}\\]`))
  t.match(read('src/main.ts'), new RegExp(`Node ${major}\\.${minor} or newer`))
  t.match(read('Dockerfile'), new RegExp(`^FROM node:${major}-`, 'm'))
})

t.test('DEP-01 the image runs as a user without rights, listens on 8080, and starts node itself', async t => {
  const [, run = ''] = read('Dockerfile').split(/^FROM .*(?<! AS build)$/m)
  t.match(run, /^USER node$/m)
  t.match(run, /^EXPOSE 8080$/m)
  t.match(run, /^ENTRYPOINT \["node", /m)
  t.match(run, /^ENV .*ENVIRONMENT=production/m)
})

t.test(
  'DEP-01 the image’s health check passes while the gateway takes requests, and fails when it does not',
  async t => {
    const [, json = ''] = /^HEALTHCHECK [^[]*CMD (\[.*\])$/m.exec(read('Dockerfile')) ?? []
    const [program = '', ...args] = JSON.parse(json) as string[]
    const check = (port: number): Promise<number | null> =>
      new Promise(resolve => {
        spawn(program, args, { env: { ...process.env, PORT: String(port) } }).on('close', resolve)
      })
    const { gateway, port } = await startGateway(t, {})
    t.equal(await check(port), 0)
    await gateway.server.withdraw()
    t.equal(await check(port), 1)
    t.equal(await check(await freePort()), 1)
  }
)
