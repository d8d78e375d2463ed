import { statfs } from 'node:fs/promises'
import os from 'node:os'
import type { FastifyPluginAsync, FastifyRequest } from 'fastify'
import { refuse } from '../src/errors.ts'
import { challenge } from '../src/identity/trouble.ts'
import { prometheusRegistry } from '../src/metrics-registry.ts'
import { addressSet } from '../src/proxy/peer.ts'
import { guardOwnEndpoints } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'

/** What Prometheus scrapes, and the same as JSON (MON-07 to MON-11). For administrators, and for addresses that may (C-39). */
const metrics: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })
  const { paths } = snapshot
  const allowed = addressSet(snapshot.metrics.allow)
  const mayRead = ({ exchange }: FastifyRequest): void => {
    if (allowed.has(exchange.client) || exchange.consumer?.roles.includes('admin')) return
    throw exchange.consumer === undefined
      ? refuse('authentication_required', { headers: challenge() })
      : refuse('insufficient_permissions')
  }
  const options = (summary: string) => ({
    schema: { summary, tags: ['Metrics'] },
    config: { administrative: true, policies: { authentication: { options: 'optional', scope: 'own' } } }
  })

  const prometheus = async (request: FastifyRequest): Promise<{ text: string; type: string }> => {
    mayRead(request)
    const registry = await prometheusRegistry(runtime)
    return { text: await registry.metrics(), type: registry.contentType }
  }
  for (const path of [paths.metrics, paths.api_metrics]) {
    if (path === false) continue
    app.get(path, options('Prometheus metrics'), async (request, reply) => {
      const { text, type } = await prometheus(request)
      return reply.type(type).send(text)
    })
  }
  if (paths.api_metrics === false) return

  app.get(`${paths.api_metrics}/json`, options('All metrics as JSON'), async request => {
    mayRead(request)
    return (await prometheusRegistry(runtime)).getMetricsAsJSON()
  })
  app.get(`${paths.api_metrics}/requests`, options('Requests, durations and status codes'), async request => {
    mayRead(request)
    return runtime.metrics.summary()
  })
  app.get(`${paths.api_metrics}/system`, options('Processor, memory and disk'), async request => {
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
