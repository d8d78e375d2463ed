import type { FastifyPluginAsync } from 'fastify'
import type { OwnRoutesOptions } from './index.ts'

/** How long a dependency may take to say that it is there, in milliseconds. */
const PATIENCE_MS = 1000

/** Whether the gateway lives, may be sent requests, and has what it relies on (MON-01 to MON-06). Open to all (C-39). */
const health: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime, control }) => {
  app.get('/', { schema: schema('Whether the gateway answers at all') }, async () => ({ status: 'ok' }))
  app.get('/liveness', { schema: schema('Whether the process runs') }, async () => ({ status: 'ok' }))

  for (const path of ['/readiness', '/ready']) {
    app.get(path, { schema: schema('Whether requests may be sent here') }, async (_request, reply) => {
      const ready = control.ready()
      return reply.code(ready ? 200 : 503).send({ status: ready ? 'ok' : 'unavailable' })
    })
  }

  app.get('/dependencies', { schema: schema('What the gateway relies on, and the configuration in use') }, async () => {
    const entries = await Promise.all(
      [...runtime.dependencies].map(async ({ name, check }): Promise<[string, Record<string, unknown>]> => {
        const since = runtime.clock.monotonic()
        try {
          const more = await withPatience(check())
          return [
            name,
            { status: 'ok', latency_ms: Math.round((runtime.clock.monotonic() - since) * 10) / 10, ...more }
          ]
        } catch (error) {
          return [name, { status: 'down', error: codeOf(error) }]
        }
      })
    )
    const { version, appliedAt, error } = control.status()
    const healthy = error === undefined && entries.every(([, { status }]) => status === 'ok')
    return {
      status: healthy ? 'ok' : 'degraded',
      store: runtime.store.kind,
      dependencies: Object.fromEntries(entries),
      configuration: {
        status: error === undefined ? 'ok' : 'refused',
        version,
        applied_at: new Date(appliedAt).toISOString(),
        error: error ?? null
      }
    }
  })

  app.get('/services', { schema: schema('The services behind the gateway') }, async () => ({
    services: [...snapshot.services.values()].map(({ name, instances }) => ({ name, instances: instances.length }))
  }))
}

function schema(summary: string): { summary: string; tags: string[] } {
  return { summary, tags: ['Health'] }
}

function withPatience<T>(promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(Object.assign(new Error('timeout'), { code: 'ETIMEDOUT' })), PATIENCE_MS)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/** An error's code: its message may hold an address, and anybody may read this. */
function codeOf(error: unknown): string {
  return (error as { code?: string }).code ?? 'unreachable'
}

export default health
