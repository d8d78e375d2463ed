import { locate, type Path, type Position } from './located.ts'

/** Something wrong, or doubtful, in a configuration: where it is, what it is, and what to do about it. */
export interface Problem extends Partial<Position> {
  /** The offending key, as the user spelled it: `routes[2].time_out`. */
  readonly key: string
  readonly message: string
  readonly severity: 'error' | 'warning'
  /** Two things are each well by themselves, and cannot both be. */
  readonly conflict?: true
}

/** Collects problems, so that a user sees all of them at once. */
export class Problems {
  readonly list: Problem[] = []
  /** Where each error is. */
  readonly paths: Path[] = []
  readonly #root: unknown

  /** @param root the document that paths lead into. */
  constructor(root: unknown) {
    this.#root = root
  }

  /** @param at whether the key is to blame, or its value. */
  add(path: Path, message: string, at: 'key' | 'value' = 'value', severity: Problem['severity'] = 'error'): void {
    if (severity === 'error') this.paths.push(path)
    this.list.push({ ...this.#located(path, at), message, severity })
  }

  /** Two things that cannot both be; `message` names the other one. */
  conflict(path: Path, message: string, at: 'key' | 'value' = 'value'): void {
    this.paths.push(path)
    this.list.push({ ...this.#located(path, at), message, severity: 'error', conflict: true })
  }

  #located(path: Path, at: 'key' | 'value'): Pick<Problem, 'key'> & Partial<Position> {
    const { place, spelled } = locate(this.#root, path)
    return { ...place?.[at], key: spelled }
  }

  warn(path: Path, message: string, at: 'key' | 'value' = 'key'): void {
    this.add(path, message, at, 'warning')
  }

  get failed(): boolean {
    return this.list.some(problem => problem.severity === 'error')
  }
}

/** Thrown when a configuration cannot be used; holds every problem found. */
export class ConfigError extends Error {
  readonly problems: readonly Problem[]

  constructor(problems: readonly Problem[], options?: ErrorOptions) {
    super(problems.map(formatProblem).join('\n'), options)
    this.name = 'ConfigError'
    this.problems = problems
  }

  /** One problem at a place in `document`. */
  static at(document: unknown, path: Path, message: string, options?: ErrorOptions): ConfigError {
    const problems = new Problems(document)
    problems.add(path, message)
    return new ConfigError(problems.list, options)
  }
}

/** `gateway.yaml:14:5  routes[2].time_out  unknown key, did you mean "timeout"?` */
export function formatProblem(problem: Problem): string {
  const { key, message, severity } = problem
  const parts = [whereIs(problem), key, `${severity === 'warning' ? 'warning: ' : ''}${message}`]
  return parts.filter(part => part !== '').join('  ')
}

/** `gateway.yaml:14:5`; what has no lines, as a variable or a flag, is named alone. */
export function whereIs({ file = '', line, column }: Partial<Position>): string {
  return line === undefined || line === 0 ? file : `${file}:${line}:${column}`
}

/** ` at gateway.yaml:14`, or ` of service "x" (registered)` for what stands in no file; nothing without a place. */
export function inWords(position: Position | undefined): string {
  if (position === undefined) return ''
  return position.line === 0 ? ` of ${position.file}` : ` at ${position.file}:${position.line}`
}

/** The word in `words` nearest to `word`, if it is near enough to have been meant: some letters off, or cut short. */
export function nearest(word: string, words: Iterable<string>): string | undefined {
  let best: string | undefined
  let least = Math.max(1, Math.floor(word.length / 3)) + 1
  let longer: string | undefined
  for (const candidate of words) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase(), least)
    if (distance < least) {
      least = distance
      best = candidate
    } else if (word.length >= 4 && candidate.startsWith(word)) longer ??= candidate
  }
  return best ?? longer
}

/**
 * The name in `names` that `name` is a slip of. Names of services differ by little on purpose (`user-service`, `core-service`,
 * `orders-v2`), so the words that two have in common do not count, and other numbers are other names.
 */
export function slipOf(name: string, names: Iterable<string>): string | undefined {
  for (const candidate of names) {
    if (name.toLowerCase() === candidate.toLowerCase()) return candidate
    const [left, right] = withoutCommonWords(name.toLowerCase(), candidate.toLowerCase())
    const limit = Math.max(1, Math.floor(Math.min(left.length, right.length) / 4)) + 1
    if (left.replace(/\d/g, '') === right.replace(/\d/g, '')) continue
    const distance = editDistance(left, right, limit)
    if (distance < limit && distance < Math.max(left.length, right.length) - 1) return candidate
  }
  return undefined
}

function withoutCommonWords(a: string, b: string): [string, string] {
  const [left, right] = [a.split(/[-_.]/), b.split(/[-_.]/)]
  while (left.length > 1 && right.length > 1 && left[0] === right[0]) {
    left.shift()
    right.shift()
  }
  while (left.length > 1 && right.length > 1 && left.at(-1) === right.at(-1)) {
    left.pop()
    right.pop()
  }
  return [left.join('-'), right.join('-')]
}

/** `, did you mean "timeout"?` or nothing. */
export function suggestion(word: string, words: Iterable<string>): string {
  const near = nearest(word, words)
  return near === undefined ? '' : `, did you mean "${near}"?`
}

/** Damerau-Levenshtein distance (optimal string alignment), or `limit` when it is not less. */
function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)]
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const above = rows[i - 1] as number[]
      const cost = a[i - 1] === b[j - 1] ? 0 : 1
      let value = Math.min((above[j] as number) + 1, (row[j - 1] as number) + 1, (above[j - 1] as number) + cost)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        value = Math.min(value, ((rows[i - 2] as number[])[j - 2] as number) + 1)
      }
      row.push(value)
    }
    rows.push(row)
  }
  return Math.min(limit, (rows[a.length] as number[])[b.length] as number)
}
