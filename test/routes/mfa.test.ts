import t, { type Test } from 'tap'
import type { Database } from '../../src/database/database.ts'
import { removeSecondFactor } from '../../src/database/mfa.ts'
import { hotp, stepOf } from '../../src/identity/totp.ts'
import { FakeClock } from '../support/clock.ts'
import { noPostgres, onBoth, ownStorage } from '../support/database.ts'
import { type AccountsGateway, addAlice, startAccounts } from '../support/logins.ts'

const STEP = 30_000
const PASSWORD = 'correct horse'
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

function decode(base32: string): Buffer {
  const bits = [...base32].map(letter => ALPHABET.indexOf(letter).toString(2).padStart(5, '0')).join('')
  return Buffer.from((bits.match(/.{8}/g) as string[]).map(byte => Number.parseInt(byte, 2)))
}

/** Alice with a second factor, as she gets one. */
async function enrol({ post, login, database }: AccountsGateway, clock: FakeClock) {
  const id = await addAlice(database)
  const { access_token } = await login()
  const { secret } = (await post('/auth/mfa/enroll', { password: PASSWORD }, access_token)).json
  const code = (off = 0): string => hotp(decode(secret), stepOf(clock.now()) + off)
  const { recovery_codes } = (await post('/auth/mfa/verify', { code: code() }, access_token)).json
  const challenge = async (): Promise<string> =>
    (await post('/auth/login', { username: 'alice', password: PASSWORD })).json.mfa_token
  const answer = async (code: string, token?: string) =>
    (await post('/auth/mfa/verify', { mfa_token: token ?? (await challenge()), code })).status
  return { id, access_token, secret, code, recovery_codes: recovery_codes as string[], challenge, answer }
}

const start = async (t: Test, kind: Database['kind']) => {
  const clock = new FakeClock()
  const gateway = await startAccounts(t, kind, { clock })
  return { ...gateway, clock, alice: await enrol(gateway, clock) }
}

onBoth(
  t,
  'IDN-10 OBS-33 a login with a second factor needs the password and a code, each code once',
  async (t, kind) => {
    const { post, call, clock, alice, database, lines } = await start(t, kind)
    const half = await post('/auth/login', { username: 'alice', password: PASSWORD })
    t.match(half, { status: 200, json: { mfa_required: true, mfa_token: /^mfa_[\w-]{43}$/, expires_in: 300 } })
    t.equal(half.json.access_token, undefined)
    t.equal(await alice.answer(alice.code(), half.json.mfa_token), 401, 'the code that enrolled her is used up')
    clock.advance(STEP)
    const whole = await post('/auth/mfa/verify', { mfa_token: half.json.mfa_token, code: alice.code() })
    t.match(whole, { status: 200, json: { token_type: 'bearer', user: { username: 'alice' } } })
    t.equal((await call('/orders/1', { token: whole.json.access_token })).status, 200)
    t.equal(await alice.answer(alice.code(1), half.json.mfa_token), 401, 'a challenge is met once')
    t.equal(await alice.answer(alice.code()), 401, 'and a code is good once')
    t.equal(await alice.answer(alice.code(-1)), 401, 'none is good after a later one')
    t.equal(await alice.answer(alice.code(1)), 200, 'a clock may be half a minute off')
    const form = `grant_type=password&username=alice&password=${encodeURIComponent(PASSWORD)}`
    const headers = { 'content-type': 'application/x-www-form-urlencoded' }
    t.match((await call('/token', { method: 'POST', headers, body: form })).json, { error: 'invalid_grant' })
    const audit = await database.db
      .selectFrom('audit_log')
      .selectAll()
      .where('target', '=', `user:${alice.id}`)
      .execute()
    const actions = new Set(audit.map(({ action, outcome }) => `${action} ${outcome}`))
    for (const what of ['mfa.enable changed', 'login.password allowed', 'login allowed', 'login denied'])
      t.ok(actions.has(what), what)
    const said = JSON.stringify([audit, lines()])
    for (const secret of [alice.secret, half.json.mfa_token, ...alice.recovery_codes])
      t.notOk(said.includes(secret), 'H-121')
  }
)

onBoth(t, 'IDN-10 a recovery code gets in once, however it is written', async (t, kind) => {
  const { alice, database } = await start(t, kind)
  const [first = '', second = ''] = alice.recovery_codes
  t.equal(alice.recovery_codes.length, 10)
  t.match(first, /^[a-z2-7]{4}(-[a-z2-7]{4}){3}$/)
  t.equal(await alice.answer(first), 200)
  t.equal(await alice.answer(first), 401)
  t.equal(await alice.answer(second.replaceAll('-', '').toUpperCase()), 200)
  const kept = JSON.stringify([
    await database.db.selectFrom('mfa').selectAll().execute(),
    await database.db.selectFrom('mfa_recovery_codes').selectAll().execute()
  ])
  for (const secret of [alice.secret, decode(alice.secret).toString('base64url'), alice.recovery_codes[2] as string])
    t.notOk(kept.includes(secret), 'nothing is kept as it is')
})

