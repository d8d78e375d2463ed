import { spawnSync } from 'node:child_process'

/** Where a program is; from the `packet` of Debian if it is not there and this is root; undefined when there is no way. */
export function findProgram(program: string, packet = program): string | undefined {
  const found = which(program)
  if (found !== undefined || process.getuid?.() !== 0 || which('apt-get') === undefined) return found
  process.stdout.write(`installing ${packet} from Debian …\n`)
  const options = {
    stdio: 'ignore' as const,
    timeout: 180_000,
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  }
  const install = (): number | null =>
    spawnSync('apt-get', ['install', '-y', '--no-install-recommends', packet], options).status
  if (install() !== 0) {
    spawnSync('apt-get', ['update'], options)
    install()
  }
  return which(program)
}

function which(program: string): string | undefined {
  const { status, stdout } = spawnSync('which', [program], { encoding: 'utf8' })
  return status === 0 ? stdout.trim() : undefined
}
