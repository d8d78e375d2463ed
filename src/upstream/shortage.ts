/** What this machine has run out of: descriptors, or memory for another connection. */
const SHORTAGES: ReadonlySet<unknown> = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM'])

/**
 * Whether a connection could not be made for want of something here, which says nothing about the instance it was to lead to:
 * whoever takes all descriptors would otherwise open breakers and have instances put out, for everybody and for longer (H-127).
 */
export function isShortage(error: Error & { code?: unknown }): boolean {
  return SHORTAGES.has(error.code)
}
