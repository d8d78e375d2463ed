/** What a token says of the login that it comes from. */
export interface Grant {
  /** The claim `sid`: the session, if there is one that can be refreshed. */
  readonly sessionId: string | undefined
  /** The claim `ver`: the user's `token_version` when it was made. */
  readonly version: number | undefined
  /** The claim `iat`, in milliseconds since 1970; 0 if there is none. */
  readonly issuedAt: number
  /** It is good for choosing another password, and for nothing else. */
  readonly mustChangePassword: boolean
  /** Whether the user has logged in for somebody else: an application, which acts in its name and is not it (OAuth). */
  readonly delegated: boolean
}

/** Who calls, once known. Made once per credential and shared by all its requests, so it is frozen. */
export interface Consumer {
  /** What limits are counted under: `user:alice`, `key:ci-bot`. Two spellings of one credential have one key (H-84). */
  readonly key: string
  readonly kind: 'user' | 'api_key' | 'client'
  readonly id: string
  readonly name: string
  readonly roles: readonly string[]
  readonly permissions: readonly string[]
  readonly tier: string | undefined
  /** To whom the caller belongs, among several that share a service. */
  readonly tenant?: string | undefined
  /** The user of the database who it is, or for whom it acts; undefined for everybody else. */
  readonly userId?: string
  /** How we knew. */
  readonly credential: 'jwt' | 'api_key'
  /** The token's claims, or an empty object. */
  readonly claims: Readonly<Record<string, unknown>>
  /** The fields that introduce the caller to a service (IDN-18), flat. */
  readonly identityFields: readonly string[]
  /** When the credential ends, in milliseconds since 1970; Infinity for never. */
  readonly expiresAt: number
  /** What a token of such a user stands on: it is over when that is. */
  readonly grant?: Grant
  /** Under which it may be taken back while it is good; undefined for what cannot be. */
  readonly revocationKey?: string
}
