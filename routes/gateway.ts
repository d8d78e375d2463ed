import type { FastifyPluginAsync } from 'fastify'
import { ConfigError } from '../src/config/problem.ts'
import { type ErrorCode, refuse } from '../src/errors.ts'
import { type TSchema, Type } from '../src/schema.ts'
import { guardOwnEndpoints } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { administrators } from './operation.ts'

const VERSION = Type.String({ description: 'Of the configuration in use.', examples: ['3f1c9a5e'] })
const STATUS = Type.Object({
  node: Type.String({ description: 'This process, among all gateways.', examples: ['9d2f00c4'] }),
  version: VERSION,
  applied_at: Type.String({ description: 'Since when that is in use.', format: 'date-time' }),
  started_at: Type.String({ description: 'Since when the process runs.', format: 'date-time' }),
  error: Type.Union([Type.String(), Type.Null()], {
    description: 'Why a newer configuration was refused.',
    examples: [null]
  })
})
const RELOADED = Type.Object({
  version: VERSION,
  changed: Type.Boolean({ description: 'Whether it is another one than before.' })
})

const NODES = Type.Object({
  nodes: Type.Array(
    Type.Object({
      node: Type.String({ description: 'The process, among all gateways.', examples: ['9d2f00c4'] }),
      self: Type.Boolean({ description: 'Whether it is the one that answers.', examples: [true] }),
      address: Type.String({ description: 'Its machine’s name, and its port.', examples: ['gateway-1:8080'] }),
      region: Type.String({ description: '`gateway.region`.', examples: ['eu-central'] }),
      version: Type.String({ description: 'Of the configuration that it serves.', examples: ['3f1c9a5e'] }),
      software: Type.String({ description: 'Version of the gateway itself.', examples: ['0.1.0'] }),
      error: Type.Union([Type.String(), Type.Null()], {
        description: 'Why it has refused a newer configuration.',
        examples: [null]
      }),
      started_at: Type.String({ description: 'Since when it runs.', format: 'date-time' }),
      seen_at: Type.String({ description: 'When it was last heard of.', format: 'date-time' })
    }),
    { description: 'The oldest first.' }
  )
})

function asks(summary: string, answer: TSchema, refuses: readonly ErrorCode[] = []) {
  return administrators(summary, { tag: 'Gateway', answers: { 200: answer }, refuses })
}

/** Operations on the gateway as a whole. For administrators. */
const gateway: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime, control }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })

  app.get('/status', { ...asks('The configuration in use', STATUS) }, async () => {
    const { version, appliedAt, error } = control.status()
    return {
      node: runtime.node,
      version,
      applied_at: new Date(appliedAt).toISOString(),
      started_at: new Date(runtime.startedAt).toISOString(),
      error: error ?? null
    }
  })

  app.get('/nodes', { ...asks('The gateways on the same database', NODES) }, async () => {
    const nodes = await control.nodes()
    return {
      nodes: nodes.map(({ id, address, region, version, software, error, started_at, seen_at }) => ({
        node: id,
        self: id === runtime.node,
        address,
        region,
        version,
        software,
        error,
        started_at: new Date(Number(started_at)).toISOString(),
        seen_at: new Date(Number(seen_at)).toISOString()
      }))
    }
  })

  app.post('/reload', { ...asks('Reads the configuration again', RELOADED, ['validation_error']) }, async () => {
    try {
      const result = await control.reload()
      await control.siblings?.ask('reload')
      return result
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      const fields = error.problems.map(({ file, line, column, key, message }) => ({
        field: key,
        message,
        type: file === undefined ? 'configuration' : `${file}:${line}:${column}`
      }))
      throw refuse('validation_error', { details: error.message, fields })
    }
  })
}

export default gateway
