import { argon2Sync, scryptSync } from 'node:crypto'
import t from 'tap'
import { Passwords } from '../../../src/identity/password.ts'

const CHEAP = { memory_kib: 64, passes: 1 }
const text = (bytes: Buffer): string => bytes.toString('base64').replaceAll('=', '')

t.test('IDN-09 a password is hashed with argon2id at the configured cost, never twice alike', async t => {
  const passwords = new Passwords()
  const [one, other] = await Promise.all([passwords.hash('secret', CHEAP), passwords.hash('secret', CHEAP)])
  t.match(one, /^\$argon2id\$v=19\$m=64,t=1,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/)
  t.not(one, other)
  t.same(await passwords.verify('secret', one, CHEAP), { matches: true, outdated: false })
  t.same(await passwords.verify('Secret', one, CHEAP), { matches: false, outdated: false })
})

t.test('IDN-09 what another program has hashed is understood, whatever its cost', async t => {
  const passwords = new Passwords()
  const salt = Buffer.from('a salt of sixteen')
  const hash = argon2Sync('argon2id', {
    message: 'secret',
    nonce: salt,
    memory: 128,
    passes: 3,
    parallelism: 2,
    tagLength: 24
  })
  const argon2 = `$argon2id$v=19$m=128,t=3,p=2$${text(salt)}$${text(hash)}`
  t.same(await passwords.verify('secret', argon2, CHEAP), { matches: true, outdated: true })
  t.match(await passwords.verify('other', argon2, CHEAP), { matches: false })
  const scrypt = `$scrypt$ln=10,r=8,p=1$${text(salt)}$${text(scryptSync('secret', salt, 32, { N: 1024, r: 8, p: 1 }))}`
  t.same(await passwords.verify('secret', scrypt, CHEAP), { matches: true, outdated: true })
  t.match(await passwords.verify('other', scrypt, CHEAP), { matches: false })
})

t.test('IDN-09 nobody gets in without a hash, or with one that is not understood', async t => {
  const passwords = new Passwords()
  for (const stored of [undefined, '', 'secret', '$argon2i$v=19$m=64,t=1,p=1$c2FsdA$c2FsdA', '$2b$10$abc'])
    t.match(await passwords.verify('secret', stored, CHEAP), { matches: false }, String(stored))
})

t.test('IDN-09 a password is the same however it was typed', async t => {
  const passwords = new Passwords()
  const hash = await passwords.hash('caf\u00e9', CHEAP)
  t.match(await passwords.verify('cafe\u0301', hash, CHEAP), { matches: true })
})

t.test('IDN-09 so many are hashed at once, so many wait, and the others are told to come back', async t => {
  const passwords = new Passwords({ atOnce: 2, waiting: 3 })
  const all = await Promise.allSettled(Array.from({ length: 9 }, () => passwords.hash('secret', CHEAP)))
  t.equal(all.filter(({ status }) => status === 'fulfilled').length, 5)
  for (const result of all)
    if (result.status === 'rejected') t.match(result.reason, { code: 'overloaded', headers: ['retry-after', '2'] })
  t.match(await passwords.hash('secret', CHEAP), /^\$argon2id/, 'and there is room again')
})
