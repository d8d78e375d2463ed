import { type Command, inWords } from '../cli.ts'
import { ConfigError, formatProblem, type Problem } from '../config/problem.ts'
import { checkConfiguration, shortVersion } from '../gateway.ts'
import { sourcesOf } from './quickstart.ts'

const check: Command = {
  summary: 'Checks a configuration as a start would, and starts nothing',
  usage: '[-c file]… [--prod] [--json | --annotations]',
  options: { prod: { type: 'boolean' }, annotations: { type: 'boolean' } },
  async run(invocation) {
    const { json, values } = invocation
    const given = sourcesOf(invocation)
    const sources = values.prod
      ? { ...given, overrides: [...given.overrides, ['gateway.environment', 'production', '--prod'] as const] }
      : given
    const report = (problems: readonly Problem[], summary: string): void => {
      if (json)
        process.stdout.write(
          `${JSON.stringify({ ok: problems.every(({ severity }) => severity === 'warning'), problems })}\n`
        )
      else if (values.annotations) process.stdout.write(problems.map(annotation).join(''))
      else process.stdout.write(`${[...problems.map(formatProblem), summary].join('\n')}\n`)
    }
    try {
      const { snapshot } = await checkConfiguration(sources)
      report(
        snapshot.warnings,
        `configuration ${shortVersion(snapshot)} is good: ${snapshot.routes.length} routes, ${snapshot.services.size} services`
      )
      return 0
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      if (json || values.annotations) report(error.problems, '')
      else process.stderr.write(`${inWords(error)}\n`)
      return 1
    }
  }
}

/** As code review tools take it from a CI job. */
function annotation({ file, line, column, key, message, severity }: Problem): string {
  return `::${severity} file=${file ?? ''},line=${line ?? 1},col=${column ?? 1}::${key} ${message}\n`
}

export default check
