import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import { ROOT } from './support/config.ts'

const { bin, exports, files, scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))

/** As `npm install sallyport` leaves it, where Node runs no TypeScript; the packages it needs are those of this repository. */
t.test('installed from a registry, the command and what plugins import are there', { timeout: 120_000 }, async t => {
  const folder = t.testdir({})
  const home = join(folder, 'node_modules', 'sallyport')
  mkdirSync(home, { recursive: true })
  // Without what tap adds to every Node that a test starts: the compiler does not take it.
  const build = `export NODE_OPTIONS=; ${scripts.build.replaceAll(/\bdist\b/g, `'${join(home, 'dist')}'`)}`
  const PATH = `${join(ROOT, 'node_modules', '.bin')}:${process.env.PATH}`
  const built = spawnSync('sh', ['-c', build], { cwd: ROOT, encoding: 'utf8', env: { ...process.env, PATH } })
  t.equal(built.status, 0, built.stdout + built.stderr)
  for (const name of ['package.json', ...files.filter((name: string) => name !== 'dist')])
    cpSync(join(ROOT, name), join(home, name), { recursive: true })
  symlinkSync(join(ROOT, 'node_modules'), join(home, 'node_modules'))

  const promised = [bin.sallyport, exports['./sallyport.schema.json']]
  for (const entry of [exports['.'], exports['./testing']]) promised.push(entry.types, entry.default)
  for (const path of promised) t.ok(existsSync(join(home, path)), path)
  t.equal(readFileSync(join(home, bin.sallyport), 'utf8').split('\n')[0], '#!/usr/bin/env node')

  const run = (...args: string[]) =>
    spawnSync(process.execPath, [join(home, bin.sallyport), ...args], { cwd: folder, encoding: 'utf8' })
  const quickstart = run('check')
  t.match(quickstart.stdout, /is good/)
  t.equal(quickstart.status, 0, quickstart.stderr)

  writeFileSync(join(folder, 'package.json'), '{}')
  writeFileSync(
    join(folder, 'program.mjs'),
    `import { TokenBucket } from 'sallyport'
import { startGateway } from 'sallyport/testing'
console.log(typeof TokenBucket, typeof startGateway)`
  )
  const { stdout, stderr } = spawnSync(process.execPath, ['program.mjs'], { cwd: folder, encoding: 'utf8' })
  t.equal(stdout, 'function function\n', stderr)

  const { port, ended, child } = await startProgram(t, join(home, bin.sallyport), folder)
  const ask = (path: string): Promise<Response> => fetch(`http://127.0.0.1:${port}${path}`)
  t.match(await (await ask('/health/dependencies')).json(), {
    dependencies: { database: { status: 'ok', kind: 'sqlite' } }
  })
  for (const file of ['swagger.js', 'swagger-ui.css', 'redoc.standalone.js'])
    t.equal((await ask(`/docs/assets/${file}`)).status, 200, file)
  t.match(await (await ask('/openapi.json')).json(), { openapi: '3.1.0' })
  child.kill('SIGTERM')
  t.equal(await ended, 0)
  t.ok(existsSync(join(folder, 'data', 'sallyport.db')))
})

/** Starts the program as its user would, in a folder where nothing is, and waits until it listens. */
async function startProgram(
  t: Test,
  program: string,
  folder: string
): Promise<{ child: ChildProcess; port: number; ended: Promise<number | null> }> {
  writeFileSync(join(folder, 'gateway.yaml'), 'server: { host: 127.0.0.1, port: 0, timeouts: { drain: 1s } }')
  const child = spawn(process.execPath, [program, '-c', 'gateway.yaml'], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'inherit']
  })
  t.teardown(() => child.kill('SIGKILL'))
  const ended = new Promise<number | null>(resolve => child.once('close', resolve))
  for await (const line of createInterface({ input: child.stdout })) {
    const { address } = JSON.parse(line)
    if (address !== undefined) return { child, port: Number(new URL(address).port), ended }
  }
  throw new Error('the gateway has ended before it listened')
}