onBoth(
  t,
  'IDN-10 a challenge looks at five codes and waits five minutes; ten codes, and then one in five minutes',
  async (t, kind) => {
    const { alice, clock } = await start(t, kind)
    clock.advance(60 * 60_000)
    const token = await alice.challenge()
    for (let i = 0; i < 5; i++) t.equal(await alice.answer('000000', token), 401)
    t.equal(await alice.answer(alice.code(), token), 401, 'the right one comes too late')
    clock.advance(60 * 60_000)
    const late = await alice.challenge()
    clock.advance(5 * 60_000)
    t.equal(await alice.answer(alice.code(), late), 401)
    clock.advance(60 * 60_000)
    const statuses: number[] = []
    for (let i = 0; i < 12; i++) {
      statuses.push(await alice.answer('000000'))
      clock.advance(STEP)
    }
    t.same(statuses.filter(status => status === 429).length, 1, 'with what came back in six minutes')
    clock.advance(5 * 60_000)
    t.equal(await alice.answer(alice.code()), 200)
  }
)

onBoth(t, 'IDN-10 of many that show the same code at once one gets in', async (t, kind) => {
  const { alice, clock } = await start(t, kind)
  clock.advance(60 * 60_000)
  const tokens = [await alice.challenge(), await alice.challenge(), await alice.challenge()]
  const statuses = await Promise.all(tokens.map(token => alice.answer(alice.code(), token)))
  t.same(statuses.sort(), [200, 401, 401])
})

onBoth(t, 'IDN-10 IDN-05 a challenge ends with the password it was given for', async (t, kind) => {
  const { alice, clock, post } = await start(t, kind)
  clock.advance(STEP)
  const token = await alice.challenge()
  const body = { current_password: PASSWORD, new_password: 'battery staple' }
  t.equal((await post('/auth/change-password', body, alice.access_token)).status, 200)
  t.equal(await alice.answer(alice.code(), token), 401)
})

onBoth(t, 'IDN-10 enrolling and disabling need the password; nothing counts before a first code', async (t, kind) => {
  const clock = new FakeClock()
  const { post, login, database } = await startAccounts(t, kind, { clock })
  const id = await addAlice(database)
  const { access_token } = await login()
  t.equal((await post('/auth/mfa/enroll', { password: 'wrong' }, access_token)).status, 422)
  t.equal((await post('/auth/mfa/enroll', { password: PASSWORD })).status, 401)
  t.equal((await post('/auth/mfa/verify', { code: '123456' }, access_token)).status, 422)
  t.equal((await post('/auth/mfa/verify', { code: '123456' })).status, 401)
  const abandoned = (await post('/auth/mfa/enroll', { password: PASSWORD }, access_token)).json
  t.match(abandoned.otpauth_uri, /^otpauth:\/\/totp\/sallyport:alice\?secret=/)
  t.match(await login(), { token_type: 'bearer' })
  const { secret } = (await post('/auth/mfa/enroll', { password: PASSWORD }, access_token)).json
  const code = (secret: string): string => hotp(decode(secret), stepOf(clock.now()))
  t.equal((await post('/auth/mfa/verify', { code: code(abandoned.secret) }, access_token)).status, 422)
  t.equal((await post('/auth/mfa/verify', { code: code(secret) }, access_token)).status, 200)
  t.equal((await post('/auth/mfa/enroll', { password: PASSWORD }, access_token)).status, 409)
  clock.advance(60 * 60_000 - 1)
  const disable = (password: string, code: string) => post('/auth/mfa/disable', { password, code }, access_token)
  t.equal((await disable('wrong', code(secret))).status, 422)
  t.equal((await disable(PASSWORD, '000000')).status, 422)
  t.equal((await disable(PASSWORD, code(secret))).status, 204)
  t.match(await login(), { token_type: 'bearer' })
  t.notOk(await database.transaction(trx => removeSecondFactor(trx, id)), 'nothing is left of it')
})

t.test('IDN-10 C-02 with another key for tokens only a recovery code gets in', { skip: noPostgres }, async t => {
  const clock = new FakeClock()
  const storage = await ownStorage(t, 'postgres')
  const one = await startAccounts(t, 'postgres', { clock, storage })
  const alice = await enrol(one, clock)
  clock.advance(STEP)
  const env = { JWT_SECRET_KEY: 'another secret of the tests, long enough to be one' }
  const other = await startAccounts(t, 'postgres', { clock, storage, env })
  const verify = async (code: string) => {
    const { mfa_token } = (await other.post('/auth/login', { username: 'alice', password: PASSWORD })).json
    return (await other.post('/auth/mfa/verify', { mfa_token, code })).status
  }
  t.equal(await verify(alice.code()), 401)
  t.match(
    other.lines().filter(({ level }) => level === 40),
    [{ user: alice.id, msg: /cannot be read/ }]
  )
  t.equal(await verify(alice.recovery_codes[0] as string), 200)
})
