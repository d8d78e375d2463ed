import { RE2JS } from 're2js'
import type { Condition } from './table.ts'

/** A condition as the configuration has it: a value, or what it has to be like. */
export type ConditionSettings = string | { equals?: string; prefix?: string; regex?: string; present?: boolean }

/** Thrown for an expression that RE2 does not take; the message says why. */
export class RegexError extends Error {}

/**
 * Compiles a regular expression of RE2's kind: it matches in time linear in its input, whatever a user wrote and a client
 * sends (H-39), and has no look-around and no back-references.
 * @param ignoreCase for paths, which are matched in lower case.
 * @throws {RegexError}
 */
export function compileRegex(
  source: string,
  ignoreCase = false
): { readonly source: string; test(text: string): boolean } {
  try {
    const regex = RE2JS.compile(source, ignoreCase ? RE2JS.CASE_INSENSITIVE : 0)
    return { source, test: text => regex.test(text) }
  } catch (error) {
    throw new RegexError(error instanceof Error ? error.message.replace(/^error parsing regexp: /, '') : String(error))
  }
}

/** @throws {RegexError} */
export function compileCondition(name: string, settings: ConditionSettings): Condition {
  if (typeof settings === 'string') return { name, wanted: `= "${settings}"`, test: value => value === settings }
  const { equals, prefix, regex, present } = settings
  const compiled = regex === undefined ? undefined : compileRegex(regex)
  const wanted = [
    equals === undefined ? [] : `= "${equals}"`,
    prefix === undefined ? [] : `begins with "${prefix}"`,
    regex === undefined ? [] : `matches ${regex}`,
    present === undefined ? [] : present ? 'is there' : 'is not there'
  ].flat()
  return {
    name,
    wanted: wanted.join(' and '),
    test: value => {
      if (present !== undefined && (value !== undefined) !== present) return false
      if (equals === undefined && prefix === undefined && compiled === undefined) return true
      if (value === undefined) return false
      return (
        (equals === undefined || value === equals) &&
        (prefix === undefined || value.startsWith(prefix)) &&
        (compiled === undefined || compiled.test(value))
      )
    }
  }
}
