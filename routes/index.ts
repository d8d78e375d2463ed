import cors from '@fastify/cors'
import helmet from '@fastify/helmet'
import type {} from '@fastify/swagger'
import type { FastifyPluginAsync } from 'fastify'
import type { Control } from '../src/app.ts'
import type { Snapshot } from '../src/config/snapshot.ts'
import { collectRoutes } from '../src/openapi.ts'
import type { Runtime } from '../src/runtime/runtime.ts'
import admin from './admin.ts'
import adminRoles from './admin-roles.ts'
import adminUsers from './admin-users.ts'
import apiKeys from './api-keys.ts'
import audit from './audit.ts'
import auth from './auth.ts'
import batch from './batch.ts'
import canaries from './canaries.ts'
import circuitBreakers from './circuit-breakers.ts'
import docs from './docs.ts'
import external from './external.ts'
import gateway from './gateway.ts'
import gatewayServices from './gateway-services.ts'
import health from './health.ts'
import metrics from './metrics.ts'
import oauth from './oauth.ts'
import oauthClients from './oauth-clients.ts'
import { validatorCompiler } from './operation.ts'
import serviceInstances from './service-instances.ts'
import services from './services.ts'
import token from './token.ts'
import traffic from './traffic.ts'
import users from './users.ts'

export interface OwnRoutesOptions {
  readonly snapshot: Snapshot
  readonly runtime: Runtime
  readonly control: Control
}

/** The gateway's own endpoints, behind the ecosystem's own plugins: here a microsecond more or less is nobody's concern. */
const ownRoutes: FastifyPluginAsync<OwnRoutesOptions> = async (app, options) => {
  const { paths, defaults, storage, identity } = options.snapshot
  await app.register(helmet)
  const origins = (defaults.cors?.options as { origins: string[] } | undefined)?.origins ?? []
  if (origins.length > 0) await app.register(cors, { origin: origins.includes('*') ? '*' : origins })
  // What is not JSON is refused here, rather than left unread as it is on its way to a service.
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('application/json', { parseAs: 'string' }, app.getDefaultJsonParser('error', 'error'))
  app.setValidatorCompiler(validatorCompiler)
  // The schemas of answers are documentation: what is to be left out is left out by those who make them.
  app.setSerializerCompiler(() => answer => JSON.stringify(answer))

  const routes = collectRoutes(app)
  if (paths.health !== false) await app.register(health, { ...options, prefix: paths.health })
  await app.register(metrics, options)
  if (identity.local) {
    if (paths.auth !== false) await app.register(auth, { ...options, prefix: paths.auth })
    if (paths.auth !== false && identity.providers.length > 0)
      await app.register(external, { ...options, prefix: `${paths.auth}/external` })
    if (paths.users !== false) await app.register(users, { ...options, prefix: paths.users })
    if (paths.api_keys !== false) await app.register(apiKeys, { ...options, prefix: paths.api_keys })
    if (paths.token !== false) await app.register(token, { ...options, prefix: paths.token })
  }
  if (paths.services !== false && storage.database) {
    await app.register(services, { ...options, prefix: paths.services })
    await app.register(serviceInstances, { ...options, prefix: paths.services })
  }
  if (paths.gateway !== false) {
    await app.register(gateway, { ...options, prefix: paths.gateway })
    await app.register(gatewayServices, { ...options, prefix: paths.gateway })
    await app.register(circuitBreakers, { ...options, prefix: paths.gateway })
    await app.register(canaries, { ...options, prefix: paths.gateway })
  }
  if (paths.admin !== false) {
    await app.register(admin, { ...options, prefix: paths.admin })
    if (identity.local) {
      await app.register(adminUsers, { ...options, prefix: paths.admin })
      await app.register(adminRoles, { ...options, prefix: paths.admin })
    }
    if (storage.database) await app.register(audit, { ...options, prefix: paths.admin })
    if (identity.oauth !== undefined) await app.register(oauthClients, { ...options, prefix: `${paths.admin}/oauth` })
  }
  if (paths.oauth !== false && identity.oauth !== undefined)
    await app.register(oauth, { ...options, prefix: paths.oauth })
  if (storage.database) await app.register(traffic, options)
  if (paths.batch !== false) await app.register(batch, { ...options, prefix: paths.batch })
  if (paths.documentation !== false) await app.register(docs, { ...options, routes })
}

export default ownRoutes
