import type { Command } from '../cli.ts'
import { ConfigError, formatProblem, type Problem } from '../config/problem.ts'
import { checkConfiguration, shortVersion } from '../gateway.ts'
import { sourcesOf } from './quickstart.ts'

const check: Command = {
  summary: 'Checks a configuration as a start would, and starts nothing; exit code 1 when it is not good',
  options: {
    prod: { type: 'boolean', description: 'As in production: no secrets that are missing, short or out of an example' },
    annotations: { type: 'boolean', description: 'Write problems as code review tools take them from a CI job' }
  },
  async run(invocation) {
    const { json, values } = invocation
    const given = sourcesOf(invocation)
    const sources = values.prod
      ? { ...given, overrides: [...given.overrides, ['gateway.environment', 'production', '--prod'] as const] }
      : given
    try {
      const { snapshot } = await checkConfiguration(sources)
      const { warnings, routes, services } = snapshot
      if (json) process.stdout.write(`${JSON.stringify({ ok: true, problems: warnings })}\n`)
      else if (values.annotations) process.stdout.write(warnings.map(annotation).join(''))
      else {
        const summary = `configuration ${shortVersion(snapshot)} is good: ${count(routes.length, 'route')}, ${count(services.size, 'service')}`
        process.stdout.write(`${[...warnings.map(formatProblem), summary].join('\n')}\n`)
      }
      return 0
    } catch (error) {
      if (!(error instanceof ConfigError && values.annotations)) throw error
      process.stdout.write(error.problems.map(annotation).join(''))
      return 1
    }
  }
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`
}

/** As code review tools take it from a CI job; what stands in no file is shown without a place. */
function annotation({ file = '', line = 0, column = 0, key, message, severity }: Problem): string {
  const place = line === 0 ? '' : ` file=${escaped(file)},line=${line},col=${column}`
  return `::${severity}${place}::${escaped(line === 0 ? `${file} ${key} ${message}` : `${key} ${message}`)}\n`
}

function escaped(text: string): string {
  return text.trim().replace(/[%\r\n]/g, encodeURIComponent)
}

export default check
