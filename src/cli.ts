import { existsSync } from 'node:fs'
import { parseArgs } from 'node:util'
import type { ConfigSources } from './config/normalise.ts'
import { ConfigError, formatProblem } from './config/problem.ts'

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

export interface Command {
  readonly summary: string
  /** Behind the command's name in the help. */
  readonly usage: string
  readonly options?: Record<string, { type: 'string' | 'boolean'; short?: string; multiple?: boolean }>
  /** Returns the exit code. */
  run(invocation: Invocation): Promise<number>
}

/** Loaded when they are called: a start does not need what `explain` does. */
const COMMANDS: Record<string, () => Promise<{ default: Command }>> = {
  start: () => import('./commands/start.ts'),
  check: () => import('./commands/check.ts'),
  routes: () => import('./commands/routes.ts'),
  explain: () => import('./commands/explain.ts'),
  config: () => import('./commands/config.ts'),
  token: () => import('./commands/token.ts')
}

const COMMON = {
  config: { type: 'string', short: 'c', multiple: true },
  json: { type: 'boolean' },
  port: { type: 'string', short: 'p' },
  host: { type: 'string' },
  set: { type: 'string', multiple: true },
  help: { type: 'boolean', short: 'h' }
} as const

/** Runs a command line; returns the exit code. Problems of the user's making are sentences, never stacks. */
export async function run(args: readonly string[]): Promise<number> {
  const named = args[0] !== undefined && !args[0].startsWith('-')
  const name = named ? (args[0] as string) : 'start'
  const load = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  if (load === undefined) {
    if (name !== 'help') process.stderr.write(`"${name}" is no command\n\n`)
    process.stdout.write(await help())
    return name === 'help' ? 0 : 1
  }
  const { default: command } = await load()
  try {
    const { values, positionals } = parseArgs({
      args: args.slice(named ? 1 : 0),
      options: { ...COMMON, ...command.options },
      allowPositionals: true
    })
    if (values.help) {
      process.stdout.write(`sallyport ${name} ${command.usage}\n\n${command.summary}.\n`)
      return 0
    }
    return await command.run({
      sources: sourcesOf(values),
      json: values.json === true,
      configured: values.config !== undefined,
      values,
      positionals
    })
  } catch (error) {
    process.stderr.write(`${inWords(error)}\n`)
    return 1
  }
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
export function inWords(error: unknown): string {
  if (error instanceof ConfigError) {
    const { problems } = error
    return [...problems.map(formatProblem), `${problems.length} problem${problems.length === 1 ? '' : 's'}`].join('\n')
  }
  if (error instanceof UsageError) return error.message
  const { code, message, stack, syscall } = error as NodeJS.ErrnoException
  if (code?.startsWith('ERR_PARSE_ARGS')) return message
  if (code === 'EADDRINUSE')
    return `the port is in use: ${message.replace(/^.*EADDRINUSE: address already in use /, '')}; stop what listens there, or choose another with --port`
  if (code === 'EACCES' && syscall === 'listen')
    return 'the port may not be opened by this user; choose one above 1023 with --port'
  return stack ?? String(error)
}

async function help(): Promise<string> {
  const lines = ['usage: sallyport [command] [-c file]… [--json]', '']
  for (const [name, load] of Object.entries(COMMANDS))
    lines.push(`  ${name.padEnd(9)}${(await load()).default.summary}`)
  return `${lines.join('\n')}\n`
}
