import type { User } from '../database/users.ts'
import { Type } from '../schema.ts'
import type { Tokens } from './sessions.ts'

/** What users may be called: no `@`, so that no name is another's address, and nothing that only looks like a letter. */
export const USERNAME = Type.String({
  description: 'Letters, digits, `.`, `_` and `-`.',
  pattern: '^[A-Za-z0-9][A-Za-z0-9._-]*$',
  maxLength: 64,
  examples: ['alice']
})
export const EMAIL = Type.String({
  description: 'E-mail address.',
  pattern: '^[^@\\s\\x00-\\x1f]+@[^@\\s\\x00-\\x1f]+$',
  maxLength: 254,
  examples: ['alice@example.com']
})
/** A password as it may be chosen. */
export const NEW_PASSWORD = Type.String({
  description: 'At least 8 characters.',
  examples: ['correct horse battery staple'],
  minLength: 8,
  maxLength: 1024,
  writeOnly: true
})
/** A password as it may be tried. */
export const PASSWORD = Type.String({
  description: 'The password.',
  minLength: 1,
  maxLength: 1024,
  writeOnly: true,
  examples: ['correct horse battery staple']
})
/** First, or last, name. */
export const HUMAN_NAME = Type.Union([Type.String({ maxLength: 100 }), Type.Null()], {
  description: 'A name, or null.'
})

const ID = Type.String({ description: 'Id of the user.', format: 'uuid' })
const TIME = Type.String({ description: 'RFC 3339 time.', format: 'date-time' })
const ROLES = Type.Array(Type.String(), { description: 'Names of its roles.' })

/** A user as it is shown (IDN-08); hashes are not. */
export const USER = Type.Object({
  id: ID,
  username: USERNAME,
  email: EMAIL,
  first_name: HUMAN_NAME,
  last_name: HUMAN_NAME,
  roles: ROLES,
  permissions: Type.Array(Type.String(), { description: 'What its roles permit.' }),
  tier: Type.Union([Type.String(), Type.Null()], { description: 'Tier whose limits it has.' }),
  active: Type.Boolean({ description: 'Whether it may log in.' }),
  must_change_password: Type.Boolean({ description: 'Whether it has to choose another password first.' }),
  created_at: TIME,
  updated_at: TIME
})

/** See {@link USER}. */
export function showUser(user: User) {
  return {
    id: user.id,
    username: user.username,
    email: user.email,
    first_name: user.firstName ?? null,
    last_name: user.lastName ?? null,
    roles: user.roles,
    permissions: user.permissions,
    tier: user.tier ?? null,
    active: user.active,
    must_change_password: user.mustChangePassword,
    created_at: new Date(user.createdAt).toISOString(),
    updated_at: new Date(user.updatedAt).toISOString()
  }
}

const TOKEN_FIELDS = {
  access_token: Type.String({ description: 'For `Authorization: Bearer`.' }),
  refresh_token: Type.String({ description: 'Good once, for the next tokens.' }),
  token_type: Type.Literal('bearer', { description: 'How to send it (RFC 6750).' }),
  expires_in: Type.Integer({ description: 'Life of the access token, in seconds.' })
}

/** What OAuth's token endpoint answers (RFC 6749 section 5.1). */
export const TOKENS = Type.Object(TOKEN_FIELDS)

/** What a login answers (IDN-01). */
export const LOGIN = Type.Object({
  ...TOKEN_FIELDS,
  user: Type.Object(
    {
      id: ID,
      username: USERNAME,
      first_name: HUMAN_NAME,
      last_name: HUMAN_NAME,
      roles: ROLES,
      must_change_password: Type.Optional(
        Type.Boolean({ description: 'There and true if the tokens are good for choosing another password only.' })
      )
    },
    { description: 'Who it is.' }
  )
})

/** What a login answers when the password is good and a second factor is asked for. */
export const MFA_REQUIRED = Type.Object({
  mfa_required: Type.Literal(true, { description: 'A code is needed, too.' }),
  mfa_token: Type.String({ description: 'For `POST /auth/mfa/verify`, once.' }),
  expires_in: Type.Integer({ description: 'How long it waits, in seconds.' })
})

/** See {@link TOKENS}. */
export function showTokens({ accessToken, refreshToken, expiresIn }: Tokens) {
  return {
    access_token: accessToken,
    refresh_token: refreshToken,
    token_type: 'bearer',
    expires_in: expiresIn
  }
}

/** See {@link LOGIN}. */
export function showLogin(tokens: Tokens) {
  const { id, username, firstName, lastName, roles, mustChangePassword } = tokens.user
  return {
    ...showTokens(tokens),
    user: {
      id,
      username,
      first_name: firstName ?? null,
      last_name: lastName ?? null,
      roles,
      ...(mustChangePassword && { must_change_password: true })
    }
  }
}
