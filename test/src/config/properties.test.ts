import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parse, stringify } from 'yaml'
import { canonicalKeys } from '../../../src/config/aliases.ts'
import { createSnapshot } from '../../../src/config/normalise.ts'
import { ConfigError, formatProblem, type Problem } from '../../../src/config/problem.ts'
import { loadConfiguration } from '../../../src/gateway.ts'
import { builtInConcerns } from '../../../src/plugins.ts'
import { editorComplaint } from '../../support/editor.ts'
import { seeded } from '../../support/random.ts'
import { GOOD } from '../../support/typos.ts'

/** Chance of a run; the seed of one that failed is in its message. */
const SEED = Number(process.env.PROPERTY_SEED ?? 20260101)
const DOCUMENTS = 3000
const TEXTS = 400

const { dialect } = builtInConcerns()

/** What a value may be in a document that somebody, or something, got wrong. */
const ODD: readonly unknown[] = [
  ...[
    null,
    true,
    false,
    0,
    -1,
    1.5,
    1e308,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    65536,
    '',
    ' ',
    '/',
    '/**',
    '**',
    '*'
  ],
  ...[
    '30s',
    '-1s',
    '10 mb',
    'http://h',
    'http://',
    'http://u:p@h/?q#f',
    '::1',
    '10.0.0.0/99',
    `\${X}`,
    '{id}',
    '(',
    '\u0000'
  ],
  ...[
    '__proto__',
    'constructor',
    'toString',
    'hasOwnProperty',
    'required',
    'HS256',
    '/health',
    '/{a}/{a}',
    'x'.repeat(5000)
  ],
  ...[[], {}, [[]], [null], { a: 1 }, { constructor: 1 }, { toString: 'x' }, { length: 3 }, [1, 'a', {}], { url: [] }]
]

class Chance {
  readonly #next: () => number

  constructor(seed: number) {
    this.#next = seeded(seed)
  }

  below(limit: number): number {
    return Math.floor(this.#next() * limit)
  }

  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T
  }
}

interface Schema {
  readonly properties?: Record<string, Schema>
  readonly patternProperties?: Record<string, Schema>
  readonly items?: Schema
  readonly anyOf?: Schema[]
  readonly enum?: unknown[]
  readonly const?: unknown
  readonly type?: string
}

const TYPICAL: Record<string, readonly unknown[]> = {
  string: ['/a/**', '/b/{id}', 'orders', '30s', '1mb', 'http://orders:8080', 'GET', 'a.example.com', 'private'],
  integer: [0, 1, 2, 200],
  number: [0.5, 1, 60],
  boolean: [true, false],
  null: [null]
}

/** Something that looks as the schema says, more or less, down to a few levels. */
function typical(schema: Schema, chance: Chance, depth: number): unknown {
  if (depth === 0 || chance.below(25) === 0) return structuredClone(chance.of(ODD))
  if (schema.anyOf !== undefined) return typical(chance.of(schema.anyOf), chance, depth)
  if (schema.const !== undefined) return schema.const
  if (schema.enum !== undefined) return chance.of(schema.enum)
  if (schema.items !== undefined) {
    const { items } = schema
    return Array.from({ length: chance.below(4) }, () => typical(items, chance, depth - 1))
  }
  const entries = Object.entries(schema.properties ?? {}).filter(() => chance.below(3) === 0)
  for (const inner of Object.values(schema.patternProperties ?? {}))
    for (const name of ['orders', 'chat'].slice(chance.below(3))) entries.push([name, inner])
  if (schema.type !== 'object') return chance.of(TYPICAL[schema.type ?? ''] ?? ODD)
  return Object.fromEntries(entries.map(([key, inner]) => [slip(key, chance), typical(inner, chance, depth - 1)]))
}

function slip(key: string, chance: Chance): string {
  return chance.below(60) === 0 ? chance.of(['__proto__', key.slice(1), `${key}s`, 'constructor', '']) : key
}

