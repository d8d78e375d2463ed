import { existsSync } from 'node:fs'
import { parseArgs } from 'node:util'
import type { ConfigSources } from './config/document.ts'
import { ConfigError, formatProblem, suggestion } from './config/problem.ts'

/** What a command was called with. */
export interface Invocation {
  readonly sources: ConfigSources
  readonly json: boolean
  /** Whether `-c` was given; without it the quickstart is served. */
  readonly configured: boolean
  /** Options of the command's own. */
  readonly values: Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>
  readonly positionals: readonly string[]
}

/** An option of a command line, as `parseArgs` takes it, and what it is for. */
interface Option {
  readonly type: 'string' | 'boolean'
  readonly short?: string
  readonly multiple?: boolean
  readonly description: string
  /** What stands behind it: `file`. */
  readonly value?: string
}

export interface Command {
  readonly summary: string
  /** What may stand on its command line without a dash: `/path`. */
  readonly argument?: string
  readonly options?: Readonly<Record<string, Option>>
  /** Returns the exit code. @throws {ConfigError} @throws {UsageError} */
  run(invocation: Invocation): Promise<number>
}

/** Also in package.json. */
export const VERSION = '0.1.0'

/** Loaded when they are called: a start does not need what `explain` does. */
const COMMANDS: Record<string, () => Promise<{ default: Command }>> = {
  start: () => import('./commands/start.ts'),
  check: () => import('./commands/check.ts'),
  routes: () => import('./commands/routes.ts'),
  explain: () => import('./commands/explain.ts'),
  config: () => import('./commands/config.ts'),
  audit: () => import('./commands/audit.ts'),
  token: () => import('./commands/token.ts'),
  admin: () => import('./commands/admin.ts'),
  migrate: () => import('./commands/migrate.ts')
}

const COMMON = {
  config: {
    type: 'string',
    short: 'c',
    multiple: true,
    value: 'file',
    description: 'Configuration file or folder; may repeat, later ones win. Without it, the quickstart'
  },
  port: { type: 'string', short: 'p', value: 'n', description: 'Port to listen on' },
  host: { type: 'string', value: 'address', description: 'Address to listen on' },
  set: { type: 'string', multiple: true, value: 'key=value', description: 'Any other key of the configuration' },
  json: { type: 'boolean', description: 'Answer in one line of JSON' },
  help: { type: 'boolean', short: 'h', description: 'Show this' }
} as const satisfies Record<string, Option>

/** Runs a command line; returns the exit code. Problems of the user's making are sentences, never stacks. */
export async function run(args: readonly string[]): Promise<number> {
  const [first = 'start'] = args
  if (['help', '--help', '-h'].includes(first)) return print(await overview())
  if (['version', '--version', '-v'].includes(first)) return print(`${VERSION}\n`)
  const name = first.startsWith('-') ? 'start' : first
  const load = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  if (load === undefined) {
    process.stderr.write(
      `"${name}" is no command${suggestion(name, Object.keys(COMMANDS))}; "sallyport help" lists them\n`
    )
    return 1
  }
  const { default: command } = await load()
  try {
    const { values, positionals } = parseArgs({
      args: args.slice(name === first ? 1 : 0),
      options: { ...COMMON, ...command.options },
      allowPositionals: true
    })
    if (values.help) return print(usageOf(name, command))
    const [unexpected] = positionals.slice(command.argument === undefined ? 0 : 1)
    if (unexpected !== undefined)
      throw new UsageError(`"${unexpected}" is not understood; if it is a configuration file, write -c ${unexpected}`)
    return await command.run({
      sources: sourcesOf(values),
      json: values.json === true,
      configured: values.config !== undefined,
      values,
      positionals
    })
  } catch (error) {
    if (error instanceof ConfigError && args.includes('--json'))
      process.stdout.write(`${JSON.stringify({ ok: false, problems: error.problems })}\n`)
    else process.stderr.write(`${inWords(error)}\n`)
    return 1
  }
}

function print(text: string): number {
  process.stdout.write(text)
  return 0
}

function sourcesOf(values: { config?: string[]; port?: string; host?: string; set?: string[] }): ConfigSources {
  const overrides: [string, unknown, string][] = []
  if (values.port !== undefined) overrides.push(['server.port', asNumber(values.port), '--port'])
  if (values.host !== undefined) overrides.push(['server.host', values.host, '--host'])
  for (const setting of values.set ?? []) {
    const at = setting.indexOf('=')
    if (at === -1) throw new UsageError(`--set ${setting}: write --set key.in.the.file=value`)
    overrides.push([setting.slice(0, at), asValue(setting.slice(at + 1)), `--set ${setting.slice(0, at)}`])
  }
  return { files: values.config ?? [], env: process.env, envFile: existsSync('.env') ? '.env' : undefined, overrides }
}

/** Thrown for a command line that does not make sense; the message says what does. */
export class UsageError extends Error {}

function asNumber(text: string): unknown {
  return text.trim() !== '' && Number.isFinite(Number(text)) ? Number(text) : text
}

function asValue(text: string): unknown {
  return text === 'true' ? true : text === 'false' ? false : text === 'null' ? null : asNumber(text)
}

/** An error as a user should see it. */
function inWords(error: unknown): string {
  if (error instanceof ConfigError) {
    const { problems } = error
    return [...problems.map(formatProblem), `${problems.length} problem${problems.length === 1 ? '' : 's'}`].join('\n')
  }
  if (error instanceof UsageError) return error.message
  const { code, message, stack, syscall } = error as NodeJS.ErrnoException
  if (code?.startsWith('ERR_PARSE_ARGS'))
    return (message.split('. ')[0] as string).replace(/^[A-Z]/, letter => letter.toLowerCase())
  if (code === 'EADDRINUSE')
    return `the port is in use: ${message.replace(/^.*EADDRINUSE: address already in use /, '')}; stop what listens there, or choose another with --port`
  if (code === 'EACCES' && syscall === 'listen')
    return 'the port may not be opened by this user; choose one above 1023 with --port'
  return stack ?? String(error)
}

async function overview(): Promise<string> {
  const lines = ['usage: sallyport [command] [-c file]…', '']
  for (const [name, load] of Object.entries(COMMANDS))
    lines.push(`  ${name.padEnd(8)} ${(await load()).default.summary}`)
  return `${lines.join('\n')}\n\n"sallyport <command> --help" lists its options.\n`
}

function usageOf(name: string, { summary, argument = '', options = {} }: Command): string {
  const rows = Object.entries({ ...options, ...COMMON }).map(
    ([long, { short, value, description }]: [string, Option]) => [
      `${short === undefined ? '    ' : `-${short}, `}--${long}${value === undefined ? '' : ` <${value}>`}`,
      description
    ]
  )
  const width = Math.max(...rows.map(([option = '']) => option.length))
  const lines = rows.map(([option = '', description]) => `  ${option.padEnd(width)}  ${description}`)
  return `usage: sallyport ${`${name} ${argument}`.trim()} [option]…\n\n${summary}.\n\n${lines.join('\n')}\n`
}
