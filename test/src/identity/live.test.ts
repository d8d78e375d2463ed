import { randomUUID } from 'node:crypto'
import t from 'tap'
import { endSession } from '../../../src/database/sessions.ts'
import { raiseTokenVersion } from '../../../src/database/users.ts'
import type { Consumer } from '../../../src/identity/consumer.ts'
import { LiveIdentity } from '../../../src/identity/live.ts'
import { FakeClock } from '../../support/clock.ts'
import { onBoth, openTestDatabase } from '../../support/database.ts'
import { addUser } from '../../support/users.ts'

const DAY = 86_400_000

/** A token of a user; without `version` it is one that only says when it was made. */
function credential(userId: string, grant: Partial<NonNullable<Consumer['grant']>>): Consumer {
  const nothing = { sessionId: undefined, version: undefined, issuedAt: 0, mustChangePassword: false }
  return { userId, grant: { ...nothing, ...grant } } as Consumer
}

onBoth(
  t,
  'IDN-11 IDN-15 what a token stands on is known here at once, after a start as well, and forgotten in time',
  async (t, kind) => {
    const clock = new FakeClock()
    const database = await openTestDatabase(t, kind, clock)
    const live = new LiveIdentity(clock)
    await live.follow(database)
    let told = 0
    live.onEnd(() => told++)
    const [alice, bob, gone] = [await addUser(database), await addUser(database), await addUser(database)]
    const sessionId = randomUUID()
    const session = {
      family_hash: 'f',
      refresh_hash: 'r',
      refreshed_at: 1,
      expires_at: 2,
      created_at: 1,
      client_ip: '::1'
    }
    await database.db
      .insertInto('sessions')
      .values({ id: sessionId, user_id: bob, user_agent: null, ...session })
      .execute()
    const old = credential(alice, { version: 0 })
    const dated = credential(alice, { issuedAt: clock.now() - 1000 })
    const inSession = credential(bob, { sessionId, version: 0 })
    const ofGone = credential(gone, { version: 0 })
    for (const token of [old, dated, inSession, ofGone]) t.equal(live.isOver(token), false)
    t.equal(live.size, 0)

    await database.transaction((trx, changed) => raiseTokenVersion(trx, changed, [alice], clock.now()))
    await database.transaction((trx, changed) => endSession(trx, changed, sessionId, 'logout', clock.now()))
    await database.transaction(async (trx, changed) => {
      await trx.deleteFrom('users').where('id', '=', gone).execute()
      changed.push({ kind: 'user', subject: gone })
    })
    t.equal(told, 3)
    const restarted = new LiveIdentity(clock)
    await restarted.follow(database)
    for (const node of [live, restarted]) {
      for (const token of [old, dated, inSession, ofGone]) t.equal(node.isOver(token), true)
      t.equal(node.isOver(credential(alice, { version: 1 })), false)
      t.equal(node.isOver(credential(alice, { issuedAt: clock.now() + 1000 })), false)
      t.equal(node.isOver(credential(bob, { version: 0, sessionId: randomUUID() })), false)
      t.equal(node.isOver({ userId: gone } as Consumer), false, 'a key has its own ways')
    }
    clock.advance(DAY)
    const later = new LiveIdentity(clock)
    await later.follow(database)
    t.equal(later.size, 0, 'no token of then is good any more')
    const patient = new LiveIdentity(clock)
    patient.keepFor(2 * DAY)
    await patient.follow(database)
    t.equal(patient.isOver(inSession), true, 'but where they live longer')
  }
)
