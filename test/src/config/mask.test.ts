import t from 'tap'
import { masked } from '../../../src/config/mask.ts'
import { complete } from '../../../src/config/validate.ts'
import { load, problemsOf } from '../../support/config.ts'

const SECRETS = [
  'hush-jwt-hush-jwt-hush-jwt-hush-jwt',
  'hush-issuer-hush-issuer-hush-issuer',
  'hush-key',
  'hush-db',
  'hush-redis',
  'hush-plugin',
  'hush-url',
  'hush-options'
]

const CONFIG = `
identity:
  jwt: { secret: ${SECRETS[0]} }
  issuers: [{ issuer: other, secret: ${SECRETS[1]}, jwks_url: "https://me:${SECRETS[6]}@idp.example.com/jwks" }]
  api_keys: [{ id: ci, key: ${SECRETS[2]} }]
storage: { database_url: "postgres://me:${SECRETS[3]}@db/x", redis_url: "redis://:${SECRETS[4]}@redis:6379" }
services: { s: { url: "http://s" } }
routes: [{ path: /x, service: s, plugins: { vault: { password: ${SECRETS[5]}, note: shown } } }]
plugins: [{ use: ./vault.ts }, { use: ./plain.ts, options: { deep: { apiKey: ${SECRETS[7]} } } }]
`

const VAULT = `import { definePolicy, Type } from 'sallyport'
export default definePolicy({
  name: 'vault',
  schema: Type.Object({
    password: Type.String({ description: 'What nobody may know.', writeOnly: true }),
    note: Type.String({ description: 'What everybody may.' })
  }),
  compile: () => undefined
})
`

t.test('CFG-10 H-121 no secret is left in what is shown of a configuration', async t => {
  const { snapshot, concerns } = await load(t, {
    'gateway.yaml': CONFIG,
    'vault.ts': VAULT,
    'plain.ts': 'export default async () => {}'
  })
  const { schema } = concerns.dialect
  const document = JSON.stringify(snapshot.document)
  for (const secret of SECRETS) t.ok(document.includes(secret), `${secret} is there`)
  for (const shown of [masked(schema, snapshot.document), masked(schema, complete(schema, snapshot.document))]) {
    const text = JSON.stringify(shown)
    for (const secret of SECRETS) t.notOk(text.includes(secret), `${secret} is hidden`)
    t.ok(text.includes('"note":"shown"'))
    t.ok(text.includes('idp.example.com'))
  }
})

t.test('CFG-10 H-121 what stands for a secret is taken for none', async t => {
  const problems = await problemsOf(t, {
    'gateway.yaml': `identity:
  jwt: { secret: "••••••" }
  issuers: [{ issuer: other, secret: "••••••" }]
  api_keys: [{ id: ci, key: "••••••" }]
storage: { redis_url: "••••••" }
services: { s: { url: "http://••••••@s" } }
`
  })
  t.same(
    problems.map(({ key }) => key),
    [
      'identity.jwt.secret',
      'identity.issuers[0].secret',
      'identity.api_keys[0].key',
      'storage.redis_url',
      'services.s.url'
    ]
  )
  for (const { message } of problems) t.match(message, /is a masked value/)
})

t.test('CFG-10 H-121 what is wrong with a secret is said without it', async t => {
  const wrong = [
    'identity: { jwt: { secret: [hush] } }',
    'identity: { jwt: { secret: 748748 } }',
    'identity: { issuers: [{ issuer: x, secret: { hush: 1 } }] }',
    'storage: { redis_url: { hush: 1 } }',
    'services: { s: { url: "ftp://me:hush@s" } }',
    'services: { s: { url: "http://me:hush@s:99999" } }',
    'identity: { jwt: { secret: "hush" hush } }',
    "identity: { jwt: { secret: 'hush } }",
    'identity:\n  jwt: hush: hush',
    'identity: { api_keys: [{ id: x, key: hush, hush }'
  ]
  for (const text of wrong) {
    const problems = await problemsOf(t, { 'gateway.yaml': text })
    t.ok(problems.length > 0, text)
    for (const { key, message } of problems)
      t.notMatch(`${key} ${message}`.replace('unknown key', ''), /hush|748748/, text)
  }
})
