import { globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'

/** One import of a source file. */
export interface Import {
  /** The file that imports, from the project's root. */
  readonly from: string
  /** A file from the project's root, or the name of a package with what stands behind it: `node:fs`, `@fastify/cors`. */
  readonly to: string
  /** Only types, so nothing is left of it at run time. */
  readonly typeOnly: boolean
  /** By `import()`, when it is needed. */
  readonly late: boolean
}

const NAMES = String.raw`(?:\*(?: as \w+)?|[\w$]+|(?:[\w$]+,\s*)?\{[^}]*\}|[\w$]+,\s*\* as \w+)`
const STATEMENT = new RegExp(String.raw`^(?:import|export)\s+(type\s+)?${NAMES}\s+from\s+'([^']+)'`, 'gm')
const SIDE_EFFECT = /^import\s+'([^']+)'/gm
const LATE = /(?<!\{@link )\b(typeof )?import\('([^']+)'\)/g

/** Reads the imports from a source file's text. (Sources are formatted alike, so their statements begin lines.) */
export function importsIn(from: string, text: string): Import[] {
  const entry = (to: string, typeOnly: boolean, late: boolean): Import => ({
    from,
    to: to.startsWith('.') ? normalize(join(dirname(from), to)) : to,
    typeOnly,
    late
  })
  return [
    ...[...text.matchAll(STATEMENT)].map(([, type, to = '']) => entry(to, type !== undefined, false)),
    ...[...text.matchAll(SIDE_EFFECT)].map(([, to = '']) => entry(to, false, false)),
    ...[...text.matchAll(LATE)].map(([, type, to = '']) => entry(to, type !== undefined, true))
  ]
}

/** All imports of the TypeScript files in `folders` of the project. */
export function readImports(root: string, folders: readonly string[]): Import[] {
  const files = globSync(
    folders.map(folder => `${folder}/**/*.ts`),
    { cwd: root, exclude: path => path.includes('node_modules') || path.includes('.tap') }
  )
  return files.flatMap(file => importsIn(file, readFileSync(join(root, file), 'utf8')))
}

/** A circle of imports, each file importing the next and the last one the first; undefined if there is none. */
export function cycleIn(imports: readonly Import[]): string[] | undefined {
  const targets = Map.groupBy(imports, ({ from }) => from)
  const done = new Set<string>()
  const visit = (file: string, path: readonly string[]): string[] | undefined => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file]
    if (done.has(file)) return undefined
    for (const { to } of targets.get(file) ?? []) {
      const cycle = visit(to, [...path, file])
      if (cycle !== undefined) return cycle
    }
    done.add(file)
    return undefined
  }
  for (const file of targets.keys()) {
    const cycle = visit(file, [])
    if (cycle !== undefined) return cycle
  }
  return undefined
}
