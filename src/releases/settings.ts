import { duration, type Static, Type } from '../schema.ts'

const text = (description: string, options: object = {}) => Type.Optional(Type.String({ description, ...options }))

/** A name that can stand in a header field, a cookie and a log line as it is. */
const NAME = '^[A-Za-z0-9][A-Za-z0-9_.-]*$'

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

/** When a canary is given up (RTE-09). */
const abort = Type.Object(
  {
    errors: Type.Number({
      description:
        'By how many percentage points more of its answers may be failures (5xx, or none) than of the control’s.',
      default: 5,
      minimum: 0,
      maximum: 100
    }),
    latency: Type.Number({
      description: 'How many times the control’s 95th percentile its own may be; below 10 ms it is never too slow.',
      default: 2,
      minimum: 1
    }),
    window: duration({ description: 'How far back is looked.', default: '1m', positive: true }),
    minimum: Type.Integer({
      description: 'Calls of each in that time without which nothing is decided.',
      default: 50,
      minimum: 1
    })
  },
  { default: {} }
)

/** A new version that gets more and more of the requests (RTE-09). */
const canary = Type.Object(
  {
    service: text('Name of the service that is to take over.'),
    target: text('Instead of `service`: its address.', { pattern: '^https?://' }),
    steps: Type.Array(
      Type.Object({
        weight: Type.Number({ description: 'Requests of a hundred that it gets.', minimum: 0, maximum: 100 }),
        for: duration({ description: 'How long.', positive: true })
      }),
      { description: 'Its way, one after the other; after the last it gets all of them.', minItems: 1 }
    ),
    abort: Type.Union([Type.Literal(false), abort], {
      description: 'What it may do worse than the service that it is to replace, before it gets no more requests.',
      default: {}
    })
  },
  { description: 'Beside `service`, which is its control: another one that gets more and more of the requests.' }
)

/** Copies of requests for another service. */
const mirror = Type.Object(
  {
    service: text('Name of the service that gets the copies.'),
    target: text('Instead of `service`: its address.', { pattern: '^https?://' }),
    percent: Type.Number({
      description: 'Requests of a hundred that are copied.',
      default: 100,
      exclusiveMinimum: 0,
      maximum: 100
    }),
    compare: Type.Boolean({
      description: 'Whether status and body of its answer are held against those that the client gets.',
      default: false
    })
  },
  { description: 'Another service that gets copies of requests; its answers are thrown away.' }
)

/** Keys of a route that say where each of its requests goes. */
export const releases = {
  split: Type.Optional(
    Type.Array(variant, {
      description: 'Instead of `service`: several, of which one is drawn for each request, by weight.',
      minItems: 1
    })
  ),
  experiment: Type.Optional(experiment),
  canary: Type.Optional(canary),
  mirror: Type.Optional(mirror)
}

export type CanarySettings = Static<typeof canary>
export type VariantSettings = Static<typeof variant>

/** One of the services that share a route's requests. */
export interface Variant {
  /** In logs, and wherever else somebody is told which it was. */
  readonly name: string
  readonly service: string
  /** Its share, against the others'. */
  readonly weight: number
}

/** Who gets copies of a route's requests, and how many of a hundred. */
export interface MirrorConfig {
  readonly service: string
  readonly percent: number
  readonly compare: boolean
}

/** How it is decided where each request of a route goes. */
export type Release = Split | Experiment | CanaryRelease

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

/** One more and more, and the other less and less. */
export interface CanaryRelease {
  readonly kind: 'canary'
  /** What its record is kept under: another service is another canary. */
  readonly id: string
  readonly route: string
  /** The names of the services. */
  readonly control: string
  readonly canary: string
  /** Both of them, as they share the requests at its first step. */
  readonly variants: readonly [control: Variant, canary: Variant]
  readonly steps: readonly { readonly weight: number; readonly forMs: number }[]
  /** Undefined if it never aborts by itself. */
  readonly abort: AbortLimits | undefined
}

/** What a canary may do worse than its control. */
export interface AbortLimits {
  /** Percentage points. */
  readonly errors: number
  /** Times the control's 95th percentile. */
  readonly latency: number
  readonly windowMs: number
  /** Calls of each, without which nothing is decided. */
  readonly minimum: number
}

/** @param control name of the route's own service, @param canary of the one that is to replace it */
export function canaryRelease(
  { steps, abort }: CanarySettings,
  { route, control, canary }: { route: string; control: string; canary: string }
): CanaryRelease {
  const first = steps[0]?.weight ?? 0
  return {
    kind: 'canary',
    id: `${route} ${canary}`,
    route,
    control,
    canary,
    variants: [
      { name: 'control', service: control, weight: 100 - first },
      { name: 'canary', service: canary, weight: first }
    ],
    steps: steps.map(({ weight, for: forMs }) => ({ weight, forMs })),
    abort: abort === false ? undefined : { ...abort, windowMs: abort.window }
  }
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
  if (release.kind === 'canary') return canaryInWords(release)
  return oddsOf({ service: '', release })
    .map(({ variant, percent }) => `${variant} (${percent} %)`)
    .join(' or ')
}

/** `orders, of which orders-next gets 5 % for 10m, 50 % for 1h, then all` */
function canaryInWords({ control, canary, steps }: CanaryRelease): string {
  const way = steps.map(({ weight, forMs }) => `${weight} % for ${inWords(forMs)}`)
  return `${control}, of which ${canary} gets ${way.join(', ')}, then all`
}

function inWords(ms: number): string {
  const [unit, size] = UNITS.find(([, size]) => ms % size === 0) ?? ['ms', 1]
  return `${ms / size}${unit}`
}

const UNITS: readonly (readonly [unit: string, ms: number])[] = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000]
]
