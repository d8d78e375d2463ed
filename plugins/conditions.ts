import { condition } from '../src/config/schema.ts'
import { refuse } from '../src/errors.ts'
import { readClaim } from '../src/identity/claims.ts'
import type { Consumer } from '../src/identity/consumer.ts'
import { isGranted } from '../src/identity/permissions.ts'
import { challenge } from '../src/identity/trouble.ts'
import { definePolicy, isAnonymous, OptionError } from '../src/policy.ts'
import type { Exchange } from '../src/proxy/exchange.ts'
import { addressSet, rangeFault } from '../src/proxy/peer.ts'
import { type ConditionSettings, compileCondition, RegexError } from '../src/routing/conditions.ts'
import type { Condition } from '../src/routing/table.ts'
import type { Clock } from '../src/runtime/clock.ts'
import { compileHours, DAYS, type Day } from '../src/runtime/hours.ts'
import { listOf, type Static, Type } from '../src/schema.ts'

const words = (description: string) => Type.Optional(listOf(Type.String({ minLength: 1 }), { description }))
const matches = (description: string) => Type.Optional(Type.Record(Type.String(), condition, { description }))

const rule = Type.Object({
  ip: words('Addresses and CIDR ranges, or `loopback`, `private`, of which the caller has one.'),
  time: Type.Optional(
    Type.Object(
      {
        days: listOf(Type.String({ enum: [...DAYS] }), { description: 'Days; every day if not given.', default: [] }),
        from: Type.String({ description: 'When it begins.', default: '00:00', pattern: '^([01]\\d|2[0-3]):[0-5]\\d$' }),
        to: Type.String({
          description: 'When it is over. Before `from`, on the next day.',
          default: '24:00',
          pattern: '^(([01]\\d|2[0-3]):[0-5]\\d|24:00)$'
        }),
        zone: Type.String({ description: 'Time zone: `Europe/Berlin`.', default: 'UTC', minLength: 1 })
      },
      { description: 'When.' }
    )
  ),
  methods: words('Methods, of which the request has one.'),
  headers: matches('Conditions on header fields, all of them. Clients write there what they like.'),
  roles: words('Roles, of which the caller has one.'),
  permissions: words('Permissions that the caller has, all of them.'),
  tenants: words('Tenants, to one of which the caller belongs (`identity.claims.tenant`).'),
  claims: matches('Conditions on claims of the caller’s token, all of them; dots lead into objects.')
})
type Rule = Static<typeof rule>

/** What a request has to be like, besides whose it is (AZN-08): where from, when, how, for whom. */
export default definePolicy({
  name: 'conditions',
  schema: Type.Object(
    {
      allow: Type.Array(rule, {
        description: 'Rules of which a request has to meet one, as a whole; nothing is asked if there are none.',
        default: []
      }),
      deny: Type.Array(rule, {
        description: 'Rules of which a request may meet none, whatever `allow` says.',
        default: []
      })
    },
    { description: 'What a request has to be like: address, time, method, fields, tenant, claims.' }
  ),
  compile({ allow, deny }, { route, runtime }) {
    if (allow.length === 0 && deny.length === 0) return undefined
    const aboutCallers = [...allow, ...deny].some(isAboutCallers)
    if (aboutCallers && isAnonymous(route))
      throw new OptionError('asks about callers whom "authentication: none" leaves unknown; switch one of them off')
    const compiled = (rules: readonly Rule[], list: string) =>
      rules.map((rule, i) => compileRule(rule, `${list}[${i}]`, runtime.clock))
    const denying = compiled(deny, 'deny').map(({ holds, words }, i) => ({
      holds,
      refusal: denied(`deny[${i}]: ${words}`)
    }))
    const allowing = compiled(allow, 'allow').map(({ holds }) => holds)
    const uninvited = denied('allow: no rule is met')
    const anonymous = refuse('authentication_required', { reason: 'conditions allow', headers: challenge() })
    const mayBecomeKnown = allow.some(isAboutCallers)

    return {
      onRequest(request, _reply, done) {
        const { exchange } = request
        for (const { holds, refusal } of denying) if (holds(exchange)) return done(refusal)
        if (allowing.length === 0) return done()
        for (const holds of allowing) if (holds(exchange)) return done()
        done(mayBecomeKnown && exchange.consumer === undefined ? anonymous : uninvited)
      }
    }
  }
})

/** The caller is not told which rule it was: what it asks for may be what it protects. */
function denied(rule: string) {
  return refuse('insufficient_permissions', {
    reason: `conditions ${rule}`,
    details: 'The conditions under which this is allowed are not met.'
  })
}

