import { type Static, Type } from '../schema.ts'

const text = (description: string, options: object = {}) => Type.Optional(Type.String({ description, ...options }))

/** A name that can stand in a header field, a cookie and a log line as it is. */
export const NAME = '^[A-Za-z0-9][A-Za-z0-9_.-]*$'

/** Where a share of a route's requests goes. */
const variant = Type.Object({
  service: text('Name of the service.'),
  target: text('Instead of `service`: the address of a service that has no other use.', { pattern: '^https?://' }),
  weight: Type.Integer({
    description: 'Its share of the requests, against the others’; 0 for none.',
    default: 1,
    minimum: 0
  }),
  name: text('What it is called in logs; the service’s name if not given.', { pattern: NAME })
})

/** An A/B test (RTE-08). */
const experiment = Type.Object(
  {
    name: Type.String({
      description: 'What it is called: another name is another experiment, which mixes its callers anew.',
      pattern: NAME
    }),
    variants: Type.Array(variant, { description: 'As in `split`.', minItems: 1 }),
    header: text('Header field that tells callers apart who show no credential: a device’s id, say.', {
      pattern: "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
    }),
    cookie: Type.Boolean({
      description: 'Whether callers whom nothing else tells apart get a cookie that keeps them with their variant.',
      default: true
    })
  },
  { description: 'Instead of `service`: several, of which each caller gets the same one every time, by weight.' }
)

/** Keys of a route that say where each of its requests goes. */
export const releases = {
  split: Type.Optional(
    Type.Array(variant, {
      description: 'Instead of `service`: several, of which one is drawn for each request, by weight.',
      minItems: 1
    })
  ),
  experiment: Type.Optional(experiment)
}

export type VariantSettings = Static<typeof variant>

/** One of the services that share a route's requests. */
export interface Variant {
  /** In logs, and wherever else somebody is told which it was. */
  readonly name: string
  readonly service: string
  /** Its share, against the others'. */
  readonly weight: number
}

/** How it is decided where each request of a route goes. */
export type Release = Split | Experiment

/** One of several, drawn for each request. */
export interface Split {
  readonly kind: 'split'
  readonly variants: readonly Variant[]
}

/** One of several, the same for all requests of a caller. */
export interface Experiment {
  readonly kind: 'experiment'
  readonly name: string
  readonly variants: readonly Variant[]
  readonly header: string | undefined
  readonly cookie: boolean
}

/** The services that the requests of a route may go to, its own first. */
export function servicesOf({
  service,
  release
}: {
  service: string
  release?: Release | undefined
}): readonly string[] {
  return [...new Set([service, ...(release?.variants ?? []).map(variant => variant.service)])]
}

/** What is wrong with the names of an experiment's variants, which stand in header fields and cookies. */
export function troubleWithNames(variants: readonly Variant[]): ReturnType<typeof troubleWith> {
  const at = variants.findIndex(({ name }) => !new RegExp(NAME).test(name))
  return at === -1
    ? undefined
    : { at: [at], message: 'needs a "name" of letters, digits, dots, dashes and underscores' }
}

/** What is wrong with variants beyond what a schema can say: where, and what to do about it. */
export function troubleWith(
  variants: readonly Variant[]
): { at: readonly (string | number)[]; message: string } | undefined {
  if (variants.every(({ weight }) => weight === 0))
    return { at: [], message: 'has no weight above 0, so no request could go anywhere; give one of them a weight' }
  const twice = variants.findIndex(({ name }, i) => variants.findIndex(other => other.name === name) !== i)
  if (twice !== -1)
    return { at: [twice], message: `is called "${variants[twice]?.name}" like another; give it a "name" of its own` }
  return undefined
}

/** Where the requests of a route go, and how many of a hundred. */
export function oddsOf({ service, release }: { service: string; release?: Release | undefined }) {
  if (release === undefined) return [{ service, variant: null, percent: 100 }]
  const total = release.variants.reduce((sum, { weight }) => sum + weight, 0)
  return release.variants.map(({ name, service, weight }) => ({
    service,
    variant: name,
    percent: Math.round((weight / total) * 1000) / 10
  }))
}

/** `checkout (90 %) or checkout-next (10 %)` */
export function releaseInWords(release: Release): string {
  return oddsOf({ service: '', release })
    .map(({ variant, percent }) => `${variant} (${percent} %)`)
    .join(' or ')
}
