import { type Static, size, Type } from '../schema.ts'

/** How much one batch may hold (`batch:`). */
export const batchSchema = Type.Object(
  {
    max_requests: Type.Integer({ description: 'Sub-requests in a batch.', default: 50, minimum: 1, maximum: 1000 }),
    max_parallel: Type.Integer({
      description: 'Sub-requests of a batch that are under way at the same time.',
      default: 8,
      minimum: 1
    }),
    max_body: size({
      description: 'Largest batch, with the bodies of its sub-requests.',
      default: '1mb',
      positive: true
    }),
    max_answer: size({
      description: 'Largest body of a single answer; a sub-request whose answer is larger is shown as a 502.',
      default: '1mb',
      positive: true
    })
  },
  { description: 'Limits of `POST /batch`, where `paths.batch` switches it on.', default: {} }
)

export type BatchSettings = Static<typeof batchSchema>
