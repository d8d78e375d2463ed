import type { RouteConfig } from '../src/config/snapshot.ts'
import { refuse } from '../src/errors.ts'
import type { Consumer } from '../src/identity/consumer.ts'
import { isGranted } from '../src/identity/permissions.ts'
import { challenge } from '../src/identity/trouble.ts'
import { definePolicy, isAnonymous, OptionError, type RouteHooks } from '../src/policy.ts'
import { Type } from '../src/schema.ts'

const word = Type.String({ minLength: 1 })

/** Which permissions a caller needs (AZN-05). */
export const permissions = definePolicy({
  name: 'permissions',
  schema: Type.Union(
    [
      Type.Array(word),
      Type.Object({
        all: Type.Array(word, { description: 'Permissions of which the caller needs every one.', default: [] }),
        any: Type.Array(word, { description: 'Permissions of which the caller needs one.', default: [] })
      })
    ],
    {
      description: 'Permissions that the caller needs, all of them. `*` in what the caller holds stands for a segment.'
    }
  ),
  compile(options, { route }) {
    const { all, any } = Array.isArray(options) ? { all: options, any: [] } : options
    if (all.length === 0 && any.length === 0) return undefined
    checkReachable(route)
    const rule = [...all, ...(any.length === 0 ? [] : [`one of ${any.join(', ')}`])].join(', ')
    return guard({
      rule: `permissions ${rule}`,
      details: `This needs ${inWords(all, any)}.`,
      scope: [...all, ...any].filter(isScope).join(' '),
      allows: consumer =>
        all.every(wanted => isGranted(consumer.permissions, wanted)) &&
        (any.length === 0 || any.some(wanted => isGranted(consumer.permissions, wanted)))
    })
  }
})

function inWords(all: readonly string[], any: readonly string[]): string {
  if (any.length === 1) return inWords([...all, ...any], [])
  if (all.length === 0) return `one of the permissions ${any.join(', ')}`
  const each = `the ${all.length === 1 ? 'permission' : 'permissions'} ${all.join(', ')}`
  return any.length === 0 ? each : `${each} and one of ${any.join(', ')}`
}

/** Which roles a caller needs one of (AZN-01, AZN-03, AZN-07). */
export const requiredRoles = definePolicy({
  name: 'required_roles',
  schema: Type.Array(word, { description: 'Roles of which the caller needs one.' }),
  compile(roles, { route }) {
    if (roles.length === 0) return undefined
    checkReachable(route)
    return guard({
      rule: `required_roles ${roles.join(', ')}`,
      details: `This needs the role ${roles.join(' or ')}.`,
      scope: '',
      allows: consumer => roles.some(role => consumer.roles.includes(role))
    })
  }
})

/** @throws {OptionError} for a route whose callers nobody asks who they are */
function checkReachable(route: RouteConfig | undefined): void {
  if (isAnonymous(route))
    throw new OptionError('is asked of callers whom "authentication: none" leaves unknown; switch one of them off')
}

/** What a scope can be called in a challenge (RFC 6749 section 3.3). */
function isScope(permission: string): boolean {
  return /^[\x21\x23-\x5b\x5d-\x7e]+$/.test(permission)
}

interface Guard {
  /** For the log (AZN-12). */
  readonly rule: string
  /** For the caller. */
  readonly details: string
  /** For the caller's machine; '' for none. */
  readonly scope: string
  allows(consumer: Consumer): boolean
}

/** A hook that lets those pass whom `allows` lets pass; the answer is the same for each caller, so it is kept. */
function guard({ rule, details, scope, allows }: Guard): RouteHooks {
  const known = new WeakMap<Consumer, boolean>()
  const anonymous = refuse('authentication_required', { reason: rule, headers: challenge() })
  const denied = refuse('insufficient_permissions', {
    reason: rule,
    details,
    headers: challenge('insufficient_scope', details, scope)
  })
  return {
    onRequest(request, _reply, done) {
      const { consumer } = request
      if (consumer === undefined) return done(anonymous)
      let allowed = known.get(consumer)
      if (allowed === undefined) {
        allowed = allows(consumer)
        known.set(consumer, allowed)
      }
      done(allowed ? undefined : denied)
    }
  }
}
