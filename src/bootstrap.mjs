// Runs before `npm start`, `npm test` and the commands, on whatever Node there is: plain JavaScript, built-ins only. Installs what the
// lockfile asks for when it is not there yet, and sees to it that the gateway gets a Node that it can run on.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..')
const MODULES = join(ROOT, 'node_modules')
const LOCK = join(ROOT, '.sallyport-installing')
const NEEDED = [24, 9]

/** By npm's own record of it, so that it does not matter who asked for it. What is optional may be for another machine. */
function installed() {
  const there = packagesOf(join(MODULES, '.package-lock.json'))
  return Object.entries(packagesOf(join(ROOT, 'package-lock.json'))).every(
    ([path, { version, optional }]) => path === '' || optional || there[path]?.version === version
  )
}

function packagesOf(lockfile) {
  return existsSync(lockfile) ? JSON.parse(readFileSync(lockfile, 'utf8')).packages : {}
}

/** Two commands at once must not install over each other; the lock names its owner, since that may have died. */
function takeLock() {
  for (;;) {
    try {
      writeFileSync(LOCK, String(process.pid), { flag: 'wx' })
      return true
    } catch (error) {
      if (error.code !== 'EEXIST') throw error
    }
    if (!isAlive(Number(readFileSync(LOCK, 'utf8')))) rmSync(LOCK, { force: true })
    else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500)
    if (installed()) return false
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === 'EPERM'
  }
}

function install() {
  if (!takeLock()) return
  try {
    const since = Date.now()
    process.stderr.write('installing (first time only) … ')
    const npm = process.env.npm_execpath
    const args = ['ci', '--no-audit', '--no-fund', '--loglevel=error']
    const result =
      npm === undefined ? spawnSync('npm', args, options()) : spawnSync(process.execPath, [npm, ...args], options())
    if (result.status !== 0) {
      const why = `${result.stderr ?? ''}${result.error ?? ''}`.trim().split('\n').slice(-12).join('\n')
      fail(`failed.\n${why}\nnpm ci did not succeed; check the network and the registry, then try again.`)
    }
    process.stderr.write(`done in ${Math.round((Date.now() - since) / 1000)} s\n`)
  } finally {
    rmSync(LOCK, { force: true })
  }
}

function options() {
  return { cwd: ROOT, encoding: 'utf8', shell: process.platform === 'win32' && process.env.npm_execpath === undefined }
}

function fail(message) {
  process.stderr.write(`${message}\n`)
  process.exit(1)
}

/** npm scripts find this one first; it comes from the platform packages, where there is one. */
function checkNode() {
  const name = process.platform === 'win32' ? 'node.exe' : 'node'
  const bundled = join(MODULES, '.bin', name)
  const version = existsSync(bundled) ? spawnSync(bundled, ['--version'], { encoding: 'utf8' }).stdout : process.version
  const [major = 0, minor = 0] = (version ?? '').replace('v', '').split('.').map(Number)
  if (major > NEEDED[0] || (major === NEEDED[0] && minor >= NEEDED[1])) return
  fail(
    `Sallyport needs Node ${NEEDED.join('.')} or newer, and this is ${process.version}; for ${process.platform}-${process.arch} please install it from https://nodejs.org.`
  )
}

if (!installed()) install()
checkNode()
