import { hash } from 'node:crypto'
import { type Adapter, type AdapterPayload, errors, Provider } from 'oidc-provider'
import type { Database } from '../../database/database.ts'
import { isUnreachable } from '../../database/database-error.ts'
import {
  consumeArtifact,
  findArtifact,
  holdGrant,
  insertArtifact,
  SIGNED_MODELS,
  saveArtifact
} from '../../database/oauth.ts'
import type { OAuthArtifactsTable } from '../../database/tables.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { Revocations } from '../revocation.ts'

/** Where oidc-provider's things are kept, and what ends when they do. */
export interface AdapterContext {
  readonly database: Database
  readonly clock: Clock
  readonly revocations: Revocations
  /** What stands before the `jti` of a signed token that has been shown, and was found good: the `jti` alone gets nobody anything. */
  readonly handle: string
  /** Ends what began with the login of this session, by its `uid`. */
  endLogin(uid: string | undefined): Promise<void>
  /** What oidc-provider knows of a client; undefined for one that nobody has registered. */
  findClient(id: string): Promise<AdapterPayload | undefined>
}

/** What belongs to a grant, and is not to come into being when that has just been taken back. */
const OF_GRANTS = new Set(['AccessToken', 'AuthorizationCode', 'RefreshToken'])
/** Assertions by which clients have proved who they are: each is good once, however many show it at the same time. */
const ASSERTIONS = 'ReplayDetection'
/** For what oidc-provider gives no end, in seconds. */
const LONGEST_SECONDS = 30 * 86_400

/**
 * Keeps what oidc-provider remembers in our database, so that any node finishes what another has begun. What its holder shows
 * to get something is kept as a hash; codes and refresh tokens are used once, whoever is faster.
 */
export class DatabaseAdapter implements Adapter {
  readonly #model: string
  readonly #context: AdapterContext

  constructor(model: string, context: AdapterContext) {
    this.#model = model
    this.#context = context
  }

  upsert(id: string, payload: AdapterPayload, expiresIn = LONGEST_SECONDS): Promise<void> {
    return reachable(async () => {
      const { database, clock } = this.#context
      const { grantId, uid } = payload
      const row: OAuthArtifactsTable = {
        model: this.#model,
        id: this.#keyOf(id),
        client_id: payload.clientId ?? null,
        grant_id: grantId === undefined ? null : hash('sha256', grantId),
        uid: uid ?? null,
        payload: JSON.stringify(withoutIds(payload)),
        consumed_at: null,
        expires_at: clock.now() + expiresIn * 1000
      }
      if (this.#model === ASSERTIONS) {
        if (await insertArtifact(database.db, row)) return
        throw new errors.InvalidClientAuth('client assertion already used')
      }
      if (grantId === undefined || !OF_GRANTS.has(this.#model)) return saveArtifact(database.db, row)
      await database.transaction(async transaction => {
        if (!(await holdGrant(transaction, database.kind, hash('sha256', grantId))))
          throw new errors.InvalidGrant('grant not found')
        await saveArtifact(transaction, row)
      })
    })
  }

  find(id: string): Promise<AdapterPayload | undefined> {
    if (this.#model === 'Client') return reachable(() => this.#context.findClient(id))
    const { handle } = this.#context
    if (!SIGNED_MODELS.has(this.#model)) return this.#find({ id: hash('sha256', id) }, id)
    if (!id.startsWith(handle)) return Promise.resolve(undefined)
    const jti = id.slice(handle.length)
    return this.#find({ id: jti }, jti)
  }

  /** A login of a browser by what others know of it: without its cookie's value, which is kept nowhere. */
  findByUid(uid: string): Promise<AdapterPayload | undefined> {
    return this.#find({ uid })
  }

  #find(by: Partial<Pick<OAuthArtifactsTable, 'id' | 'uid'>>, jti?: string): Promise<AdapterPayload | undefined> {
    return reachable(async () => {
      const { database, clock } = this.#context
      const row = await findArtifact(database.db, this.#model, by, clock.now())
      if (row === undefined) return undefined
      const payload: AdapterPayload = { ...(JSON.parse(row.payload) as AdapterPayload) }
      if (jti !== undefined) payload.jti = jti
      if (row.consumed_at !== null) payload.consumed = Math.floor(row.consumed_at / 1000)
      return payload
    })
  }

  /** Nobody asks for a user's code: there is no device flow. */
  async findByUserCode(): Promise<undefined> {
    return undefined
  }

  /** Of several who use a code, or a refresh token, at once, one is the first; the others have what was given out taken back. */
  consume(id: string): Promise<void> {
    return reachable(async () => {
      const { database, clock } = this.#context
      const key = this.#keyOf(id)
      if (await consumeArtifact(database.db, this.#model, key, clock.now())) return
      const row = await findArtifact(database.db, this.#model, { id: key }, clock.now())
      if (row?.grant_id != null) await this.#revoke(row.grant_id)
      throw new errors.InvalidGrant('already used')
    })
  }

  destroy(id: string): Promise<void> {
    return reachable(async () => {
      const { database, clock, revocations } = this.#context
      const key = this.#keyOf(id)
      if (SIGNED_MODELS.has(this.#model)) {
        const row = await findArtifact(database.db, this.#model, { id: key }, clock.now())
        if (row !== undefined) await revocations.revoke([{ key, ttlMs: row.expires_at - clock.now() }])
      }
      // A session is destroyed when somebody logs out; and when it only gets another id, as it does at each login.
      const { oidc } = Provider.ctx ?? {}
      if (this.#model === 'Session' && oidc?.route === 'end_session_confirm' && oidc.params?.logout)
        await this.#context.endLogin(oidc.session?.uid)
      await database.db.deleteFrom('oauth_artifacts').where('model', '=', this.#model).where('id', '=', key).execute()
    })
  }

  /** Ends a grant with everything that came of it, its access tokens included. oidc-provider asks each of its models for this. */
  revokeByGrantId(grantId: string): Promise<void> {
    return reachable(() => this.#revoke(hash('sha256', grantId)))
  }

  async #revoke(grant: string): Promise<void> {
    const { database, clock, revocations } = this.#context
    const ended = await database.transaction(async transaction => {
      // The grant goes first: nothing can be made of it from here on.
      await transaction.deleteFrom('oauth_artifacts').where('model', '=', 'Grant').where('id', '=', grant).execute()
      return transaction
        .deleteFrom('oauth_artifacts')
        .where('grant_id', '=', grant)
        .returning(['model', 'id', 'expires_at'])
        .execute()
    })
    const now = clock.now()
    await revocations.revoke(
      ended
        .filter(({ model, expires_at }) => SIGNED_MODELS.has(model) && expires_at > now)
        .map(({ id, expires_at }) => ({ key: id, ttlMs: expires_at - now }))
    )
  }

  #keyOf(id: string): string {
    return SIGNED_MODELS.has(this.#model) ? id : hash('sha256', id)
  }
}

/** What is kept is not what its holder shows: not the id itself, nor that of the browser's cookie. */
function withoutIds({ jti: _, ...payload }: AdapterPayload): AdapterPayload {
  if (payload.session === undefined) return payload
  const { cookie: __, ...session } = payload.session
  return { ...payload, session: session as typeof payload.session }
}

/** A database that is out of reach is no fault of ours, and passes: 503, which clients try again. */
async function reachable<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!isUnreachable(error)) throw error
    throw Object.assign(new errors.TemporarilyUnavailable('the database is out of reach'), {
      cause: error,
      status: 503,
      statusCode: 503
    })
  }
}
