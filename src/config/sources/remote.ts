import { canonicalKeys, isMapping, outsideFiles } from '../aliases.ts'
import type { SourceDocument } from '../document.ts'
import { copyOf, copyPlace, type Position, placeOf, setPlaces } from '../located.ts'
import { ConfigError, inWords, type Problem } from '../problem.ts'

/** What may come from elsewhere: nobody there decides who gets in. */
const PARTS = ['services', 'routes']

/** Where problems of what has come from elsewhere are said to be. */
const PLACE: Position = outsideFiles('service_config_url')

/**
 * The document of the files with services and routes that somebody else knows beside theirs (REG-20), to be validated, compiled
 * and held against each other like all others. @throws {ConfigError} for what is none of these
 */
export function withRemote(source: SourceDocument, given: unknown): SourceDocument {
  if (!isMapping(given)) throw refused('', 'is no mapping of services and routes')
  const remote = canonicalKeys(structuredClone(given))
  setPlaces(remote, PLACE)
  const other = Object.keys(remote).find(key => !PARTS.includes(key))
  if (other !== undefined) throw refused(other, 'is not for a service configuration, which has "services" and "routes"')
  const { document } = source
  const problems: Problem[] = [...source.problems]
  const services = copyOf(document.services)
  for (const [name, service] of Object.entries(isMapping(remote.services) ? remote.services : {})) {
    const taken = placeOf(document.services, name)?.key
    if (Object.hasOwn(services, name))
      problems.push({
        ...PLACE,
        key: `services.${name}`,
        message: `is the name of another service${inWords(taken)}`,
        severity: 'error'
      })
    else {
      services[name] = service
      copyPlace(remote.services, name, services, name)
    }
  }
  const whole = copyOf(document)
  whole.services = services
  if (Array.isArray(remote.routes)) whole.routes = joined(document.routes, remote.routes)
  // What is looked at here is not to be taken for what the files' reading has looked at.
  return { ...source, document: whole, seen: new Map(source.seen), problems }
}

function joined(ours: unknown, theirs: readonly unknown[]): unknown[] {
  const routes: unknown[] = []
  for (const list of [Array.isArray(ours) ? ours : [], theirs]) {
    for (const [i, route] of list.entries()) {
      copyPlace(list, i, routes, routes.length)
      routes.push(route)
    }
  }
  return routes
}

function refused(key: string, message: string): ConfigError {
  return new ConfigError([{ ...PLACE, key, message, severity: 'error' }])
}
