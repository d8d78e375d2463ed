import { stringify } from 'yaml'
import { type Command, UsageError } from '../cli.ts'
import { isMapping } from '../config/aliases.ts'
import { placeOf } from '../config/located.ts'
import { masked } from '../config/mask.ts'
import { complete } from '../config/validate.ts'
import { loadConfiguration } from '../gateway.ts'
import { sourcesOf } from './quickstart.ts'

const config: Command = {
  summary: 'Shows the configuration in its canonical spelling, secrets masked',
  argument: '[show]',
  options: { origin: { type: 'boolean', description: 'Show every value, defaults included, and where it comes from' } },
  async run(invocation) {
    const [word = 'show'] = invocation.positionals
    if (word !== 'show')
      throw new UsageError(`"${word}" is not understood; if it is a configuration file, write -c ${word}`)
    const { snapshot, concerns } = await loadConfiguration(sourcesOf(invocation))
    const { schema } = concerns.dialect
    if (!invocation.values.origin) {
      const document = masked(schema, snapshot.document)
      process.stdout.write(
        invocation.json ? `${JSON.stringify(document)}\n` : stringify(document, { aliasDuplicateObjects: false })
      )
      return 0
    }
    const rows = originsOf(masked(schema, complete(schema, snapshot.document)), snapshot.document)
    if (invocation.json)
      process.stdout.write(`${JSON.stringify(rows.map(([key, value, origin]) => ({ key, value, origin })))}\n`)
    else
      for (const [key, value, origin] of rows) process.stdout.write(`${key} = ${JSON.stringify(value)}  (${origin})\n`)
    return 0
  }
}

/** Every value with the key that leads to it and where it was said. */
function originsOf(
  settled: unknown,
  document: unknown,
  path = '',
  inherited = 'default'
): [key: string, value: unknown, origin: string][] {
  if (typeof settled !== 'object' || settled === null || Object.keys(settled).length === 0)
    return path === '' ? [] : [[path, settled, inherited]]
  return Object.entries(settled).flatMap(([key, value]) => {
    const place = placeOf(document, key)
    const origin = place === undefined ? inherited : originOf(place)
    const inner =
      isMapping(document) || Array.isArray(document) ? (document as Record<string, unknown>)[key] : undefined
    const name = Array.isArray(settled) ? `${path}[${key}]` : path === '' ? key : `${path}.${key}`
    return originsOf(value, inner, name, inner === undefined ? 'default' : origin)
  })
}

function originOf({ value, env }: NonNullable<ReturnType<typeof placeOf>>): string {
  const where = value.line === 0 ? value.file : `${value.file}:${value.line}`
  return env === undefined ? where : `${where} from ${env.map(name => `$${name}`).join(', ')}`
}

export default config
