import t from 'tap'
import { GatewayError } from '../../../src/errors.ts'
import { hasDuplicateNames, parseToken } from '../../../src/identity/token-form.ts'

const text = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value))
const encode = (value: unknown): string => Buffer.from(text(value)).toString('base64url')
const HEADER = { alg: 'HS256', typ: 'JWT' }
const made = (header: unknown, payload: unknown = { sub: 'alice' }, signature = 'c2ln'): string =>
  `${encode(header)}.${encode(payload)}.${signature}`

/** The reason for which a token is refused; undefined for one that is taken apart. */
function reasonAgainst(token: string): string | undefined {
  try {
    parseToken(token)
    return undefined
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error
    return error.reason
  }
}

t.test('IDN-12 a token is taken apart', async t => {
  const { algorithm, kid, payload, header } = parseToken(made({ ...HEADER, kid: 'a' }, { sub: 'alice', exp: 7 }))
  t.same({ algorithm, kid, payload }, { algorithm: 'HS256', kid: 'a', payload: { sub: 'alice', exp: 7 } })
  t.same(header, { ...HEADER, kid: 'a' })
})

t.test('IDN-12 the usual spellings of "typ" are taken, and so is none', async t => {
  for (const typ of ['JWT', 'jwt', 'at+jwt', 'application/at+jwt', 'application/jwt', undefined])
    t.equal(reasonAgainst(made({ alg: 'HS256', typ })), undefined, String(typ))
  for (const typ of ['JOSE', 'dpop+jwt', 'logout+jwt', '', 7, null, ['JWT']])
    t.equal(reasonAgainst(made({ alg: 'HS256', typ })), 'malformed', JSON.stringify(typ))
})

t.test('H-60 what is no compact JWS in canonical base64url is malformed', async t => {
  const good = made(HEADER)
  const [header, payload, signature] = good.split('.') as [string, string, string]
  const cases: Record<string, string> = {
    'nothing at all': '',
    'two parts': `${header}.${payload}`,
    'no signature': `${header}.${payload}.`,
    'five parts, a JWE': `${good}.x.y`,
    'a part too many': `${good}.${signature}`,
    'a space before': ` ${good}`,
    'a line break after': `${good}\n`,
    'a space within': `${header}. ${payload}.${signature}`,
    padding: `${header}.${payload}.YWE=`,
    'the standard alphabet': `${header}.${payload}.+/+/`,
    'bits behind the end': `${header}.${payload}.c2lnZ`,
    'bits that are not zero': `${header}.${payload}.YWF`,
    'a part of one letter': `${header}.${payload}.A`,
    'a comma for a dot': `${header},${payload},${signature}`,
    'the parts of JSON serialisation': JSON.stringify({ payload, signatures: [{ protected: header, signature }] })
  }
  for (const [name, token] of Object.entries(cases)) t.equal(reasonAgainst(token), 'malformed', name)
  t.equal(reasonAgainst(good), undefined)
})

t.test('H-55 header and payload are JSON objects in UTF-8, nothing else', async t => {
  for (const part of [
    '[]',
    '[{"sub":"alice"}]',
    '"alice"',
    '7',
    'null',
    'true',
    '',
    '{',
    '{"sub":"alice"',
    '{"sub":"alice"} {}',
    "{'sub':'alice'}",
    '{"sub":"alice",}',
    '\ufeff{"sub":"alice"}'
  ]) {
    t.equal(reasonAgainst(made(HEADER, part)), 'malformed', `payload ${part}`)
    t.equal(reasonAgainst(made(part)), 'malformed', `header ${part}`)
  }
  const latin1 = Buffer.from('{"sub":"\xe4"}', 'latin1').toString('base64url')
  const overlong = Buffer.from([...Buffer.from('{"sub":"'), 0xc0, 0xaf, ...Buffer.from('"}')]).toString('base64url')
  const surrogate = Buffer.from([...Buffer.from('{"sub":"'), 0xed, 0xa0, 0x80, ...Buffer.from('"}')]).toString(
    'base64url'
  )
  for (const payload of [latin1, overlong, surrogate])
    t.equal(reasonAgainst(`${encode(HEADER)}.${payload}.c2ln`), 'malformed')
})

