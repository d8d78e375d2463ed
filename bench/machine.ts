import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os'
import { join } from 'node:path'
import { which } from './tools.ts'

/** Date, machine and versions, as lines of markdown. */
export function describeMachine(): string[] {
  const gib = Math.round(totalmem() / 2 ** 30)
  const model = cpus()[0]?.model.trim() ?? 'unknown processor'
  return [
    `- ${new Date().toISOString().slice(0, 16).replace('T', ' ')} UTC, commit ${commit()}, load average ${loadavg()[0]?.toFixed(2)} before the start`,
    `- ${availableParallelism()} cores, ${model}, ${gib} GiB, ${distribution()}, Linux ${release()}`,
    `- Node ${process.versions.node}; ${PACKAGES.map(name => `${name} ${versionOf(name)}`).join(', ')}`,
    `- ${PROGRAMS.map(programVersion).join(', ')}`
  ]
}

const PACKAGES = ['fastify', '@fastify/http-proxy', '@fastify/reply-from', 'undici', 'pino', 'ioredis', 'ws']

const PROGRAMS: readonly (readonly [program: string, ...args: string[]])[] = [
  ['nginx', '-v'],
  ['haproxy', '-v'],
  ['caddy', 'version'],
  ['wrk', '-v'],
  ['redis-server', '--version']
]

function versionOf(name: string): string {
  try {
    const root = createRequire(join(import.meta.dirname, '..', 'package.json'))
    const found = root.resolve.paths(name)?.[0] ?? ''
    return JSON.parse(readFileSync(join(found, name, 'package.json'), 'utf8')).version
  } catch {
    return '(none)'
  }
}

function programVersion([program, ...args]: readonly [string, ...string[]]): string {
  if (which(program) === undefined) return `no ${program}`
  const { stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' })
  return `${program} ${/\d+\.\d+(\.\d+)?/.exec(`${stdout}${stderr}`)?.[0] ?? '?'}`
}

function commit(): string {
  try {
    const git = (...args: string[]) =>
      execFileSync('git', args, {
        cwd: import.meta.dirname,
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore']
      }).trim()
    return (
      git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '../src', '../plugins', '../routes') && '+')
    )
  } catch {
    return 'unknown'
  }
}

function distribution(): string {
  try {
    return /^PRETTY_NAME="?([^"\n]+)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'Linux'
  } catch {
    return 'Linux'
  }
}