function isAboutCallers({ roles, permissions, tenants, claims }: Rule): boolean {
  return [roles, permissions, tenants, claims].some(part => part !== undefined)
}

type Check = (exchange: Exchange) => boolean

/** A rule as one check, and in words for the log (AZN-12). @throws {OptionError} for one that says nothing, or nonsense */
function compileRule(rule: Rule, place: string, clock: Clock): { holds: Check; words: string } {
  const parts = Object.entries(rule).filter(([, part]) => part !== undefined)
  if (parts.length === 0) throw new OptionError(`${place} is empty, and would hold for every request`)
  for (const [name, part] of parts)
    if (Array.isArray(part) ? part.length === 0 : Object.keys(part).length === 0 && name !== 'time')
      throw new OptionError(`${place}.${name} is empty, and nobody could meet it`)
  const checks = checksOf(rule, clock, message => new OptionError(`${place}.${message}`))
  const words = parts.map(([name, part]) => `${name} ${Array.isArray(part) ? part.join(', ') : JSON.stringify(part)}`)
  return { holds: all(checks), words: words.join(', ') }
}

function checksOf(
  { ip, time, methods, headers, roles, permissions, tenants, claims }: Rule,
  clock: Clock,
  fault: (message: string) => OptionError
): Check[] {
  const checks: Check[] = []
  if (methods !== undefined) {
    const names = new Set(methods.map(method => method.toUpperCase()))
    checks.push(({ method }) => names.has(method))
  }
  if (ip !== undefined) {
    const [range] = ip.flatMap(entry => rangeFault(entry) ?? [])
    if (range !== undefined) throw fault(`ip: ${range}`)
    const addresses = addressSet(ip)
    checks.push(({ client }) => addresses.has(client))
  }
  if (time !== undefined) {
    if (time.from === time.to) throw fault(`time: "from" and "to" are the same, which leaves no time, or all of it`)
    const holds = attempt(
      () => compileHours({ ...time, days: time.days as Day[] }),
      () => fault(`time.zone: "${time.zone}" is no time zone; write Europe/Berlin, or UTC`)
    )
    checks.push(() => holds(clock.now()))
  }
  for (const condition of conditionsOf(headers, 'headers', fault)) {
    const name = condition.name.toLowerCase()
    checks.push(exchange => condition.test(exchange.header(name)))
  }
  if (roles !== undefined) checks.push(ofConsumer(caller => roles.some(role => caller?.roles.includes(role))))
  if (permissions !== undefined)
    checks.push(ofConsumer(caller => permissions.every(wanted => isGranted(caller?.permissions ?? [], wanted))))
  if (tenants !== undefined) checks.push(ofConsumer(caller => tenants.includes(caller?.tenant ?? '')))
  for (const condition of conditionsOf(claims, 'claims', fault))
    checks.push(ofConsumer(caller => testClaim(condition, caller)))
  return checks
}

function all(checks: readonly Check[]): Check {
  const [only] = checks
  if (checks.length === 1 && only !== undefined) return only
  return exchange => {
    for (const holds of checks) if (!holds(exchange)) return false
    return true
  }
}

/** What is known of a caller is the same for all its requests, so it is asked once. */
function ofConsumer(holds: (consumer: Consumer | undefined) => boolean): Check {
  const known = new WeakMap<Consumer, boolean>()
  const ofNobody = holds(undefined)
  return ({ consumer }) => {
    if (consumer === undefined) return ofNobody
    let answer = known.get(consumer)
    if (answer === undefined) {
      answer = holds(consumer)
      known.set(consumer, answer)
    }
    return answer
  }
}

/** Of a list, one entry has to meet the condition; nobody's claims are not there. */
function testClaim({ name, test }: Condition, consumer: Consumer | undefined): boolean {
  const value = consumer === undefined ? undefined : readClaim(consumer.claims, name)
  if (value === undefined) return test(undefined)
  return [value].flat().some(item => test(typeof item === 'object' ? JSON.stringify(item) : String(item)))
}

function conditionsOf(
  settings: Readonly<Record<string, ConditionSettings>> = {},
  part: string,
  fault: (message: string) => OptionError
): Condition[] {
  return Object.entries(settings).map(([name, wanted]) =>
    attempt(
      () => compileCondition(name, wanted),
      error => fault(`${part}.${name}: ${(error as RegexError).message}`)
    )
  )
}

function attempt<T>(act: () => T, fault: (error: unknown) => Error): T {
  try {
    return act()
  } catch (error) {
    if (error instanceof RangeError || error instanceof RegexError) throw fault(error)
    throw error
  }
}
