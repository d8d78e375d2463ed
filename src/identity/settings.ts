import { count, duration, flag, listOf, oneOf, type Static, secret, Type, text, word } from '../schema.ts'

const ALGORITHMS = [
  'HS256',
  'HS384',
  'HS512',
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA'
] as const

const issuerKeys = {
  algorithms: listOf(Type.String({ enum: [...ALGORITHMS] }), {
    description:
      'Algorithms to accept; those that fit the key if not given. The algorithm belongs to the key, never to the token.',
    default: []
  }),
  audience: listOf(word, {
    description: 'Audiences of which a token has to name one, exactly. Empty for any.',
    default: []
  }),
  clock_skew: duration({ description: 'How far the clocks of issuer and gateway may be apart.', default: '0s' })
}

const GRANT_TYPES = ['authorization_code', 'refresh_token', 'client_credentials', 'implicit', 'password'] as const

/** What a client of OAuth is registered with, in the configuration and by the API. */
export const oauthClient = {
  name: Type.String({ description: 'What users are told asks for access.', minLength: 1, maxLength: 100 }),
  token_endpoint_auth_method: oneOf(['client_secret_basic', 'private_key_jwt', 'none'], {
    description:
      'How it says who it is: by a secret, by a token that it signs with a key of `jwks`, or not at all, as apps and pages have to.',
    default: 'client_secret_basic'
  }),
  jwks: Type.Optional(Type.Unknown({ description: 'Its public keys, as a JWK set: `{keys: […]}`.' })),
  grant_types: Type.Array(Type.String({ enum: [...GRANT_TYPES] }), {
    description:
      'How it may get tokens. `implicit` (`id_token token`) and `password` are for those who cannot do better.',
    default: ['authorization_code', 'refresh_token']
  }),
  redirect_uris: Type.Array(Type.String({ pattern: '^https?://[^#]+$' }), {
    description: 'Where users may be sent back to, exactly.',
    default: []
  }),
  post_logout_redirect_uris: Type.Array(Type.String({ pattern: '^https?://[^#]+$' }), {
    description: 'Where users may be sent to when they have logged out, exactly.',
    default: []
  }),
  scopes: Type.Array(Type.String({ pattern: '^[\\x21\\x23-\\x5b\\x5d-\\x7e]+$' }), {
    description:
      'What it may ask for at most: `openid`, `profile`, `email`, `offline_access`, `roles` (all roles of the user), and permissions.',
    default: ['openid']
  })
}

const oauth = Type.Object(
  {
    issuer: Type.String({
      description:
        'Where the gateway is seen from outside, with the path of `paths.oauth`: `https://gateway.example.com/oauth`.',
      pattern: '^https?://[^?#]+[^?#/]$'
    }),
    key_age: duration({ description: 'After this the key that signs is replaced by a new one.', default: '90d' }),
    clients: Type.Array(
      Type.Object({
        id: Type.String({ description: 'Its `client_id`.', pattern: '^[A-Za-z0-9._~-]+$' }),
        secret: secret('Its secret, from the environment.'),
        ...oauthClient
      }),
      { description: 'Clients that are written down here rather than made by the API.', default: [] }
    )
  },
  { description: 'Give out tokens by OAuth 2.0 and OpenID Connect.' }
)

