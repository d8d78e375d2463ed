import { readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import {
  type Alias,
  Composer,
  type CST,
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  type Node,
  Parser,
  type Range,
  type Scalar,
  YAMLParseError
} from 'yaml'
import { systemClock } from '../../runtime/clock.ts'
import { Stretches } from '../../runtime/stretches.ts'
import { copyPlace, type Position, placeOf, setPlace } from '../located.ts'
import { ConfigError, type Problem, slipOf } from '../problem.ts'
import { printOf, type Seen } from '../watch.ts'
import { isRouteTable, parseRouteTable } from './route-table.ts'

/** How many lexemes are read between two looks at the clock. */
const LOOK_EVERY = 256
/** Most values that one file may repeat by aliases; more is a mistake or an attack (H-120). */
const MAX_REPEATED = 200_000
/** Deepest nesting; the dialect needs seven. */
const MAX_DEPTH = 64
const TOO_DEEP = `is nested more than ${MAX_DEPTH} levels deep`

/** The environment, as substitution sees it. */
export type Environment = Readonly<Record<string, string | undefined>>

/** A configuration file as plain data that knows where each part was written. */
export interface ConfigFile {
  readonly path: string
  readonly data: Record<string, unknown>
}

/** Everything that was read. */
export interface ConfigFiles {
  readonly files: readonly ConfigFile[]
  /** Values that cannot be had, while the rest can. */
  readonly problems: readonly Problem[]
}

/**
 * Reads the configuration files at `paths` and everything that they include, in the order in which they count: what comes
 * later overrides. A folder stands for the YAML and JSON files in it, in the order of their names; what has been read once is
 * not read again.
 * @param seen gets what was looked at, folders included, whether it could be read or not
 * @throws {ConfigError} for files that cannot be read or are no YAML, all of them at once.
 */
export async function readConfigFiles(
  paths: readonly string[],
  env: Environment,
  seen: Seen = new Map()
): Promise<ConfigFiles> {
  const reading = new Reading(env, seen)
  for (const path of paths) await reading.read(path, undefined)
  return reading.result()
}

/** One reading of all files. */
class Reading {
  readonly #env: Environment
  readonly #findings: Findings = { problems: [], missing: [] }
  readonly #files: ConfigFile[] = []
  readonly #seen: Seen
  /** The files that are open, each included by the one before. */
  readonly #open: string[] = []

  constructor(env: Environment, seen: Seen) {
    this.#env = env
    this.#seen = seen
  }

  /** @param from where the file is named; undefined for the command line */
  async read(path: string, from: Position | undefined): Promise<void> {
    const full = resolve(path)
    if (this.#open.includes(full)) {
      const cycle = [...this.#open.slice(this.#open.indexOf(full)), full].map(display).join(' → ')
      this.#findings.problems.push({
        ...from,
        key: 'include',
        message: `goes round in a circle: ${cycle}`,
        severity: 'error'
      })
      return
    }
    if (this.#files.some(file => file.path === full)) return
    this.#seen.set(full, printOf(full))
    try {
      if (statSync(full).isDirectory()) await this.#readFolder(full, from)
      else await this.#readFile(full, readFileSync(full, 'utf8'))
    } catch (error) {
      const { code = '', syscall } = error as NodeJS.ErrnoException
      if (syscall === undefined) throw error
      this.#report(
        full,
        from,
        { ENOENT: `no such file in ${dirname(full)}`, EACCES: 'not readable by this user' }[code] ?? code
      )
    }
  }

  async #readFile(full: string, text: string): Promise<void> {
    const data = await parseConfigText(text, display(full), this.#env, this.#findings)
    delete data.$schema // For editors, in JSON.
    this.#open.push(full)
    for (const [include, position] of includesOf(data, display(full), this.#findings.problems))
      await this.read(resolve(dirname(full), include), position)
    this.#open.pop()
    this.#files.push({ path: full, data })
  }

  async #readFolder(full: string, from: Position | undefined): Promise<void> {
    const names = readdirSync(full).filter(name => /\.(ya?ml|json)$/.test(name))
    if (names.length === 0 && from === undefined) this.#report(full, from, 'holds no .yaml, .yml or .json file')
    for (const name of names.sort()) await this.read(join(full, name), from)
  }

  #report(full: string, from: Position | undefined, why: string): void {
    this.#findings.problems.push({
      ...(from ?? { file: display(full) }),
      key: from ? 'include' : '',
      message: from ? `${display(full)}: ${why}` : why,
      severity: 'error'
    })
  }

  result(): ConfigFiles {
    const { problems, missing } = this.#findings
    if (problems.length > 0) throw new ConfigError([...problems, ...missing])
    return { files: this.#files, problems: missing }
  }
}

