import type { FastifyPluginAsync } from 'fastify'
import { oneOf, type TSchema, Type } from '../src/schema.ts'
import type { OwnRoutesOptions } from './index.ts'
import { operation } from './operation.ts'
import { statusOf } from './service-health.ts'

/** How long a dependency may take to say that it is there, in milliseconds. */
const PATIENCE_MS = 1000

const OK = Type.Object({ status: Type.Literal('ok', { description: 'It does.' }) })
const READY_NOT = Type.Object(
  { status: Type.Literal('unavailable', { description: 'Not now.' }) },
  { description: 'It starts, or shuts down.' }
)
const DEPENDENCIES = Type.Object({
  status: oneOf(['ok', 'degraded'], { description: 'Whether all is well.' }),
  store: Type.String({ description: 'Where limits are counted: `memory` or `redis`.', examples: ['memory'] }),
  dependencies: Type.Record(
    Type.String(),
    Type.Object(
      {
        status: oneOf(['ok', 'down'], { description: 'Whether it answers.' }),
        latency_ms: Type.Optional(Type.Number({ description: 'How long it took to, in milliseconds.' })),
        error: Type.Optional(Type.String({ description: 'Code of what went wrong.' }))
      },
      { additionalProperties: true }
    ),
    {
      description: 'What it relies on, by name; some say more of themselves.',
      examples: [{ database: { status: 'ok', latency_ms: 0.4, kind: 'sqlite' } }]
    }
  ),
  configuration: Type.Object(
    {
      status: oneOf(['ok', 'refused'], { description: 'Whether the newest one is in use.' }),
      version: Type.String({ description: 'Of the one in use.', examples: ['3f1c9a5e'] }),
      applied_at: Type.String({ description: 'Since when.', format: 'date-time' }),
      error: Type.Union([Type.String(), Type.Null()], { description: 'Why a newer one was refused.', examples: [null] })
    },
    { description: 'The configuration in use.' }
  )
})
const SERVICES = Type.Object({
  services: Type.Array(
    Type.Object({
      name: Type.String({ description: 'Its name.', examples: ['orders'] }),
      status: oneOf(['healthy', 'degraded', 'unhealthy', 'unknown'], {
        description: 'All instances are well, some, none; or nobody knows.'
      }),
      instances: Type.Integer({ description: 'How many instances it has.', examples: [2] }),
      states: Type.Record(Type.String(), Type.Integer(), {
        description: 'How many of them are in which state.',
        examples: [{ healthy: 1, ejected: 1 }]
      })
    }),
    { description: 'All of them.' }
  )
})

/** Whether the gateway lives, may be sent requests, and has what it relies on (MON-01 to MON-06). Open to all (C-39). */
const health: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime, control }) => {
  app.get('/', { ...ask('Whether the gateway answers at all', OK) }, async () => ({ status: 'ok' }))
  app.get('/liveness', { ...ask('Whether the process runs', OK) }, async () => ({ status: 'ok' }))

  for (const path of ['/readiness', '/ready']) {
    app.get(path, { ...ask('Whether requests may be sent here', OK, READY_NOT) }, async (_request, reply) => {
      const ready = control.ready()
      return reply.code(ready ? 200 : 503).send({ status: ready ? 'ok' : 'unavailable' })
    })
  }

  app.get(
    '/dependencies',
    { ...ask('What the gateway relies on, and the configuration in use', DEPENDENCIES) },
    async () => {
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
    }
  )

  app.get('/services', { ...ask('The services behind the gateway', SERVICES) }, async () => ({
    services: [...snapshot.services.values()].map(({ name, instances }) => {
      const service = runtime.services.get(name)
      // It is not served yet.
      if (service === undefined) return { name, status: 'unknown', instances: instances.length, states: {} }
      return { name, status: statusOf(service), instances: service.instances.length, states: service.states() }
    })
  }))
}

function ask(summary: string, answer: TSchema, unready?: TSchema) {
  const answers = { 200: answer, ...(unready === undefined ? {} : { 503: unready }) }
  return operation({ summary, tag: 'Health', access: 'anyone', unguarded: true, answers })
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
