import { spawnSync } from 'node:child_process'
import { existsSync, rmSync, writeFileSync } from 'node:fs'

const asked = new Map<string, boolean>()

/** Where a program is; undefined when it is not on the PATH. */
export function which(program: string): string | undefined {
  const { status, stdout } = spawnSync('which', [program], { encoding: 'utf8' })
  return status === 0 ? stdout.trim() : undefined
}

/**
 * Makes sure that a Debian package is there if it can be had: by installing it, when this is Debian and we are root.
 * @returns why not, in words; undefined when `present` is true now
 */
export function need(name: string, present: () => boolean, packages: readonly string[]): string | undefined {
  if (present()) return undefined
  const key = packages.join(' ')
  if (which('apt-get') === undefined) return `${name} is not installed, and this is not Debian`
  if (process.getuid?.() !== 0) return `${name} is not installed: apt-get install ${key} (needs root)`
  if (!asked.has(key)) asked.set(key, install(packages))
  return present() ? undefined : `${name} is not installed, and apt-get install ${key} did not work`
}

/** Whether Debian's program of this name is there, or can be. */
export function needProgram(program: string, debianPackage: string = program): string | undefined {
  return need(program, () => which(program) !== undefined, [debianPackage])
}

/** Daemons that come with a package are not to start: only what the measurement starts itself may run. */
const POLICY = '/usr/sbin/policy-rc.d'

function install(packages: readonly string[]): boolean {
  process.stderr.write(`installing ${packages.join(', ')} from Debian …\n`)
  const mine = !existsSync(POLICY)
  if (mine) writeFileSync(POLICY, '#!/bin/sh\nexit 101\n', { mode: 0o755 })
  try {
    return aptInstall(packages) || (apt(['update']) && aptInstall(packages))
  } finally {
    if (mine) rmSync(POLICY, { force: true })
  }
}

function aptInstall(packages: readonly string[]): boolean {
  return apt(['install', '-y', '--no-install-recommends', ...packages])
}

function apt(args: readonly string[]): boolean {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  return spawnSync('apt-get', args, { stdio: 'ignore', timeout: 180_000, env }).status === 0
}
