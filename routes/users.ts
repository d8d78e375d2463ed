import type { FastifyPluginAsync } from 'fastify'
import { showUser, USER } from '../src/identity/user-view.ts'
import { checkOwn, guardOwnEndpoints, userOf } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { operation } from './operation.ts'

/** Who is logged in, where seed 001 has it (IDN-06). */
const users: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })
  app.get(
    '/me',
    operation({
      summary: 'Get current user',
      description: 'Retrieves information about the currently authenticated user',
      tag: 'Users',
      access: 'newcomer',
      refuses: ['insufficient_permissions', 'not_found'],
      says: { 401: 'Not authenticated', 404: 'User not found' },
      answers: { 200: USER }
    }),
    async request => {
      checkOwn(request)
      return showUser(await userOf(request, runtime))
    }
  )
}

export default users
