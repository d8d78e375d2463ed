import type { FastifyRequest } from 'fastify'
import { refuse } from '../src/errors.ts'

/** The entity tag of a state that has a number. */
export function etagOf(revision: number): string {
  return `"${revision}"`
}

/**
 * Holds `If-Match` against the present state, so that nobody overwrites what he has not seen (RFC 9110 section 13.1.1). To be
 * asked again where the state is written, or the state could be another one by then.
 * @param needed whether the field has to be there
 * @throws {GatewayError} 412, or 428 when it is needed and missing
 */
export function checkIfMatch({ headers }: Pick<FastifyRequest, 'headers'>, etag: string, needed: boolean): void {
  const wanted = headers['if-match']
  if (wanted === undefined) {
    if (!needed) return
    throw refuse('precondition_required', { details: 'Send the ETag of what you have read as If-Match.' })
  }
  const tags = wanted.split(',').map(tag => tag.trim())
  // A weak tag, W/"1", never matches here.
  if (!tags.includes('*') && !tags.includes(etag)) throw refuse('precondition_failed', { headers: ['etag', etag] })
}
