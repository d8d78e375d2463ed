import type { FastifyPluginAsync } from 'fastify'
import { noteChange } from '../src/database/audit.ts'
import { refuse } from '../src/errors.ts'
import { oneOf, Type } from '../src/schema.ts'
import { BREAKER, breakerDetails } from './breaker-details.ts'
import { auditOf, guardOwnEndpoints } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { administrators } from './operation.ts'

const CHANGE = Type.Object({
  name: Type.String({ description: 'Name of the breaker.', examples: ['service:orders'] }),
  state: oneOf(['open', 'closed'], {
    description: '`open` keeps requests away until it is closed here; `closed` also forgets what it has counted.'
  })
})

/** Circuit breakers of this gateway, for those who administer it (RES-09, RES-19). */
const circuitBreakers: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })

  app.get(
    '/circuit-breakers',
    administrators('Circuit breakers and their states', {
      answers: { 200: Type.Object({ circuit_breakers: Type.Array(BREAKER, { description: 'By name.' }) }) }
    }),
    async () => ({ circuit_breakers: runtime.breakers.all().map(breaker => breakerDetails(breaker, runtime)) })
  )

  app.patch<{ Body: { name: string; state: 'open' | 'closed' } }>(
    '/circuit-breakers',
    administrators('Opens or closes a circuit breaker of this gateway', {
      body: CHANGE,
      answers: { 200: BREAKER },
      refuses: ['not_found']
    }),
    async request => {
      const { name, state } = request.body
      const found = runtime.breakers.all().filter(breaker => breaker.name === name)
      const [first] = found
      if (first === undefined) throw refuse('not_found', { details: `There is no circuit breaker "${name}".` })
      for (const { breaker } of found)
        if (state === 'open') breaker.force('opened by an administrator')
        else breaker.reset('closed by an administrator')
      await noteChange(runtime, {
        ...auditOf(request, runtime),
        action: `circuit_breaker.${state === 'open' ? 'open' : 'reset'}`,
        target: `circuit_breaker:${name}`
      })
      return breakerDetails(first, runtime)
    }
  )
}

export default circuitBreakers
