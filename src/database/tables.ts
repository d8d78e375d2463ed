import type { ColumnType, Generated } from 'kysely'

/**
 * What the database holds. Both dialects give the same shapes: ids are UUIDs as text, times are milliseconds since 1970, flags
 * are written as booleans and read with `Boolean()`, JSON is written with `JSON.stringify` and read with `JSON.parse`.
 */
export interface Tables extends IdentityTables, RegistryTables, OAuthTables, TrafficTables {
  changes: ChangesTable
  nodes: NodesTable
  audit_log: AuditTable
  canaries: CanariesTable
}

/** A boolean that SQLite gives back as 0 or 1. */
export type Flag = ColumnType<boolean | 0 | 1, boolean, boolean>

/** A JSON document, as text on both sides. */
export type Json = string

interface IdentityTables {
  users: UsersTable
  roles: RolesTable
  user_roles: UserRolesTable
  sessions: SessionsTable
  api_keys: ApiKeysTable
  mfa: MfaTable
  mfa_recovery_codes: MfaRecoveryCodesTable
  mfa_challenges: MfaChallengesTable
}

/** IDN-08. */
export interface UsersTable {
  id: string
  /** As its owner writes it; compared in lower case. */
  username: string
  username_key: string
  email: string
  email_key: string
  /** PHC string; null for users who log in elsewhere. */
  password_hash: string | null
  first_name: string | null
  last_name: string | null
  tier: string | null
  active: Flag
  /** Goes up whenever tokens made before must no longer be good: it is the claim `ver` of access tokens. */
  token_version: ColumnType<number, number | undefined, number>
  /** When that was last; what is older than any access token lives is no longer remembered. */
  token_version_at: ColumnType<number, number | undefined, number>
  /** Whether the password has to be changed before anything else is allowed. */
  must_change_password: ColumnType<boolean | 0 | 1, boolean | undefined, boolean>
  last_login_at: ColumnType<number | null, number | undefined, number>
  created_at: number
  updated_at: number
}

/** AZN-02. */
export interface RolesTable {
  id: string
  name: string
  description: string | null
  permissions: Json
  created_at: number
  updated_at: number
}

export interface UserRolesTable {
  id: string
  user_id: string
  role_id: string
  created_at: number
}

/** One login, from the first token to the last refresh: the family of refresh tokens (RFC 9700 section 4.14). */
export interface SessionsTable {
  id: string
  user_id: string
  /** SHA-256 of the part that all refresh tokens of the session share, in hex; by it even the oldest of them is known. */
  family_hash: string
  /** SHA-256 of the refresh token that is good now: whoever shows another of the family has stolen it, or was robbed. */
  refresh_hash: string
  refreshed_at: number
  expires_at: number
  revoked_at: number | null
  /** `logout`, `reuse`, `password`, `administrator`. */
  revoked_for: string | null
  client_ip: string
  user_agent: string | null
  created_at: number
}

/** IDN-10: the second factor of a user. */
export interface MfaTable {
  user_id: string
  /** Encrypted; see `src/identity/second-factor.ts`. */
  secret: string
  /** Null until its owner has shown a first code. */
  enabled_at: number | null
  /** The time step of the last code that was taken: no older one is taken after it, and none twice. */
  last_step: number
  created_at: number
}

export interface MfaRecoveryCodesTable {
  /** SHA-256 of the user's id and the code, in hex. */
  hash: string
  user_id: string
}

/** A login whose password was good. */
export interface MfaChallengesTable {
  /** SHA-256 of the token, in hex. */
  hash: string
  user_id: string
  /** The user's when the password was looked at: a challenge ends with what its password was good for. */
  token_version: number
  attempts: number
  expires_at: number
}

/** IDN-25. */
export interface ApiKeysTable {
  id: string
  user_id: string
  name: string
  /** What the key begins with, for people. */
  prefix: string
  /** SHA-256 of the key, in hex. */
  hash: string
  /** SHA-256 of the key that it has replaced, and until when that one is still good. */
  previous_hash: string | null
  previous_until: number | null
  permissions: Json
  expires_at: number | null
  last_used_at: number | null
  created_at: number
  updated_at: number
}

/** How canaries stand: what began when, and what was decided on it. */
export interface CanariesTable {
  /** The route's id, and the service's name. */
  name: string
  /** A `CanaryRecord`. */
  record: string
}

interface RegistryTables {
  registry: RegistryTable
  services: ServicesTable
  endpoints: EndpointsTable
  instances: InstancesTable
  registrations: RegistrationsTable
}

/** One row: how often the list of services has changed. Who writes on the strength of what he has read makes sure that it has not. */
export interface RegistryTable {
  id: number
  version: number
}

/** REG-09, REG-10. */
export interface ServicesTable {
  id: string
  name: string
  version: string | null
  description: string | null
  /** The first of its addresses. */
  base_url: string
  active: Flag
  /** Who has registered it: the key of a consumer, `user:alice`. */
  owner: string
  tags: Json
  /** How it is reached and checked: the other blocks of its definition, as they were given. */
  settings: Json
  /** `registry.version` of its last change. */
  revision: number
  created_at: number
  updated_at: number
}