/** How a file is named in messages: relative to the working folder while it is below it. */
export function display(full: string): string {
  const path = relative(process.cwd(), full)
  return path.startsWith('..') ? full : path
}

function includesOf(
  data: Record<string, unknown>,
  file: string,
  problems: Problem[]
): [string, Position | undefined][] {
  const { include } = data
  const place = placeOf(data, 'include')?.value
  delete data.include
  const list = include === undefined ? [] : [include].flat()
  return list.flatMap((entry, i): [string, Position | undefined][] => {
    const position = (Array.isArray(include) ? placeOf(include, i)?.value : undefined) ?? place
    if (typeof entry === 'string' && entry !== '') return [[entry, position]]
    problems.push({
      ...(position ?? { file }),
      key: 'include',
      message: 'should be a file, a folder or a list of them',
      severity: 'error'
    })
    return []
  })
}

/** Where problems go: those with the text, and variables that are not set. */
interface Findings {
  readonly problems: Problem[]
  readonly missing: Problem[]
}

/** Parses one document, adding what is wrong with it to `findings`. JSON is read as the YAML that it is. */
async function parseConfigText(
  text: string,
  file: string,
  env: Environment,
  findings: Findings
): Promise<Record<string, unknown>> {
  if (isRouteTable(text)) return parseRouteTable(text, file)
  const lines = new LineCounter()
  const at = (offset: number): Position => {
    const { line, col } = lines.linePos(offset)
    return { file, line: Math.max(line, 1), column: Math.max(col, 1) }
  }
  const problem = (position: Position, message: string): Record<string, unknown> => {
    findings.problems.push({ ...position, key: '', message, severity: 'error' })
    return {}
  }
  const document = await parseYaml(text, lines)
  // What comes after the first of these is mostly its echo.
  const [broken] = document.errors
  if (broken !== undefined) return problem(at(broken.pos[0]), whatIsBroken(broken))
  const reader = new Reader(at, env, findings)
  const data = document.contents === null ? {} : reader.read(document.contents)
  // Nothing but comments, or a lone `---`.
  if (data === null) return {}
  if (!isPlain(data)) return problem(at(0), 'a configuration is a mapping of keys to values')
  return data
}

/** `parseDocument` of the library, done in stretches: it is by far the longest part of a reload. */
async function parseYaml(text: string, lineCounter: LineCounter): Promise<Document.Parsed> {
  const parser = new Parser(lineCounter.addNewLine)
  lineCounter.addNewLine(0)
  const stretches = new Stretches(systemClock)
  const tokens: CST.Token[] = []
  let lexemes = 0
  for (const lexeme of new Lexer().lex(text)) {
    tokens.push(...parser.next(lexeme))
    if (++lexemes % LOOK_EVERY === 0 && stretches.isOver) await stretches.next()
  }
  tokens.push(...parser.end())
  // What is unique is checked where the data is read: the library compares each key with each.
  const composer = new Composer({ uniqueKeys: false })
  const [document, second] = composer.compose(tokens, true, text.length)
  if (second !== undefined)
    document?.errors.push(
      new YAMLParseError([second.range[0], second.range[1]], 'MULTIPLE_DOCS', 'there is more than one document in it')
    )
  return document as Document.Parsed
}

function whatIsBroken({ code, message }: YAMLParseError): string {
  if (code === 'RESOURCE_EXHAUSTION') return TOO_DEEP
  const what = (message.split('\n')[0] as string)
    .replace(/^\w/, letter => letter.toLowerCase())
    // The text itself may be a secret.
    .replace(/: ".{4,}"?$/, '')
  return code === 'UNEXPECTED_TOKEN' && /flow-(map|seq)/.test(what)
    ? `is no YAML: ${what}; within { } and [ ], put quotes around text that holds them`
    : `is no YAML: ${what}`
}

/** Turns YAML nodes into plain data, noting where each part was written and putting in the environment. */
class Reader {
  readonly #at: (offset: number) => Position
  readonly #env: Environment
  readonly #findings: Findings
  readonly #anchors = new Map<string, Node>()
  /** What is being read, from the outermost to the innermost. */
  readonly #open: unknown[] = []
  #aliases = 0
  #repeated = 0

  /** The keys that lead to what is being read, as in messages. */
  readonly #keys: string[] = []

  constructor(at: (offset: number) => Position, env: Environment, findings: Findings) {
    this.#at = at
    this.#env = env
    this.#findings = findings
  }

