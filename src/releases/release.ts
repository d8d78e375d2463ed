import type { Exchange } from '../proxy/exchange.ts'
import { quote } from '../telemetry/access-log.ts'
import type { Target } from '../upstream/target.ts'
import type { Release, Variant } from './settings.ts'
import { compileSplit } from './split.ts'

/**
 * The function that decides where each request of a route goes.
 * @param targetOf gets a service's name
 */
export function compileRelease(
  { variants }: Release,
  targetOf: (service: string) => Target,
  random: () => number
): (exchange: Exchange) => Target {
  const choices = variants.map(variant => ({ value: targetAs(variant, targetOf), weight: variant.weight }))
  return compileSplit(choices, random)
}

/** A service as one of several, which the log tells apart. */
function targetAs({ name, service }: Variant, targetOf: (service: string) => Target): Target {
  const target = targetOf(service)
  return { ...target, logFields: `${target.logFields},"variant":${quote(name)}` }
}
