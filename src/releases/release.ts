import type { Exchange } from '../proxy/exchange.ts'
import { quote } from '../telemetry/access-log.ts'
import type { Target } from '../upstream/target.ts'
import type { Canary } from './canary.ts'
import { compileAssignment, cookieFor, VARIANT_FIELD } from './experiment.ts'
import type { CanaryRelease, Experiment, Release, Variant } from './settings.ts'
import { compileSplit } from './split.ts'

/**
 * The function that decides where each request of a route goes.
 * @param targetOf gets a service's name
 */
export function compileRelease(
  release: Release,
  targetOf: (service: string) => Target,
  { random, canaryOf }: { random: () => number; canaryOf: (release: CanaryRelease) => Canary }
): (exchange: Exchange) => Target {
  const targets = release.variants.map(variant => targetAs(variant, targetOf))
  switch (release.kind) {
    case 'split':
      return compileSplit(
        release.variants.map(({ weight }, i) => ({ value: targets[i] as Target, weight })),
        random
      )
    case 'experiment':
      return compileExperiment(release, targets, random)
    case 'canary': {
      const canary = canaryOf(release)
      const control = { ...(targets[0] as Target), arm: canary.control }
      const next = { ...(targets[1] as Target), arm: canary.canary }
      return () => (random() * 100 < canary.weight ? next : control)
    }
  }
}

/** A service as one of several, which the log tells apart. */
function targetAs({ name, service }: Variant, targetOf: (service: string) => Target): Target {
  const target = targetOf(service)
  return { ...target, logFields: `${target.logFields},"variant":${quote(name)}` }
}

/** Callers and services are told the variant; callers who could not be known again get a cookie. */
function compileExperiment(
  experiment: Experiment,
  targets: readonly Target[],
  random: () => number
): (exchange: Exchange) => Target {
  const values = experiment.variants.map(({ name }, i) => ({ name, target: targets[i] as Target }))
  const assign = compileAssignment(experiment, values, random)
  return exchange => {
    const { variant, by } = assign(exchange)
    exchange.fields.push(VARIANT_FIELD, variant.name)
    exchange.setUpstreamField(VARIANT_FIELD, variant.name)
    if (by === 'chance' && experiment.cookie)
      exchange.fields.push('set-cookie', cookieFor(experiment, variant.name, exchange.secure))
    return variant.target
  }
}