  read(node: unknown): unknown {
    if (this.#aliases > 0 && ++this.#repeated > MAX_REPEATED) {
      if (this.#repeated === MAX_REPEATED + 1)
        this.#problem(node, `comes to more than ${MAX_REPEATED} values, repeated by aliases`)
      return null
    }
    if (this.#open.length > MAX_DEPTH) {
      this.#problem(node, TOO_DEEP)
      return null
    }
    if (isAlias(node)) return this.#alias(node)
    if (isNode(node) && 'anchor' in node && node.anchor !== undefined) this.#anchors.set(node.anchor, node)
    this.#open.push(node)
    const data = isMap(node)
      ? this.#map(node.items as { key: Node; value: Node | null }[])
      : isSeq(node)
        ? this.#list(node.items as Node[])
        : isScalar(node)
          ? this.#scalar(node)
          : null
    this.#open.pop()
    return data
  }

  #alias(node: Alias): unknown {
    const target = this.#anchors.get(node.source)
    if (target !== undefined && !this.#open.includes(target)) {
      this.#aliases++
      const data = this.read(target)
      this.#aliases--
      return data
    }
    const why = target === undefined ? 'refers to nothing above it' : 'stands within what it refers to'
    this.#problem(node, `*${node.source} ${why}`)
    return null
  }

  #map(items: readonly { key: Node; value: Node | null }[]): Record<string, unknown> {
    const map: Record<string, unknown> = {}
    const seen = new Set<string>()
    for (const { key, value } of items) {
      const name = isScalar(key) ? String(key.value) : String(key)
      const data = this.#within(`${this.#keys.length === 0 ? '' : '.'}${name}`, () => {
        if (name === '__proto__') this.#problem(key, 'is no key')
        else if (seen.has(name) && name !== '<<') this.#problem(key, 'stands here twice')
        return this.read(value)
      })
      seen.add(name)
      if (name === '__proto__') continue
      if (name === '<<') {
        for (const source of [data].flat()) if (isPlain(source)) inherit(map, source)
        continue
      }
      map[name] = data
      setPlace(map, name, {
        key: this.#position(key),
        value: this.#position(value ?? key),
        env: this.#used(value)
      })
    }
    return map
  }

  #within(key: string, read: () => unknown): unknown {
    this.#keys.push(key)
    const data = read()
    this.#keys.pop()
    return data
  }

  #list(items: readonly Node[]): unknown[] {
    const list: unknown[] = []
    for (const [i, item] of items.entries()) {
      list.push(this.#within(`[${i}]`, () => this.read(item)))
      const position = this.#position(item)
      setPlace(list, i, { key: position, value: position, env: this.#used(item) })
    }
    return list
  }

  #scalar(node: Scalar): unknown {
    if (typeof node.value !== 'string' || !node.value.includes('${')) return node.value
    return substitute(node.value, this.#env, name => {
      const set = Object.keys(this.#env).filter(other => this.#env[other] !== undefined)
      const meant = slipOf(name, set)
      const remedy = meant === undefined ? `; write \${${name}:-default} to do without` : `, did you mean ${meant}?`
      const message = `the environment variable ${name} is not set${remedy}`
      this.#problem(node, message, this.#findings.missing)
    })
  }

  #used(node: Node | null): string[] | undefined {
    if (!isScalar(node) || typeof node.value !== 'string') return undefined
    const names = [...node.value.matchAll(VARIABLE)].map(match => match[1] as string)
    return names.length === 0 ? undefined : names
  }

  #position(node: Node): Position {
    return this.#at(((node as { range?: Range | null }).range ?? [0])[0])
  }

  #problem(node: unknown, message: string, list: Problem[] = this.#findings.problems): void {
    list.push({ ...this.#position(node as Node), key: this.#keys.join(''), message, severity: 'error' })
  }
}

const VARIABLE = /\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}/g

function substitute(text: string, env: Environment, missing: (name: string) => void): string {
  return text.replace(VARIABLE, (_, name: string, fallback: string | undefined) => {
    const value = env[name]
    if (value !== undefined && value !== '') return value
    if (fallback !== undefined) return fallback
    if (value === undefined) missing(name)
    return ''
  })
}

/** A merge key (`<<`): what is there already stays. */
function inherit(map: Record<string, unknown>, source: Record<string, unknown>): void {
  for (const key of Object.keys(source)) {
    if (Object.hasOwn(map, key)) continue
    map[key] = source[key]
    copyPlace(source, key, map, key)
  }
}

function isPlain(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
