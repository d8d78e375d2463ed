import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Installs what only the measurements need, if that has not happened yet. @returns why not, in words */
export function installPackages(): string | undefined {
  const folder = import.meta.dirname
  const stamp = join(folder, 'node_modules', '.lock')
  const wanted = readFileSync(join(folder, 'package-lock.json'), 'utf8')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return undefined
  process.stderr.write('installing the packages of bench/package.json (first time only) …\n')
  const npm = process.env.npm_execpath
  const args = ['ci', '--no-audit', '--no-fund', '--loglevel=error']
  const options = { cwd: folder, encoding: 'utf8', timeout: 180_000 } as const
  const { status } =
    npm === undefined ? spawnSync('npm', args, options) : spawnSync(process.execPath, [npm, ...args], options)
  if (status !== 0) return 'npm ci in bench/ did not work: its packages cannot be had'
  writeFileSync(stamp, wanted)
  return undefined
}