/** REG-09. */
export interface EndpointsTable {
  id: string
  service_id: string
  /** Its place in the service's list. */
  position: number
  path: string
  method: string
  name: string | null
  description: string | null
  public: Flag
  required_roles: Json
  deprecated: Flag
  version: string | null
  created_at: number
  updated_at: number
}

/** REG-11; how they are is each node's own knowledge. */
export interface InstancesTable {
  id: string
  service_id: string
  position: number
  url: string
  weight: number
}

/** REG-15: instances that have registered themselves; `beats` counts how often they have said that they are there. */
export interface RegistrationsTable {
  service: string
  id: string
  url: string
  weight: number
  zone: string | null
  ttl_ms: number
  owner: string
  beats: number
  created_at: number
  renewed_at: number
}

/** What has changed, in the order in which it did; every node follows it. */
export interface ChangesTable {
  seq: Generated<number>
  /** `user`, `session`, `api_key`, `role`, `registry`, … */
  kind: string
  /** Id of what has changed. */
  subject: string
  at: number
}

/** OBS-33: who did what to whom. Rows are only ever added. */
export interface AuditTable {
  seq: Generated<number>
  id: string
  at: number
  /** `user:<id>`, `key:<id>`, `command`, `gateway`; `anonymous` for those who failed to say. */
  actor: string
  /** `user.create`, `service.update`, `login`, … */
  action: string
  /** `user:<id>`, `service:<name>`, … */
  target: string
  /** `allowed`, `denied`, `changed`. */
  outcome: string
  before: Json | null
  after: Json | null
  details: string | null
  client_ip: string | null
  request_id: string | null
}

interface TrafficTables {
  traffic_minutes: TrafficMinutesTable
  traffic_hours: TrafficTable
  api_requests: ApiRequestsTable
  quotas: QuotasTable
}

/** What there was from `at` on, of one endpoint, caller and status; '' where there is no service, user or key. */
export interface TrafficTable {
  at: number
  service: string
  /** A route's path as the configuration has it, or a path of the gateway's own. */
  endpoint: string
  user_id: string
  api_key_id: string
  status: number
  requests: number
  bytes_in: number
  bytes_out: number
  /** All of them together. */
  duration_ms: number
  /** `{"37": 12}`: so many requests in so many buckets; see `src/traffic/latency.ts`. */
  latencies: Json
}

/** Each gateway writes rows of its own, over and over until the minute is over. */
export interface TrafficMinutesTable extends TrafficTable {
  node: string
}

/** OBS-21, with C-35. */
export interface ApiRequestsTable {
  id: string
  user_id: string | null
  api_key_id: string | null
  /** Id of the route. */
  endpoint_id: string | null
  client_ip: string
  method: string
  /** Without its query, which may hold secrets. */
  path: string
  status_code: number
  response_time_ms: number
  request_size_bytes: number
  response_size_bytes: number
  created_at: number
}

/** What has been used of a window that is a day or longer (RLM-08). */
export interface QuotasTable {
  subject: string
  counter: string
  limit: number
  window_ms: number
  used: number
  ends_at: number
}

interface OAuthTables {
  oauth_clients: OAuthClientsTable
  oauth_keys: OAuthKeysTable
  oauth_artifacts: OAuthArtifactsTable
  external_identities: ExternalIdentitiesTable
  revoked_tokens: RevokedTokensTable
}

export interface OAuthClientsTable {
  /** Its `client_id`. */
  id: string
  name: string
  /** SHA-256 of its secret, in hex; null for clients that have none. */
  secret_hash: string | null
  /** What else it is registered with. */
  metadata: Json
  created_at: number
  updated_at: number
}

/** What OAuth signs with: the same on all nodes. */
export interface OAuthKeysTable {
  /** Its `kid`. */
  id: string
  /** `signature` of tokens, or `cookie`. */
  purpose: 'signature' | 'cookie'
  /** The purpose, while this is the key that signs: there is one of each. */
  current: string | null
  /** A private JWK, or the secret itself. */
  material: string
  created_at: number
  retired_at: number | null
}

/** Codes, tokens, consents, logins under way: what one node begins and another may finish. */
export interface OAuthArtifactsTable {
  /** `AuthorizationCode`, `RefreshToken`, `Grant`, … */
  model: string
  /** SHA-256 of what its holder shows, in hex; for signed tokens their `jti`, which nobody gets anything for. */
  id: string
  client_id: string | null
  /** SHA-256 of the grant's id: what is taken back together. */
  grant_id: string | null
  /** By which a login of a browser is known besides its cookie. */
  uid: string | null
  payload: Json
  consumed_at: number | null
  expires_at: number
}

/** Who a user is at another identity provider. */
export interface ExternalIdentitiesTable {
  issuer: string
  subject: string
  user_id: string
  created_at: number
}

/** IDN-15: tokens that have been taken back, for as long as they would have lived. */
export interface RevokedTokensTable {
  /** The token's `jti`, or its SHA-256. */
  key: string
  expires_at: number
}

/** The gateways on this database (CLU-02). */
export interface NodesTable {
  /** Of the process. */
  id: string
  /** Where it listens, as its machine knows itself. */
  address: string
  region: string
  /** Of the configuration that it serves. */
  version: string
  /** Of the program. */
  software: string
  /** Why it has refused a newer configuration. */
  error: string | null
  started_at: number
  /** By the database's clock. */
  seen_at: number
}