/** A document with a value, somewhere, that does not belong there. */
function mutated(document: unknown, chance: Chance): unknown {
  if (typeof document !== 'object' || document === null || chance.below(6) === 0) return structuredClone(chance.of(ODD))
  const keys = Object.keys(document)
  const key = keys.length === 0 ? 'x' : chance.of(keys)
  ;(document as Record<string, unknown>)[key] = mutated((document as Record<string, unknown>)[key], chance)
  return document
}

/** Problems that are fit to be shown: a key or a place, and one line that says something. */
function unfit(problems: readonly Problem[]): string[] {
  return problems
    .map(formatProblem)
    .filter(line =>
      /\n|undefined|\[object|NaN problem|=> |TypeError|Cannot read/.test(line.replaceAll('"undefined"', ''))
    )
}

t.test(
  `CFG-08 H-120 ${DOCUMENTS} documents at random: good, or refused with problems; never anything else`,
  async t => {
    const chance = new Chance(SEED)
    let good = 0
    for (let i = 0; i < DOCUMENTS; i++) {
      const made = i % 2 === 0 ? mutated(parse(GOOD), chance) : typical(dialect.schema as Schema, chance, 7)
      if (typeof made !== 'object' || made === null || Array.isArray(made)) continue
      const text = JSON.stringify(made)
      try {
        const document = canonicalKeys(made as Record<string, unknown>)
        await createSnapshot({ document, files: [], problems: [], seen: new Map() }, dialect)
        good++
        // What the gateway takes, editors take. JSON has fewer numbers than a document can hold.
        const complaint = editorComplaint(JSON.parse(text))
        if (complaint !== '') t.fail(`seed ${SEED}, document ${i}: an editor would say ${complaint}`, { text })
      } catch (error) {
        if (!(error instanceof ConfigError)) throw new Error(`seed ${SEED}, document ${i}: ${text}`, { cause: error })
        if (error.problems.length === 0 || unfit(error.problems).length > 0)
          t.fail(`seed ${SEED}, document ${i}: ${unfit(error.problems).join('\n')}`, { text })
      }
    }
    t.ok(good > DOCUMENTS / 500, `${good} were good`)
  }
)

t.test(`CFG-08 H-120 ${TEXTS} texts with a slip at random: each problem has its line and column`, async t => {
  const chance = new Chance(SEED + 1)
  const file = join(t.testdir({}), 'gateway.yaml')
  const bits = [
    '\t',
    ':',
    '-',
    '{',
    '}',
    '[',
    ']',
    '"',
    "'",
    '&a ',
    '*a ',
    '<<',
    '|',
    '>',
    '#',
    '!',
    '%',
    '@',
    '`',
    '\u0000',
    '\r',
    '€',
    '${',
    '---\n',
    '? '
  ]
  const env = { ORDERS_URL: 'http://127.0.0.1:1', TYPO_SECRET: 'a secret of the tests, long enough to be one' }
  const plain = stringify({ ...parse(GOOD), plugins: [] }).replace(/^ +plugins:\n +greeting:\n.*\n.*\n/m, '')
  await loadConfiguration({ files: [writeTo(file, plain)], env, overrides: [] })
  for (let i = 0; i < TEXTS; i++) {
    const at = chance.below(plain.length)
    const text = plain.slice(0, at) + chance.of(bits) + plain.slice(at + chance.below(3))
    try {
      await loadConfiguration({ files: [writeTo(file, text)], env, overrides: [] })
    } catch (error) {
      if (!(error instanceof ConfigError)) throw new Error(`seed ${SEED}, text ${i}: ${text}`, { cause: error })
      for (const { line = 0, column = 0, file: where = '' } of error.problems)
        if (!(where.endsWith('gateway.yaml') && line >= 1 && column >= 1))
          t.fail(`seed ${SEED}, text ${i}`, { text, error })
      const rough = unfit(error.problems)
      if (rough.length > 0) t.fail(`seed ${SEED}, text ${i}: ${rough.join('\n')}`, { text })
    }
  }
})

function writeTo(file: string, text: string): string {
  writeFileSync(file, text)
  return file
}
