import Fastify, { type FastifyInstance } from 'fastify'
import type {} from 'fastify-metrics'
import { WORKER } from './cluster/siblings.ts'
import { overloadFamilies } from './overload/metrics.ts'
import type { Runtime } from './runtime/runtime.ts'
import type { Family } from './telemetry/metrics.ts'
import { breakerFamilies } from './upstream/breaker-metrics.ts'
import { upstreamFamilies } from './upstream/metrics.ts'

type Registry = FastifyInstance['metrics']['client']['register']

const registries = new WeakMap<Runtime, Promise<Registry>>()

/**
 * The process's Prometheus registry, with the process metrics of `fastify-metrics` and the gateway's own. Made when it is
 * first asked for (the library takes longer to load than the gateway to start), and kept: configurations come and go.
 * Everything has the label `region`, if there is one (CLU-06), and `worker`, in one of several.
 */
export async function prometheusRegistry(runtime: Runtime, region: string): Promise<Registry> {
  let registry = registries.get(runtime)
  if (registry === undefined) {
    registry = createRegistry(runtime)
    registries.set(runtime, registry)
  }
  const register = await registry
  const worker = process.env[WORKER]
  register.setDefaultLabels({ ...(region !== '' && { region }), ...(worker !== undefined && { worker }) })
  return register
}

async function createRegistry(runtime: Runtime): Promise<Registry> {
  const { default: metrics } = await import('fastify-metrics')
  const app = Fastify()
  await app.register(metrics.default, { endpoint: null, routeMetrics: { enabled: false }, clearRegisterOnInit: true })
  await app.ready()
  const { register } = app.metrics.client
  for (const family of familiesOf(runtime)) register.registerMetric(family as Family as never)
  return register
}

/** The gateway's own metrics, wherever they are counted. */
export function familiesOf(runtime: Runtime): Family[] {
  return [
    ...runtime.metrics.families(),
    ...overloadFamilies(runtime),
    ...upstreamFamilies(runtime),
    ...breakerFamilies(runtime),
    ...runtime.canaries.families()
  ]
}
