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

  app.post('/reload', { ...asks('Reads the configuration again', RELOADED, ['validation_error']) }, async () => {
    try {
      return await control.reload()
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