t.test('H-55 a name that is there twice makes a token malformed, wherever it is', async t => {
  const twice = [
    '{"exp":1,"exp":9999999999}',
    '{"exp":1,"\\u0065xp":9999999999}',
    '{"exp" : 1 ,\n"exp"\t: 2}',
    '{"a":{"roles":["user"],"roles":["admin"]}}',
    '{"a":[{"b":1},{"c":1,"c":2}]}',
    '{"":1,"":2}',
    '{"a\\"b":1,"a\\"b":2}',
    '{"\\\\":1,"\\\\":2}',
    '{"__proto__":1,"__proto__":2}'
  ]
  for (const json of twice) {
    t.equal(hasDuplicateNames(json), true, json)
    t.equal(reasonAgainst(made(HEADER, json)), 'malformed', json)
  }
  t.equal(reasonAgainst(made('{"alg":"HS256","alg":"none"}')), 'malformed')
  const once = [
    '{}',
    '{"a":"a","b":"a"}',
    '{"a":{"a":{"a":1}},"b":{"a":1}}',
    '{"a":["b","b",{"b":1},{"b":2}],"b":1}',
    '{"a":"\\"a\\":1","b":"{\\"b\\":1,"}',
    '{"a":"x\\\\","b":"\\\\"}',
    '{"a":"a:","b":"b:"}',
    '{"A":1,"a":2}'
  ]
  for (const json of once) t.equal(hasDuplicateNames(json), false, json)
})

t.test('H-55 names that are there twice are found in long texts and deep ones', async t => {
  const long = `{${Array.from({ length: 500 }, (_, i) => `"k${i}":"${'\\"'.repeat(3)}${' '.repeat(5)}"`).join(`,${' '.repeat(7)}`)}}`
  t.equal(hasDuplicateNames(long), false)
  t.equal(hasDuplicateNames(`${long.slice(0, -1)},"k0":1}`), true)
  t.equal(hasDuplicateNames(`${'['.repeat(3000)}{"a":1,"a":2}${']'.repeat(3000)}`), true)
})

t.test('H-54 extensions that have to be understood are not', async t => {
  for (const header of [
    { crit: ['exp'], exp: 1 },
    { crit: [] },
    { crit: 'exp' },
    { b64: false, crit: ['b64'] },
    { b64: false },
    { b64: true },
    { crit: null }
  ]) {
    t.equal(reasonAgainst(made({ ...HEADER, ...header })), 'critical_extension', JSON.stringify(header))
  }
})

t.test('H-52 H-53 keys that a token brings along are not looked at; a "kid" is a short string or none', async t => {
  t.equal(
    reasonAgainst(
      made({
        ...HEADER,
        jwk: { kty: 'oct', k: 'AAAA' },
        jku: 'http://127.0.0.1:9/',
        x5u: 'http://127.0.0.1:9/',
        x5c: ['AAAA']
      })
    ),
    undefined
  )
  for (const kid of ['', 'a', '../../etc/passwd', "' OR 1=1 --", 'x'.repeat(256)])
    t.equal(reasonAgainst(made({ ...HEADER, kid })), undefined, kid.slice(0, 20))
  for (const kid of ['x'.repeat(257), 7, null, ['a'], { a: 1 }])
    t.equal(reasonAgainst(made({ ...HEADER, kid })), 'malformed', JSON.stringify(kid).slice(0, 20))
})

t.test('H-50 a token without a signature, or without an algorithm, is malformed', async t => {
  for (const alg of ['none', 'None', 'NONE', 'nOnE'])
    t.equal(reasonAgainst(made({ alg }, { sub: 'alice' }, '')), 'malformed', alg)
  for (const alg of [undefined, null, 7, ['HS256'], {}])
    t.equal(reasonAgainst(made({ alg })), 'malformed', JSON.stringify(alg))
})

t.test('H-62 a token longer than 8192 characters is not looked at', async t => {
  const padded = (length: number): string => {
    const fill = (size: number): string => made(HEADER, { sub: 'x'.repeat(size) })
    let size = Math.floor((length - fill(0).length) * 0.75)
    while (fill(size).length < length) size++
    return fill(size)
  }
  t.equal(reasonAgainst(padded(8190).slice(0, 8192)), undefined)
  t.equal(reasonAgainst(padded(8196)), 'malformed')
  t.equal(reasonAgainst('a.'.repeat(50_000)), 'malformed')
})
