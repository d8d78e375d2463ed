/** What the database refuses, in words that do not depend on which one it is. */
export class DatabaseError extends Error {
  /**
   * `unreachable`: it cannot be asked now. `busy`: somebody else has the file. `unusable`: it will not work until somebody
   * mends the configuration. `duplicate`: there is such a row already. `reference`: what a row names is not there.
   * `query`: a mistake of ours.
   */
  readonly code: 'unreachable' | 'busy' | 'unusable' | 'duplicate' | 'reference' | 'query'

  constructor(code: DatabaseError['code'], message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** Whether a row that is to be unique is there already. */
export function isDuplicate(error: unknown): boolean {
  return error instanceof DatabaseError && error.code === 'duplicate'
}

/** Whether the database could not be asked. */
export function isUnreachable(error: unknown): boolean {
  return error instanceof DatabaseError && (error.code === 'unreachable' || error.code === 'busy')
}
