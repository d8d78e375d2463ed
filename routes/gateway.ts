import type { FastifyPluginAsync } from 'fastify'
import { ConfigError } from '../src/config/problem.ts'
import { refuse } from '../src/errors.ts'
import { guardOwnEndpoints } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { administrators } from './operation.ts'

/** Operations on the gateway as a whole. For administrators. */
const gateway: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime, control }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })

  app.get('/status', { ...administrators('The configuration in use') }, async () => {
    const { version, appliedAt, error } = control.status()
    return {
      node: runtime.node,
      version,
      applied_at: new Date(appliedAt).toISOString(),
      started_at: new Date(runtime.startedAt).toISOString(),
      error: error ?? null
    }
  })

  app.post('/reload', { ...administrators('Reads the configuration again') }, async () => {
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
