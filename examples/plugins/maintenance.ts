import { definePolicy, duration, refuse, Type } from 'sallyport'

/** Answers 503 in place of a service that is being worked on. */
export default definePolicy({
  name: 'maintenance',
  schema: Type.Object({
    message: Type.String({ description: 'What callers are told.', default: 'Back soon.' }),
    retry_after: duration({ description: 'When callers may try again.', default: '60s' })
  }),
  compile({ message, retry_after: retryMs }) {
    const closed = refuse('service_unavailable', {
      details: message,
      reason: 'maintenance',
      headers: ['retry-after', String(Math.ceil(retryMs / 1000))]
    })
    return { onRequest: (_request, _reply, done) => done(closed) }
  }
})