/** The settings under `identity`. */
export const identity = Type.Object(
  {
    local: flag(
      'Keep accounts of its own in the database: logins, sessions, users. Off without a database, and where there is no key to sign tokens with.',
      true
    ),
    admin_password: Type.Optional(
      Type.String({
        description:
          'Password of the first administrator, `admin`, whom the first start makes; a one-time password is printed if not given.',
        writeOnly: true,
        minLength: 8
      })
    ),
    password: Type.Object(
      {
        memory_kib: Type.Integer({
          description: 'Memory that hashing a password takes (argon2id), in KiB.',
          default: 19456,
          minimum: 8,
          maximum: 4_194_304
        }),
        passes: Type.Integer({
          description: 'How many times it goes over that memory.',
          default: 2,
          minimum: 1,
          maximum: 100
        })
      },
      { description: 'What a password costs whoever guesses it, and the gateway at each login.', default: {} }
    ),
    oauth: Type.Optional(oauth),
    jwt: Type.Object(
      {
        algorithm: oneOf(ALGORITHMS, { description: 'Algorithm of the gateway’s own tokens.', default: 'HS256' }),
        secret: secret(
          'Shared secret for HS*, at least 32 bytes; or the private key for the others, PEM. Made at random and kept in `data_dir` if not given.'
        ),
        public_key: text('Public key for RS*, PS*, ES*, EdDSA: PEM, or the name of a file with it.'),
        issuer: text('`iss` of the gateway’s own tokens; any if not given.'),
        audience: issuerKeys.audience,
        clock_skew: issuerKeys.clock_skew,
        access_minutes: Type.Number({
          description: 'Life of an access token, in minutes; a week at most.',
          default: 60,
          exclusiveMinimum: 0,
          maximum: 10080
        }),
        refresh_days: Type.Number({
          description: 'Life of a refresh token, in days.',
          default: 30,
          exclusiveMinimum: 0
        })
      },
      { description: 'Tokens of the gateway itself, or of whoever shares its secret.', default: {} }
    ),
    issuers: Type.Array(
      Type.Object({
        issuer: text('`iss` of the tokens, exactly; any that is nobody else’s if not given.', { minLength: 1 }),
        secret: secret('Shared secret for HS*, at least 32 bytes.'),
        public_key: text('Public key: PEM, or the name of a file with it.'),
        jwks_url: text('Where the issuer publishes its keys.', { pattern: '^https?://' }),
        jwks_interval: duration({
          description: 'Shortest time between two fetches of the keys, whatever tokens ask for.',
          default: '10s'
        }),
        jwks_max_age: duration({
          description: 'How long fetched keys are used before they are fetched again.',
          default: '10m'
        }),
        introspection_url: text(
          'Where the issuer is asked about tokens that are not signed, or all of them if it has no keys (RFC 7662).',
          { pattern: '^https?://' }
        ),
        userinfo_url: text(
          'Where it says who such a token speaks of (OpenID Connect); alone, also whether the token is good.',
          { pattern: '^https?://' }
        ),
        client_id: text('As whom the gateway asks.'),
        client_secret: secret('With which secret the gateway asks.'),
        introspection_max_age: duration({
          description: 'How long such an answer is believed, at most; `exp` may end it before.',
          default: '1m'
        }),
        timeout: duration({ description: 'How long the issuer is waited for.', default: '5s', positive: true }),
        ...issuerKeys
      }),
      { description: 'Others whose tokens are accepted.', default: [] }
    ),
    providers: Type.Array(
      Type.Object({
        name: Type.String({ description: 'Its name in `/auth/external/{name}`.', pattern: '^[a-z0-9-]{1,50}$' }),
        issuer: Type.String({
          description: 'Its address, below which `/.well-known/openid-configuration` is.',
          pattern: '^(https://|http://(localhost|127\\.0\\.0\\.1|\\[::1\\])[:/])'
        }),
        client_id: Type.String({ description: 'As whom the gateway is registered there.', minLength: 1 }),
        client_secret: secret('With which secret; none for a public client.'),
        redirect_uri: Type.String({
          description:
            'Where it sends browsers back to, as registered there: `https://gateway.example.com/auth/external/{name}/callback`.',
          pattern: '^https?://'
        }),
        scopes: Type.Array(word, { description: 'What is asked for.', default: ['openid', 'profile', 'email'] }),
        roles_claim: Type.String({
          description: 'Claim that says to which groups somebody belongs.',
          default: 'groups'
        }),
        roles: Type.Record(
          Type.String(),
          listOf(word, { description: 'Roles of those who belong to this group.', default: [] }),
          {
            description:
              'Roles by group. They are set at each login; without any, administrators give roles to those who have come.',
            default: {}
          }
        )
      }),
      { description: 'OpenID providers at which users may log in.', default: [] }
    ),
    api_keys: Type.Array(
      Type.Object({
        id: Type.String({ description: 'Name of the key in logs, limits and metrics.', minLength: 1 }),
        key: secret('The key itself, from the environment. Only its hash is kept in memory.'),
        hash: Type.Optional(
          Type.String({
            description: 'SHA-256 of the key in hex, as `sallyport token --api-key` prints it.',
            pattern: '^[0-9a-f]{64}$'
          })
        ),
        name: text('Shown to services as the caller’s name.'),
        roles: listOf(word, { description: 'Roles of the key.', default: [] }),
        permissions: listOf(word, { description: 'Permissions of the key.', default: [] }),
        tier: text('Tier whose limits the key has.'),
        expires_at: text('RFC 3339 time after which the key is refused.')
      }),
      { description: 'Keys that are written down here rather than made by the API.', default: [] }
    ),
    claims: Type.Object(
      {
        roles: listOf(word, {
          description: 'Claims that hold roles; dots lead into objects.',
          default: ['roles', 'role']
        }),
        permissions: listOf(word, { description: 'Claims that hold permissions.', default: ['permissions', 'scope'] }),
        name: listOf(word, {
          description: 'Claims that hold the caller’s name.',
          default: ['name', 'preferred_username']
        }),
        tier: listOf(word, { description: 'Claims that hold the caller’s tier.', default: ['tier'] }),
        tenant: listOf(word, {
          description: 'Claims that hold the tenant to which the caller belongs.',
          default: ['tenant', 'tenant_id']
        })
      },
      { description: 'Where tokens say what.', default: {} }
    ),
    token_cache: count('Most verified tokens kept in memory.', 10000)
  },
  { description: 'Who may be who.', default: {} }
)

export type IdentitySettings = Static<typeof identity>
export type OAuthSettings = Static<typeof oauth>
export type OAuthClientSettings = OAuthSettings['clients'][number]
