import { definePolicy, listOf, OptionError, refuse, Type } from 'sallyport'

/** Lets only requests through that have a header field, with one of some values if any are given. */
export default definePolicy({
  name: 'header_guard',
  schema: Type.Object({
    header: Type.String({ description: 'Name of the header field.', minLength: 1 }),
    values: listOf(Type.String(), { description: 'Values of which it has to have one; any if empty.', default: [] })
  }),
  compile({ header, values }) {
    if (!/^[\w-]+$/.test(header)) throw new OptionError(`"${header}" is no name of a header field`)
    const name = header.toLowerCase()
    const wanted = new Set(values)
    const refusal = refuse('bad_request', { details: `The header field ${header} is needed.`, reason: 'header_guard' })
    return {
      onRequest(request, _reply, done) {
        const value = request.headers[name]
        const passes = typeof value === 'string' && (wanted.size === 0 || wanted.has(value))
        done(passes ? undefined : refusal)
      }
    }
  }
})
