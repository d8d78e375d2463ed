import { KeyError } from './keys.ts'

/** Thrown for an identity configuration that cannot be used; `path` leads to the key to blame. */
export class IdentityError extends Error {
  readonly path: readonly (string | number)[]

  constructor(path: readonly (string | number)[], message: string) {
    super(message)
    this.path = path
  }
}

/** What `make` returns; what it says against a key is said of the one at `path`. @throws {IdentityError} */
export function namely<T>(path: readonly (string | number)[], make: () => T): T {
  try {
    return make()
  } catch (error) {
    if (error instanceof KeyError) throw new IdentityError(path, error.message)
    throw error
  }
}
