import { statfs } from 'node:fs/promises'
import os from 'node:os'
import type { FastifyPluginAsync, FastifyRequest } from 'fastify'
import { addSummaries, mergeExpositions, mergeMetrics, type Summary } from '../src/cluster/exposition.ts'
import { refuse } from '../src/errors.ts'
import { challenge } from '../src/identity/trouble.ts'
import { prometheusRegistry } from '../src/metrics-registry.ts'
import { addressSet } from '../src/proxy/peer.ts'
import { type TSchema, Type } from '../src/schema.ts'
import { guardOwnEndpoints } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { operation } from './operation.ts'

const number = (description: string) => Type.Number({ description })
const TEXT = Type.String({ description: 'Prometheus’ text format.', examples: ['http_request_count{method="GET"} 42'] })
const ALL = Type.Array(Type.Unknown({ description: 'One metric, with its values.' }), {
  description: 'All metrics.',
  examples: [[{ name: 'http_request_count', help: 'Requests.', type: 'counter', values: [{ value: 42, labels: {} }] }]]
})
const REQUESTS = Type.Object({
  count: number('Requests that have been answered.'),
  duration_seconds: number('How long they took together.'),
  active: number('Requests under way.'),
  status_codes: Type.Record(Type.String(), number('How many.'), {
    description: 'Requests by status.',
    examples: [{ 200: 41, 404: 1 }]
  })
})
const SYSTEM = Type.Object({
  cpu: Type.Object(
    {
      cores: number('Processors to be had.'),
      load_average: Type.Array(Type.Number(), {
        description: 'Over one, five and fifteen minutes.',
        examples: [[0.4, 0.3, 0.2]]
      }),
      process_seconds: number('What this process has used.')
    },
    { description: 'Processor.' }
  ),
  memory: Type.Object(
    {
      total_bytes: number('All there is.'),
      free_bytes: number('Not in use.'),
      process_rss_bytes: number('In use by this process.')
    },
    { description: 'Memory.' }
  ),
  disk: Type.Object(
    { total_bytes: number('All there is.'), free_bytes: number('Not in use.') },
    { description: 'Where `storage.data_dir` is.' }
  ),
  uptime_seconds: number('How long the process has run.')
})

/** What Prometheus scrapes, and the same as JSON (MON-07 to MON-11). For administrators, and for addresses that may (C-39). */
const metrics: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime, control }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })
  const { paths } = snapshot
  const allowed = addressSet(snapshot.metrics.allow)
  const mayRead = ({ exchange }: FastifyRequest): void => {
    if (allowed.has(exchange.client) || exchange.consumer?.roles.includes('admin')) return
    throw exchange.consumer === undefined
      ? refuse('authentication_required', { headers: challenge() })
      : refuse('insufficient_permissions')
  }
  const asks = (summary: string, answer: TSchema, produces = 'application/json') =>
    operation({
      summary,
      tag: 'Metrics',
      access: 'optional',
      administrative: true,
      description: 'For administrators, and for the addresses in `metrics.allow`.',
      answers: { 200: answer },
      produces,
      refuses: ['insufficient_permissions']
    })

  /** Whoever is asked answers for all workers. */
  const ofOthers = async <T>(what: string): Promise<T[]> =>
    ((await control.siblings?.ask(what)) ?? []).filter((answer): answer is T => answer !== null)

  const prometheus = async (request: FastifyRequest): Promise<{ text: string; type: string }> => {
    mayRead(request)
    const registry = await prometheusRegistry(runtime, snapshot.gateway.region)
    const text = await registry.metrics()
    const others = await ofOthers<string>('metrics')
    return { text: others.length === 0 ? text : mergeExpositions([text, ...others]), type: registry.contentType }
  }
  for (const path of [paths.metrics, paths.api_metrics]) {
    if (path === false) continue
    app.get(path, asks('Prometheus metrics', TEXT, 'text/plain'), async (request, reply) => {
      const { text, type } = await prometheus(request)
      return reply.type(type).send(text)
    })
  }
  if (paths.api_metrics === false) return

  app.get(`${paths.api_metrics}/json`, asks('All metrics as JSON', ALL), async request => {
    mayRead(request)
    const own = await (await prometheusRegistry(runtime, snapshot.gateway.region)).getMetricsAsJSON()
    return mergeMetrics([own, ...(await ofOthers<typeof own>('metrics as json'))])
  })
  app.get(`${paths.api_metrics}/requests`, asks('Requests, durations and status codes', REQUESTS), async request => {
    mayRead(request)
    return (await ofOthers<Summary>('summary')).reduce(addSummaries, runtime.metrics.summary())
  })
  app.get(`${paths.api_metrics}/system`, asks('Processor, memory and disk', SYSTEM), async request => {
    mayRead(request)
    return systemMetrics(snapshot.storage.data_dir)
  })
}

async function systemMetrics(folder: string): Promise<Record<string, unknown>> {
  const { user, system } = process.cpuUsage()
  const disk = await statfs(folder).catch(() => statfs('.'))
  return {
    cpu: { cores: os.availableParallelism(), load_average: os.loadavg(), process_seconds: (user + system) / 1e6 },
    memory: { total_bytes: os.totalmem(), free_bytes: os.freemem(), process_rss_bytes: process.memoryUsage.rss() },
    disk: { total_bytes: disk.blocks * disk.bsize, free_bytes: disk.bavail * disk.bsize },
    uptime_seconds: process.uptime()
  }
}

export default metrics
