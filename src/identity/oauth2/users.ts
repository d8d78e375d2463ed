import type { Database } from '../../database/database.ts'
import type { Clock } from '../../runtime/clock.ts'

/** A user as OAuth sees it. */
export interface OAuthUser {
  readonly id: string
  readonly username: string
  readonly email: string
  readonly firstName: string | undefined
  readonly lastName: string | undefined
  readonly roles: readonly string[]
  readonly permissions: readonly string[]
  readonly tier: string | undefined
  readonly active: boolean
  /** The claim `ver` of its tokens. */
  readonly tokenVersion: number
}

/** How people prove who they are. */
export interface Logins {
  /** Whose password this is. @throws {GatewayError} as `POST /auth/login` refuses it */
  verifyPassword(username: string, password: string, from: Caller): Promise<Verdict>
  /** The second step, with what the first one has given. @throws {GatewayError} */
  verifySecondFactor(challenge: string, code: string, from: Caller): Promise<Verdict>
}

/** What OAuth asks of the accounts: the same sessions as those of `/auth/login`, so that whatever ends them ends its tokens, too. */
export interface OAuthUsers {
  /** A user of this id, active or not. */
  find(id: string): Promise<OAuthUser | undefined>
  /** Begins a session of this id, unless there has been one. */
  beginSession(session: { id: string; userId: string; expiresAt: number }, from: Caller): Promise<void>
  /** Whether a session has begun and not ended. */
  isSessionAlive(id: string): Promise<boolean>
  /** Ends a session with all its tokens. */
  endSession(id: string, from: Caller): Promise<void>
}

/** Who asks, and from where: for the throttle, the log and the audit. */
export interface Caller {
  readonly clientIp: string
  readonly requestId: string
  readonly userAgent?: string | undefined
}

export type Verdict =
  | { readonly kind: 'user'; readonly user: OAuthUser & { readonly mustChangePassword: boolean } }
  | { readonly kind: 'mfa_required'; readonly challenge: string }

/** The accounts, as OAuth asks for them. */
export function usersOf(_database: Database, _clock: Clock): OAuthUsers {
  return {
    find: async () => undefined,
    beginSession: async () => {},
    isSessionAlive: async () => false,
    endSession: async () => {}
  }
}
