import { NORMAL, type PriorityName, priorityOf, priorityOfCaller } from '../src/overload/priority.ts'
import { requestPriority } from '../src/overload/settings.ts'
import { definePolicy, isAnonymous } from '../src/policy.ts'

/** Sheds requests that are not important enough while there is too much to do, before anything is spent on them (TRC-01, TRC-02). */
export default definePolicy({
  name: 'request_priority',
  schema: requestPriority(
    'How important requests are: while there is too much to do, the least important are refused first. `normal` unless given.'
  ),
  defaultOptions: () => 'normal',
  compile(name, { route, snapshot, runtime }) {
    const priority = priorityOf(name as PriorityName)
    const { overload } = runtime
    const { overload: config } = snapshot
    if (config === undefined) {
      if (priority === NORMAL) return undefined
      return {
        onRequest({ exchange }, _reply, done) {
          exchange.priority = priority
          done()
        }
      }
    }
    const callers = isAnonymous(route) ? undefined : config.callers
    if (callers === undefined)
      return {
        onRequest({ exchange }, _reply, done) {
          exchange.priority = priority
          done(overload.admit(exchange))
        }
      }
    const best = Math.min(priority, callers.best)
    return {
      onRequest({ exchange }, _reply, done) {
        exchange.priority = priority
        done(overload.admitUnknown(exchange, best))
      }
    }
  }
})

/** Decides about those whose priority depends on who they are, as soon as that is known. */
export const callerPriority = definePolicy({
  name: 'caller_priority',
  schema: requestPriority('Internal: the priority of callers.'),
  defaultOptions: ({ overload }) => (overload?.callers === undefined ? undefined : 'normal'),
  compile(_options, { route, snapshot, runtime }) {
    const callers = snapshot.overload?.callers
    if (callers === undefined || isAnonymous(route) || route?.off.includes('request_priority')) return undefined
    const { overload } = runtime
    return {
      onRequest({ exchange }, _reply, done) {
        const { consumer } = exchange
        if (consumer !== undefined) exchange.priority = priorityOfCaller(consumer, callers) ?? exchange.priority
        done(overload.admit(exchange))
      }
    }
  }
})
